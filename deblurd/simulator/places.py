"""Random numbers and smooth random fields that are functions of their place on the slide, in micrometres."""

from __future__ import annotations

import math
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.int64]


def hashed(seed: int, key: int, *coordinates: Integers) -> Floats:
    """Uniform in [0, 1), one for each lattice point; SplitMix64 (Steele et al. 2014) over seed, key and coordinates."""
    h = np.uint64((seed * 0x9E3779B97F4A7C15 + key * 0xD1B54A32D192ED03) & 0xFFFFFFFFFFFFFFFF)
    out: NDArray[np.uint64] = np.array(h)
    for c in coordinates:
        out = (out ^ c.astype(np.uint64)) * np.uint64(0xBF58476D1CE4E5B9)
        out = (out ^ (out >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        out = out ^ (out >> np.uint64(31))
    return (out >> np.uint64(11)) * 2.0**-53


def _spline(t: Floats) -> Floats:
    """Weights (n, 4) of the four lattice points around the fractions t (n,): the uniform cubic B-spline."""
    return (
        np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1) / 6
    )


_TO_UNIT = 3.6
"""Smoothing a uniform lattice by the spline leaves a standard deviation of 0.28; about this much more makes it 1."""


_COARSE_PX = 8


class Places(Protocol):
    """Where a field is wanted. y_um and x_um broadcast to the shape of what `noise` gives."""

    y_um: Floats
    x_um: Floats
    seed: int

    def noise(self, scale_um: float, key: int) -> Floats:
        """A smooth field with a standard deviation of about 1 and grains of about `scale_um`."""


class Grid:
    """The pixels of a rectangle: y_um is (h, 1), x_um is (1, w)."""

    def __init__(self, y0: int, x0: int, height: int, width: int, pixel_um: float, seed: int) -> None:
        self.y_um = (np.arange(y0, y0 + height) * pixel_um)[:, None]
        self.x_um = (np.arange(x0, x0 + width) * pixel_um)[None, :]
        self.seed = seed
        self._pixel_um = pixel_um
        self._first_px, self._size_px = np.array([y0, x0]), (height, width)

    @property
    def centre_um(self) -> Floats:
        """(2,), (y, x)."""
        return np.array([self.y_um[[0, -1], 0].mean(), self.x_um[0, [0, -1]].mean()])

    @property
    def reach_um(self) -> float:
        """From the centre to the farther edge, along an axis."""
        return float(max(np.ptp(self.y_um), np.ptp(self.x_um)) / 2)

    def noise(self, scale_um: float, key: int) -> Floats:
        if scale_um < _COARSE_PX * 5 * self._pixel_um:
            return self._noise(self.y_um[:, 0], self.x_um[0], scale_um, key)
        # smooth over many pixels: the spline on a coarse grid, fixed to the slide, and straight lines between
        first, size = self._first_px // _COARSE_PX - 1, self._size_px
        y_um, x_um = (
            (np.arange(f, f + n // _COARSE_PX + 4) * _COARSE_PX + (_COARSE_PX - 1) / 2) * self._pixel_um
            for f, n in zip(first, size, strict=True)
        )
        coarse = self._noise(y_um, x_um, scale_um, key)
        fine = cv2.resize(coarse, None, fx=_COARSE_PX, fy=_COARSE_PX, interpolation=cv2.INTER_LINEAR)
        top, left = self._first_px - first * _COARSE_PX
        return np.asarray(fine, np.float32)[top : top + size[0], left : left + size[1]]

    def _noise(self, y_um: Floats, x_um: Floats, scale_um: float, key: int) -> NDArray[np.float32]:
        first_y, rows, weights_y = self._around(y_um, scale_um)
        first_x, columns, weights_x = self._around(x_um, scale_um)
        y = np.arange(first_y, first_y + int(rows[-1]) + 4)[:, None]
        x = np.arange(first_x, first_x + int(columns[-1]) + 4)[None, :]
        lattice = ((hashed(self.seed, key, y, x) * 2 - 1) * _TO_UNIT).astype(np.float32)
        # four taps along x, then along y: a matrix product would wake the threads of BLAS
        along = lattice[:, columns] * weights_x[:, 0]
        for i in (1, 2, 3):
            along += lattice[:, columns + i] * weights_x[:, i]
        out = along[rows] * weights_y[:, 0, None]
        for i in (1, 2, 3):
            out += along[rows + i] * weights_y[:, i, None]
        return out

    @staticmethod
    def _around(at_um: Floats, scale_um: float) -> tuple[int, Integers, NDArray[np.float32]]:
        """First lattice point in use; for each place, its four lattice points' first (counted from there) and their weights."""
        place = at_um / scale_um
        whole = np.floor(place).astype(np.int64)
        return int(whole[0]) - 1, whole - whole[0], _spline(place - whole).astype(np.float32)


class Points:
    """Single places: y_um and x_um are (n,)."""

    def __init__(self, y_um: Floats, x_um: Floats, seed: int) -> None:
        self.y_um, self.x_um, self.seed = y_um, x_um, seed

    def where(self, keep: NDArray[np.bool_]) -> Points:
        return Points(self.y_um[keep], self.x_um[keep], self.seed)

    def noise(self, scale_um: float, key: int) -> Floats:
        y, x = self.y_um / scale_um, self.x_um / scale_um
        whole_y, whole_x = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
        around = np.arange(-1, 3)
        lattice = hashed(
            self.seed, key, whole_y[:, None, None] + around[:, None], whole_x[:, None, None] + around
        )
        weighted = np.einsum("ni,nij,nj->n", _spline(y - whole_y), lattice * 2 - 1, _spline(x - whole_x))
        return np.asarray(weighted * _TO_UNIT)


def scattered(grid: Grid, spacing_um: float, margin_um: float, key: int) -> tuple[Points, Integers, Integers]:
    """One place in each cell of a lattice, shaken, that lies within `margin_um` of the grid; and the cells (n,), y and x."""
    cells_y, cells_x = np.meshgrid(
        np.arange(
            math.floor((grid.y_um[0, 0] - margin_um) / spacing_um),
            math.ceil((grid.y_um[-1, 0] + margin_um) / spacing_um) + 1,
        ),
        np.arange(
            math.floor((grid.x_um[0, 0] - margin_um) / spacing_um),
            math.ceil((grid.x_um[0, -1] + margin_um) / spacing_um) + 1,
        ),
        indexing="ij",
    )
    y, x = cells_y.ravel(), cells_x.ravel()
    shake_y, shake_x = hashed(grid.seed, key, y, x), hashed(grid.seed, key + 1, y, x)
    shift = 0.5 * (y % 2 == 1)  # brick-wise, so that no rows show
    at = Points(
        (y + 0.2 + 0.6 * shake_y) * spacing_um, (x + shift + 0.2 + 0.6 * shake_x) * spacing_um, grid.seed
    )
    return at, y, x
