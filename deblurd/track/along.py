"""One axis of a stage between its readings: at an even speed, speeding up, braking, or as it may."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from deblurd.track.clock import neumann
from deblurd.track.ramp import CALL, FARTHEST, TRUST, Along, find_ramp

_OUTLIER = 5.0
_FOLLOWS = 3.0
_RAMP_WINDOWS = (1.0, 0.75, 0.5)
"""Shares of the widest window: a rest between two ramps may be short."""

_WINDOWS = ((2.0, 1), (2.0, 2), (1.0, 2), (0.5, 2), (0.5, 1))
"""Half widths of the fits, in units of what must follow a time, and their degrees: the first that explains the readings is taken."""

_BEFORE_RAMPS = (2.0, 2)
"""What is tried before a ramp is: what a hand does is a parabola rather than two lines."""

_BENT, _SURE = 1.2, 0.5
"""Where readings lie off a line now on this side, now on that (von Neumann's ratio is 2), it is no ramp that keeps them from lying on it. Those that are less sure do not tell."""

WIDEST = _WINDOWS[0][0]

Floats = NDArray[np.float64]


def along(
    t: Floats, um: Floats, half_s: Floats, times_s: Floats, *, after_s: float, noise_um: float, usual_s: float
) -> Along:
    """Where an axis was at `times_s`, rising, of one short stretch, by its readings `um` (n,) at `t`, each of a call of twice `half_s`.

    What is taken is the longest stretch that a line, or else a parabola, or else a ramp explains as well as the noise of the readings, `noise_um`,
    allows (after Lepski 1991). So constant motion is averaged over many readings, and acceleration is followed. after_s: the unit of its length.
    usual_s: half of most calls. At which moment of a call the stage was read nobody knows, but of all of them at the same: of one that took
    longer, at any moment of that.
    """
    middle_s, reach_s = float(times_s.mean()), 0.5 * float(np.ptp(times_s))
    share = _share(t, um, half_s - usual_s, noise_um)
    fits: list[Along] = []
    explained = bent = False
    for width, degree in _WINDOWS:
        half_width_s = reach_s + width * after_s
        inside = np.abs(t - middle_s) <= half_width_s
        if inside.sum() < degree + 2:
            continue
        u, at = (t[inside] - middle_s) / half_width_s, (times_s - middle_s) / half_width_s
        fit, speed, off, explained = _fit(u, um[inside], share[inside], at, degree, noise_um)
        fits.append(replace(fit, call_um=CALL * abs(speed) / half_width_s * usual_s))
        if explained:
            break
        bent = bent or (width == WIDEST and degree == 1 and neumann(off[share[inside] > _SURE]) < _BENT)
        if bent and (width, degree) == _BEFORE_RAMPS:
            for part in _RAMP_WINDOWS:
                inside = np.abs(t - middle_s) <= part * half_width_s
                ramp = find_ramp(
                    t[inside] - middle_s, um[inside], share[inside], times_s - middle_s, noise_um, usual_s
                )
                if ramp is not None:
                    return ramp
    between = np.interp(times_s, t, um)
    if not fits:
        return Along(between, noise_um, math.sqrt(2) * noise_um)
    return fits[0] if len(fits) == 1 else _doubted(fits[-1], between, explained, noise_um)


def _share(t: Floats, um: Floats, longer_s: Floats, noise_um: float) -> Floats:
    """How sure each reading is, 1 where it is as sure as most: one whose call took longer (half of it by `longer_s`) is as far off as the axis went meanwhile."""
    speed = np.abs(np.diff(um) / np.maximum(np.diff(t), 1e-9))
    fastest = np.maximum(np.append(speed, speed[-1]), np.append(speed[0], speed))
    return np.asarray(noise_um / np.hypot(noise_um, fastest * np.maximum(longer_s, 0.0)))


def _fit(
    u: Floats, um: Floats, share: Floats, at: Floats, degree: int, noise_um: float
) -> tuple[Along, float, Floats, bool]:
    """A polynomial through readings at `u` (n,) in [-1, 1], its speed at 0, how far they lie off it, and whether it explains them within their noise.

    A reading far off between two good ones (a serial line's garbage) is left out.
    """
    basis, wanted = (np.vander(x, degree + 1, increasing=True) for x in (u, at))
    basis, um = share[:, None] * basis, share * um
    keep = np.ones(len(u), dtype=bool)
    for turn in range(2):
        coefficients = np.linalg.lstsq(basis[keep], um[keep], rcond=None)[0]
        off = um - basis @ coefficients
        distance = np.abs(off)
        lone = _lone(distance > _OUTLIER * (float(np.median(distance)) + noise_um))
        if turn == 1 or not lone.any() or len(u) - lone.sum() < degree + 2:
            break
        keep = ~lone
    freedom = int(keep.sum()) - degree - 1
    spread = math.sqrt(float((off[keep] ** 2).sum()) / freedom)
    explained = spread < noise_um * (1 + TRUST / math.sqrt(2 * freedom)) and bool(
        (distance[keep] < FARTHEST * noise_um).all()
    )
    sigma = max(noise_um, spread)
    covariance = np.linalg.inv(basis[keep].T @ basis[keep])
    middle, travel = wanted.mean(axis=0), wanted[-1] - wanted[0]
    return (
        Along(
            wanted @ coefficients,
            sigma * math.sqrt(float(middle @ covariance @ middle)),
            sigma * math.sqrt(max(float(travel @ covariance @ travel), 0.0)),
        ),
        float(coefficients[1]),
        off,
        explained,
    )


def _doubted(fit: Along, between: Floats, explained: bool, noise_um: float) -> Along:
    """Where the motion is not constant: the last `fit`, or interpolated readings, `between`, where it misses them by more than noise does.

    In steep ramps those are ten times nearer to the truth. How far the two are apart makes the uncertainty.
    """
    off = fit.um - between
    apart = math.sqrt(float((off**2).mean()))
    follows = explained or apart < _FOLLOWS * noise_um
    share = 1.0 if follows else 0.5
    return Along(
        fit.um if follows else between,
        math.hypot(fit.sigma_um, share * apart),
        math.hypot(fit.travel_sigma_um, share * abs(float(off[-1] - off[0]))),
        fit.call_um,
    )


def _lone(far: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Those that have a neighbour on each side that is not far off: two in a row, or one at the end, are the stage's doing."""
    lone = np.zeros_like(far)
    lone[1:-1] = far[1:-1] & ~far[:-2] & ~far[2:]
    return lone
