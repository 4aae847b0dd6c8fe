"""Stopping in order: Ctrl-C and SIGTERM end the scan, not the work on what was scanned. And SIGHUP, which asks to look at the configuration."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
FIRST = "deblurd: stopping; the mosaic of what was scanned is being finished\n"
SECOND = (
    "deblurd: still painting what was scanned, which ends by itself; "
    "once more ends it at once, and the raw tiles stay on disk\n"
)


class Stop(threading.Event):
    """Set when the work shall end. in_haste: whether SIGTERM asked for it, after which whoever sent it kills before long."""

    in_haste = False


def stop_on_signals() -> Stop:
    """An event that SIGINT and SIGTERM set. A second signal says what is waited for and gives the third one its usual
    effect. Call on the main thread."""
    stop = Stop()
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
        stop.in_haste = came.get() == signal.SIGTERM
        stop.set()

    threading.Thread(target=pass_on, name="deblurd-signals", daemon=True).start()
    for number in STOP_SIGNALS:
        signal.signal(number, handle)
    return stop


def hangups() -> queue.SimpleQueue[int]:
    """A queue that gets an item at each SIGHUP, by which service managers ask to read the configuration again; never where there is
    no such signal. On a terminal it keeps its usual effect: there it says that the terminal is gone. Call on the main thread."""
    came: queue.SimpleQueue[int] = queue.SimpleQueue()
    if hasattr(signal, "SIGHUP") and not sys.stderr.isatty():
        signal.signal(signal.SIGHUP, lambda number, frame: came.put(number))
    return came


def _say(text: str) -> None:
    # not print, which this very signal could have interrupted; the terminal may be gone: the signal counts all the same
    with contextlib.suppress(OSError):
        os.write(2, text.encode())
