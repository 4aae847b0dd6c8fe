"""Which frame of ground that was seen before becomes a tile: the sharper one, and only once."""

from __future__ import annotations

import math

import numpy as np
import pytest

from deblurd.frames import MotionVector, Pose
from deblurd.geometry import PixelToStage
from deblurd.track.choose import SHARPEST, TileChooser, grade
from deblurd.track.motion import UNKNOWN

AFFINE = PixelToStage.from_scale(1.0)


def chooser(**options: bool) -> TileChooser:
    return TileChooser(AFFINE, (100, 100), 0.2, **options)


def lane(by: TileChooser, grade: int, step_um: float, y_um: float = 0.0, end_um: float = 600.0) -> int:
    """Tiles of one pass along x."""
    n = int(end_um / step_um) + 1
    choices = [by.see(Pose(0.0, y_um, i * step_um), grade) for i in range(n)]
    return sum(choice != "none" for choice in choices) + by.last()


def test_grades() -> None:
    assert [grade(MotionVector(0.0, px)) for px in (0, 1, 2, 4, 16, 500)] == [8, 8, 7, 6, 4, 2]
    assert grade(UNKNOWN) == grade(MotionVector(0.0, 9.0, sigma_px=2.0)) == 1


def test_a_sharper_pass_replaces_a_worse_one_and_a_worse_one_nothing() -> None:
    c = chooser()
    assert lane(c, 3, 20.0) >= 7
    assert lane(c, 3, 20.0) == 0
    assert lane(c, 4, 10.0) == 0, "hardly sharper"
    again = lane(c, 6, 10.0)
    assert 5 <= again <= 12
    assert lane(c, 6, 10.0) == lane(c, 2, 40.0) == 0


def test_a_rest_on_blurred_ground_is_taken_once() -> None:
    c = chooser()
    lane(c, 3, 20.0)
    choices = [c.see(Pose(0.0, 0.0, 300.0), SHARPEST) for _ in range(50)]
    assert sum(choice != "none" for choice in choices) == 1


def test_only_at_rest_takes_nothing_in_motion() -> None:
    c = chooser(only_at_rest=True)
    assert lane(c, 3, 20.0) == 0
    taken = 0
    for x in (0.0, 80.0, 160.0):
        taken += lane(c, 3, 20.0, end_um=x)
        choices = [c.see(Pose(0.0, 0.0, x), SHARPEST) for _ in range(5)]
        taken += sum(choice != "none" for choice in choices)
    assert taken == 3


def test_ground_of_a_tile_that_failed_is_wanted_again() -> None:
    c = chooser()
    lane(c, 3, 20.0)
    at = np.array([0.0, 300.0])
    places = np.array([[0.0, 300.0], [0.0, 100.0], [0.0, 5000.0]])
    assert c.grades_at(places).tolist() == [3, 3, 0]
    c.doubt(at)
    assert c.grades_at(places).tolist() == [1, 3, 0]
    # another pass at the same speed will do
    assert lane(c, 3, 20.0) >= 1
    assert c.grades_at(places).tolist() == [3, 3, 0]


@pytest.mark.parametrize("motion", [1, 3, 8])
def test_what_was_taken_at_any_grade_is_no_new_ground(motion: int) -> None:
    c = chooser()
    first = lane(c, motion, 20.0)
    assert lane(c, motion, 20.0) == 0
    assert first <= math.ceil(600 / 70) + 2
