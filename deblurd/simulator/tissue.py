"""Generated tissue that looks like H&E: glands and vessels in collagen, part of the slide empty.

Any part can be made on its own, and parts fit together, because every structure is a function of its place and the seed.
Stains follow the law of Beer and Lambert with stain vectors near those of Ruifrok and Johnston (2001).
Lengths are micrometres; vectors are (y, x).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deblurd.frames import Pixels
from deblurd.simulator.nuclei import REACH_UM, Kind, Stamp, Stamps
from deblurd.simulator.places import Floats, Grid, Places, Points, hashed, scattered

EMPTY_GLASS = 244
"""Grey level of light that went through no tissue."""

_STAINS = np.array([[0.65, 0.13], [0.70, 0.92], [0.29, 0.31]]) * math.log(10)
"""Absorption of R, G, B (rows) by haematoxylin and eosin (columns)."""

_GLAND_CELL_UM = 115.0
_GLAND_REACH_UM = 95.0
_VESSEL_WALL_UM = 3.0
_FIBRES_PX = 1024
_WAVE_UM = 55.0
_FIBRE_ANGLE = 0.5


@dataclass(frozen=True, slots=True)
class _Gland:
    """An ellipse of epithelium, or of vessel wall, around a lumen. stretch: (2, 2), from um off the centre to units of the radius."""

    y_um: float
    x_um: float
    radius_um: float
    stretch: NDArray[np.float64]
    is_vessel: bool
    key: int

    @property
    def wall_um(self) -> float:
        return _VESSEL_WALL_UM if self.is_vessel else 15.0 + 8.0 * (self.key % 7) / 7

    def gives_way_to(self, other: _Gland) -> bool:
        apart = math.hypot(self.y_um - other.y_um, self.x_um - other.x_um)
        return self.radius_um < other.radius_um and apart < 1.06 * (self.radius_um + other.radius_um)

    def distance(self, y_um: Floats, x_um: Floats) -> Floats:
        """From the smooth outline, negative inside."""
        dy, dx = y_um - self.y_um, x_um - self.x_um
        s = self.stretch
        return np.asarray(
            (np.hypot(s[0, 0] * dy + s[0, 1] * dx, s[1, 0] * dy + s[1, 1] * dx) - 1) * self.radius_um
        )


class Tissue:
    """An image of H&E-like tissue that is made where it is read: see `deblurd.simulator.slide.Source`."""

    def __init__(self, shape: tuple[int, int], pixel_size_um: float, seed: int) -> None:
        """shape: (H, W) px."""
        self.shape = shape
        self._um = pixel_size_um
        self._seed = seed
        self._size_um = np.array(shape) * pixel_size_um
        self._stamps = Stamps(pixel_size_um, seed)
        self._fibres, self._grain = _textures(pixel_size_um, seed)

    def read(self, y0: int, x0: int, height: int, width: int) -> Pixels:
        """(height, width, 3) uint8 sRGB."""
        grid = Grid(y0, x0, height, width, self._um, self._seed)
        inside = self._inside(grid)
        if inside.max() < 0:
            return np.full((height, width, 3), EMPTY_GLASS, np.uint8)
        glands = self._glands(grid)
        stains = self._ground(grid, y0, x0, inside, glands)
        self._place_nuclei(grid, glands, stains)
        density = cv2.transform(cv2.merge([stains[0], stains[1]]), -_STAINS.astype(np.float32))
        light = np.asarray(cv2.exp(density))
        return np.asarray((light * np.float32(EMPTY_GLASS) + np.float32(0.5)).astype(np.uint8))

    # ---- where there is what

    def _inside(self, at: Places) -> Floats:
        """Distance from the ragged edge of the tissue, about, positive inside."""
        y, x = (at.y_um / self._size_um[0] - 0.5) / 0.46, (at.x_um / self._size_um[1] - 0.5) / 0.46
        size = float(self._size_um.min())
        edge = (1 - np.sqrt(np.sqrt(y**4 + x**4))) * 0.5 * size
        edge = edge + at.noise(size / 5, 1) * (0.055 * size) + at.noise(size / 14, 2) * (0.018 * size)
        tear = 150.0 * (1.75 - at.noise(330.0, 3))
        return np.asarray(np.minimum(edge, tear) + at.noise(40.0, 4) * 7.0 + at.noise(8.0, 5) * 1.6)

    def _ripple(self, at: Places) -> Floats:
        """What makes the outlines of glands uneven."""
        return np.asarray(at.noise(38.0, 6) * 4.5)

    def _glands(self, grid: Grid) -> list[_Gland]:
        at, y, x = scattered(grid, _GLAND_CELL_UM, 2.5 * _GLAND_REACH_UM, 20)
        crowd = at.noise(700.0, 7)
        u = [hashed(self._seed, 30 + i, y, x) for i in range(5)]
        glands = []
        for i in np.flatnonzero((u[0] < 0.62 + 0.3 * crowd) & (self._inside(at) > 25)):
            vessel = bool(u[1][i] < 0.2)
            radius = 13 + 14 * u[2][i] if vessel else 38 + 26 * u[2][i]
            long = math.sqrt(1 + 0.55 * u[3][i])
            angle = math.pi * u[4][i]
            c, s = math.cos(angle), math.sin(angle)
            stretch = np.array([[c / long, -s / long], [s * long, c * long]]) / radius
            key = int(y[i]) * 1_000_003 + int(x[i])
            glands.append(_Gland(at.y_um[i], at.x_um[i], radius, stretch, vessel, key))
        # of two that touch the smaller gives way, whatever becomes of the larger: so the outcome depends on near neighbours only
        seen = [g for g in glands if _window(grid, g, _GLAND_REACH_UM + REACH_UM) is not None]
        return [a for a in seen if not any(a.gives_way_to(b) for b in glands)]

    # ---- what it is made of

    def _ground(
        self, grid: Grid, y0: int, x0: int, inside: Floats, glands: list[_Gland]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Haematoxylin and eosin without nuclei and blood, (h, w) float32 each."""
        shape = inside.shape
        u, v = self._fibre_coordinates(grid)
        n = _FIBRES_PX
        thin, bundles = cv2.split(
            cv2.remap(
                self._fibres,
                (u / self._um % n).astype(np.float32),
                (v / self._um % n).astype(np.float32),
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_WRAP,
            )
        )
        grain = np.take(
            np.take(self._grain, np.arange(y0, y0 + shape[0]) % n, axis=0),
            np.arange(x0, x0 + shape[1]) % n,
            axis=1,
        )
        loose = (0.75 + 0.25 * np.tanh(grid.noise(180.0, 8))).astype(np.float32)
        cleft = np.clip(1.25 + bundles * 1.1, 0.12, 1.0)
        eosin = np.maximum(0.24 + 0.075 * thin + 0.05 * bundles, 0.02) * cleft * loose
        haematoxylin = np.maximum(0.03 + 0.012 * thin, 0)
        ripple = self._ripple(grid).astype(np.float32)
        fringe = (grid.noise(10.0, 15) * 5.0).astype(np.float32)
        mottle = (grid.noise(2.2, 9) * 0.5 + grain).astype(np.float32)
        for gland in glands:
            window = _window(grid, gland, _GLAND_REACH_UM)
            if window is None:
                continue
            d = gland.distance(grid.y_um[window[0]], grid.x_um[:, window[1]]).astype(np.float32)
            d += ripple[window]
            depth = np.clip(-d / gland.wall_um, 0, 1)
            wall = np.clip(0.5 - d / self._um, 0, 1)
            lumen = np.clip(0.5 - (d + gland.wall_um + 0.35 * fringe[window]) / self._um, 0, 1)
            m = mottle[window]
            if gland.is_vessel:
                flesh_e, flesh_h = 0.30 + 0.03 * m, 0.05 + 0.02 * m
            else:
                flesh_e, flesh_h = 0.20 + 0.03 * m - 0.06 * depth, 0.13 + 0.035 * m - 0.05 * depth
            e, h = eosin[window], haematoxylin[window]
            e += wall * (flesh_e - e)
            h += wall * (flesh_h - h)
            membrane = np.exp(-(((d - 1.0) / 0.9) ** 2)) * 0.12
            e += membrane
            e *= 1 - lumen * 0.985
            h *= 1 - lumen * 0.985
        cover = np.clip(inside / 1.2, 0, 1).astype(np.float32)
        rim = 1 + 0.45 * np.exp(-np.clip(inside, 0, 60) / 5).astype(np.float32)  # stain gathers at edges
        cover *= rim * (1 + 0.05 * grain)
        eosin *= cover
        haematoxylin *= cover
        return np.ascontiguousarray(haematoxylin, np.float32), np.ascontiguousarray(eosin, np.float32)

    def _fibre_coordinates(self, at: Places) -> tuple[Floats, Floats]:
        """Along and across the wavy fibres, um."""
        c, s = math.cos(_FIBRE_ANGLE), math.sin(_FIBRE_ANGLE)
        u = c * at.x_um + s * at.y_um + _WAVE_UM * at.noise(160.0, 10)
        v = c * at.y_um - s * at.x_um + _WAVE_UM * at.noise(160.0, 11) + 9.0 * at.noise(42.0, 12)
        return u, v

    def _fibre_angle(self, at: Points) -> Floats:
        """Direction (n,) of the fibres, radians from x towards y."""
        here = self._fibre_coordinates(at)[1]
        along_x = self._fibre_coordinates(Points(at.y_um, at.x_um + 1, at.seed))[1] - here
        along_y = self._fibre_coordinates(Points(at.y_um + 1, at.x_um, at.seed))[1] - here
        return np.arctan2(-along_x, along_y)

    def _distance(self, at: Points, glands: list[_Gland]) -> Floats:
        """From the outline of the nearest gland, negative inside."""
        nearest = np.full(at.y_um.shape, np.inf)
        for gland in glands:
            nearest = np.minimum(nearest, gland.distance(at.y_um, at.x_um))
        return nearest + self._ripple(at)

    # ---- nuclei and blood

    def _place_nuclei(
        self, grid: Grid, glands: list[_Gland], stains: tuple[NDArray[np.float32], NDArray[np.float32]]
    ) -> None:
        haematoxylin, eosin = stains
        at, y, x = scattered(grid, 11.5, REACH_UM, 40)
        at = at.where(hashed(self._seed, 42, y, x) < 0.34 + 0.12 * at.noise(120.0, 13))
        at = at.where((self._distance(at, glands) > 4) & (self._inside(at) > 4))
        self._stamps.put(haematoxylin, grid, at, "spindle", self._fibre_angle(at))

        at, _, _ = scattered(grid, 6.8, REACH_UM, 44)
        at = at.where(at.noise(75.0, 14) > 1.35)
        at = at.where((self._distance(at, glands) > 4) & (self._inside(at) > 4))
        self._stamps.put(haematoxylin, grid, at, "lymphocyte")

        vessels = [g for g in glands if g.is_vessel]
        at, y, x = scattered(grid, 5.6, REACH_UM, 60)
        at = at.where(hashed(self._seed, 62, y, x) < 0.75)
        at = at.where(self._distance(at, vessels) < -_VESSEL_WALL_UM - 2.5)
        self._stamps.put(eosin, grid, at.where(self._inside(at) > 4), "red cell")

        self._line(grid, glands, vessels, "spindle", haematoxylin)
        self._line(grid, glands, [g for g in glands if not g.is_vessel], "columnar", haematoxylin)

    def _line(
        self, grid: Grid, glands: list[_Gland], lined: list[_Gland], kind: Kind, haematoxylin: Stamp
    ) -> None:
        """Nuclei along the walls of the glands `lined`: columnar ones across the wall, in rows; spindles along it."""
        if not lined:
            return
        centre, rim, outward, depth, tilt = (
            np.concatenate(part) for part in zip(*(self._wall(g, kind) for g in lined), strict=True)
        )
        near = np.abs(centre + rim - grid.centre_um).max(axis=1) < grid.reach_um + 3 * REACH_UM
        centre, rim, outward, depth, tilt = (part[near] for part in (centre, rim, outward, depth, tilt))
        place = centre + rim
        for _ in range(2):  # walk to the wanted depth below the uneven outline
            at = Points(place[:, 0], place[:, 1], self._seed)
            place = place - outward * (self._distance(at, lined) + depth)[:, None]
        at = Points(place[:, 0], place[:, 1], self._seed)
        keep = (np.abs(self._distance(at, glands) + depth) < 2.5) & (self._inside(at) > 4)
        direction = np.arctan2(outward[:, 0], outward[:, 1]) + tilt
        self._stamps.put(haematoxylin, grid, at.where(keep), kind, direction[keep])

    def _wall(self, gland: _Gland, kind: Kind) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        """Candidates for nuclei: centre, outline seen from there, outward normal, (n, 2); depth and tilt, (n,)."""
        spacing_um = 16.0 if kind == "spindle" else 4.9
        count = max(6, int(2 * math.pi * gland.radius_um / spacing_um))
        i = np.arange(count)
        u = [hashed(self._seed, 50 + j, np.full(count, gland.key), i) for j in range(3)]
        angle = 2 * math.pi * (i + 0.7 * u[0]) / count
        rim = np.stack([np.sin(angle), np.cos(angle)], axis=1) @ np.linalg.inv(gland.stretch).T
        outward = rim / np.linalg.norm(rim, axis=1, keepdims=True)
        centre = np.broadcast_to([gland.y_um, gland.x_um], rim.shape)
        if kind == "spindle":
            return centre, rim, outward, np.full(count, 1.2), np.full(count, math.pi / 2)
        second_row = u[2] < 0.28
        return centre, rim, outward, 5.5 + 2.5 * u[1] + 5.0 * second_row, 0.5 * (u[1] - 0.5)


def _window(grid: Grid, gland: _Gland, reach_um: float) -> tuple[slice, slice] | None:
    """The part of the grid within reach of the gland."""
    slices = []
    for at, centre in ((grid.y_um[:, 0], gland.y_um), (grid.x_um[0], gland.x_um)):
        first, last = np.searchsorted(at, [centre - reach_um, centre + reach_um])
        if last <= first:
            return None
        slices.append(slice(int(first), int(last)))
    return slices[0], slices[1]


def _textures(pixel_um: float, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Fibres along x, thin and in bundles, (n, n, 2), and grain (n, n): periodic, mean 0, standard deviation 1."""
    n = _FIBRES_PX
    rng = np.random.default_rng([seed, 0xF1B])
    fy, fx = np.fft.fftfreq(n)[:, None] / pixel_um, np.fft.rfftfreq(n)[None, :] / pixel_um

    def shaped(along_um: float, across_um: float) -> NDArray[np.float32]:
        white = np.fft.rfft2(rng.standard_normal((n, n)))
        texture = np.fft.irfft2(
            white * np.exp(-2 * math.pi**2 * ((fx * along_um) ** 2 + (fy * across_um) ** 2)), (n, n)
        )
        return np.asarray(texture / texture.std(), dtype=np.float32)

    fine = max(0.45, 0.5 * pixel_um)
    return np.stack([shaped(9.0, fine), shaped(32.0, 2.6)], axis=2), shaped(0.5 * pixel_um, 0.5 * pixel_um)
