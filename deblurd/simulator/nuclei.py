"""Nuclei and red cells: drawn once in some shapes and directions, then stamped."""

from __future__ import annotations

import math
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from deblurd.simulator.places import Floats, Grid, Points, hashed

Kind = Literal["columnar", "spindle", "lymphocyte", "red cell"]

REACH_UM = 8.0
"""No stamp reaches farther than this from its centre."""

_HALF_AXES_UM: dict[Kind, tuple[float, float]] = {
    "columnar": (4.7, 2.7),
    "spindle": (6.0, 1.5),
    "lymphocyte": (2.7, 2.6),
    "red cell": (3.0, 2.8),
}
_DENSITY: dict[Kind, float] = {"columnar": 0.62, "spindle": 0.68, "lymphocyte": 0.95, "red cell": 0.42}
_DIRECTIONS = 24
_VARIANTS = 8

Stamp = NDArray[np.float32]


class Stamps:
    """The stamps of one pixel size."""

    def __init__(self, pixel_um: float, seed: int) -> None:
        self._um = pixel_um
        rng = np.random.default_rng([seed, 0x5CE11])
        self._stamps: dict[Kind, list[list[Stamp]]] = {}
        for kind in _HALF_AXES_UM:
            variants = [self._shape(kind, rng) for _ in range(_VARIANTS)]
            self._stamps[kind] = [
                [self._draw(kind, *variant, math.pi * i / _DIRECTIONS) for variant in variants]
                for i in range(_DIRECTIONS)
            ]

    def put(self, stain: Stamp, grid: Grid, at: Points, kind: Kind, direction: Floats | float = 0.0) -> None:
        """Stamps into `stain` (h, w), the pixels of `grid`; the darker of two overlapping stamps stays. direction: (n,), radians from x towards y."""
        height, width = stain.shape
        rows = np.rint((at.y_um - grid.y_um[0, 0]) / self._um).astype(int)
        columns = np.rint((at.x_um - grid.x_um[0, 0]) / self._um).astype(int)
        turns = np.broadcast_to(np.rint(np.asarray(direction) / math.pi * _DIRECTIONS), rows.shape)
        which = turns.astype(int) % _DIRECTIONS
        at_hash = np.rint(at.y_um * 16).astype(np.int64), np.rint(at.x_um * 16).astype(np.int64)
        variant = (hashed(at.seed, 70, *at_hash) * _VARIANTS).astype(int)
        strength = (0.8 + 0.4 * hashed(at.seed, 71, *at_hash)).astype(np.float32)
        stamps = self._stamps[kind]
        reach = stamps[0][0].shape[0] // 2
        for y, x, w, v, s in zip(rows, columns, which, variant, strength, strict=True):
            top, left, bottom, right = y - reach, x - reach, y + reach + 1, x + reach + 1
            if bottom <= 0 or right <= 0 or top >= height or left >= width:
                continue
            stamp = stamps[w][v]
            if top < 0 or left < 0 or bottom > height or right > width:
                stamp = stamp[max(-top, 0) : height - top, max(-left, 0) : width - left]
                top, left = max(top, 0), max(left, 0)
            part = stain[top:bottom, left:right]
            np.maximum(part, stamp * s, out=part)

    def _shape(self, kind: Kind, rng: np.random.Generator) -> tuple[float, float, Floats, Stamp]:
        """Half axes, unevenness of the outline (phase and height of 3 waves), chromatin as a square of noise."""
        a, b = (half * rng.uniform(0.82, 1.18) for half in _HALF_AXES_UM[kind])
        waves = np.stack(
            [rng.uniform(0, 2 * math.pi, 3), rng.uniform(0, 0.03 if kind == "red cell" else 0.075, 3)]
        )
        n = 2 * math.ceil(REACH_UM / self._um) + 1
        noise = rng.standard_normal((n, n)).astype(np.float32)
        clumps = cv2.GaussianBlur(noise, (0, 0), max(0.42 / self._um, 0.45))
        clumps = clumps / clumps.std()
        coarse = cv2.GaussianBlur(noise[::-1], (0, 0), 0.9 / self._um)
        return a, b, waves, (0.7 * clumps + 0.5 * coarse / coarse.std()).astype(np.float32)

    def _draw(self, kind: Kind, a: float, b: float, waves: Floats, clumps: Stamp, angle: float) -> Stamp:
        reach = math.ceil(min(max(a, b) * 1.3, REACH_UM) / self._um)
        y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1] * self._um
        u = math.cos(angle) * x + math.sin(angle) * y
        v = math.cos(angle) * y - math.sin(angle) * x
        polar = np.arctan2(v / b, u / a)
        radius = np.hypot(u / a, v / b)
        outline = 1 + sum(h * np.cos((k + 2) * polar + p) for k, (p, h) in enumerate(waves.T))
        inward = (outline - radius) * b  # um below the outline, about
        body = np.clip(0.5 + inward / self._um, 0, 1)
        density = _DENSITY[kind]
        if kind == "red cell":
            inner = 1 - 0.3 * np.exp(-((radius / 0.45) ** 2))  # paler in the middle
        else:
            c = (clumps.shape[0] - 1) // 2 - reach
            chromatin = clumps[c : c + 2 * reach + 1, c : c + 2 * reach + 1]
            membrane = 0.32 * np.exp(-((np.maximum(inward - 0.3, 0) / 0.45) ** 2))
            vesicular = 0.12 if kind == "columnar" else 0.0
            inner = np.clip(0.85 - vesicular + 0.22 * chromatin + membrane, 0.3, 1.7)
        size = math.ceil(REACH_UM / self._um)
        stamp = np.zeros((2 * size + 1, 2 * size + 1), np.float32)
        stamp[size - reach : size + reach + 1, size - reach : size + reach + 1] = body * inner * density
        return stamp
