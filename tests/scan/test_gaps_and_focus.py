"""What is gone back to, and the plane of focus."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deblurd.errors import ConfigError
from deblurd.scan.focus import FocusPlane, three_places
from deblurd.scan.gaps import gaps

FOV = (200.0, 300.0)
AREA = shapely.box(0, 0, 3000, 2000)


def seen(holes: list[tuple[float, float, float, float]]) -> object:
    def grades_at(places: NDArray[np.float64]) -> NDArray[np.uint8]:
        grades = np.full(len(places), 5, dtype=np.uint8)
        for x0, y0, x1, y1 in holes:
            inside = (places[:, 1] > x0) & (places[:, 1] < x1) & (places[:, 0] > y0) & (places[:, 0] < y1)
            grades[inside] = 1
        return grades

    return grades_at


@given(
    holes=st.lists(
        st.tuples(st.floats(0, 2500), st.floats(0, 1700), st.floats(30, 900), st.floats(30, 700)), min_size=0, max_size=5
    )
)  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_the_fields_gone_back_to_show_all_that_was_left_out(
    holes: list[tuple[float, float, float, float]],
) -> None:
    boxes = [(x, y, x + w, y + h) for x, y, w, h in holes]
    fields = gaps(AREA, FOV, seen(boxes))  # type: ignore[arg-type]
    h, w = FOV
    shown = shapely.union_all([shapely.box(x - w / 2, y - h / 2, x + w / 2, y + h / 2) for y, x in fields])
    missing = shapely.union_all([shapely.box(*box) for box in boxes]).intersection(AREA.buffer(-20))
    # a cell at the rim of a hole counts as seen where its middle does
    assert shapely.difference(missing.buffer(-13), shown.buffer(1)).area < 250 * max(len(boxes), 1)
    assert len(fields) <= 4 * len(boxes) + sum(2 * b[2] * b[3] / (0.8**2 * h * w) for b in holes)


def test_nothing_left_out_is_nothing_to_go_back_to() -> None:
    assert gaps(AREA, FOV, seen([])) == []  # type: ignore[arg-type]
    # a sliver is left to the overlap
    assert gaps(AREA, FOV, seen([(500, 500, 503, 503)])) == []  # type: ignore[arg-type]


@given(z=st.floats(-500, 500), dy=st.floats(-0.01, 0.01), dx=st.floats(-0.01, 0.01))
def test_a_plane_goes_through_its_points(z: float, dy: float, dx: float) -> None:
    points = [(x, y, z + dy * y + dx * x) for x, y in ((0, 0), (9000, 300), (200, 7000), (5000, 5000))]
    plane = FocusPlane.through(points)
    assert plane((1000.0, 2000.0)) == pytest.approx(z + 1000 * dy + 2000 * dx, abs=1e-6)


@pytest.mark.parametrize(
    "points", [[(0, 0, 1), (1, 1, 1)], [(0, 0, 1), (100, 100, 2), (200, 200, 3)], [(5, 5, 1)] * 3]
)
def test_points_on_a_line_span_no_plane(points: list[tuple[float, float, float]]) -> None:
    with pytest.raises(ConfigError, match="focus_points_um"):
        FocusPlane.through(points)


@pytest.mark.parametrize("area", [AREA, shapely.Polygon([(0, 0), (4000, 0), (0, 4000)]), AREA.buffer(-400)])
def test_it_is_focused_at_three_places_within_the_area(area: shapely.Polygon) -> None:
    places = three_places(area)
    assert len(places) == 3
    assert all(area.contains(shapely.Point(x, y)) for y, x in places)
    FocusPlane.through([(x, y, 0.0) for y, x in places])
