"""When frames were exposed whose exposures take turns."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np

from deblurd.track.clock import FrameClock

_RECENT = 64
_LOOK_EACH = 8


class TurnClock:
    """A `FrameClock` for exposures that may differ from frame to frame.

    A camera that is triggered keeps a beat of beginnings; one that begins each exposure when the last one is done keeps one of middles, where two
    take turns. That is believed which is the steadier from frame to frame. exposure_ms: of most frames; where all are exposed alike it is that clock alone.
    """

    def __init__(self, exposure_ms: float, latency_ms: float) -> None:
        self._exposure_ms, self._latency_ms = exposure_ms, latency_ms
        self._best = self._by_start = FrameClock(exposure_ms, latency_ms)
        self._by_middle: FrameClock | None = None
        self._recent: deque[tuple[int, float, float]] = deque(maxlen=_RECENT)

    def see(self, number: int, arrived_s: float, exposure_ms: float) -> None:
        """The next frame of the sequence; numbers rise."""
        more_s = self._more_s(exposure_ms)
        self._by_start.see(number, arrived_s - more_s)
        if more_s and self._by_middle is None:
            self._by_middle = FrameClock(self._exposure_ms, self._latency_ms)
        if self._by_middle is None:
            return
        self._by_middle.see(number, arrived_s - more_s / 2)
        self._recent.append((number, arrived_s - more_s, arrived_s - more_s / 2))
        if number % _LOOK_EACH == 0:
            self._best = self._by_start if self._starts_are_steadier() else self._by_middle

    @property
    def sigma_s(self) -> float:
        """As of `FrameClock`."""
        return self._best.sigma_s

    def is_settled(self, number: int) -> bool:
        """As of `FrameClock`."""
        return self._best.is_settled(number)

    def doubt_s(self, number: int) -> float:
        """As of `FrameClock`."""
        return self._best.doubt_s(number)

    def revision(self, number: int) -> Callable[[], float]:
        """As of `FrameClock`."""
        return self._best.revision(number)

    def exposure(self, number: int, exposure_ms: float) -> tuple[float, float, float] | None:
        """As of `FrameClock`. exposure_ms: of that frame."""
        alike, more_s = self._best.exposure(number), self._more_s(exposure_ms)
        if alike is None or not more_s:
            return alike
        start_s, middle_s, end_s = alike
        if self._best is self._by_start:
            return start_s, middle_s + more_s / 2, end_s + more_s
        return start_s - more_s / 2, middle_s, end_s + more_s / 2

    def _starts_are_steadier(self) -> bool:
        seen = np.array(self._recent)
        if len(seen) < _LOOK_EACH:
            return True
        steps = np.diff(seen, axis=0)
        paces = steps[:, 1:] / steps[:, :1]
        by_start, by_middle = np.median(np.abs(paces - np.median(paces, axis=0)), axis=0)
        return bool(by_start <= by_middle)

    def _more_s(self, exposure_ms: float) -> float:
        return (exposure_ms - self._exposure_ms) / 1000
