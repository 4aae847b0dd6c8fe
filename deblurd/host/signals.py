"""Stopping in order: Ctrl-C and SIGTERM end the scan, not the work on what was scanned."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
FIRST = "deblurd: stopping; the mosaic of what was scanned is being finished\n"
SECOND = (
    "deblurd: still painting what was scanned, which ends by itself; "
    "once more ends it at once, and the raw tiles stay on disk\n"
)


def stop_on_signals() -> threading.Event:
    """An event that SIGINT and SIGTERM set. A second signal says what is waited for and gives the third one its usual
    effect. Call on the main thread."""
    stop = threading.Event()
    usual = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    # The main thread, in which a handler runs, may hold the event's own lock at that moment, and setting the event would wait
    # for it for ever. SimpleQueue is made for handlers; another thread passes the word on.
    came: queue.SimpleQueue[int] = queue.SimpleQueue()
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if not asked:
            asked = True
            _say(FIRST)
            came.put(number)
            return
        _say(SECOND)
        for each, handler in usual.items():
            signal.signal(each, handler)

    def pass_on() -> None:
        came.get()
        stop.set()

    threading.Thread(target=pass_on, name="deblurd-signals", daemon=True).start()
    for number in STOP_SIGNALS:
        signal.signal(number, handle)
    return stop


def _say(text: str) -> None:
    # not print, which this very signal could have interrupted; the terminal may be gone: the signal counts all the same
    with contextlib.suppress(OSError):
        os.write(2, text.encode())
