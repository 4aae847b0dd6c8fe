"""Who moves on and who is stuck: threads say so, and whoever feeds a watchdog asks."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


class _Pulse:
    """One thread's word: when it moved on last; never where it rests."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.moved_s = time.perf_counter()


@dataclass(frozen=True, slots=True)
class Stuck:
    """A thread that has not moved on for `for_s` seconds, though it has work."""

    name: str
    for_s: float


_lock = threading.Lock()
_pulses: list[_Pulse] = []
_mine = threading.local()


@contextmanager
def watched(name: str) -> Iterator[None]:
    """Inside, this thread is one that may get stuck: it calls `beat` as it moves on, and `rest` before it waits for work.

    A thread that waits for another one beats: the other is watched itself.
    """
    before: _Pulse | None = getattr(_mine, "pulse", None)
    if before is not None:
        before.moved_s = math.inf
    pulse = _mine.pulse = _Pulse(name)
    with _lock:
        _pulses.append(pulse)
    try:
        yield
    finally:
        _mine.pulse = before
        with _lock:
            _pulses.remove(pulse)
        beat()


def beat() -> None:
    """This thread moves on. Costs next to nothing; nothing happens where it is not watched."""
    pulse: _Pulse | None = getattr(_mine, "pulse", None)
    if pulse is not None:
        pulse.moved_s = time.perf_counter()


def rest() -> None:
    """This thread has nothing to do, until it beats again."""
    pulse: _Pulse | None = getattr(_mine, "pulse", None)
    if pulse is not None:
        pulse.moved_s = math.inf


def stuck(patience_s: float) -> list[Stuck]:
    """The watched threads, the longest stuck first, that neither rested nor moved on for `patience_s` seconds."""
    now_s = time.perf_counter()
    with _lock:
        found = [Stuck(pulse.name, now_s - pulse.moved_s) for pulse in _pulses]
    return sorted((each for each in found if each.for_s > patience_s), key=lambda each: -each.for_s)
