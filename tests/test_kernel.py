from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deblurd.errors import DataError
from deblurd.frames import MotionVector
from deblurd.kernel import CROSS_PX, axis_of, motion_kernel, reblur
from deblurd.light import Image

travel = st.floats(-60, 60)
bend = st.floats(-4, 4)


def scene(shape: tuple[int, ...] = (90, 110), seed: int = 0) -> Image:
    noise = np.random.default_rng(seed).random(shape, dtype=np.float32)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 1.2), dtype=np.float32)


def accumulated(image: Image, motion: MotionVector, steps: int = 256) -> Image:
    """The definition: bilinear shifts along the path, averaged."""
    total = np.zeros(image.shape, dtype=np.float64)
    for dy, dx in motion.at((np.arange(steps) + 0.5) / steps - 0.5):
        shift = np.array([[1, 0, dx], [0, 1, dy]], dtype=np.float64)
        total += cv2.warpAffine(image, shift, image.shape[1::-1], borderMode=cv2.BORDER_REFLECT)
    return np.asarray(total / steps, dtype=np.float32)


@given(travel, travel, bend, bend)
def test_kernel_is_odd_positive_and_keeps_light_and_place(dy: float, dx: float, by: float, bx: float) -> None:
    kernel = motion_kernel(MotionVector(dy, dx, by, bx))
    assert kernel.dtype == np.float32
    assert kernel.shape[0] % 2 == kernel.shape[1] % 2 == 1
    assert kernel.min() >= 0
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    y, x = np.indices(kernel.shape)
    assert (kernel * (y - kernel.shape[0] // 2)).sum() == pytest.approx(0, abs=2e-3)
    assert (kernel * (x - kernel.shape[1] // 2)).sum() == pytest.approx(0, abs=2e-3)


@given(travel, travel)
def test_steady_motion_is_symmetric_and_has_no_sense_of_direction(dy: float, dx: float) -> None:
    kernel = motion_kernel(MotionVector(dy, dx))
    assert kernel == pytest.approx(kernel[::-1, ::-1], abs=1e-6)
    assert kernel == pytest.approx(motion_kernel(MotionVector(-dy, -dx)), abs=1e-6)


def test_no_motion_is_no_blur() -> None:
    assert motion_kernel(MotionVector(0, 0)).tolist() == [[1.0]]
    image = scene()
    assert np.array_equal(reblur(image, MotionVector(0, 0)), image)


def test_a_whole_number_of_pixels_is_a_box_with_halved_ends() -> None:
    # a box of 4 px convolved with a hat of half width 1 and sampled
    assert motion_kernel(MotionVector(0, 4))[0] == pytest.approx(
        [1 / 8, 1 / 4, 1 / 4, 1 / 4, 1 / 8], abs=1e-3
    )


@pytest.mark.parametrize(
    "motion",
    [
        MotionVector(0, 7.3),
        MotionVector(-6.6, 0),
        MotionVector(5.2, -8.5),
        MotionVector(0, 12, 0, -2),
        MotionVector(3, 12, 2, -1.5),
        MotionVector(0.9, 0.7),
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", [(90, 110), (90, 110, 3)])
def test_reblur_equals_accumulated_shifts(motion: MotionVector, shape: tuple[int, ...]) -> None:
    image = scene(shape)
    blurred = reblur(image, motion)
    assert blurred.shape == image.shape
    assert blurred.dtype == np.float32
    inner = (slice(12, -12), slice(12, -12))
    assert blurred[inner] == pytest.approx(accumulated(image, motion)[inner], abs=2e-4)


def test_a_slight_stray_from_the_axis_costs_little() -> None:
    image = scene()
    motion = MotionVector(0.9 * CROSS_PX, 14)
    assert axis_of(motion) == 1
    inner = (slice(12, -12), slice(12, -12))
    assert blurred_rms(reblur(image, motion)[inner], accumulated(image, motion)[inner]) < 0.02 * image.std()


def blurred_rms(a: Image, b: Image) -> float:
    return float(np.sqrt(np.mean((a - b) ** 2)))


@pytest.mark.parametrize(
    ("motion", "axis"),
    [
        (MotionVector(0, 9), 1),
        (MotionVector(9, 0), 0),
        (MotionVector(9, 0.2), 0),
        (MotionVector(9, 0.4), None),
        (MotionVector(0, 9, 0, 2), 1),
        (MotionVector(0, 9, 2, 0), None),
        (MotionVector(0, 0), 1),
    ],
    ids=str,
)
def test_axis(motion: MotionVector, axis: int | None) -> None:
    assert axis_of(motion) == axis


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1), (5, 5, 3)])
@pytest.mark.parametrize("motion", [MotionVector(0, 20), MotionVector(15, 15)], ids=str)
def test_images_smaller_than_the_kernel(shape: tuple[int, ...], motion: MotionVector) -> None:
    image = np.full(shape, 0.4, dtype=np.float32)
    assert reblur(image, motion) == pytest.approx(image, abs=1e-5)


@pytest.mark.parametrize(
    "motion",
    [
        MotionVector(0, 5, sigma_px=math.inf),
        MotionVector(math.nan, 5),
        MotionVector(math.inf, 5),
        MotionVector(0, 5, math.nan),
    ],
    ids=str,
)
def test_unknown_motion_has_no_kernel(motion: MotionVector) -> None:
    with pytest.raises(DataError, match="not known"):
        motion_kernel(motion)
