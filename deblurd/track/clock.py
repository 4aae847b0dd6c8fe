"""When a frame was exposed: arrivals, snapped to the camera's own steady beat."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

_HISTORY = 200
_LEAST = 8
_RECENT = 40
_SPREAD_PERIODS = 0.15


class FrameClock:
    """Turns frame numbers of one camera sequence into times of exposure.

    Frames arrive late by a constant latency and a jitter, now and then much later (the computer was busy), and a driver may leave exposures out without
    a gap in the numbers. But the camera's beat is steady: every arrival belongs to one beat of an even grid, so the grid
    (a robust line through many arrivals) is far better than each arrival, and an exposure that was left out moves nothing but its own beat.
    """

    def __init__(self, exposure_ms: float, latency_ms: float) -> None:
        self._exposure_s, self._latency_s = exposure_ms / 1000, latency_ms / 1000
        self._numbers: deque[int] = deque(maxlen=_HISTORY)
        self._arrived: deque[float] = deque(maxlen=_HISTORY)
        self._beats: deque[float] = deque(maxlen=_HISTORY)
        self._line: tuple[float, float] | None = None

    def see(self, number: int, arrived_s: float) -> None:
        """The next frame of the sequence."""
        steps = float(number - self._numbers[-1]) if self._numbers else 1.0
        self._numbers.append(number)
        self._arrived.append(arrived_s)
        if self._line is None:
            self._start()
            return
        offset, period = self._line
        beat = float(np.rint((arrived_s - offset) / period))
        if beat < self._beats[-1] + steps:
            # two frames never share a beat: the one before came so late that it took the next one's
            before = self._beats[-2] if len(self._beats) > 1 else -np.inf
            self._beats[-1] = max(beat - steps, before + 1)
        self._beats.append(max(beat, self._beats[-1] + steps))
        self._fit()

    @property
    def is_settled(self) -> bool:
        """Whether the arrivals lie on a grid."""
        return self._line is not None

    @property
    def period_s(self) -> float | None:
        return None if self._line is None else self._line[1]

    @property
    def missed(self) -> int:
        """Beats of the last 200 frames that brought no frame and left no gap in the numbers."""
        if self._line is None:
            return 0
        return int(self._beats[-1] - self._beats[0]) - (self._numbers[-1] - self._numbers[0])

    def exposure(self, number: int) -> tuple[float, float, float] | None:
        """Start, middle and end (s) of the exposure of frame `number`; None before the grid stands."""
        if self._line is None:
            return None
        offset, period = self._line
        back = self._numbers[-1] - number
        i = int(np.searchsorted(np.array(self._numbers), number))
        beat = (
            self._beats[i] if i < len(self._beats) and self._numbers[i] == number else self._beats[-1] - back
        )
        end_s = offset + period * float(beat) - self._latency_s
        return end_s - self._exposure_s, end_s - 0.5 * self._exposure_s, end_s

    def _start(self) -> None:
        """Finds the beat in the arrivals so far."""
        if len(self._numbers) < _LEAST:
            return
        n, t = np.array(self._numbers, dtype=np.float64)[-_RECENT:], np.array(self._arrived)[-_RECENT:]
        steps, waits = np.diff(n), np.diff(t)
        # exposures that are left out make waits longer: the short ones are the beat
        period = float(np.percentile(waits / steps, 25))
        if period <= 0:
            return
        beats = np.concatenate([[0.0], np.cumsum(np.rint(waits / period))])
        offset, period = _robust_line(beats, t - t[0])
        if period <= 0:
            return
        beats = np.rint((t - t[0] - offset) / period)
        self._numbers, self._arrived = (
            deque(kept, maxlen=_HISTORY) for kept in (n.astype(int).tolist(), t.tolist())
        )
        self._beats = deque(beats.tolist(), maxlen=_HISTORY)
        self._fit()

    def _fit(self) -> None:
        beats, t = np.array(self._beats), np.array(self._arrived)
        offset, period = _robust_line(beats, t - t[0])
        spread = float(np.median(np.abs(t - t[0] - offset - period * beats)[-_RECENT:]))
        self._line = (t[0] + offset, period) if 0 <= spread < _SPREAD_PERIODS * period else None


def _robust_line(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Offset and slope: least squares, with values left out that are far off."""
    origin = float(x.mean())
    keep = np.ones(len(x), dtype=bool)
    slope = middle = 0.0
    for _ in range(3):
        slope, middle = np.polyfit(x[keep] - origin, y[keep], 1)
        residual = y - middle - slope * (x - origin)
        centre = float(np.median(residual))
        spread = 1.4826 * float(np.median(np.abs(residual - centre))) + 1e-5
        keep = np.abs(residual - centre) < 3 * spread
        if keep.sum() < _LEAST // 2:
            break
    return float(middle - slope * origin), float(slope)
