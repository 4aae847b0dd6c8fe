"""Which part of the slide is to be scanned: by its size, two corners, a polygon, or a plan of useq-schema."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import shapely
from pydantic import TypeAdapter, ValidationError
from shapely.geometry.base import BaseGeometry
from useq import GridFromEdges, GridFromPolygon, GridRowsColumns, GridWidthHeight, MDASequence

from deblurd.errors import ConfigError, NoInputError
from deblurd.scan.lane import Point
from deblurd.settings import ScanSettings

Grid = GridFromEdges | GridFromPolygon | GridRowsColumns | GridWidthHeight
_PLANS: TypeAdapter[Grid | MDASequence] = TypeAdapter(Grid | MDASequence)
_ROUNDING_UM = 0.01


def area_of(scan: ScanSettings, here_um: Point, fov_um: tuple[float, float]) -> BaseGeometry | None:
    """The area of the configuration, in (x, y) um; None where it is left to the tissue.

    here_um: (y, x) where the stage stands, in place of start_um. fov_um: height, width of a field on the stage. Raises NoInputError or ConfigError.
    """
    y_um, x_um = start_of(scan, here_um)
    if scan.plan is not None:
        return _of_plan(scan.plan, (y_um, x_um), fov_um)
    if scan.polygon_um is not None:
        return polygon(scan.polygon_um)
    if scan.area_mm is not None:
        left, top = x_um - fov_um[1] / 2, y_um - fov_um[0] / 2
        return shapely.box(left, top, left + scan.area_mm[0] * 1000, top + scan.area_mm[1] * 1000)
    return None


def start_of(scan: ScanSettings, here_um: Point) -> Point:
    """The middle of the first field, (y, x)."""
    return here_um if scan.start_um is None else (scan.start_um[1], scan.start_um[0])


def polygon(points_um: tuple[tuple[float, float], ...]) -> BaseGeometry:
    """Between two opposite corners, or within three and more, (x, y). Raises ConfigError where that is no area."""
    if len(points_um) == 2:
        (xa, ya), (xb, yb) = points_um
        area = shapely.box(min(xa, xb), min(ya, yb), max(xa, xb), max(ya, yb))
    else:
        area = shapely.Polygon(points_um)
    if area.area <= 0 or not area.is_valid:
        raise ConfigError(
            "scan.polygon_um encloses no area, because its points lie on one line or its sides cross: give two opposite "
            "corners, or the corners of a polygon in their order"
        )
    return area


def _of_plan(path: Path, middle_um: Point, fov_um: tuple[float, float]) -> BaseGeometry:
    """All that the fields of a plan would see. middle_um: where a plan without coordinates of its own belongs."""
    seen = [
        shapely.box(x - fov_um[1] / 2, y - fov_um[0] / 2, x + fov_um[1] / 2, y + fov_um[0] / 2)
        for y, x in _fields(_read(path), middle_um, fov_um)
    ]
    if not seen:
        raise ConfigError(f"the plan {path} has no fields: give it a grid_plan, or stage_positions")
    # on a grid, or fields that touch would count as apart but for rounding
    return shapely.union_all(seen, grid_size=_ROUNDING_UM)


def _fields(plan: Grid | MDASequence, middle_um: Point, fov_um: tuple[float, float]) -> Iterator[Point]:
    if not isinstance(plan, MDASequence):
        sized = plan.model_copy(update={"fov_width": fov_um[1], "fov_height": fov_um[0]})
        for at in sized.iter_grid_positions():
            off_um = middle_um if plan.is_relative else (0.0, 0.0)
            yield (at.y or 0.0) + off_um[0], (at.x or 0.0) + off_um[1]
        return
    positions = [(p.y, p.x, p.sequence) for p in plan.stage_positions] or [(None, None, None)]
    for y, x, own in positions:
        at_um = (middle_um[0] if y is None else y, middle_um[1] if x is None else x)
        grid = (own and own.grid_plan) or plan.grid_plan
        if isinstance(grid, Grid):
            yield from _fields(grid, at_um, fov_um)
        elif y is not None and x is not None:
            yield at_um


def _read(path: Path) -> Grid | MDASequence:
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError as err:
        raise NoInputError(
            f"the plan {path} is not there: write the path of a useq-schema file into scan.plan"
        ) from err
    except (OSError, ValueError) as err:
        raise ConfigError(f"the plan {path} cannot be read ({err}): give JSON of useq-schema") from err
    try:
        return _PLANS.validate_json(content)
    except ValidationError as err:
        raise ConfigError(
            f"{path} is no plan of useq-schema in JSON: give a GridFromEdges, GridFromPolygon, GridRowsColumns or GridWidthHeight, or an "
            "MDASequence with a grid_plan or stage_positions"
        ) from err
