"""How unevenly the field is lit, and how unlike each other the exposures are, measured where tiles overlap: the same specimen, seen twice."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import splu

from deblurd.frames import Encoding, Pixels
from deblurd.light import to_linear

BLOCK_PX = 32
"""Light is compared in blocks of about this size: their means hardly depend on a fraction of a pixel."""

DEGREE = 4
MIN_BLOCKS = 300
"""Fewer compared blocks say nothing that is worth correcting."""

SETTLED_BLOCKS = 6000
"""More change little: the correction then stands, so that what is painted stays painted."""

_SIGMA_LOG = 0.3
"""How large the coefficients of the logarithm of the light may be expected to be: a weak prior."""

_GRID = 32

LIGHT_STEP = 0.004
"""Exposures are evened in steps of so much: under a steady lamp nothing is done at all, and nothing is painted again."""

_LIGHT_SIGMA = 0.05
"""How much brighter a tile may be expected to be than the mean, in logarithms."""

_BLOCK_SIGMA, _PAIR_SIGMA = 0.02, 0.003
"""What the ratio of one block, and of a whole overlap, is wrong by."""

_LEAST_PAIR_BLOCKS = 3


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """The overlap of tiles i and j: log of the light of i over that of j, what the field's own unevenness has in it per coefficient, and blocks."""

    i: int
    j: int
    ratio: float
    rises: NDArray[np.float64]
    blocks: int


class Shading:
    """Accumulates block by block, and keeps a few numbers of each overlap.

    Model: log light = polynomial of total degree 4 in the place on the sensor, without constant. A block that tile i shows at p_i and
    tile j at p_j gives one equation: log mean_i - log mean_j = polynomial(p_i) - polynomial(p_j). What an overlap as a whole is off by is the exposures'.
    """

    def __init__(self, shape: tuple[int, ...], encoding: Encoding) -> None:
        self._height, self._width = shape[:2]
        self._powers = [(a, n - a) for n in range(1, DEGREE + 1) for a in range(n + 1)]
        self._normal = np.zeros((len(self._powers),) * 2)
        self._right = np.zeros(len(self._powers))
        self._blocks, self._square = 0, 0.0
        self._encoding: Encoding = encoding
        self._pairs: list[_Pair] = []
        self._exposures_ms: dict[int, float] = {}

    @property
    def is_settled(self) -> bool:
        """Whether enough was seen; from then on `gain` stays what it is."""
        return self._blocks >= SETTLED_BLOCKS

    def expose(self, tile: int, exposure_ms: float) -> None:
        """How long a tile was exposed: light goes with it, and what is left is the lamp's. Before its overlaps."""
        if exposure_ms > 0:
            self._exposures_ms[tile] = exposure_ms

    def add(self, i: int, j: int, a: Pixels, b: Pixels, shift: NDArray[np.float64]) -> None:
        """Compares the overlap of two grey tiles (H, W), numbers i and j; b lies at `shift` (2,) px from a."""
        dy, dx = (round(float(d)) for d in shift)
        top, left = max(0, dy), max(0, dx)
        height, width = self._height - abs(dy), self._width - abs(dx)
        rows, columns = height // BLOCK_PX, width // BLOCK_PX
        if rows < 1 or columns < 1:
            return
        # blocks of whole pixels: means over parts of pixels take twenty times as long
        height, width = height // rows * rows, width // columns * columns
        of_a = self._means(a[top : top + height, left : left + width], rows, columns)
        of_b = self._means(b[top - dy :, left - dx :][:height, :width], rows, columns)
        # blocks that are nearly black or burnt out do not follow the light
        low, high = 0.02, 0.97
        good = (np.minimum(of_a, of_b) > low) & (np.maximum(of_a, of_b) < high)
        y = top + (np.arange(rows) + 0.5) * height / rows
        x = left + (np.arange(columns) + 0.5) * width / columns
        yy, xx = (grid[good] for grid in np.meshgrid(y, x, indexing="ij"))
        rises = self._basis(yy, xx) - self._basis(yy - dy, xx - dx)
        told = self._exposures_ms.get(i, 1.0) / self._exposures_ms.get(j, 1.0)
        ratio = np.log(of_a[good]) - np.log(of_b[good]) - np.log(told)
        if len(ratio) >= _LEAST_PAIR_BLOCKS:
            self._pairs.append(_Pair(i, j, float(np.median(ratio)), rises.mean(axis=0), len(ratio)))
        if self.is_settled:
            return
        # blocks that differ for another reason (dirt, a wrong match, light that jumped) have little say
        weight = 1.0 / (1.0 + (ratio / 0.3) ** 2)
        self._normal += (rises * weight[:, None]).T @ rises
        self._right += (rises * weight[:, None]).T @ ratio
        self._square += float(weight @ ratio**2)
        self._blocks += len(ratio)

    def gain(self) -> NDArray[np.float32] | None:
        """(32, 32) float32 factors over the field, of mean 1, that even linear light out; None with too little to go by."""
        if self._blocks < MIN_BLOCKS:
            return None
        coefficients = self._coefficients()
        at = (np.arange(_GRID) + 0.5) / _GRID
        yy, xx = np.meshgrid(at * self._height, at * self._width, indexing="ij")
        gain = np.exp(-(self._basis(yy.ravel(), xx.ravel()) @ coefficients)).reshape(_GRID, _GRID)
        return np.asarray(gain / gain.mean(), dtype=np.float32)

    def lights(self) -> dict[int, float]:
        """Factors that even the exposures out, up to the longest, in linear light; tiles that need none are left out."""
        longest_ms = max(self._exposures_ms.values(), default=0.0)
        told = {tile: longest_ms / ms for tile, ms in self._exposures_ms.items() if ms != longest_ms}
        lamp = self._lamp()
        return {tile: told.get(tile, 1.0) * lamp.get(tile, 1.0) for tile in sorted(told.keys() | lamp.keys())}

    def _lamp(self) -> dict[int, float]:
        """Besides: least squares over all overlaps, reweighted (Cauchy), drawn to 1."""
        if not self._pairs:
            return {}
        tiles = sorted({n for pair in self._pairs for n in (pair.i, pair.j)})
        row = {tile: n for n, tile in enumerate(tiles)}
        i, j = (np.array([row[getattr(pair, end)] for pair in self._pairs]) for end in ("i", "j"))
        told = np.array([pair.ratio for pair in self._pairs])
        if self._blocks >= MIN_BLOCKS:
            told -= np.array([pair.rises for pair in self._pairs]) @ self._coefficients()
        variance = _BLOCK_SIGMA**2 / np.array([pair.blocks for pair in self._pairs]) + _PAIR_SIGMA**2
        weight, count = 1 / variance, len(tiles)
        for _ in range(3):
            graph = sp.coo_array((weight, (i, j)), shape=(count, count))
            both = sp.csc_array(graph + graph.T)
            normal = sp.diags_array(both.sum(axis=0) + _LIGHT_SIGMA**-2) - both
            right = np.bincount(i, weight * told, count) - np.bincount(j, weight * told, count)
            light = splu(sp.csc_array(normal)).solve(right)
            off = light[i] - light[j] - told
            weight = 1 / (variance * (1 + off**2 / (9 * variance)))
        steps = np.round((light - np.median(light)) / LIGHT_STEP)
        return {tile: float(np.exp(-LIGHT_STEP * n)) for tile, n in zip(tiles, steps, strict=True) if n}

    def _coefficients(self) -> NDArray[np.float64]:
        """Of the polynomial, as far as they are known."""
        explained = np.linalg.solve(self._normal + 1e-9 * np.eye(len(self._right)), self._right)
        noise = max((self._square - float(explained @ self._right)) / self._blocks, 1e-6)
        weak = self._normal + noise / _SIGMA_LOG**2 * np.eye(len(self._right))
        return np.asarray(np.linalg.solve(weak, self._right), dtype=np.float64)

    def _means(self, part: Pixels, rows: int, columns: int) -> NDArray[np.float64]:
        light = to_linear(part, self._encoding)
        return np.asarray(cv2.resize(light, (columns, rows), interpolation=cv2.INTER_AREA), dtype=np.float64)

    def _basis(self, y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, 14) of places (n,) in px from the upper left corner."""
        v, u = 2 * y / self._height - 1, 2 * x / self._width - 1
        return np.stack([v**a * u**b for a, b in self._powers], axis=-1)
