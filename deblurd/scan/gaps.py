"""What a scan left out: where to go back to at its end."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from deblurd.scan.lane import Point

_PER_FIELD = 16
_MARGIN = 0.1
"""Of a field: so near to the border of the area nothing is gone back to."""

_WORTH_IT = 0.005
"""Of a field: what is smaller is left to the overlap."""

SEEN_WELL = 2
"""The grade from which ground counts as seen."""


def gaps(
    area: BaseGeometry,
    fov_um: tuple[float, float],
    grades_at: Callable[[NDArray[np.float64]], NDArray[np.uint8]],
) -> list[Point]:
    """Middles (y, x) of fields that together show all of `area` that no tile shows well, each next to the one before.

    area: in (x, y) um. fov_um: height, width of a field. grades_at: of places (n, 2), (y, x) um, as of `Tracker`.
    """
    size_um = np.array(fov_um)
    inner = area.buffer(-_MARGIN * float(size_um.min()))
    if inner.is_empty:
        inner = area
    x_min, y_min, x_max, y_max = inner.bounds
    step_um = float(size_um.min()) / _PER_FIELD
    y, x = (np.arange(low + step_um / 2, high, step_um) for low, high in ((y_min, y_max), (x_min, x_max)))
    places = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1).reshape(-1, 2)
    if len(places) == 0:
        return []
    places = places[shapely.contains_xy(inner, places[:, 1], places[:, 0])]
    left = places[grades_at(places) < SEEN_WELL]
    fields: list[Point] = []
    while len(left):
        # the first of what is left, in reading order, lies in the upper left of its field
        corner = left[0]
        reach = (1 - 2 * _MARGIN) * size_um
        near = (left[:, 0] < corner[0] + reach[0]) & (np.abs(left[:, 1] - corner[1]) < reach[1])
        x_low = left[near, 1].min()
        inside = (left[:, 0] < corner[0] + reach[0]) & (left[:, 1] < x_low + reach[1]) & (left[:, 1] >= x_low)
        group = left[inside]
        if len(group) * step_um**2 > _WORTH_IT * float(size_um.prod()):
            middle = (group.min(axis=0) + group.max(axis=0)) / 2
            fields.append((float(middle[0]), float(middle[1])))
        left = left[~inside]
    return _in_turn(fields)


def _in_turn(fields: list[Point]) -> list[Point]:
    """Each time the nearest of those that are left."""
    left, turn = np.array(fields).reshape(-1, 2), []
    at = left[0] if len(left) else np.zeros(2)
    while len(left):
        nearest = int(np.argmin(((left - at) ** 2).sum(axis=1)))
        at = left[nearest]
        turn.append((float(at[0]), float(at[1])))
        left = np.delete(left, nearest, axis=0)
    return turn
