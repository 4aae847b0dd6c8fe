"""The area to scan: as configured, or as a plan of useq-schema says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import useq

from deblurd.errors import ConfigError, DeblurdError, NoInputError
from deblurd.scan.area import area_of
from deblurd.settings import ScanSettings

FOV = (256.0, 320.0)
HERE = (1000.0, 2000.0)


def bounds(**options: Any) -> tuple[float, ...]:
    area = area_of(ScanSettings(mode="serpentine", **options), HERE, FOV)
    assert area is not None
    return tuple(round(v, 1) for v in area.bounds)


def test_size_and_start() -> None:
    assert bounds(area_mm=(2.0, 1.0)) == (1840, 872, 3840, 1872)
    assert bounds(area_mm=(2.0, 1.0), start_um=(160.0, 128.0)) == (0, 0, 2000, 1000)


def test_two_corners_in_any_order_or_a_polygon() -> None:
    assert bounds(polygon_um=((500, 10), (0, 300))) == (0, 10, 500, 300)
    assert bounds(polygon_um=((0, 0), (100, 0), (0, 200))) == (0, 0, 100, 200)


@pytest.mark.parametrize(
    "points", [((0, 0), (0, 100)), ((0, 0), (1, 1), (2, 2)), ((0, 0), (9, 9), (9, 0), (0, 9))]
)
def test_points_that_enclose_nothing_are_refused(points: Any) -> None:
    with pytest.raises(ConfigError, match="polygon_um"):
        bounds(polygon_um=points)


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (useq.GridFromEdges(left=0, top=1000, right=2000, bottom=0), (0, -24, 2240, 1000)),
        (useq.GridRowsColumns(rows=2, columns=2), (1680, 744, 2320, 1256)),
        (useq.GridWidthHeight(width=500, height=300), (1680, 744, 2320, 1256)),
        (useq.MDASequence(grid_plan=useq.GridRowsColumns(rows=1, columns=2)), (1680, 872, 2320, 1128)),
        (useq.MDASequence(stage_positions=[(0, 0, 0), (500, 500, 0)]), (-160, -128, 660, 628)),
        (
            useq.MDASequence(stage_positions=[(0, 0, 0)], grid_plan=useq.GridRowsColumns(rows=1, columns=2)),
            (-320, -128, 320, 128),
        ),
    ],
)  # fmt: skip
def test_plans_of_useq(tmp_path: Path, plan: Any, expected: tuple[float, ...]) -> None:
    path = tmp_path / "plan.json"
    path.write_text(plan.model_dump_json(exclude_unset=True), encoding="utf-8")
    assert bounds(plan=path) == expected


def test_a_polygon_of_useq_is_seen_whole(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    plan = useq.GridFromPolygon(vertices=[(0, 0), (1000, 0), (500, 900)])
    path.write_text(plan.model_dump_json(), encoding="utf-8")
    x0, y0, x1, y1 = bounds(plan=path)
    assert x0 <= 0
    assert y0 <= 0
    assert x1 >= 1000
    assert y1 >= 900


@pytest.mark.parametrize(
    ("content", "error"),
    [(None, NoInputError), ("{}", ConfigError), ("[1", ConfigError), ("\xff\xfe", ConfigError)],
)
def test_a_file_that_is_no_plan(tmp_path: Path, content: str | None, error: type[DeblurdError]) -> None:
    path = tmp_path / "plan.json"
    if content is not None:
        path.write_text(content, encoding="latin-1")
    with pytest.raises(error, match=r"plan\.json"):
        bounds(plan=path)
