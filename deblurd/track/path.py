"""The stage's path: noisy readings at uneven times, and the smooth position between them."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deblurd.frames import Pose
from deblurd.track.along import WIDEST, along
from deblurd.track.ramp import Along

_HISTORY = 1 << 15
_NOISE_FROM = 256
_PACE_EACH = 16
_LEAST_NOISE_UM = 0.02
_AFTER_S = 0.03
_AFTER_READINGS = 2.0
_NOISE_EXTENT = 8.0
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """The stage's positions (n, 2), (y, x) um, at some times, and their uncertainties (one standard deviation, each axis).

    sigma_um: of a position. travel_sigma_um: of the way from the first to the last. call_um: what comes to sigma_um where nobody knows at
    which moment of a call the stage is read; it is the same for all readings, and so in the lag.
    """

    yx_um: Floats
    sigma_um: float
    travel_sigma_um: float
    call_um: float = 0.0


class StagePath:
    """The last readings of the stage (2^15, 164 s at 5 ms), and where it was between them. For one writer and many readers.

    A position is not interpolated between two readings, which carry noise: see `along`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows = np.zeros((2 * _HISTORY, 4))
        self._n = 0
        self._pace = _Pace(_AFTER_S, _LEAST_NOISE_UM, 0.0)

    def add(self, t_s: float, y_um: float, x_um: float, half_s: float = 0.0) -> None:
        """A reading; t_s: the middle of the call that brought it, half_s: half of its duration. Times rise."""
        with self._lock:
            if self._n == len(self._rows):
                # whoever still looks at the old rows keeps them
                rows = np.zeros_like(self._rows)
                rows[:_HISTORY] = self._rows[-_HISTORY:]
                self._rows, self._n = rows, _HISTORY
            self._rows[self._n] = t_s, y_um, x_um, half_s
            self._n += 1
            if self._n <= _PACE_EACH or self._n % _PACE_EACH == 0:
                self._pace = _Pace.of(self._rows[max(self._n - _NOISE_FROM, 0) : self._n])

    @property
    def readings(self) -> Floats:
        """What is remembered (n, 4): time, y, x, half the duration of the call. Not to be written to."""
        with self._lock:
            return self._rows[max(self._n - _HISTORY, 0) : self._n]

    @property
    def newest(self) -> Pose | None:
        """The last reading as it came; None before the first."""
        with self._lock:
            if self._n == 0:
                return None
            t_s, y_um, x_um, _ = self._rows[self._n - 1]
            return Pose(float(t_s), float(y_um), float(x_um))

    def covers(self, t_s: float) -> bool:
        """Whether enough readings have come after `t_s` to say well where the stage was then."""
        newest = self.newest
        return newest is not None and newest.t_s >= t_s + self._pace.after_s

    def extent_um(self, begin_s: float, end_s: float) -> float:
        """How far apart the readings from `begin_s` to `end_s` lie, and those around them, beyond their noise; inf where they do not reach so far."""
        readings = self.readings
        first = int(np.searchsorted(readings[:, 0], begin_s, side="right")) - 1
        last = int(np.searchsorted(readings[:, 0], end_s))
        if first < 0 or last >= len(readings):
            return math.inf
        apart = np.ptp(readings[first : last + 1, 1:3], axis=0)
        return max(float(np.linalg.norm(apart)) - _NOISE_EXTENT * self._pace.noise_um, 0.0)

    def at(self, t_s: float) -> Pose | None:
        """Where the stage was; None where no readings are near."""
        stretch = self.stretch(np.array([t_s]))
        if stretch is None:
            return None
        y, x = stretch.yx_um[0]
        return Pose(t_s, float(y), float(x), sigma_um=math.hypot(stretch.sigma_um, stretch.call_um))

    def stretch(self, times_s: Floats) -> Stretch | None:
        """Where the stage was at `times_s` (n,) or, for y and x each, (n, 2), rising, of one short stretch such as an exposure; None where no readings are near."""
        readings, pace = self.readings, self._pace
        y_s, x_s = np.broadcast_to(times_s.T, (2, len(times_s)))
        y, x = _along(readings, 1, y_s, pace), _along(readings, 2, x_s, pace)
        if y is None or x is None:
            return None
        return Stretch(
            np.stack([y.um, x.um], axis=1),
            max(y.sigma_um, x.sigma_um),
            max(y.travel_sigma_um, x.travel_sigma_um),
            max(y.call_um, x.call_um),
        )


def _along(readings: Floats, axis: int, times_s: Floats, pace: _Pace) -> Along | None:
    middle_s, widest_s = float(times_s.mean()), 0.5 * float(np.ptp(times_s)) + WIDEST * pace.after_s
    near = slice(*np.searchsorted(readings[:, 0], [middle_s - widest_s, middle_s + widest_s]))
    t, um, half = readings[near, 0], readings[near, axis], readings[near, 3]
    if len(t) < 2 or t[0] > times_s[-1] or t[-1] < times_s[0]:
        return None
    return along(t, um, half, times_s, after_s=pace.after_s, noise_um=pace.noise_um, usual_s=pace.half_s)


@dataclass(frozen=True, slots=True)
class _Pace:
    """How the stage is read of late. after_s: how long after a time readings must reach, for a fit that has that time near its middle. noise_um:
    standard deviation of a reading. half_s: half of a call's duration."""

    after_s: float
    noise_um: float
    half_s: float

    @classmethod
    def of(cls, readings: Floats) -> _Pace:
        t = readings[:, 0]
        interval_s = float(np.median(np.diff(t[-64:]))) if len(t) > 2 else 0.0
        return cls(
            max(_AFTER_S, _AFTER_READINGS * interval_s),
            _noise_um(t, readings[:, 1:3]),
            float(np.median(readings[:, 3])),
        )


def _noise_um(t: Floats, yx: Floats) -> float:
    """Standard deviation of a reading, from how far each lies off the line between its neighbours (robust, both axes)."""
    if len(t) < 5:
        return _LEAST_NOISE_UM
    share = ((t[1:-1] - t[:-2]) / np.maximum(t[2:] - t[:-2], 1e-9))[:, None]
    off = yx[1:-1] - (1 - share) * yx[:-2] - share * yx[2:]
    gain = np.sqrt(1 + share**2 + (1 - share) ** 2)
    return max(1.4826 * float(np.median(np.abs(off / gain))), _LEAST_NOISE_UM)
