"""All tiles at once: the places that agree best with every match and, weakly, with the stage.

Linear least squares over the places and the parameters of the stage model together, reweighted: Cauchy weights
whose scale shrinks from the size of a gross error to that of a match's own uncertainty (graduated non-convexity, Blake & Zisserman
1987), so that a wrong match that agrees with no loop loses its say before the right ones are believed to a hundredth of a pixel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.ndimage import median_filter
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

from deblurd.frames import Place, Tile
from deblurd.geometry import PixelToStage
from deblurd.place.pairwise import Edge
from deblurd.place.stage import SHARED, Array, Directions, StageDesign, StageModel

SCALES_PX = (16.0, 6.0, 2.5, 1.0, 0.0, 0.0, 0.0)
"""What a match may be wrong by, on top of its own uncertainty, in one solve after the other."""

OUTLIER_SIGMA = 6.0
"""A match that is further off than this in the end is left out."""

MATRIX_SIGMA = 0.01
MATRIX_LIMIT = 0.035
"""How wrong the configured affine is expected to be, relative, and how wrong the pixels may say that it is."""

NEAR_PX = 0.3
"""What places of an earlier solution are expected to be wrong by."""

UNREAD_SIGMA_PX = 100.0
"""Of the pose of a tile for which the stage was not read in time."""

_STAGE_SAMPLES = 4
_NOISE_SAMPLES = 24
_TINY = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """Where everything lies.

    places: by tile. affine: the pixel-to-stage affine that the pictures show. island: by tile, which set of tiles that matches hold
    together it belongs to, 0 the largest; between islands only the stage measures. weak: tiles that no believed match holds.
    loop_closure_px: root mean square of what believed matches disagree by, nan without any. outliers: matches left out, by (i, j).
    """

    places: Mapping[int, Place]
    affine: PixelToStage
    stage: StageModel
    island: Mapping[int, int]
    weak: Sequence[int]
    loop_closure_px: float
    outliers: frozenset[tuple[int, int]]


def solve(
    tiles: Sequence[Tile],
    edges: Sequence[Edge],
    affine: PixelToStage,
    stage_sigma_px: float = 10.0,
    near: Mapping[int, Place] | None = None,
) -> Solution:
    """Places of `tiles` from matches that are believed; the stage model is pinned at the first tile's pose.

    affine: the configured one. stage_sigma_px: what readings are expected to be wrong by. near: places of an
    earlier solution: what contradicts them is suspected from the start, which takes a quarter of the time. The places' mean deviation from
    the fitted stage model is zero, so the mosaic stays where the stage says that the slide is.
    """
    if not tiles:
        nowhere = StageModel.from_affine(affine, np.zeros(2), stage_sigma_px)
        return Solution({}, affine, nowhere, {}, [], math.nan, frozenset())
    start = StageModel.from_affine(affine, tiles[0].pose.yx_um, stage_sigma_px)
    system = _System(tiles, edges, start, MATRIX_SIGMA)
    system.run(near)
    change = np.linalg.solve(start.matrix, system.stage.matrix) - np.eye(2)
    if np.abs(change).max() > MATRIX_LIMIT:
        # no camera is configured that badly: what says so are wrong matches
        system = _System(tiles, system.edges, start, 1e-6)
        system.run(near)
    sigma = system.sigma_px()
    places = {
        tile.index: Place(float(y), float(x), float(s))
        for tile, (y, x), s in zip(tiles, system.places, sigma, strict=True)
    }
    return Solution(
        places,
        system.stage.affine,
        system.stage,
        {tile.index: n for tile, n in zip(tiles, system.islands(), strict=True)},
        [tile.index for tile, held in zip(tiles, system.held, strict=True) if not held],
        system.loop_closure_px,
        frozenset((e.i, e.j) for e, used in zip(system.edges, system.believed, strict=True) if not used),
    )


class _System:
    """The sparse system of one scan. Unknowns: places (y, x of each tile), then parameters (y, x of each)."""

    def __init__(
        self, tiles: Sequence[Tile], edges: Sequence[Edge], start: StageModel, matrix_sigma: float
    ) -> None:
        self.edges, self._tiles = edges, tiles
        row = {tile.index: n for n, tile in enumerate(tiles)}
        self._i = np.array([row[e.i] for e in edges], dtype=np.int32)
        self._j = np.array([row[e.j] for e in edges], dtype=np.int32)
        self._shift = np.array([e.match.shift for e in edges]).reshape(-1, 2)
        self._covariance = np.array([e.match.covariance for e in edges]).reshape(-1, 2, 2)
        poses = np.array([tile.pose.yx_um for tile in tiles])
        times = np.array([tile.pose.t_s for tile in tiles])
        way = Directions(start.affine)
        # a single wrong reading is no way there and back, which would pass for lag
        passed = median_filter(poses, size=(3, 1), mode="nearest")
        direction = np.array([way.next(tile, at) for tile, at in zip(tiles, passed, strict=True)])
        pixel_um = start.affine.pixel_size_um
        sigma_um = np.array([tile.pose.sigma_um for tile in tiles])
        self._pose_sigma_px = np.where(np.isfinite(sigma_um), sigma_um / pixel_um, UNREAD_SIGMA_PX)
        self._design = StageDesign.of(start, poses, direction, times, matrix_sigma)
        self._prior = self._design.prior_rows()
        # from parameters to places, and back
        at, rises = self._design.at, self._design.rises
        self._columns = sp.csr_array(
            (rises.ravel(), at.ravel(), np.arange(len(tiles) + 1) * at.shape[1]),
            shape=(len(tiles), len(self._prior)),
        )
        self._across = sp.csr_array(self._columns.T)
        # a reading as a row of the system: its place less what its parameters say
        row_of_reading = np.hstack([np.ones((len(tiles), 1)), -rises])
        self._squares = row_of_reading[:, :, None] * row_of_reading[:, None]
        self._prior_sigma_px = start.sigma_px
        self.stage = start
        self.places = self._design.base
        self._normal = self._pattern()
        self._factor: _Factor | None = None
        self.believed = np.ones(len(edges), dtype=bool)

    def _pattern(self) -> _Pattern:
        """Of the normal matrix, its entries in the order of `_solve_once`."""
        count, axis = len(self.places), np.arange(2, dtype=np.int32)
        at = 2 * np.stack([self._i, self._j], axis=1)[:, :, None] + axis
        shape = (len(self.edges), 2, 2, 2, 2)
        rows = np.broadcast_to(at[:, :, None, :, None], shape).ravel()
        columns = np.broadcast_to(at[:, None, :, None, :], shape).ravel()
        unknown = np.hstack([np.arange(count)[:, None], count + self._design.at]).astype(np.int32)
        prior = self._prior.T @ self._prior
        of_prior = np.nonzero(prior)
        self._prior_squares = np.repeat(prior[of_prior], 2)
        one, other, first, second = (
            (2 * n.reshape(-1, 1) + axis).ravel()
            for n in (
                np.broadcast_to(unknown[:, :, None], self._squares.shape),
                np.broadcast_to(unknown[:, None], self._squares.shape),
                (count + of_prior[0]).astype(np.int32),
                (count + of_prior[1]).astype(np.int32),
            )
        )
        return _Pattern(
            np.concatenate([rows, one, first]),
            np.concatenate([columns, other, second]),
            slice(2 * count, 2 * (count + SHARED)),
        )

    def run(self, near: Mapping[int, Place] | None) -> None:
        stage_weight = np.ones(len(self.places))
        weight = np.ones(len(self.edges))
        if near is not None:
            self.places = np.array([near[tile.index].yx_px for tile in self._tiles])
            weight = 1.0 / (1.0 + self._squared_z(self._covariance + NEAR_PX**2 * np.eye(2)) / 9.0)
            for _ in range(3):
                self._fit_stage(stage_weight)
                stage_weight = self._weigh_stage()
        for scale in SCALES_PX if near is None else SCALES_PX[-1:]:
            spread = self._covariance + (scale / 3.0) ** 2 * np.eye(2)
            self._solve_once(spread, weight, stage_weight)
            z2 = self._squared_z(spread)
            weight = 1.0 / (1.0 + z2 / 9.0)
            stage_weight = self._weigh_stage()
        self.believed = z2 < OUTLIER_SIGMA**2
        self._solve_once(self._covariance, weight * self.believed, stage_weight)

    @property
    def held(self) -> NDArray[np.bool_]:
        """(n,): which tiles a believed match holds."""
        held = np.zeros(len(self.places), dtype=bool)
        held[self._i[self.believed]], held[self._j[self.believed]] = True, True
        return held

    def islands(self) -> list[int]:
        """Of each tile, the number of its island, the largest first."""
        i, j = self._i[self.believed], self._j[self.believed]
        graph = sp.coo_array((np.ones(len(i)), (i, j)), shape=(len(self.places),) * 2)
        _, label = connected_components(graph, directed=False)
        rank = np.argsort(np.argsort(-np.bincount(label), kind="stable"))
        return [int(n) for n in rank[label]]

    @property
    def loop_closure_px(self) -> float:
        residual = self._residual[self.believed]
        return math.sqrt(float((residual**2).sum(axis=1).mean())) if len(residual) else math.nan

    def sigma_px(self) -> Array:
        """(n,): of the places against those that matches hold, along an axis.

        From solutions of pure noise (Hutchinson's estimate of the variance).
        """
        rng = np.random.default_rng(0)

        def noise(*shape: int) -> Array:
            return np.asarray(rng.choice([-1.0, 1.0], (*shape, 2, _NOISE_SAMPLES)))

        count = len(self.places)
        # of unit variance by a root of the information; that of a match without a say is none
        root = np.linalg.cholesky(self._information + _TINY * np.eye(2))
        of_edges = np.einsum("eab,ebs->eas", root, noise(len(self.edges)))
        of_readings = self._stage_scale[:, None, None] * noise(count)
        right = np.zeros((sum(self._columns.shape), 2, _NOISE_SAMPLES))
        np.add.at(right, self._j, of_edges)
        np.add.at(right, self._i, -of_edges)
        right[:count] += of_readings
        flat = of_readings.reshape(count, -1)
        right[count:] = -np.asarray(self._across @ flat).reshape(-1, 2, _NOISE_SAMPLES)
        right[count:] += np.einsum("ab,acs->bcs", self._prior, noise(len(self._prior)))
        assert self._factor is not None
        solved = self._factor.solve(right.reshape(-1, _NOISE_SAMPLES))
        samples = solved[: 2 * len(self.places)].reshape(-1, 2, _NOISE_SAMPLES)
        if self.held.any():
            samples -= samples[self.held].mean(axis=0)
        variance = (samples**2).mean(axis=(1, 2))
        z2 = self._squared_z(self._covariance)[self.believed]
        free = max(1.0, len(z2) - len(self.places) + 1)
        # matches that disagree by more than they claim are all less certain than they claim
        return np.asarray(np.sqrt(variance * max(1.0, float(z2.sum()) / (2.0 * free))))

    @property
    def _residual(self) -> Array:
        return np.asarray(self.places[self._j] - self.places[self._i] - self._shift)

    def _squared_z(self, spread: Array) -> Array:
        residual = self._residual
        return np.asarray(np.einsum("ea,eab,eb->e", residual, np.linalg.inv(spread), residual))

    def _fit_stage(self, weight: Array) -> None:
        """The stage model that suits the places as they are: hardly any work beside a solve."""
        square = weight / (self.stage.sigma_px**2 + self._pose_sigma_px**2)
        across = self._across * square
        normal = (across @ self._columns).toarray() + self._prior.T @ self._prior
        right = across @ (self.places - self._design.base)
        self._parameters = np.asarray(np.linalg.solve(normal, right), dtype=np.float64)
        self._modelled = self._design.base + self._columns @ self._parameters

    def _weigh_stage(self) -> Array:
        """Fits the readings' noise; returns weights of the readings: 1 up to four standard deviations, hardly anything beyond eight.

        A single wrong one, as of a frame that came late, must not pull the others.
        """
        off = self.places - self._modelled
        z2 = (off**2).sum(axis=1) / (self.stage.sigma_px**2 + self._pose_sigma_px**2)
        weight = np.asarray(np.minimum(1.0, 16.0 / np.maximum(z2, 1e-9)) ** 2)
        spread = float(((weight[:, None] * off)[self.held] ** 2).sum())
        prior = _STAGE_SAMPLES * self._prior_sigma_px**2
        sigma_px = math.sqrt((prior + spread) / (_STAGE_SAMPLES + 2.0 * float(self.held.sum())))
        self.stage = self._design.model(self._parameters, max(sigma_px, 0.1))
        return weight

    def _solve_once(self, spread: Array, weight: Array, stage_weight: Array) -> None:
        count, params = self._columns.shape
        self._stage_scale = np.sqrt(stage_weight) / np.hypot(self.stage.sigma_px, self._pose_sigma_px)
        right = np.zeros((count + params, 2))
        # each edge: place of j - place of i = shift, by its information
        self._information = np.linalg.inv(spread) * weight[:, None, None]
        told = np.einsum("eab,eb->ea", self._information, self._shift)
        np.add.at(right, self._j, told)
        np.add.at(right, self._i, -told)
        blocks = np.array([[1.0, -1.0], [-1.0, 1.0]])[:, :, None, None] * self._information[:, None, None]
        # each reading: place - columns @ parameters = base, along both axes
        square = self._stage_scale**2
        told = square[:, None] * self._design.base
        right[:count] += told
        right[count:] -= self._across @ told
        of_readings = np.repeat(square[:, None, None] * self._squares, 2)
        # the one before goes first: two would take twice the memory
        self._factor = None
        self._factor = self._normal.factor(np.concatenate([blocks.ravel(), of_readings, self._prior_squares]))
        solved = self._factor.solve(right.ravel()).reshape(-1, 2)
        self.places, self._parameters = solved[:count], solved[count:]
        self._modelled = self._design.base + self._columns @ self._parameters


class _Pattern:
    """Where a sparse symmetric matrix has its entries, the same in one solve after the other: sorted only once.

    rows, columns: of each entry; those of one place add up. full: rows that are full. They would fill all others, and are solved for after them
    (Schur's complement).
    """

    def __init__(self, rows: NDArray[np.int32], columns: NDArray[np.int32], full: slice) -> None:
        among = np.arange(int(rows.max()) + 1)
        self.full, self.sparse = among[full], np.delete(among, full)
        # the full ones last; numbers are small, as there are a hundred for each tile
        rank = np.argsort(np.concatenate([self.sparse, self.full])).astype(np.int32)
        row, column, inner = rank[rows], rank[columns], len(self.sparse)
        self._inner = (row < inner) & (column < inner)
        key = column[self._inner].astype(np.int64) * inner + row[self._inner]
        key, slot = np.unique(key, return_inverse=True)
        self._slot = slot.astype(np.int32)
        self._indices = (key % inner).astype(np.int32)
        self._starts = np.searchsorted(key, inner * np.arange(inner + 1)).astype(np.int32)
        self._outer = column >= inner
        self._at = row[self._outer].astype(np.int64) * len(self.full) + column[self._outer] - inner

    def factor(self, values: Array) -> _Factor:
        """Of the matrix with these entries, which is to be positive definite."""
        data = np.bincount(self._slot, values[self._inner])
        matrix = sp.csc_array((data, self._indices, self._starts), shape=(len(self.sparse),) * 2)
        size = len(self.sparse) + len(self.full), len(self.full)
        outer = np.bincount(self._at, values[self._outer], size[0] * size[1])
        return _Factor(self, matrix, np.asarray(outer.reshape(size), dtype=np.float64))


class _Factor:
    """A factored matrix: `matrix` of its sparse rows, and its full columns, of which the last rows are the full ones."""

    def __init__(self, pattern: _Pattern, matrix: sp.csc_array, full: Array) -> None:
        self._pattern = pattern
        self._border, corner = np.split(full, [len(pattern.sparse)])
        self._inner = splu(
            matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
        )
        self._filled = self._inner.solve(self._border)
        self._complement = corner - self._border.T @ self._filled

    def solve(self, right: Array) -> Array:
        """x, like `right` (n,) or (n, m), for which the matrix times x is `right`."""
        full, sparse = self._pattern.full, self._pattern.sparse
        found = np.empty_like(right)
        inner = self._inner.solve(right[sparse])
        found[full] = np.linalg.solve(self._complement, right[full] - self._border.T @ inner)
        found[sparse] = inner - self._filled @ found[full]
        return found
