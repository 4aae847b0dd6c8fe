"""The plane in which the slide is in focus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from shapely.geometry.base import BaseGeometry

from deblurd.errors import ConfigError
from deblurd.scan.lane import Point


@dataclass(frozen=True, slots=True)
class FocusPlane:
    """Height of the focus drive, um: ``z + dz_dy * y + dz_dx * x`` at the stage's (y, x) um."""

    z_um: float
    dz_dy: float
    dz_dx: float

    @classmethod
    def through(cls, points_um: Sequence[tuple[float, float, float]]) -> FocusPlane:
        """By least squares through three and more (x, y, z). Raises ConfigError where they do not span a plane."""
        points = np.array(points_um, dtype=np.float64).reshape(-1, 3)
        flat = points[:, :2] - points[:, :2].mean(axis=0)
        if len(points) < 3 or np.linalg.matrix_rank(flat, tol=1e-3 * max(float(np.abs(flat).max()), 1.0)) < 2:
            raise ConfigError(
                "scan.focus_points_um span no plane, because there are fewer than three of them, or they lie on one line: focus at three "
                "corners of the area"
            )
        # about their middle, where the heights are known best
        terms = np.column_stack([np.ones(len(points)), flat])
        height, dz_dx, dz_dy = np.linalg.lstsq(terms, points[:, 2], rcond=None)[0]
        x, y = points[:, :2].mean(axis=0)
        return cls(float(height - dz_dx * x - dz_dy * y), float(dz_dy), float(dz_dx))

    def __call__(self, at_um: Point) -> float:
        return self.z_um + self.dz_dy * at_um[0] + self.dz_dx * at_um[1]


def three_places(area: BaseGeometry) -> list[Point]:
    """Places (y, x) far apart within `area`, which is in (x, y): where to focus."""
    x_min, y_min, x_max, y_max = area.bounds
    within = area.representative_point()
    places: list[Point] = []
    for x, y in ((x_min, y_min), (x_max, y_min), ((x_min + x_max) / 2, y_max)):
        # two thirds of the way out, or as far as there is area
        for share in (0.67, 0.5, 0.33):
            at = within.x + share * (x - within.x), within.y + share * (y - within.y)
            if area.intersects(type(within)(at)):
                places.append((at[1], at[0]))
                break
    return places
