"""An axis that starts, stops or turns: a line, constant acceleration, another line.

Ramps of a stage that is read by a serial port are often shorter than the time from one reading to the next. And yet the lines on
both sides tell where they meet, and that is all but how long the ramp lasts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CALL = 1 / math.sqrt(3)
"""Standard deviation of a moment in a call, of half its duration."""

TRUST = 2.0
FARTHEST = 4.5
"""Readings are explained where they scatter by no more than so many standard deviations of their scatter more than their noise, and none lies farther off than so many times that."""

_LEAST = 5
_UNKNOWNS = 5
_LONGEST = 0.7
_TRIES = 9
_UNLIKELY = 1e-3
_GRID = np.linspace(-1.0, 1.0, 13)
_ZOOMS = 5
_STEP_S = 1e-4

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Along:
    """Positions um (n,) of one axis, and their uncertainties: see `path.Stretch`."""

    um: Floats
    sigma_um: float
    travel_sigma_um: float
    call_um: float = 0.0


def find_ramp(
    t: Floats, um: Floats, share: Floats, at: Floats, noise_um: float, usual_s: float
) -> Along | None:
    """Where the axis was at the times `at` (m,); None where a ramp does not explain the readings `um` (n,) at `t`.

    The lines meet in the middle of the ramp. How long it lasts, the readings in it tell; where a serial port brings few or none, all durations that
    may be are averaged, each by its likelihood. share: how sure each reading is, 1 where its standard deviation is `noise_um`. usual_s: half of most calls.
    """
    if len(t) < _LEAST:
        return None
    lasts_s = np.linspace(0.0, _LONGEST * (t[-1] - t[0]), _TRIES)
    for turn in range(2):
        meet_s = _meet(t, um, share, lasts_s)
        basis = share[:, None] * _basis(t, meet_s, lasts_s)
        inverse = np.linalg.pinv(basis)
        coefficients = inverse @ (share * um)
        off = share * um - (basis @ coefficients[..., None])[..., 0]
        squares = (off**2).sum(axis=1) / noise_um**2
        likely = np.exp(-0.5 * (squares - squares.min()))
        if turn == 0:
            possible = np.flatnonzero(likely > _UNLIKELY)
            lasts_s = np.linspace(
                lasts_s[max(possible[0] - 1, 0)], lasts_s[min(possible[-1] + 1, _TRIES - 1)], _TRIES
            )
    best = int(squares.argmin())
    freedom = max(len(t) - _UNKNOWNS, 1)
    if (
        squares[best] > freedom * (1 + TRUST / math.sqrt(2 * freedom)) ** 2
        or (np.abs(off[best]) > FARTHEST * noise_um).any()
    ):
        return None
    wanted = _basis(at, meet_s, lasts_s)
    each = (wanted @ coefficients[..., None])[..., 0]
    likely /= likely.sum()
    mean = likely @ each
    # not known for the noise, which shifts the place where the lines meet too, and for not knowing how long the ramp lasts
    moved, last = np.array([meet_s[best] + _STEP_S]), lasts_s[[best]]
    by_meeting = share[:, None] * _basis(t, moved, last)[0, :, 2:] - basis[best, :, 2:]
    wanted_by_meeting = _basis(at, moved, last)[0, :, 2:] - wanted[best, :, 2:]
    noisy = np.hstack([wanted[best], wanted_by_meeting]) @ np.linalg.pinv(
        np.hstack([basis[best], by_meeting])
    )
    apart = each - mean
    middle = likely @ apart.mean(axis=1) ** 2, noisy.mean(axis=0)
    travel = likely @ (apart[:, -1] - apart[:, 0]) ** 2, noisy[-1] - noisy[0]
    sigma_um, travel_sigma_um = (
        math.sqrt(by_duration + noise_um**2 * float(by_noise @ by_noise))
        for by_duration, by_noise in (middle, travel)
    )
    fastest = np.abs([coefficients[best, 1], coefficients[best, 1] + coefficients[best, 2]]).max()
    return Along(mean, sigma_um, travel_sigma_um, CALL * float(fastest) * usual_s)


def _meet(t: Floats, um: Floats, share: Floats, lasts_s: Floats) -> Floats:
    """When the lines meet, best, for each duration of the ramp (k,)."""
    line = np.linalg.qr(share[:, None] * np.stack([np.ones_like(t), t], axis=1))[0]
    rest = share * um - line @ (line.T @ (share * um))
    reach_s = 0.5 * (t[-1] - t[0])
    meet_s = np.full(len(lasts_s), 0.5 * (t[-1] + t[0]))
    for _ in range(_ZOOMS):
        tries_s = meet_s[:, None] + reach_s * _GRID
        bow = share * _bow(t, tries_s[..., None], lasts_s[:, None, None])
        bow -= (bow @ line) @ line.T
        explains = (bow @ rest) ** 2 / np.maximum((bow**2).sum(axis=-1), 1e-30)
        meet_s = np.take_along_axis(tries_s, explains.argmax(axis=1)[:, None], axis=1)[:, 0]
        reach_s *= 2 * (_GRID[1] - _GRID[0])
    return meet_s


def _basis(t: Floats, meet_s: Floats, lasts_s: Floats) -> Floats:
    """(k, n, 3): place, speed before, and how much is added to it, in k ramps."""
    bow = _bow(t, meet_s[:, None], lasts_s[:, None])
    return np.stack([np.ones_like(bow), np.broadcast_to(t, bow.shape), bow], axis=-1)


def _bow(t: Floats, meet_s: Floats, lasts_s: Floats) -> Floats:
    """The way at `t` of what speeds up by 1 in `lasts_s` around `meet_s`."""
    since = np.clip(t - meet_s + lasts_s / 2, 0.0, lasts_s)
    return np.asarray(since**2 / np.maximum(2 * lasts_s, 1e-9) + np.maximum(t - meet_s - lasts_s / 2, 0.0))
