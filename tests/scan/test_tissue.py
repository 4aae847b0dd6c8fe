"""Scanning until there is no more tissue, on paper: the map sees what a driver along the lanes would see."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from deblurd.scan.lane import Lane
from deblurd.scan.tissue import TissueMap, explore

FOV = (200.0, 250.0)
START = (0.0, 0.0)


def scanned(
    tissue: shapely.Geometry, allowed: Callable[[tuple[float, float]], bool] = lambda _: True
) -> tuple[TissueMap, list[Lane]]:
    """Drives along the lanes that `explore` asks for, over `tissue` in (x, y) um."""
    seen = TissueMap(START, FOV, 0.2, "linear")
    lanes: list[Lane] = []
    for lane in explore(seen, START, 500.0, allowed):
        lanes.append(lane)
        assert len(lanes) < 500, "it never ends"
        steps = max(int(lane.length_um / 40), 1)
        blanks = 0
        for share in np.linspace(0, 1, steps + 1):
            y, x = (a + share * (b - a) for a, b in zip(lane.start_um, lane.end_um, strict=True))
            h, w = FOV
            blank = not tissue.intersects(shapely.box(x - w / 2, y - h / 2, x + w / 2, y + h / 2))
            seen.mark(seen.field((y, x)), not blank)
            blanks = blanks + 1 if blank else 0
            if lane.until_blank and blanks > 1:
                break
    return seen, lanes


@given(
    radius=st.floats(50, 1500), squeeze=st.floats(0.3, 3.0), turn=st.floats(0, 180), dx=st.floats(-0.9, 0.9)
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_all_of_a_piece_of_tissue_is_found_from_anywhere_in_it(
    radius: float, squeeze: float, turn: float, dx: float
) -> None:
    piece = shapely.affinity.rotate(
        shapely.affinity.scale(shapely.Point(dx * radius, 0).buffer(radius), squeeze, 1 / squeeze, origin=(0, 0)), turn,
        origin=(0, 0),
    )  # fmt: skip
    seen, _ = scanned(piece)
    assert shapely.difference(piece, seen.area).area < 0.002 * piece.area
    assert not seen.border


def test_a_ring_is_walked_around() -> None:
    ring = shapely.Point(1000, 0).buffer(1050).difference(shapely.Point(1000, 0).buffer(600))
    seen, _ = scanned(ring)
    assert shapely.difference(ring, seen.area).area < 0.002 * ring.area


def test_without_tissue_it_is_over_at_once() -> None:
    _, lanes = scanned(shapely.Point(5000, 5000).buffer(100))
    assert [lane.length_um for lane in lanes] == [0.0]


def test_a_slide_takes_lanes_and_not_stops() -> None:
    seen, lanes = scanned(shapely.box(-100, -100, 3000, 2000))
    assert len(lanes) < 4 * 2200 / (0.8 * FOV[0])
    assert seen.area.area > 3100 * 2100


def test_the_limits_of_the_stage_are_its_end() -> None:
    _, lanes = scanned(
        shapely.box(-9000, -9000, 9000, 9000), lambda at: abs(at[0]) < 500 and abs(at[1]) < 800
    )
    assert all(abs(y) < 500 and abs(x) < 800 for lane in lanes for y, x in (lane.start_um, lane.end_um))
    assert max(lane.end_um[1] for lane in lanes) > 600


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_picture_tells_tissue_from_glass(dtype: str) -> None:
    rng = np.random.default_rng(0)
    full = np.iinfo(dtype).max
    glass = 0.8 + 0.01 * rng.normal(size=(256, 256))
    y, x = np.mgrid[:256, :256]
    tissue = glass - 0.3 * (np.hypot(y % 32 - 16, x % 32 - 16) < 6)
    seen = TissueMap(START, FOV, 0.2, "linear")
    seen.see((glass * full).astype(dtype), START)
    assert seen.area.is_empty
    seen.see((tissue * full).astype(dtype), START)
    assert seen.area.area == pytest.approx(math.prod(FOV))
    assert not seen.is_blank_now
    for _ in range(2):
        seen.see((glass * full).astype(dtype), (0.0, 300.0))
    assert seen.is_blank_now
