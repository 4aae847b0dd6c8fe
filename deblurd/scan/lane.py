"""Lanes, of which every scan is made: straight lines along which the stage drives without stopping."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import shapely
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

Point = tuple[float, float]
"""(y, x), um on the stage."""


@dataclass(frozen=True, slots=True)
class Lane:
    """A straight line from `start_um` to `end_um`, (y, x), at `speed_um_s`; a point where both are the same.

    The stage drives to the start as fast, and stands still at both ends. exposure_ms: of the frames along it; as it was if absent. rest_s: how
    long the stage stands at both ends besides, for sharp frames. until_blank: the lane ends early where there is no more tissue.
    """

    start_um: Point
    end_um: Point
    speed_um_s: float
    exposure_ms: float | None = None
    rest_s: float = 0.0
    until_blank: bool = False

    def __post_init__(self) -> None:
        for what, value in (("speed", self.speed_um_s), ("exposure", self.exposure_ms)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"the {what} of a lane is {value}, but must be more than 0")
        if not all(map(math.isfinite, (*self.start_um, *self.end_um))):
            raise ValueError(
                f"a lane from {self.start_um} to {self.end_um} leads nowhere: give finite micrometres"
            )

    @property
    def length_um(self) -> float:
        return math.dist(self.start_um, self.end_um)

    @classmethod
    def point(cls, at_um: Point, speed_um_s: float, rest_s: float) -> Lane:
        """A place to stand at: the stop of stop-and-stare."""
        return cls(at_um, at_um, speed_um_s, rest_s=rest_s)


def serpentine(
    area: BaseGeometry,
    fov_um: tuple[float, float],
    overlap: float,
    speed_um_s: float,
    *,
    run_up_um: float = 0.0,
    exposure_ms: float | None = None,
    rest_s: float = 0.0,
) -> list[Lane]:
    """Lanes back and forth along x, so that frames of `fov_um` (height, width) along them show all of `area`.

    area: in (x, y) um, of any shape. Neighbouring lanes share `overlap` of a field's height, or a little more, so that the last one ends on the
    border. Each reaches `run_up_um` over the area on both sides: there the stage speeds up and brakes. Where the area is no wider than a
    field, a lane is a single point. A row is cut in two where that saves more than it costs to stop.
    """
    lanes: list[Lane] = []
    for turn, (y_um, spans) in enumerate(_rows(area, fov_um, overlap)):
        row: list[Lane] = []
        for x0, x1 in _joined(spans, fov_um[1], run_up_um):
            low, high = _inner(x0, x1, fov_um[1])
            more = run_up_um if high > low else 0.0
            left, right = (y_um, low - more), (y_um, high + more)
            start, end = (right, left) if turn % 2 else (left, right)
            row.append(Lane(start, end, speed_um_s, exposure_ms, rest_s))
        lanes += row[:: -1 if turn % 2 else 1]
    return lanes


def fields(
    area: BaseGeometry, fov_um: tuple[float, float], overlap: float, speed_um_s: float, rest_s: float
) -> list[Lane]:
    """Stop-and-stare over `area`, as of `serpentine`: one point for each field, where the stage stands for `rest_s`."""
    points: list[Point] = []
    for turn, (y_um, spans) in enumerate(_rows(area, fov_um, overlap)):
        row = [(y_um, x_um) for x0, x1 in spans for x_um in _steps(x0, x1, fov_um[1], overlap)]
        points += row[:: -1 if turn % 2 else 1]
    return [Lane.point(at, speed_um_s, rest_s) for at in points]


def duration_s(lanes: list[Lane], ramp_s: float) -> float:
    """About how long the stage takes along them, with a ramp of `ramp_s` whenever it speeds up."""
    total = 0.0
    before: Point | None = None
    for lane in lanes:
        ways = [lane.length_um] + ([] if before is None else [math.dist(before, lane.start_um)])
        total += sum(way / lane.speed_um_s + ramp_s for way in ways if way > 0) + 2 * lane.rest_s
        before = lane.end_um
    return total


def _rows(
    area: BaseGeometry, fov_um: tuple[float, float], overlap: float
) -> Iterator[tuple[float, list[tuple[float, float]]]]:
    """The middle of each row, and the spans (x0, x1) of the area within it, from left to right."""
    x_min, y_min, x_max, y_max = area.bounds
    for y_um in _steps(y_min, y_max, fov_um[0], overlap):
        strip = shapely.box(x_min - 1, y_um - fov_um[0] / 2, x_max + 1, y_um + fov_um[0] / 2)
        parts = [p for p in shapely.get_parts(shapely.intersection(area, strip)) if isinstance(p, Polygon)]
        spans = sorted((p.bounds[0], p.bounds[2]) for p in parts)
        if spans:
            yield y_um, spans


def _steps(low_um: float, high_um: float, side_um: float, overlap: float) -> list[float]:
    """Middles of fields of `side_um` that together reach from `low_um` to `high_um`."""
    rest_um = max(high_um - low_um - side_um, 0.0)
    n = math.ceil(rest_um / (side_um * (1 - overlap)) - 1e-9) + 1
    if n == 1:
        return [(low_um + high_um) / 2]
    return [low_um + side_um / 2 + i * rest_um / (n - 1) for i in range(n)]


def _inner(x0: float, x1: float, side_um: float) -> tuple[float, float]:
    """From the middle of the first field to that of the last one."""
    return (x0 + side_um / 2, x1 - side_um / 2) if x1 - x0 > side_um else ((x0 + x1) / 2,) * 2


def _joined(spans: list[tuple[float, float]], side_um: float, run_up_um: float) -> list[tuple[float, float]]:
    """Spans of one row, those as one between which a stop would not pay."""
    joined: list[tuple[float, float]] = []
    for x0, x1 in spans:
        if joined and x0 - joined[-1][1] < side_um + 4 * run_up_um:
            joined[-1] = joined[-1][0], max(x1, joined[-1][1])
        else:
            joined.append((x0, x1))
    return joined
