"""Where the stage's readings say that a tile lies, in camera pixels; fitted to what the pixels say."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deblurd.frames import Tile
from deblurd.geometry import PixelToStage

Array = NDArray[np.float64]

TILES_PER_KNOT = 32
"""Tiles between two knots of the drift: over fewer, drift cannot be told from the noise of the readings."""

MOVING_PX = 1.0
"""Motion during an exposure, along an axis of the stage, that says which way it drove."""

STEP_PX = 20.0
"""The same for the way from one tile to the next; less is noise."""

SHARED = 4
"""Parameters that every tile depends on: those of the matrix and the lag. The drift's are local."""

LAG_SIGMA_PX = 20.0
"""Expected shift of readings by the direction of driving."""

DRIFT_SIGMA_PX = 5.0
"""Expected drift from one knot to the next."""


class Directions:
    """The way that each stage axis last drove to, tile after tile in the order of the scan.

    Backlash and latency both shift a reading by an amount that depends on it. An axis that stands keeps its sign.
    """

    def __init__(self, affine: PixelToStage) -> None:
        # plain numbers: this is asked for every tile of every solve
        self._matrix, self._pixel_um = affine.matrix.tolist(), affine.pixel_size_um
        self._signs = [0.0, 0.0]
        self._before: tuple[float, float] | None = None

    def next(self, tile: Tile, at_um: Array | None = None) -> Array:
        """(2,) of -1, 0, 1 for the axes (y, x). at_um: (2,), where the stage was, if that is known better than by the tile's own reading."""
        travel, threshold = (0.0, 0.0), MOVING_PX * self._pixel_um
        if tile.motion.is_known:
            # the image runs against the stage
            (yy, yx), (xy, xx) = self._matrix
            dy, dx = tile.motion.dy, tile.motion.dx
            travel = -(yy * dy + yx * dx), -(xy * dy + xx * dx)
        here = (tile.pose.y_um, tile.pose.x_um) if at_um is None else (float(at_um[0]), float(at_um[1]))
        if max(abs(travel[0]), abs(travel[1])) < threshold and self._before is not None:
            travel = here[0] - self._before[0], here[1] - self._before[1]
            threshold = STEP_PX * self._pixel_um
        for n, way in enumerate(travel):
            if abs(way) >= threshold:
                self._signs[n] = math.copysign(1.0, way)
        self._before = here
        return np.array(self._signs)


@dataclass(frozen=True, slots=True, eq=False)
class StageModel:
    """``place = origin_px + matrix @ (pose - origin_um) + lag @ direction + drift(t)``, all (y, x).

    matrix: (2, 2) px per um. lag: (2, 2) px. knots_s: (k,), drift: (k, 2) px, linear between knots.
    sigma_px: what readings deviate from it, standard deviation along an axis.
    """

    origin_um: Array
    origin_px: Array
    matrix: Array
    lag: Array
    knots_s: Array
    drift: Array
    sigma_px: float

    @classmethod
    def from_affine(cls, affine: PixelToStage, origin_um: Array, sigma_px: float) -> StageModel:
        """As configured, before any picture was compared."""
        inverse = np.asarray(np.linalg.inv(affine.matrix), dtype=np.float64)
        zero = np.zeros((2, 2))
        return cls(origin_um, inverse @ origin_um, inverse, zero, np.zeros(1), np.zeros((1, 2)), sigma_px)

    def predict(self, poses_um: Array, direction: Array, t_s: Array) -> Array:
        """(n, 2) px for poses (n, 2) um, directions (n, 2) and times (n,)."""
        drift = np.stack([np.interp(t_s, self.knots_s, self.drift[:, n]) for n in (0, 1)], axis=1)
        linear = (poses_um - self.origin_um) @ self.matrix.T + direction @ self.lag.T
        return np.asarray(self.origin_px + linear + drift)

    @property
    def affine(self) -> PixelToStage:
        return PixelToStage(np.asarray(np.linalg.inv(self.matrix), dtype=np.float64))


@dataclass(frozen=True, slots=True, eq=False)
class StageDesign:
    """A stage model as a linear function of its parameters: place n is ``base[n] + rises[n] @ parameters[at[n]]``.

    base: (n, 2) by the configured affine. at, rises: (n, m) of the parameters that each tile depends on, the same for both axes of the camera.
    Parameters (p, 2): the change of the matrix per `reach_um`, the lag, and the drift at all knots but the first, which stays 0.
    prior_sigma: (p,) px, how far each may be from 0; for the drift, from the knot before.
    """

    start: StageModel
    reach_um: float
    knots_s: Array
    base: Array
    at: NDArray[np.int64]
    rises: Array
    prior_sigma: Array

    @classmethod
    def of(
        cls, start: StageModel, poses_um: Array, direction: Array, t_s: Array, matrix_sigma: float
    ) -> StageDesign:
        """matrix_sigma: how wrong the configured matrix may be, relative."""
        reach_um = max(float(np.abs(poses_um - start.origin_um).max()), 1.0)
        intervals = max(1, len(t_s) // TILES_PER_KNOT)
        knots_s = np.quantile(t_s, np.linspace(0, 1, intervals + 1))
        # equal times would make a knot that no tile can move
        knots_s = np.unique(knots_s)
        shared = np.hstack([(poses_um - start.origin_um) / reach_um, direction])
        knot, drift = _hats(t_s, knots_s)
        at = np.hstack([np.broadcast_to(np.arange(SHARED), shared.shape), SHARED + knot])
        scale_px = math.sqrt(abs(np.linalg.det(start.matrix)))
        prior = [matrix_sigma * scale_px * reach_um] * 2 + [LAG_SIGMA_PX] * 2
        prior += [DRIFT_SIGMA_PX] * (len(knots_s) - 1)
        base = start.predict(poses_um, np.zeros_like(direction), t_s)
        return cls(start, reach_um, knots_s, base, at, np.hstack([shared, drift]), np.array(prior))

    def prior_rows(self) -> Array:
        """(p, p): rows that are 0 for the expected parameters, in units of their standard deviation."""
        rows = np.eye(len(self.prior_sigma))
        for n in range(5, len(rows)):
            rows[n, n - 1] = -1.0
        return rows / self.prior_sigma[:, None]

    def model(self, parameters: Array, sigma_px: float) -> StageModel:
        """The model that the parameters (p, 2) stand for."""
        drift = np.vstack([np.zeros((1, 2)), parameters[4:]])
        return StageModel(
            self.start.origin_um,
            self.start.origin_px,
            self.start.matrix + parameters[:2].T / self.reach_um,
            parameters[2:4].T,
            self.knots_s,
            drift,
            sigma_px,
        )


def _hats(t_s: Array, knots_s: Array) -> tuple[NDArray[np.int64], Array]:
    """(n, 2) and (n, 2): of k knots, counted from the second one on, those around each time (n,), and their weights in what is linear between knots."""
    if len(knots_s) < 2:
        return np.empty((len(t_s), 0), np.int64), np.empty((len(t_s), 0))
    before = np.clip(np.searchsorted(knots_s, t_s, side="right") - 1, 0, len(knots_s) - 2)
    along = np.clip((t_s - knots_s[before]) / (knots_s[before + 1] - knots_s[before]), 0.0, 1.0)
    # the first knot has no weight
    weights = np.stack([np.where(before > 0, 1.0 - along, 0.0), along], axis=1)
    return np.stack([np.maximum(before - 1, 0), before], axis=1), weights
