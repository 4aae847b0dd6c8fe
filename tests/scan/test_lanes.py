"""Lanes on paper: they show all of an area, whatever its shape."""

from __future__ import annotations

import math

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from deblurd.geometry import PixelToStage
from deblurd.scan.lane import Lane, duration_s, fields, serpentine
from deblurd.scan.limits import FRAMES_PER_TILE, speed_limit

FOV = (256.0, 320.0)


def seen(lanes: list[Lane]) -> shapely.Geometry:
    """All that frames along the lanes show."""
    h, w = FOV
    return shapely.union_all(
        [
            shapely.box(
                min(a.start_um[1], a.end_um[1]) - w / 2,
                a.start_um[0] - h / 2,
                max(a.start_um[1], a.end_um[1]) + w / 2,
                a.start_um[0] + h / 2,
            )
            for a in lanes
        ]
    )


@given(
    points=st.lists(st.tuples(st.floats(-5000, 5000), st.floats(-5000, 5000)), min_size=3, max_size=8),
    overlap=st.floats(0.02, 0.5),
    run_up=st.floats(0, 200),
)
@settings(max_examples=40, deadline=None)
def test_no_place_of_an_area_stays_unseen(
    points: list[tuple[float, float]], overlap: float, run_up: float
) -> None:
    area = shapely.MultiPoint(points).convex_hull.buffer(1.0)
    for lanes in (
        serpentine(area, FOV, overlap, 500.0, run_up_um=run_up),
        fields(area, FOV, overlap, 500.0, 0.2),
    ):
        assert shapely.difference(area, seen(lanes)).area < 1e-6 * area.area


def test_a_rectangle_is_scanned_back_and_forth_with_room_to_speed_up() -> None:
    lanes = serpentine(shapely.box(0, 0, 1000, 500), FOV, 0.2, 400.0, run_up_um=20.0)
    assert [(lane.start_um, lane.end_um) for lane in lanes] == [
        ((128.0, 140.0), (128.0, 860.0)),
        ((250.0, 860.0), (250.0, 140.0)),
        ((372.0, 140.0), (372.0, 860.0)),
    ]
    assert {lane.speed_um_s for lane in lanes} == {400.0}
    # 3 lanes of 720 um, 2 steps of 122 um, 5 ramps
    assert duration_s(lanes, 0.1) == pytest.approx(3 * 1.8 + 2 * 0.305 + 0.5)


def test_an_area_no_wider_than_a_field_is_a_point() -> None:
    (lane,) = serpentine(shapely.box(0, 0, 100, 100), FOV, 0.2, 400.0, run_up_um=20.0)
    assert lane.start_um == lane.end_um == (50.0, 50.0)


def test_pieces_far_apart_get_lanes_of_their_own() -> None:
    pieces = shapely.union(shapely.box(0, 0, 400, 200), shapely.box(9000, 0, 9400, 200))
    lanes = serpentine(pieces, FOV, 0.2, 400.0)
    assert [lane.length_um for lane in lanes] == [80.0, 80.0]
    near = shapely.union(shapely.box(0, 0, 400, 200), shapely.box(600, 0, 1000, 200))
    assert [lane.length_um for lane in serpentine(near, FOV, 0.2, 400.0)] == [680.0]


@pytest.mark.parametrize(
    "bad", [{"speed_um_s": 0.0}, {"speed_um_s": math.nan}, {"exposure_ms": -1.0}, {"end_um": (0.0, math.inf)}]
)
def test_a_lane_that_makes_no_sense_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="lane"):
        Lane(**({"start_um": (0.0, 0.0), "end_um": (0.0, 1.0), "speed_um_s": 1.0} | bad))  # type: ignore[arg-type]


def test_what_limits_the_speed_is_said() -> None:
    affine, shape = PixelToStage.from_scale(0.5), (512, 640)
    blur = speed_limit(affine, shape, 10.0, blur_px=20.0, overlap=0.2, frames_per_s=30.0)
    assert blur.speed_um_s == pytest.approx(20 * 0.5 / 0.01)
    assert "blur" in blur.why
    camera = speed_limit(affine, shape, 1.0, blur_px=20.0, overlap=0.2, frames_per_s=30.0)
    assert camera.speed_um_s == pytest.approx(0.8 * 256 * 30 / FRAMES_PER_TILE)
    assert "camera" in camera.why
    assert "stage" in speed_limit(affine, shape, 1.0, blur_px=20.0, overlap=0.2, stage_um_s=10.0).why
    assert speed_limit(affine, shape, 1.0, blur_px=np.inf, overlap=0.2).speed_um_s == np.inf
    # nobody said how long frames are exposed
    assert speed_limit(affine, shape, 0.0, blur_px=20.0, overlap=0.2).speed_um_s == np.inf
