from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deblurd.deblur.wiener import wiener
from deblurd.errors import DataError
from deblurd.frames import MotionVector
from deblurd.kernel import reblur
from deblurd.light import Image

NSR = 0.01


def scene(shape: tuple[int, ...] = (160, 200)) -> Image:
    """Dark discs on light ground: edges in every direction."""
    rng = np.random.default_rng(3)
    image = np.full((*shape[:2], 3), 0.9, dtype=np.float32)
    for _ in range(60):
        y, x = (int(v) for v in rng.uniform(0, shape[:2]))
        cv2.circle(image, (x, y), int(rng.integers(3, 11)), tuple(rng.uniform(0.1, 0.7, 3)), -1, cv2.LINE_AA)
    return image if len(shape) == 3 else np.ascontiguousarray(image[..., 0])


def rms(a: Image, b: Image) -> float:
    inner = (slice(24, -24), slice(24, -24))
    return float(np.sqrt(np.mean((a[inner] - b[inner]) ** 2)))


@pytest.mark.parametrize(
    "motion",
    [
        MotionVector(0, 8),
        MotionVector(8, 0),
        MotionVector(0.2, 12),
        MotionVector(5, 6),
        MotionVector(0, 10, 0, 1.5),
        MotionVector(0, 10, 1.5, 0),
        MotionVector(0, 20),
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", [(160, 200), (160, 200, 3)])
def test_takes_out_at_least_half_of_the_error(motion: MotionVector, shape: tuple[int, ...]) -> None:
    sharp = scene(shape)
    blurred = reblur(sharp, motion)
    restored = wiener(blurred, motion, NSR)
    assert restored.shape == sharp.shape
    assert restored.dtype == np.float32
    assert rms(restored, sharp) < 0.62 * rms(blurred, sharp)


def test_both_axes_are_the_same_case() -> None:
    blurred = reblur(scene(), MotionVector(0, 11))
    along_x = wiener(blurred, MotionVector(0, 11), NSR)
    along_y = wiener(np.ascontiguousarray(blurred.T), MotionVector(11, 0), NSR)
    assert pytest.approx(along_x, abs=1e-5) == along_y.T


def test_rows_and_plane_agree_within_the_image() -> None:
    blurred = reblur(scene(), MotionVector(0, 9))
    rows = wiener(blurred, MotionVector(0.29, 9), NSR)
    plane = wiener(blurred, MotionVector(0.31, 9), NSR)
    assert rms(rows, plane) < 0.02


def test_colours_do_not_mix() -> None:
    blurred = reblur(scene((160, 200, 3)), MotionVector(4, 7))
    together = wiener(blurred, MotionVector(4, 7), NSR)
    for channel in range(3):
        alone = wiener(np.ascontiguousarray(blurred[..., channel]), MotionVector(4, 7), NSR)
        assert together[..., channel] == pytest.approx(alone, abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([(), (1,), (3,)]),
    st.floats(-48, 48),
    st.floats(-48, 48),
    st.floats(0.05, 1),
)
def test_flat_images_of_any_size_stay_flat(
    height: int, width: int, channels: tuple[int, ...], dy: float, dx: float, level: float
) -> None:
    image = np.full((height, width, *channels), level, dtype=np.float32)
    assert wiener(image, MotionVector(dy, dx), NSR) == pytest.approx(image, abs=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.floats(-20, 20), st.floats(-20, 20))
def test_a_motion_and_its_reverse_give_the_same(dy: float, dx: float) -> None:
    image = scene((64, 72))
    there, back = (wiener(image, MotionVector(s * dy, s * dx), NSR) for s in (1, -1))
    assert there == pytest.approx(back, abs=1e-4)


@pytest.mark.parametrize("motion", [MotionVector(0, 20), MotionVector(20, 0), MotionVector(12, 16)], ids=str)
def test_what_lies_beyond_the_border_is_not_taken_for_a_mirror(motion: MotionVector) -> None:
    sharp = scene((240, 260))
    seen = (slice(40, -40), slice(40, -40))
    blurred = reblur(sharp, motion)
    field, of_all = np.ascontiguousarray(blurred[seen]), wiener(blurred, motion, NSR)[seen]
    textbook, free = (wiener(field, motion, NSR, free_border=free) for free in (False, True))
    assert rms(free, of_all) < 0.8 * rms(textbook, of_all)


def test_more_noise_is_met_with_more_caution() -> None:
    rng = np.random.default_rng(0)
    motion = MotionVector(0, 10)
    sharp = scene()
    blurred = (reblur(sharp, motion) + rng.normal(0, 0.05, sharp.shape)).astype(np.float32)
    assert rms(wiener(blurred, motion, 0.1), sharp) < rms(wiener(blurred, motion, 0.001), sharp)


def test_unknown_motion_is_refused() -> None:
    with pytest.raises(DataError, match="not known"):
        wiener(scene(), MotionVector(0, 5, sigma_px=math.inf), NSR)
