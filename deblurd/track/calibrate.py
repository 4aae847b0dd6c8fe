"""What pictures say of camera and stage: the affine between them, when exposures really were, and the play of the stage.

A picture that was taken while the stage stood at s shows a specimen shifted by ``inv(M) @ (s - s0)`` against one that was
taken at s0. Where the stage was is read beside its clock: ``s(t) = read(t + lag) + play``. So shifts between overlapping
frames tell M while the stage moves anyhow, the lag of each axis where speeds differ between two frames (it is what is left of the camera's
latency, and of the moment at which the stage looks at each axis), and the play where directions do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from deblurd.geometry import PixelToStage
from deblurd.track.calibration import KNOWN_AFFINE, KNOWN_LAG_S, KNOWN_PLAY_UM, Calibration
from deblurd.track.motion import mean_um, stretch_later
from deblurd.track.path import Stretch

Floats = NDArray[np.float64]

_AFFINE_SIGMA = 0.5
_LAG_SIGMA_S = 0.05
_PLAY_SIGMA_UM = 50.0
"""How wrong each may be before a picture was looked at."""

_FLOOR_PX = 0.1
"""What a picture in motion shows of its place, at the best."""

_LEAST = 8
_ROUNDS = 3
_STEP_S = 2e-3
_MOST_PLACES = 4096
_CAUCHY = 3.0
_COMMON = 3.0
"""So many times larger than by independent errors uncertainties are taken: neighbouring frames share readings, and all of an anchor its error."""

_SURE = 3.0
"""Play smaller than so many of its standard deviations is none: it would take the lag's place, as both shift the ways back against the ways there."""

_PINNED_UM = 1e-3

_ROUNDS_OF_ROWS = 5
_ROW_FLOOR = 0.01
"""Of the time from row to row: better than this one anchor's details do not tell it, however many frames are compared with it."""

_AGREE = 0.6
"""If fewer of the sightings agree, nothing is made of them."""


def as_then() -> float:
    """Of a clock that stands: what was believed is believed."""
    return 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Sighting:
    """Two frames that show the same: what the second shows at pixel p, the first shows at p + shift_px (2,), (y, x).

    first_s, second_s: start, middle and end of each exposure (3,), as believed then. sigma_px: of the shift. first_way, second_way: (2,)
    of -1, 0, 1, the way that each axis (y, x) last drove. first_later, second_later: how much later (s) each is believed to have been by now. skew: by how
    much the shift grows from one row to the next, (2,), (y, x) px, with its standard deviation; None where nobody looked, or it did not show.
    """

    first_s: Floats
    second_s: Floats
    shift_px: Floats
    sigma_px: float
    first_way: Floats
    second_way: Floats
    first_later: Callable[[], float] = as_then
    second_later: Callable[[], float] = as_then
    skew: tuple[Floats, float] | None = None


def fit(
    sightings: Sequence[Sighting], where: Callable[[Floats], Stretch | None] | Places, start: Calibration
) -> Calibration | None:
    """What explains the sightings best; None where the stage's path covers fewer than eight of them.

    where: the stage's readings as `StagePath.stretch` gives them; `Places` where it is asked again. start: what is expected; it stays where the
    sightings say nothing. By least squares with Cauchy's loss (Holland & Welsch 1977): a wrong match, or a frame amid the play, hardly counts.
    """
    places = where if isinstance(where, Places) else Places(where)
    lag_s, affine_px, play_um = start.lag_s, start.inverse, start.play_um
    found: Calibration | None = None
    for turn in range(_ROUNDS):
        seen = _Seen.of(sightings, places, lag_s, affine_px)
        if len(seen.shift_px) < _LEAST:
            return None
        if turn == 0:
            affine_px = seen.roughly(affine_px)
        row_s, row_sigma_s = seen.row_time(affine_px, start)
        seen = seen.straight(affine_px, row_s)
        found = seen.solve(affine_px, lag_s, play_um, start)
        seems = (np.abs(found.play_um) < _SURE * found.play_sigma_um) & np.isfinite(found.play_sigma_um)
        if seems.any():
            sigma_um = found.play_sigma_um
            found = replace(
                seen.solve(affine_px, lag_s, play_um, start, no_play=seems), play_sigma_um=sigma_um
            )
        near = bool((np.abs(found.lag_s - lag_s) < _STEP_S).all())
        affine_px, lag_s, play_um = found.inverse, found.lag_s, found.play_um
        if near:
            break
    assert found is not None
    return replace(_of_use(found, start), row_s=row_s, row_sigma_s=row_sigma_s)


class Places:
    """Where the stage stood during exposures, for lags that change little from fit to fit. where: as `StagePath.stretch`."""

    def __init__(self, where: Callable[[Floats], Stretch | None]) -> None:
        self._where = where
        self._known: dict[tuple[float, int, int], tuple[Floats, Floats, float] | None] = {}

    def at(self, times_s: Floats, lag_s: Floats) -> tuple[Floats, Floats, float] | None:
        """Mean position and speed (2,), and uncertainty of the position, during an exposure (3,) that is read `lag_s` (2,) later."""
        y, x = (round(float(v) / _STEP_S) for v in lag_s)
        key = float(times_s[1]), y, x
        if key not in self._known:
            if len(self._known) > _MOST_PLACES:
                self._known.clear()
            at = stretch_later(self._where, times_s, np.array([y, x]) * _STEP_S)
            if at is None:
                self._known[key] = None
            else:
                speed_um_s = (at.yx_um[2] - at.yx_um[0]) / (times_s[2] - times_s[0])
                self._known[key] = mean_um(at), speed_um_s, at.sigma_um
        place = self._known[key]
        if place is None:
            return None
        # over the last fraction of a step the speed is the same
        return place[0] + place[1] * (lag_s - np.array([y, x]) * _STEP_S), place[1], place[2]


def _of_use(found: Calibration, start: Calibration) -> Calibration:
    """`found`, but what was expected, as sure as it was, where the frames did not tell."""
    lag, play = found.lag_sigma_s < KNOWN_LAG_S, found.play_sigma_um < KNOWN_PLAY_UM
    affine = bool((found.affine_sigma < KNOWN_AFFINE).all())
    return Calibration(
        found.affine if affine else start.affine,
        np.where(lag, found.lag_s, start.lag_s),
        np.where(play, found.play_um, start.play_um),
        found.affine_sigma if affine else start.affine_sigma,
        np.where(lag, found.lag_sigma_s, start.lag_sigma_s),
        np.where(play, found.play_sigma_um, start.play_sigma_um),
        found.sightings,
        found.rms_px,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """Sightings against the readings, each (n, 2): shifts, and between the two frames the differences of position, speed and play; also the sum of both
    speeds, and the skews, nan where there is none, with their standard deviations."""

    shift_px: Floats
    sigma_px: Floats
    step_um: Floats
    speed_um_s: Floats
    backwards: Floats
    both_um_s: Floats
    skew: Floats
    skew_sigma: Floats

    @classmethod
    def of(
        cls,
        sightings: Sequence[Sighting],
        places: Places,
        lag_s: Floats,
        affine_px: Floats,
    ) -> _Seen:
        rows: list[tuple[Floats, float, Floats, Floats, Floats, Floats, Floats, float]] = []
        scale = math.sqrt(abs(float(np.linalg.det(affine_px))))
        for s in sightings:
            first = places.at(s.first_s + s.first_later(), lag_s)
            second = places.at(s.second_s + s.second_later(), lag_s)
            if first is None or second is None:
                continue
            sigma = math.hypot(s.sigma_px, _FLOOR_PX, scale * first[2], scale * second[2])
            back = (s.second_way < 0).astype(float) - (s.first_way < 0)
            step_um, faster_um_s, both_um_s = (
                second[0] - first[0],
                second[1] - first[1],
                second[1] + first[1],
            )
            skew, skew_sigma = s.skew or (np.full(2, np.nan), math.inf)
            rows.append((s.shift_px, sigma, step_um, faster_um_s, back, both_um_s, skew, skew_sigma))
        empty = np.zeros((0, 2))
        if not rows:
            return cls(empty, np.zeros((0, 1)), empty, empty, empty, empty, empty, np.zeros((0, 1)))
        shift, sigmas, step, speed, backwards, both, skews, skew_sigmas = zip(*rows, strict=True)
        return cls(
            np.array(shift),
            np.array(sigmas)[:, None],
            np.array(step),
            np.array(speed),
            np.array(backwards),
            np.array(both),
            np.array(skews),
            np.array(skew_sigmas)[:, None],
        )

    def roughly(self, expected_px: Floats) -> Floats:
        """The inverse affine (2, 2) without lag and play, by least squares, drawn to the expected one where nothing moved."""
        scale = math.sqrt(abs(float(np.linalg.det(expected_px))))
        draw = np.eye(2) / (_AFFINE_SIGMA * scale)
        left = np.vstack([self.step_um / self.sigma_px, draw])
        right = np.vstack([self.shift_px / self.sigma_px, draw @ expected_px.T])
        return np.asarray(np.linalg.lstsq(left, right, rcond=None)[0].T)

    def row_time(self, affine_px: Floats, start: Calibration) -> tuple[float, float]:
        """From the exposure of a row to that of the next one, s, and its standard deviation, by least squares with Cauchy's loss, drawn to what is known."""
        tells = np.isfinite(self.skew).all(axis=1)
        # a row that is exposed later sees what the motion has brought there by then, and the image runs against the stage
        by_row, sigma = (self.speed_um_s @ affine_px.T)[tells], self.skew_sigma[tells]
        skew, drawn = self.skew[tells], (_COMMON / start.row_sigma_s) ** 2
        row_s, weights, spread = start.row_s, np.ones_like(skew), 1.0
        for _ in range(_ROUNDS_OF_ROWS):
            power = float((weights * (by_row / sigma) ** 2).sum()) / spread**2 + drawn
            if power == 0:
                return start.row_s, math.inf
            pull = float((weights * by_row * skew / sigma**2).sum()) / spread**2
            row_s = (pull + drawn * start.row_s) / power
            rest = np.abs(skew - row_s * by_row) / sigma
            spread = max(1.0, 1.4826 * float(np.median(rest))) if rest.size else 1.0
            weights = 1 / (1 + (rest / (_CAUCHY * spread)) ** 2)
        return row_s, max(_COMMON / math.sqrt(power), _ROW_FLOOR * abs(row_s))

    def straight(self, affine_px: Floats, row_s: float) -> _Seen:
        """With the shifts that a global shutter had shown: the middle of an overlap lies above that of one frame and below that of the other."""
        lean = row_s * self.shift_px[:, :1] / 2
        return replace(self, shift_px=self.shift_px + lean * (self.both_um_s @ affine_px.T))

    def solve(
        self,
        affine_px: Floats,
        lag_s: Floats,
        play_um: Floats,
        start: Calibration,
        no_play: NDArray[np.bool_] | None = None,
    ) -> Calibration:
        """no_play: (2,), axes that are known to have none."""
        expected_px = start.inverse
        # uncertainties are taken so many times larger afterwards, these with the others
        affine_sigma = np.minimum(start.affine_sigma / _COMMON, _AFFINE_SIGMA)
        lag_sigma_s, play_sigma_um = (
            np.minimum(sigma / _COMMON, most)
            for sigma, most in ((start.lag_sigma_s, _LAG_SIGMA_S), (start.play_sigma_um, _PLAY_SIGMA_UM))
        )
        expected_um = start.play_um
        if no_play is not None:
            expected_um = np.where(no_play, 0.0, expected_um)
            play_sigma_um = np.where(no_play, _PINNED_UM, play_sigma_um)
        scale = math.sqrt(abs(float(np.linalg.det(expected_px))))
        n = self.shift_px.size

        def off(x: Floats) -> Floats:
            inverse, later_s, play = (
                x[:4].reshape(2, 2) * scale,
                x[4:6] * _LAG_SIGMA_S,
                x[6:] * _PLAY_SIGMA_UM,
            )
            step = self.step_um + self.speed_um_s * later_s + self.backwards * play
            rest = (self.shift_px - step @ inverse.T) / self.sigma_px
            drawn = (
                ((inverse - expected_px) / (affine_sigma * scale)).ravel(),
                (lag_s + later_s - start.lag_s) / lag_sigma_s,
                (play - expected_um) / play_sigma_um,
            )
            return np.concatenate([rest.ravel(), *drawn])

        x0 = np.concatenate([affine_px.ravel() / scale, np.zeros(2), play_um / _PLAY_SIGMA_UM])
        best = least_squares(off, x0, loss="cauchy", f_scale=_CAUCHY)
        rest = off(best.x)[:n]
        spread = _COMMON * max(1.0, 1.4826 * float(np.median(np.abs(rest))))
        # of the modified Jacobian: its square is the curvature of the loss
        jacobian = np.asarray(best.jac, dtype=np.float64)
        sigma = spread * np.sqrt(np.diag(np.linalg.pinv(jacobian.T @ jacobian)))
        near = np.abs(rest) < _CAUCHY
        if near.mean() < _AGREE:
            sigma = np.full(8, math.inf)
        found_px = best.x[:4].reshape(2, 2) * scale
        rest_px = (rest * np.repeat(self.sigma_px.ravel(), 2))[near]
        return Calibration(
            PixelToStage(np.asarray(np.linalg.inv(found_px), dtype=np.float64)),
            lag_s + best.x[4:6] * _LAG_SIGMA_S,
            best.x[6:] * _PLAY_SIGMA_UM,
            # of a column, which tells where a micrometre of one stage axis goes
            np.hypot(sigma[[0, 1]], sigma[[2, 3]]),
            sigma[4:6] * _LAG_SIGMA_S,
            sigma[6:] * _PLAY_SIGMA_UM,
            len(self.shift_px),
            math.sqrt(float((rest_px**2).mean())) if rest_px.size else 0.0,
        )
