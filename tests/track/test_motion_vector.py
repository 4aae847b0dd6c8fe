"""The formula of the motion vector, against paths that are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deblurd.geometry import PixelToStage
from deblurd.track.motion import UNKNOWN, mean_um, motion_vector
from deblurd.track.path import Stretch

coordinate = st.floats(-200, 200)
point = st.tuples(coordinate, coordinate)


def stretch(*points: tuple[float, float]) -> Stretch:
    return Stretch(np.array(points), 0.1, 0.2)


@settings(deadline=None)
@given(
    start=point, velocity=point, push=point,
    size=st.floats(0.1, 2), turn=st.floats(-180, 180), mirrored=st.booleans(),
)  # fmt: skip
def test_the_image_runs_against_the_stage_along_the_same_parabola(
    start: tuple[float, float], velocity: tuple[float, float], push: tuple[float, float],
    size: float, turn: float, mirrored: bool,
) -> None:  # fmt: skip
    affine = PixelToStage.from_scale(size, turn, mirrored)
    s0, v, a = np.array(start), np.array(velocity), np.array(push)

    def stage(u: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(s0 + u[:, None] * v + u[:, None] ** 2 * a)

    ends = stage(np.array([-0.5, 0.0, 0.5]))
    known = Stretch(ends, 0.1, 0.2)
    motion, mean = motion_vector(known, affine), mean_um(known)
    u = np.linspace(-0.5, 0.5, 4001)
    path = stage(u)
    # where a fixed specimen point is seen, from where it is seen at the mean stage position
    image = affine.to_pixels(mean - path)
    assert motion.at(u) == pytest.approx(image, abs=1e-6 * (1 + float(np.abs(image).max())))
    weights = np.full(len(u), 1.0)
    weights[[0, -1]] = 0.5
    assert mean == pytest.approx(np.average(path, axis=0, weights=weights), abs=1e-4)


def test_a_stage_that_moves_to_the_right_moves_the_image_to_the_left() -> None:
    motion = motion_vector(stretch((0, 0), (0, 5), (0, 10)), PixelToStage.from_scale(0.5))
    assert (motion.dy, motion.dx) == (0.0, -20.0)
    assert (motion.bend_dy, motion.bend_dx) == (0.0, 0.0)
    assert motion.sigma_px == pytest.approx(0.4)


def test_unknown_motion_says_so() -> None:
    assert not UNKNOWN.is_known
