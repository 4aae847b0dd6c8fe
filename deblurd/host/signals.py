"""Stopping in order: Ctrl-C and SIGTERM end the scan, not the work on what was scanned."""

from __future__ import annotations

import contextlib
import os
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

    def handle(number: int, frame: FrameType | None) -> None:
        # print could have been interrupted by this very signal
        if not stop.is_set():
            _say(FIRST)
            stop.set()
            return
        _say(SECOND)
        for each, handler in usual.items():
            signal.signal(each, handler)

    for number in STOP_SIGNALS:
        signal.signal(number, handle)
    return stop


def _say(text: str) -> None:
    # the terminal may be gone: the signal counts all the same
    with contextlib.suppress(OSError):
        os.write(2, text.encode())
