"""How unevenly the field is lit, measured where tiles overlap: the same specimen, seen at two places of the sensor."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

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


class Shading:
    """Accumulates block by block; its memory does not grow.

    Model: log light = polynomial of total degree 4 in the place on the sensor, without constant. A block that tile i shows at p_i and
    tile j at p_j gives one equation: log mean_i - log mean_j = polynomial(p_i) - polynomial(p_j).
    """

    def __init__(self, shape: tuple[int, ...], encoding: Encoding) -> None:
        self._height, self._width = shape[:2]
        self._powers = [(a, n - a) for n in range(1, DEGREE + 1) for a in range(n + 1)]
        self._normal = np.zeros((len(self._powers),) * 2)
        self._right = np.zeros(len(self._powers))
        self._blocks, self._square = 0, 0.0
        self._encoding: Encoding = encoding

    @property
    def is_settled(self) -> bool:
        """Whether enough was seen; from then on `gain` stays what it is."""
        return self._blocks >= SETTLED_BLOCKS

    def add(self, a: Pixels, b: Pixels, shift: NDArray[np.float64]) -> None:
        """Compares the overlap of two grey tiles (H, W); b lies at `shift` (2,) px from a. Nothing more once it is settled."""
        if self.is_settled:
            return
        dy, dx = (round(float(d)) for d in shift)
        top, left = max(0, dy), max(0, dx)
        height, width = self._height - abs(dy), self._width - abs(dx)
        rows, columns = height // BLOCK_PX, width // BLOCK_PX
        if rows < 1 or columns < 1:
            return
        of_a = self._means(a[top : top + height, left : left + width], rows, columns)
        of_b = self._means(b[top - dy :, left - dx :][:height, :width], rows, columns)
        # blocks that are nearly black or burnt out do not follow the light
        low, high = 0.02, 0.97
        good = (np.minimum(of_a, of_b) > low) & (np.maximum(of_a, of_b) < high)
        y = top + (np.arange(rows) + 0.5) * height / rows
        x = left + (np.arange(columns) + 0.5) * width / columns
        yy, xx = (grid[good] for grid in np.meshgrid(y, x, indexing="ij"))
        rises = self._basis(yy, xx) - self._basis(yy - dy, xx - dx)
        ratio = np.log(of_a[good]) - np.log(of_b[good])
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
        explained = np.linalg.solve(self._normal + 1e-9 * np.eye(len(self._right)), self._right)
        noise = max((self._square - float(explained @ self._right)) / self._blocks, 1e-6)
        coefficients = np.linalg.solve(
            self._normal + noise / _SIGMA_LOG**2 * np.eye(len(self._right)), self._right
        )
        at = (np.arange(_GRID) + 0.5) / _GRID
        yy, xx = np.meshgrid(at * self._height, at * self._width, indexing="ij")
        gain = np.exp(-(self._basis(yy.ravel(), xx.ravel()) @ coefficients)).reshape(_GRID, _GRID)
        return np.asarray(gain / gain.mean(), dtype=np.float32)

    def _means(self, part: Pixels, rows: int, columns: int) -> NDArray[np.float64]:
        light = to_linear(part, self._encoding)
        return np.asarray(cv2.resize(light, (columns, rows), interpolation=cv2.INTER_AREA), dtype=np.float64)

    def _basis(self, y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, 14) of places (n,) in px from the upper left corner."""
        v, u = 2 * y / self._height - 1, 2 * x / self._width - 1
        return np.stack([v**a * u**b for a, b in self._powers], axis=-1)
