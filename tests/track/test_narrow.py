"""Frames that turn out to be good for less than all of what they show."""

from __future__ import annotations

import math

import numpy as np
import pytest

from deblurd.frames import Frame, MotionVector, Pose
from deblurd.geometry import PixelToStage
from deblurd.track.tracker import Tracker

SHAPE, LESS = (100, 100), (60, 60)


def chosen_um(tracker: Tracker, from_um: float) -> list[float]:
    """x of the tiles of a stage that moves on along x, micrometre by micrometre."""
    found = []
    for n in range(400):
        pose = Pose(n / 30, 0.0, from_um + n)
        frame = Frame(np.zeros(SHAPE, np.uint8), n, pose.t_s, 5.0, 0, (pose, MotionVector(0.0, -2.0)))
        found += [tile.pose.x_um for _, tile in tracker.feed(frame)]
    return found


@pytest.fixture
def tracker() -> Tracker:
    return Tracker(
        lambda: (0.0, 0.0), PixelToStage.from_scale(1.0), SHAPE, 5.0, overlap=0.2, latency_ms=1.0, poll_s=0.01
    )


def test_tiles_lie_nearer_to_one_another_from_the_next_slide_on(tracker: Tracker) -> None:
    assert np.diff(chosen_um(tracker, 0.0)).max() == pytest.approx(80, abs=6)
    tracker.narrow(LESS)
    assert np.diff(chosen_um(tracker, 400.0)).max() == pytest.approx(80, abs=6)
    tracker.forget_tiles()
    assert np.diff(chosen_um(tracker, 800.0)).max() == pytest.approx(48, abs=4)


def test_where_nothing_is_chosen_yet_they_do_so_at_once(tracker: Tracker) -> None:
    tracker.choose_from_s = math.inf
    tracker.narrow(LESS)
    tracker.choose_from_s = -math.inf
    assert np.diff(chosen_um(tracker, 0.0)).max() == pytest.approx(48, abs=4)
