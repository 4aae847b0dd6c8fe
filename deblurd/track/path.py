"""The stage's path: noisy readings at uneven times, and the smooth position between them."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deblurd.frames import Pose

_HISTORY = 1 << 15
_NOISE_FROM = 256
_PACE_EACH = 16
_LEAST_NOISE_UM = 0.02
_AFTER_S = 0.03
_AFTER_READINGS = 2.0
_OUTLIER = 5.0
_TRUST = 2.0
_FARTHEST = 4.5
_NOISE_EXTENT = 8.0
_FOLLOWS = 3.0
_LONG = 1.5
_LONGER_S = 2e-4
_PROMPT_SHARE = 0.4
_WINDOWS = ((2.0, 1), (2.0, 2), (1.0, 2), (0.5, 2), (0.5, 1))
"""Half widths of the fits, in units of what must follow a time, and their degrees: the first that explains the readings is taken."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """The stage's positions (n, 2), (y, x) um, at some times, and their uncertainties (one standard deviation, each axis).

    sigma_um: of a position. travel_sigma_um: of the way from the first to the last. call_um: the part of sigma_um that comes from not knowing at
    which moment of a call the stage was read; it is the same for all readings.
    """

    yx_um: Floats
    sigma_um: float
    travel_sigma_um: float
    call_um: float = 0.0


class StagePath:
    """The last readings of the stage (2^15, 164 s at 5 ms), and where it was between them. For one writer and many readers.

    A position is not interpolated between two readings, which carry noise, but taken from a local polynomial: the longest stretch that a line
    or else a parabola explains as well as the noise of the readings allows (after Lepski 1991). So constant motion is averaged
    over many readings, and acceleration is followed.
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
        return Pose(t_s, float(y), float(x), sigma_um=stretch.sigma_um)

    def stretch(self, times_s: Floats) -> Stretch | None:
        """Where the stage was at `times_s` (n,), rising, of one short stretch such as an exposure; None where no readings are near."""
        readings, pace = self.readings, self._pace
        middle_s, reach_s = float(times_s.mean()), 0.5 * float(np.ptp(times_s))
        widest_s = reach_s + _WINDOWS[0][0] * pace.after_s
        near = slice(*np.searchsorted(readings[:, 0], [middle_s - widest_s, middle_s + widest_s]))
        t, yx, half = readings[near, 0], readings[near, 1:3], readings[near, 3]
        if len(t) < 2 or t[0] > times_s[-1] or t[-1] < times_s[0]:
            return None
        prompt = _prompt(t, half, pace.half_s, times_s)
        t, yx, half = t[prompt], yx[prompt], half[prompt]
        fits: list[Stretch] = []
        noise_um = pace.noise_um
        for width, degree in _WINDOWS:
            half_width_s = reach_s + width * pace.after_s
            inside = np.abs(t - middle_s) <= half_width_s
            if inside.sum() < degree + 2:
                continue
            at = (times_s - middle_s) / half_width_s
            u, half_u = (t[inside] - middle_s) / half_width_s, half[inside] / half_width_s
            fit, explained = _fit(u, yx[inside], half_u, at, degree, noise_um)
            fits.append(fit)
            if explained:
                break
        between = np.stack([np.interp(times_s, t, axis) for axis in yx.T], axis=1)
        if not fits:
            return Stretch(between, noise_um, math.sqrt(2) * noise_um)
        return fits[0] if len(fits) == 1 else _doubted(fits[-1], between, explained, noise_um)


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


def _prompt(t: Floats, half_s: Floats, usual_s: float, times_s: Floats) -> NDArray[np.bool_]:
    """Which readings to believe: where the machine was busy elsewhere a call took long, and nobody knows at which moment of it the stage was read.

    All of them where too few are left, or none around `times_s`.
    """
    prompt = half_s <= _LONG * usual_s + _LONGER_S
    kept = t[prompt]
    enough = len(kept) >= max(2, _PROMPT_SHARE * len(t)) and kept[0] <= times_s[0] and kept[-1] >= times_s[-1]
    return prompt if enough else np.ones_like(prompt)


def _noise_um(t: Floats, yx: Floats) -> float:
    """Standard deviation of a reading, from how far each lies off the line between its neighbours (robust, both axes)."""
    if len(t) < 5:
        return _LEAST_NOISE_UM
    share = ((t[1:-1] - t[:-2]) / np.maximum(t[2:] - t[:-2], 1e-9))[:, None]
    off = yx[1:-1] - (1 - share) * yx[:-2] - share * yx[2:]
    gain = np.sqrt(1 + share**2 + (1 - share) ** 2)
    return max(1.4826 * float(np.median(np.abs(off / gain))), _LEAST_NOISE_UM)


def _fit(
    u: Floats, yx: Floats, half_u: Floats, at: Floats, degree: int, noise_um: float
) -> tuple[Stretch, bool]:
    """A polynomial through readings at `u` (n,) in [-1, 1]; also whether it explains them within their noise.

    half_u: half the duration of each reading. It may be of any moment of it, always the same one: that shifts positions, but not the travel. A reading
    far off between two good ones (a serial line's garbage) is left out.
    """
    basis, wanted = (np.vander(x, degree + 1, increasing=True) for x in (u, at))
    keep = np.ones(len(u), dtype=bool)
    for turn in range(2):
        coefficients = np.linalg.lstsq(basis[keep], yx[keep], rcond=None)[0]
        off = yx - basis @ coefficients
        distance = np.linalg.norm(off, axis=1)
        lone = _lone(distance > _OUTLIER * (float(np.median(distance)) + noise_um))
        if turn == 1 or not lone.any() or len(u) - lone.sum() < degree + 2:
            break
        keep = ~lone
    speed = float(np.linalg.norm(coefficients[1]))
    freedom = 2 * (int(keep.sum()) - degree - 1)
    spread = math.sqrt(float((off[keep] ** 2).sum()) / freedom)
    explained = spread < noise_um * (1 + _TRUST / math.sqrt(2 * freedom)) and bool(
        (distance[keep] < _FARTHEST * noise_um).all()
    )
    sigma = max(noise_um, spread)
    covariance = np.linalg.inv(basis[keep].T @ basis[keep])
    middle, travel = wanted.mean(axis=0), wanted[-1] - wanted[0]
    call_um = speed * float(half_u.mean()) / math.sqrt(3)
    return (
        Stretch(
            wanted @ coefficients,
            math.hypot(sigma * math.sqrt(float(middle @ covariance @ middle)), call_um),
            sigma * math.sqrt(max(float(travel @ covariance @ travel), 0.0)),
            call_um,
        ),
        explained,
    )


def _doubted(fit: Stretch, between: Floats, explained: bool, noise_um: float) -> Stretch:
    """Where the motion is not constant: the last `fit`, or interpolated readings, `between`, where it misses them by more than noise does.

    In steep ramps those are ten times nearer to the truth. How far the two are apart makes the uncertainty.
    """
    off = fit.yx_um - between
    apart = math.sqrt(float((off**2).mean()))
    follows = explained or apart < _FOLLOWS * noise_um
    share = 1.0 if follows else 0.5
    return Stretch(
        fit.yx_um if follows else between,
        math.hypot(fit.sigma_um, share * apart),
        math.hypot(fit.travel_sigma_um, share * math.sqrt(float(((off[-1] - off[0]) ** 2).mean()))),
        fit.call_um,
    )


def _lone(far: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Those that have a neighbour on each side that is not far off: two in a row, or one at the end, are the stage's doing."""
    lone = np.zeros_like(far)
    lone[1:-1] = far[1:-1] & ~far[:-2] & ~far[2:]
    return lone
