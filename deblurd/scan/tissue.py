"""Scanning until there is no more tissue: fields with tissue, fields without, and the border between the known and the unknown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from deblurd.deblur.gate import is_blank
from deblurd.deblur.noise import noise_sigma
from deblurd.frames import Encoding, Pixels
from deblurd.light import luminance_of, to_linear
from deblurd.scan.lane import Lane, Point

Field = tuple[int, int]

_FARTHEST_UM = 30_000.0
"""Without limits of the stage a lane over tissue is no longer than that: no slide is wider."""


class TissueMap:
    """Which fields of a grid hold tissue, by the frames that were taken over them.

    start_um: (y, x) middle of the first field. fov_um: height, width of a field; neighbours share `overlap` of it. encoding: of the frames.
    `see` is called by one thread, the rest by any.
    """

    def __init__(
        self, start_um: Point, fov_um: tuple[float, float], overlap: float, encoding: Encoding
    ) -> None:
        self._start, self._fov_um = np.array(start_um), fov_um
        self._step = np.array(fov_um) * (1 - overlap)
        self._encoding = encoding
        self._seen: dict[Field, bool] = {}
        self.is_blank_now = self._was_blank = False

    def see(self, pixels: Pixels, at_um: Point) -> None:
        """A frame (H, W) or (H, W, 3), and about where its middle lies, (y, x)."""
        light = luminance_of(to_linear(pixels, self._encoding))
        blank = is_blank(light, noise_sigma(light))
        # one frame between two cells does not end a lane
        self.is_blank_now, self._was_blank = blank and self._was_blank, blank
        self.mark(self.field(at_um), not blank)

    def mark(self, field: Field, tissue: bool) -> None:
        self._seen[field] = self._seen.get(field, False) or tissue

    def holds(self, field: Field) -> bool:
        """Whether tissue was seen there."""
        return self._seen.get(field, False)

    def field(self, at_um: Point) -> Field:
        """The field whose middle is nearest."""
        row, column = np.rint((np.array(at_um) - self._start) / self._step).astype(int)
        return int(row), int(column)

    def middle_um(self, field: Field) -> Point:
        y, x = self._start + self._step * field
        return float(y), float(x)

    @property
    def border(self) -> set[Field]:
        """Fields that nobody has seen, beside tissue."""
        seen = dict(self._seen)
        beside = ((-1, 0), (1, 0), (0, -1), (0, 1))
        around = {
            (row + dr, column + dc) for (row, column), tissue in seen.items() if tissue for dr, dc in beside
        }
        return around - seen.keys()

    @property
    def area(self) -> BaseGeometry:
        """All fields with tissue, in (x, y) um."""
        h, w = self._fov_um
        boxes = []
        for field, tissue in dict(self._seen).items():
            if tissue:
                y, x = self.middle_um(field)
                boxes.append(shapely.box(x - w / 2, y - h / 2, x + w / 2, y + h / 2))
        return shapely.union_all(boxes)


def explore(
    tissue: TissueMap,
    start_um: Point,
    speed_um_s: float,
    allowed: Callable[[Point], bool] = lambda _: True,
    rest_s: float | None = None,
) -> Iterator[Lane]:
    """Lanes over all tissue that hangs together with that at `start_um`, (y, x); each is chosen by what was seen on those before.

    Each lane runs over fields of one row that lie at the border of what is known, and on, if its row goes on, until it finds no more tissue.
    allowed: whether the stage may stand at (y, x). rest_s: it stops at each field for so long, in place of lanes.
    """
    at = tissue.field(start_um)
    yield Lane.point(tissue.middle_um(at), speed_um_s, rest_s or 0.0)
    while True:
        border = {field for field in tissue.border if allowed(tissue.middle_um(field))}
        if not border:
            return
        here = at
        row, column = min(border, key=lambda f: (math.dist(f, here), f))
        low = high = column
        while (row, low - 1) in border:
            low -= 1
        while (row, high + 1) in border:
            high += 1
        forth = abs(low - here[1]) <= abs(high - here[1])
        first, last = (low, high) if forth else (high, low)
        start_um = tissue.middle_um((row, first))
        if rest_s is not None:
            yield Lane.point(tissue.middle_um((row, column)), speed_um_s, rest_s)
            low, high, last = column, column, column
        elif low < high:
            yield Lane(start_um, tissue.middle_um((row, last)), speed_um_s)
        else:
            way = -1 if tissue.holds((row, column + 1)) else 1
            yield Lane(start_um, _beyond(start_um, way, allowed), speed_um_s, until_blank=True)
        for c in range(low, high + 1):
            # what a frame missed is seen from its neighbours, or gone back to as a gap
            tissue.mark((row, c), False)
        at = (row, last)


def _beyond(at_um: Point, way: int, allowed: Callable[[Point], bool]) -> Point:
    """As far along x as the stage may go."""
    y, x = at_um
    reach_um = _FARTHEST_UM
    while reach_um > 1 and not allowed((y, x + way * reach_um)):
        reach_um /= 2
    return (y, x + way * reach_um) if reach_um > 1 else at_um
