"""Stopping in order: Ctrl-C and SIGTERM end the scan, not the work on what was scanned."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

FIRST = "deblurd: stopping; the mosaic of what was scanned is being finished\n"
SECOND = (
    "deblurd: still painting what was scanned, which ends by itself; "
    "once more ends it at once, and the raw tiles stay on disk\n"
)


def stop_on_signals() -> threading.Event:
    """An event that SIGINT and SIGTERM set. A second signal says what is waited for and gives the third one its usual
    effect. Call on the main thread."""
    stop = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    usual = {number: signal.getsignal(number) for number in signals}

    def handle(number: int, frame: FrameType | None) -> None:
        # print could have been interrupted by this very signal
        if not stop.is_set():
            _say(FIRST)
            stop.set()
            return
        _say(SECOND)
        for each, handler in usual.items():
            signal.signal(each, handler)

    for number in signals:
        signal.signal(number, handle)
    return stop


def _say(text: str) -> None:
    try:
        os.write(2, text.encode())
    except OSError:
        # the terminal is gone: the signal counts all the same
        pass
