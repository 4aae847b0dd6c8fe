"""What a rolling shutter leaves between two frames of unlike motion."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from deblurd.calibrate.registrar import FrameRegistrar
from deblurd.calibrate.skew import skew
from deblurd.frames import MotionVector, Pixels
from deblurd.geometry import PixelToStage
from deblurd.simulator.optics import Optics
from deblurd.simulator.sensor import Sensor
from deblurd.simulator.slide import VirtualSlide, open_slide

SIDE, EXPOSURE_MS, ROLLING_MS = 384, 5.0, 10.0
AFFINE = PixelToStage.from_scale(0.5)


@pytest.fixture(scope="module")
def slide() -> VirtualSlide:
    return open_slide(None, 0.5, 2, (0.5, 0.5))


def shot(
    slide: VirtualSlide, at_um: tuple[float, float], speed_um_ms: NDArray[np.float64], number: int
) -> tuple[Pixels, MotionVector]:
    """A frame of a rolling shutter, and its motion."""
    optics = Optics(slide, AFFINE, (SIDE, SIDE), color=False)
    sensor = Sensor((SIDE, SIDE), 8, "srgb", 20000.0, 4.0, 0.15, 1)
    u = EXPOSURE_MS * ((np.arange(32) + 0.5) / 32 - 0.5)
    rows = ROLLING_MS * np.linspace(-0.5, 0.5, SIDE)[:, None] * speed_um_ms
    light = optics.rolled_light(np.array(at_um) + u[:, None] * speed_um_ms, rows)
    dy, dx = -AFFINE.to_pixels(speed_um_ms * EXPOSURE_MS)
    return sensor.expose(light, 0, number), MotionVector(float(dy), float(dx))


@pytest.mark.parametrize(
    ("first", "second"),
    [((0.0, 0.0), (0.0, 0.3)), ((0.0, 0.0), (-0.3, 0.0)), ((0.0, -0.4), (0.0, 0.4)), ((0.0, 0.3), (0.3, 0.0)), ((0.3, 0.3), (0.3, 0.3))],
)  # fmt: skip
def test_it_grows_with_the_difference_of_the_speeds(
    slide: VirtualSlide, first: tuple[float, float], second: tuple[float, float]
) -> None:
    registrar = FrameRegistrar("srgb")
    at = ((120.0, 120.0), (131.0, 139.0))
    looks = [
        registrar.prepare(*shot(slide, where, np.array(speed), number))
        for number, (where, speed) in enumerate(zip(at, (first, second), strict=True))
    ]
    expected_px = AFFINE.to_pixels(np.subtract(at[1], at[0]))
    match = registrar.shift(looks[0], looks[1], expected_px, 20.0)
    assert match is not None
    found = registrar.skew(looks[0], looks[1], match[0])
    assert found is not None
    # in pixels from the first row to the last; the image runs against the stage
    true_px = ROLLING_MS * -AFFINE.to_pixels(np.subtract(first, second))
    assert found[0] * (SIDE - 1) == pytest.approx(true_px, abs=0.15 + 0.02 * np.abs(true_px).max())


def test_where_there_is_too_little_to_see_it_says_nothing() -> None:
    grey = np.random.default_rng(1).integers(0, 255, (128, 128)).astype(np.uint8)
    assert skew(grey, grey, np.array([120.0, 0.0])) is None
    assert skew(grey, grey, np.array([300.0, 0.0])) is None
    flat = np.full((128, 128), 200, np.uint8)
    assert skew(flat, flat, np.zeros(2)) is None
    # another picture altogether
    other = np.random.default_rng(2).integers(0, 255, (128, 128)).astype(np.uint8)
    found = skew(grey, other, np.zeros(2))
    assert found is None or found[1] * 127 > 0.3
