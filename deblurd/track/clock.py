"""When a frame was exposed: a robust line through arrival times against frame numbers."""

from __future__ import annotations

from collections import deque

import numpy as np

_HISTORY = 200
_LEAST = 8
_STEP_PERIODS = 0.6
_STEP_FRAMES = 3
_START_PERIODS = 0.35


class FrameClock:
    """Turns frame numbers of one camera sequence into times of exposure.

    Frames arrive late by a constant latency and a jitter, now and then much later (the computer was busy). The camera's own pace is steady, so the line
    through many arrivals is far better than each of them. An exposure that the driver left out without a gap in the numbers makes all later
    arrivals late by whole periods: a step that is kept is taken into the line.
    """

    def __init__(self, exposure_ms: float, latency_ms: float) -> None:
        self._exposure_s, self._latency_s = exposure_ms / 1000, latency_ms / 1000
        self._index: deque[float] = deque(maxlen=_HISTORY)
        self._arrived: deque[float] = deque(maxlen=_HISTORY)
        self._late: list[float] = []
        self._missed = 0
        self._steps: deque[tuple[int, int]] = deque(maxlen=64)
        self._line: tuple[float, float] | None = None
        self.missed = 0

    def see(self, number: int, arrived_s: float) -> None:
        """The next frame of the sequence."""
        if self._line is not None:
            offset, period = self._line
            late = (arrived_s - offset - period * (number + self._missed)) / period
            self._late = [*self._late, late] if late > _STEP_PERIODS else []
            if len(self._late) >= _STEP_FRAMES and (skipped := round(float(np.median(self._late)))) >= 1:
                # a frame before the step that was merely late is not part of it
                stepped = next(i for i, value in enumerate(self._late) if value > skipped - _STEP_PERIODS)
                frames = len(self._late) - stepped
                self._missed += skipped
                self.missed += skipped
                self._steps.append((number - frames + 1, self._missed))
                for back in range(1, min(frames, len(self._index) + 1)):
                    self._index[-back] += skipped
                self._late = []
        self._index.append(float(number + self._missed))
        self._arrived.append(arrived_s)
        if self._line is None:
            self._start(number)
        if self._line is not None:
            self._line = self._fit()

    def _start(self, number: int) -> None:
        """Waits for the first arrivals to lie on a line, with exposures left out among them taken in."""
        if len(self._index) < _LEAST:
            return
        index, arrived = np.array(self._index), np.array(self._arrived)
        steps, waits = np.diff(index), np.diff(arrived)
        period = float(np.median(waits / steps))
        skipped = np.cumsum(np.maximum(np.rint(waits / period) - steps, 0)) if period > 0 else np.zeros(len(steps))
        straight = index + np.concatenate([[0.0], skipped])
        slope, intercept = np.polyfit(straight - straight[0], arrived - arrived[0], 1)
        residual = arrived - arrived[0] - intercept - slope * (straight - straight[0])
        if slope <= 0 or np.abs(residual).max() > _START_PERIODS * slope:
            return
        self._missed = self.missed = int(skipped[-1])
        first = number - len(index) + 1
        for i in np.flatnonzero(np.diff(skipped, prepend=0.0)):
            self._steps.append((first + int(i) + 1, int(skipped[i])))
        self._index = deque(straight.tolist(), maxlen=_HISTORY)
        self._line = self._fit()

    @property
    def is_settled(self) -> bool:
        """Whether the line stands, and the newest frames do not hint at a step that is not yet decided."""
        return self._line is not None and not self._late

    @property
    def period_s(self) -> float | None:
        return None if self._line is None else self._line[1]

    def exposure(self, number: int) -> tuple[float, float, float] | None:
        """Start, middle and end (s) of the exposure of frame `number`; None before the line stands."""
        if self._line is None:
            return None
        missed = 0
        for first, total in self._steps:
            if number >= first:
                missed = total
        offset, period = self._line
        end_s = offset + period * (number + missed) - self._latency_s
        return end_s - self._exposure_s, end_s - 0.5 * self._exposure_s, end_s

    def _fit(self) -> tuple[float, float]:
        """Offset and period: least squares, with arrivals that are far off left out (they are late, never early)."""
        i, t = np.array(self._index), np.array(self._arrived)
        origin, first = float(i.mean()), float(t[0])
        keep = np.ones(len(i), dtype=bool)
        slope = intercept = 0.0
        for _ in range(4):
            slope, intercept = np.polyfit(i[keep] - origin, t[keep] - first, 1)
            residual = t - first - intercept - slope * (i - origin)
            middle = float(np.median(residual))
            spread = 1.4826 * float(np.median(np.abs(residual - middle))) + 1e-5
            keep = np.abs(residual - middle) < 3 * spread
            if keep.sum() < _LEAST:
                break
        return float(first + intercept - slope * origin), float(slope)
