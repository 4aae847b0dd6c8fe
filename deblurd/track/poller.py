"""Where the stage was: readings at a steady pace, and the smooth track through them."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from deblurd.errors import MicroscopeError
from deblurd.frames import Pose

log = logging.getLogger(__name__)

_HISTORY = 1 << 15
_LEAST_WINDOW_S = 0.03
_WINDOW_READINGS = 3.5
_OUTLIER_MADS = 5.0
_QUADRATIC_GAIN = 0.5


class StageTrack:
    """The last readings of the stage, and the pose between them. Safe for one writer and many readers.

    Readings carry noise and are some milliseconds apart, so a pose is not interpolated between two of them but taken from a weighted local
    fit: a straight line, or a parabola where that explains the readings much better (the stage accelerates).
    """

    def __init__(self) -> None:
        self._t_s = np.zeros(_HISTORY)
        self._yx_um = np.zeros((_HISTORY, 2))
        self._n = 0
        self._lock = threading.Lock()

    def add(self, t_s: float, y_um: float, x_um: float) -> None:
        with self._lock:
            i = self._n % _HISTORY
            self._t_s[i], self._yx_um[i] = t_s, (y_um, x_um)
            self._n += 1

    @property
    def newest(self) -> Pose | None:
        """The last reading as it came; None before the first."""
        with self._lock:
            if self._n == 0:
                return None
            i = (self._n - 1) % _HISTORY
            return Pose(float(self._t_s[i]), float(self._yx_um[i, 0]), float(self._yx_um[i, 1]))

    def interval_s(self) -> float:
        """Median time between readings; inf before the second."""
        t = self._recent(64)[0]
        return float(np.median(np.diff(t))) if len(t) > 1 else math.inf

    def covers(self, t_s: float) -> bool:
        """Whether there are readings on both sides of `t_s`, with half a fit's window after it."""
        newest = self.newest
        return newest is not None and newest.t_s >= t_s + 0.5 * self._window_s()

    def path(self, times_s: NDArray[np.float64]) -> tuple[NDArray[np.float64], float] | None:
        """Stage positions (n, 2), (y, x) um, at `times_s` (n,) of one short span, and their uncertainty in um.

        None where there are fewer than two readings near.
        """
        middle_s = float(times_s.mean())
        window_s = self._window_s() + 0.5 * float(np.ptp(times_s))
        t, yx = self._between(middle_s - window_s, middle_s + window_s)
        if len(t) < 2:
            return None
        u = (t - middle_s) / window_s
        weight = (1 - np.abs(u).clip(0, 1) ** 3) ** 3 + 1e-6
        fit, residual = _fit(u, yx, weight, 1)
        if len(t) >= 5:
            curved, curved_residual = _fit(u, yx, weight, 2)
            if curved_residual**2 < _QUADRATIC_GAIN * residual**2:
                fit, residual = curved, curved_residual
        at = (times_s - middle_s) / window_s
        positions = np.vander(at, len(fit), increasing=True) @ fit
        return positions, float(residual / math.sqrt(max(weight.sum() - len(fit), 1.0)))

    def _window_s(self) -> float:
        interval_s = self.interval_s()
        return (
            max(_LEAST_WINDOW_S, _WINDOW_READINGS * interval_s)
            if math.isfinite(interval_s)
            else _LEAST_WINDOW_S
        )

    def _recent(self, most: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        with self._lock:
            i = np.arange(max(0, self._n - min(most, _HISTORY)), self._n) % _HISTORY
            return self._t_s[i], self._yx_um[i]

    def _between(self, from_s: float, to_s: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        most = 256
        while True:
            t, yx = self._recent(most)
            if most >= _HISTORY or len(t) < most or t[0] <= from_s:
                inside = slice(int(np.searchsorted(t, from_s)), int(np.searchsorted(t, to_s, "right")))
                return t[inside], yx[inside]
            most *= 4


def _fit(
    u: NDArray[np.float64], yx: NDArray[np.float64], weight: NDArray[np.float64], degree: int
) -> tuple[NDArray[np.float64], float]:
    """Weighted polynomial (degree + 1, 2) and the weighted residual (one standard deviation of a reading).

    Readings far off are left out once (a joystick's jump, a serial line's garbage).
    """
    basis = np.vander(u, degree + 1, increasing=True)
    w = weight
    for turn in range(2):
        root = np.sqrt(w)[:, None]
        coefficients = np.linalg.lstsq(basis * root, yx * root, rcond=None)[0]
        distance = np.linalg.norm(yx - basis @ coefficients, axis=1)
        if turn == 0 and len(u) > 2 * (degree + 1):
            limit = _OUTLIER_MADS * float(np.median(distance)) + 1e-6
            w = np.where(distance > limit, 1e-9, weight)
    variance = float(
        (w * distance**2).sum() / 2 / max(w.sum() * (1 - (degree + 1) / max(len(u), degree + 2)), 1e-9)
    )
    return np.asarray(coefficients, dtype=np.float64), math.sqrt(variance)


class StagePoller(threading.Thread):
    """Reads the stage every `period_s` into `track`, for as long as it runs.

    read: gives (y, x) in um and may raise MicroscopeError. A reading that fails or is not finite is left out and counted in `failed`; the first
    of a row of failures is logged.
    """

    def __init__(self, read: Callable[[], tuple[float, float]], period_s: float) -> None:
        super().__init__(name="deblurd-stage", daemon=True)
        self.track = StageTrack()
        self.failed = 0
        self._read, self._period_s = read, period_s
        self._ended = threading.Event()
        self._failing = False

    def run(self) -> None:
        while not self._ended.wait(self._period_s):
            began_s = time.perf_counter()
            try:
                y_um, x_um = self._read()
            except MicroscopeError as err:
                self._failure(str(err))
                continue
            if not (math.isfinite(y_um) and math.isfinite(x_um)):
                self._failure(f"the stage reported the position x {x_um}, y {y_um}, which is no place")
                continue
            self._failing = False
            # a reading is as old as the middle of the call that brought it
            self.track.add(0.5 * (began_s + time.perf_counter()), y_um, x_um)

    def stop(self) -> None:
        self._ended.set()
        if self.is_alive():
            self.join()

    def _failure(self, text: str) -> None:
        self.failed += 1
        if not self._failing:
            log.warning("stage reading left out: %s", text)
        self._failing = True
