"""Where a stage is at any time: trapezoidal moves, backlash and wobble, all in closed form.

Each axis runs on its own with constant acceleration up to its speed and down again, as most stages do; a new
target may come at any time. Times are seconds of `time.perf_counter`, vectors are (y, x).
"""

from __future__ import annotations

import math
import threading

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deblurd.errors import DataError

Floats = NDArray[np.float64]

_KEPT_PIECES = 1024
"""Pieces of motion that are remembered: some 250 moves."""

_T, _P, _V, _A, _HELD, _SIDE = range(6)
"""Columns of a piece: start time, position, velocity, acceleration, true position at its start, direction."""

_WOBBLE_MM = (0.7, 1.3, 3.1)
_WOBBLE_S = (23.0, 41.0, 67.0)
"""Lead screws and guides err with the place, warmth with the time: each wave has a length in both."""


def plan(
    position: float, velocity: float, target: float, speed: float, acceleration: float
) -> list[list[float]]:
    """The fastest way to stand at `target`: a list of [duration, acceleration], none longer than one turn.

    Starts at `position` with `velocity` (either sign, also above `speed`); um and seconds.
    """
    brake_end = position + velocity * abs(velocity) / (2 * acceleration)
    way = math.copysign(1.0, target - brake_end)
    cruise = way * speed
    change_s = abs(cruise - velocity) / acceleration
    distance = target - position
    left = distance - (velocity + cruise) / 2 * change_s - way * speed**2 / (2 * acceleration)
    if left * way < 0:  # too near to reach full speed
        cruise = way * math.sqrt(max(acceleration * way * distance + velocity**2 / 2, 0.0))
        change_s, left = abs(cruise - velocity) / acceleration, 0.0
    phases = []
    push = math.copysign(acceleration, cruise - velocity)
    if velocity * cruise < 0:  # turns on the way
        phases.append([abs(velocity) / acceleration, push])
        change_s = abs(cruise) / acceleration
    phases.append([change_s, push])
    phases.append([left / cruise if cruise else 0.0, 0.0])
    phases.append([abs(cruise) / acceleration, -math.copysign(acceleration, cruise)])
    return [phase for phase in phases if phase[0] > 0]


class Axis:
    """One axis of a stage. Readers need no lock: the table of pieces is replaced, never changed."""

    def __init__(self, acceleration_um_s2: float, backlash_um: float, position_um: float = 0.0) -> None:
        self._acceleration = acceleration_um_s2
        self._backlash = backlash_um
        self._pieces: Floats = np.array([[-np.inf, position_um, 0.0, 0.0, position_um, 0.0]])

    @property
    def end_s(self) -> float:
        """When the axis stands, or stood, still."""
        return float(self._pieces[-1, _T])

    def go(self, target_um: float, speed_um_s: float, now_s: float) -> None:
        """A new target, from wherever the axis is at `now_s`."""
        position, velocity = (float(v[0]) for v in self._state(np.array([now_s])))
        self._follow(plan(position, velocity, target_um, speed_um_s, self._acceleration), now_s, target_um)

    def stop(self, now_s: float) -> None:
        """Brake at full acceleration."""
        position, velocity = (float(v[0]) for v in self._state(np.array([now_s])))
        target = position + velocity * abs(velocity) / (2 * self._acceleration)
        phases = [[abs(velocity) / self._acceleration, -math.copysign(self._acceleration, velocity)]]
        self._follow(phases if velocity else [], now_s, target)

    def commanded(self, t_s: Floats) -> Floats:
        """Where the controller believes the axis to be, um; raises DataError for times before the memory."""
        return self._state(t_s)[0]

    def true(self, t_s: Floats) -> Floats:
        """Where it is: after each turn the screw first runs through its play of `backlash_um`, um."""
        pieces, rows = self._rows(t_s)
        position = _position(pieces[rows], t_s)
        side, held = pieces[rows, _SIDE], pieces[rows, _HELD]
        rising, falling = np.maximum(held, position), np.minimum(held, position + self._backlash)
        return np.asarray(np.where(side > 0, rising, np.where(side < 0, falling, held)))

    def _follow(self, phases: list[list[float]], now_s: float, target_um: float) -> None:
        now = np.array([now_s])
        held = float(self.true(now)[0])
        position, velocity = (float(v[0]) for v in self._state(now))
        pieces = self._pieces[self._pieces[:, _T] < now_s][-_KEPT_PIECES:].tolist()
        t = now_s
        for duration, push in phases:
            side = math.copysign(1.0, velocity + push * duration / 2)
            pieces.append([t, position, velocity, push, held, side])
            t += duration
            position += velocity * duration + push * duration**2 / 2
            velocity += push * duration
            held = max(held, position) if side > 0 else min(held, position + self._backlash)
        pieces.append([t, target_um, 0.0, 0.0, held, 0.0])
        self._pieces = np.array(pieces)

    def _rows(self, t_s: Floats) -> tuple[Floats, NDArray[np.intp]]:
        pieces = self._pieces
        rows = np.searchsorted(pieces[:, _T], t_s, side="right") - 1
        if rows.min() < 0:
            raise DataError(
                "The virtual stage forgot where it was that long ago: ask sooner, or for a later time."
            )
        return pieces, rows

    def _state(self, t_s: Floats) -> tuple[Floats, Floats]:
        pieces, rows = self._rows(t_s)
        piece = pieces[rows]
        return _position(piece, t_s), piece[:, _V] + piece[:, _A] * _since(piece, t_s)


def _since(piece: Floats, t_s: Floats) -> Floats:
    start = piece[:, _T]
    return np.asarray(np.where(np.isfinite(start), t_s - np.where(np.isfinite(start), start, 0.0), 0.0))


def _position(piece: Floats, t_s: Floats) -> Floats:
    dt = _since(piece, t_s)
    return np.asarray(piece[:, _P] + piece[:, _V] * dt + piece[:, _A] * dt**2 / 2)


class Motion:
    """Both axes of a stage, and what its readings do not show. All methods may be called from any thread."""

    def __init__(
        self,
        acceleration_um_s2: float,
        backlash_um: float = 0.0,
        wobble_um: float = 0.0,
        seed: int = 0,
        start_um: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        """wobble_um: standard deviation of the true deviation along each axis. start_um: (y, x)."""
        self._axes = tuple(Axis(acceleration_um_s2, backlash_um, at) for at in start_um)
        self._lock = threading.Lock()
        rng = np.random.default_rng([seed, 0x57A6E])
        self._wobble_um = wobble_um
        self._phases = rng.uniform(0, 2 * math.pi, (len(_WOBBLE_MM), 2))
        self._directions = rng.uniform(0, 2 * math.pi, (len(_WOBBLE_MM), 2))

    def go(self, target_um: tuple[float, float], speed_um_s: float, now_s: float) -> None:
        """Move to (y, x) from wherever the stage is at `now_s`."""
        with self._lock:
            for axis, target in zip(self._axes, target_um, strict=True):
                axis.go(target, speed_um_s, now_s)

    def stop(self, now_s: float) -> None:
        with self._lock:
            for axis in self._axes:
                axis.stop(now_s)

    @property
    def end_s(self) -> float:
        """When both axes stand, or stood, still."""
        return max(axis.end_s for axis in self._axes)

    def commanded(self, t_s: ArrayLike) -> Floats:
        """What a perfect reading would show at the times (n,): (n, 2), (y, x) um."""
        t = np.asarray(t_s, dtype=np.float64)
        return np.stack([axis.commanded(t) for axis in self._axes], axis=1)

    def true(self, t_s: ArrayLike) -> Floats:
        """Where the stage really is at the times (n,): (n, 2), (y, x) um."""
        t = np.asarray(t_s, dtype=np.float64)
        at = np.stack([axis.true(t) for axis in self._axes], axis=1)
        if self._wobble_um == 0:
            return at
        deviation = np.zeros_like(at)
        for length_mm, period_s, phase, direction in zip(
            _WOBBLE_MM, _WOBBLE_S, self._phases, self._directions, strict=True
        ):
            along_mm = (at[:, :1] * np.sin(direction) + at[:, 1:] * np.cos(direction)) / 1000
            deviation += np.sin(2 * math.pi * (along_mm / length_mm + t[:, None] / period_s) + phase)
        return at + deviation * (self._wobble_um * math.sqrt(2 / len(_WOBBLE_MM)))
