"""How tracking is scored: errors put in by hand come out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from deblurd.frames import MotionVector, Pose, Tile
from deblurd.simulator.camera import Truth
from deblurd.simulator.score import score_tracking
from deblurd.track.motion import UNKNOWN


def tile(index: int, yx_um: tuple[float, float], motion: MotionVector) -> Tile:
    return Tile(index, 0, index, Pose(0.0, *yx_um), motion, 10.0, (64, 64), "")


def truth(number: int, yx_um: tuple[float, float], motion: MotionVector) -> Truth:
    at = np.array(yx_um)
    return Truth(0, number, 0.0, 0.01, 0.02, 0, at, at, at, at, motion)


def test_errors_of_length_and_angle_are_told_apart() -> None:
    turned = 10.3 * np.array([math.sin(math.radians(92)), math.cos(math.radians(92))])
    scored = score_tracking(
        [tile(0, (3.0, 4.0), MotionVector(*turned)), tile(1, (0.0, 0.0), MotionVector(0.5, 0.0))],
        {
            0: truth(0, (0.0, 0.0), MotionVector(10.0, 0.0)),
            # at rest, where a length and an angle mean nothing
            1: truth(1, (0.0, 0.0), MotionVector(0.0, 0.0)),
        },
    )
    assert scored.pose_rms_um == pytest.approx(math.sqrt(25 / 2))
    assert scored.length_error_pct == pytest.approx(3.0)
    assert scored.angle_error_deg == pytest.approx(2.0)


def test_an_angle_across_the_half_turn_is_the_small_one() -> None:
    seen = MotionVector(10 * math.sin(math.radians(-179.5)), 10 * math.cos(math.radians(-179.5)))
    scored = score_tracking([tile(0, (0, 0), seen)], {0: truth(0, (0, 0), MotionVector(0.0, -10.0))})
    assert scored.angle_error_deg == pytest.approx(0.5)


def test_unknown_motion_is_not_passed_over() -> None:
    scored = score_tracking([tile(0, (0, 0), UNKNOWN)], {0: truth(0, (0, 0), MotionVector(0.0, 9.0))})
    assert scored.length_error_pct == scored.angle_error_deg == math.inf


def test_a_scan_at_rest_has_no_motion_to_score() -> None:
    still = MotionVector(0.0, 0.0)
    scored = score_tracking([tile(0, (0, 0), still)], {0: truth(0, (0, 0), still)})
    assert scored.pose_rms_um == 0
    assert math.isnan(scored.length_error_pct)
