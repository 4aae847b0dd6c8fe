from __future__ import annotations

import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deblurd.frames import MotionVector, Pixels
from deblurd.fuse.fuser import ALIKE, WRONG_MOTION, Fuser, Noise
from deblurd.fuse.views import LIGHT_CHANGED, View
from deblurd.kernel import reblur
from deblurd.light import to_linear
from tests.fuse.frames import UNKNOWN, Scene

ALONG = MotionVector(0.0, 8.0)
PLACES = [(0.0, 0.0), (0.3, 20.4), (-0.6, -25.2), (10.5, 13.7), (-8.1, 5.3)]


def _scene(motions: list[MotionVector], **kwargs: float) -> Scene:
    scene = Scene(**kwargs)  # type: ignore[arg-type]
    for motion, place in zip(motions, PLACES, strict=False):
        scene.shoot(motion, place)
    return scene


def test_different_kernels_fill_each_others_zeros() -> None:
    alike = _scene([MotionVector(0, 12.0)] * 2)
    unlike = _scene([MotionVector(0, 12.0), MotionVector(0, 8.0)])
    crossed = _scene([MotionVector(0, 12.0), MotionVector(12.0, 0)])
    averaged = alike.fuse()
    assert unlike.psnr_db(unlike.fuse().light) > alike.psnr_db(averaged.light) + 1.5
    assert crossed.psnr_db(crossed.fuse().light) > alike.psnr_db(averaged.light) + 1.5
    assert averaged.kinds == 1
    assert averaged.unseen > 0.02
    assert averaged.notes == {0: ALIKE}
    assert unlike.fuse().unseen < averaged.unseen / 3


def test_many_frames_alike_take_the_noise_away() -> None:
    scene = _scene([MotionVector(0, 2.0)] * 5, electrons=500.0)
    gain_db = scene.psnr_db(scene.fuse().light) - scene.psnr_db(scene.fuse([0, 1]).light)
    assert gain_db > 1.5
    assert scene.fuse().observations.max() == 5


def test_what_lies_beyond_the_border_does_not_ring_where_all_are_blurred_alike_and_far() -> None:
    scene = _scene([MotionVector(0, 20.0)] * 4)
    assert scene.psnr_db(scene.fuse().light) > 24.0


def test_a_wrong_place_is_put_right_or_left_out_and_costs_no_more_than_that() -> None:
    for off_px in ((0.0, 0.4), (0.2, 2.5), (9.0, -14.0)):
        scene = _scene([ALONG, ALONG, ALONG])
        scene.shoot(ALONG, PLACES[3], told_px=off_px)
        fused = scene.fuse()
        without = scene.psnr_db(scene.fuse([0, 1, 2]).light)
        assert scene.psnr_db(fused.light) > without - 0.2
        if off_px != (0.0, 0.4):
            assert list(fused.left_out) == [3]


@pytest.mark.parametrize("told", [MotionVector(0.0, 10.8), MotionVector(2.7, 7.5)])
def test_a_frame_whose_motion_is_told_wrongly_is_left_out(told: MotionVector) -> None:
    scene = _scene([ALONG, ALONG, ALONG])
    scene.shoot(ALONG, PLACES[3], told_motion=told)
    fused = scene.fuse()
    assert fused.left_out == {3: WRONG_MOTION}
    assert not _scene([ALONG] * 4).fuse().left_out


def test_a_tile_whose_own_motion_is_told_wrongly_is_made_of_the_others() -> None:
    scene = Scene()
    scene.shoot(ALONG, PLACES[0], told_motion=MotionVector(0.0, 11.2))
    for place in PLACES[1:]:
        scene.shoot(ALONG, place)
    right = _scene([ALONG] * 5)
    fused = scene.fuse()
    assert not fused.left_out
    assert fused.observations[60:130, 60:130].max() == 4
    assert scene.psnr_db(fused.light) > right.psnr_db(right.fuse().light) - 1.0


def test_a_frame_of_something_else_is_left_out() -> None:
    scene = _scene([ALONG, ALONG, ALONG])
    other = Scene(seed=7)
    other.shoot(ALONG)
    scene.pixels.append(other.pixels[0])
    scene.views.append(View(3, ALONG, (0.0, 0.0), 10.0))
    assert list(scene.fuse().left_out) == [3]


@pytest.mark.parametrize("dirty", [0, 2])
def test_dirt_on_one_frame_is_left_out_there_even_if_it_is_the_key(dirty: int) -> None:
    def soil(pixels: Pixels) -> object:
        return cv2.circle(pixels, (96 - 20 * (dirty > 0), 90), 14, (30, 25, 20), -1)

    clean = _scene([ALONG] * 5)
    scene = Scene()
    for n, place in enumerate(PLACES):
        scene.shoot(ALONG, place, mark=soil if n == dirty else lambda pixels: None)
    fused = scene.fuse()
    assert not fused.left_out
    assert scene.psnr_db(fused.light) > clean.psnr_db(clean.fuse().light) - 0.7
    assert fused.observations[60:120, 40:110].min() < fused.observations[60:120, 40:110].max()


def test_unknown_motion_and_nothing_in_common_are_left_out_with_the_reason() -> None:
    scene = _scene([ALONG, MotionVector(0, 5.0)])
    scene.shoot(ALONG, PLACES[2], told_motion=UNKNOWN)
    scene.views.append(View(0, ALONG, (500.0, 0.0), 10.0))
    key, *others = scene.views
    others[-1] = View(1, ALONG, (500.0, 0.0), 10.0)
    fused = scene.fuser().fuse(key, others)
    assert fused is not None
    assert "motion is not known" in fused.left_out[2]
    alone = scene.fuser().fuse(key, [View(1, ALONG, (500.0, 0.0), 10.0)])
    assert alone is None
    assert scene.fuser().fuse(View(0, UNKNOWN, (0, 0), 10.0), others) is None


def test_one_frame_has_nothing_to_be_fused_with() -> None:
    scene = _scene([ALONG])
    assert scene.fuser().fuse(scene.views[0], []) is None


def test_a_change_of_exposure_in_mid_scan_is_evened_out_and_said() -> None:
    scene = _scene([ALONG, MotionVector(0, 5.0)])
    scene.shoot(MotionVector(0, 5.0), PLACES[2], brightness=0.6)
    fused = scene.fuse()
    steady = _scene([ALONG, MotionVector(0, 5.0), MotionVector(0, 5.0)])
    assert scene.psnr_db(fused.light) > steady.psnr_db(steady.fuse().light) - 0.5
    assert fused.notes == {2: LIGHT_CHANGED}


def test_a_burnt_out_frame_does_not_whiten_the_others() -> None:
    scene = _scene([ALONG, MotionVector(0, 5.0)])
    before = scene.psnr_db(scene.fuse().light)
    scene.shoot(MotionVector(0, 5.0), PLACES[2], brightness=3.0)
    assert scene.psnr_db(scene.fuse().light) > before - 0.3


def test_unequal_exposures_are_weighed_by_their_light() -> None:
    scene = Scene(electrons=600.0)
    scene.shoot(MotionVector(0, 10.0), PLACES[0], exposure_ms=10.0)
    scene.shoot(MotionVector(0, 2.0), PLACES[1], exposure_ms=2.0, brightness=0.2)
    fused = scene.fuse()
    alone = scene.fuse([0, 0])
    assert not fused.notes
    assert scene.psnr_db(fused.light) > scene.psnr_db(alone.light) + 1.0


def test_a_measured_camera_weighs_dim_frames_by_their_read_noise() -> None:
    """Of 40 electrons of white with 12 of read noise a short frame is worth far less than its share of the light."""
    scene = Scene(electrons=200.0, read_e=12.0)
    scene.shoot(MotionVector(0, 10.0), PLACES[0], exposure_ms=10.0)
    for place in PLACES[1:]:
        scene.shoot(MotionVector(0, 2.0), place, exposure_ms=2.0, brightness=0.2)
    key, *others = scene.views
    known, guessed = (scene.fuser(measured=measured).fuse(key, others) for measured in (True, False))
    assert known is not None
    assert guessed is not None
    assert scene.psnr_db(known.light) > scene.psnr_db(guessed.light) + 0.3


def test_what_was_measured_of_the_camera_is_not_believed_against_the_frames() -> None:
    """Its gain was changed since."""
    scene = _scene([ALONG, MotionVector(0, 5.0)])
    key, *others = scene.views
    wrong = Fuser(scene.pixels.__getitem__, "srgb", noise=Noise(200.0, 50.0)).fuse(key, others)
    guessed = scene.fuser(measured=False).fuse(key, others)
    assert wrong is not None
    assert guessed is not None
    assert np.array_equal(wrong.light, guessed.light)


def test_the_expected_error_is_about_the_real_one() -> None:
    scene = _scene([ALONG, MotionVector(0, 5.0), MotionVector(0, 3.0)])
    fused = scene.fuse()
    sharp = to_linear(scene.sharp, "srgb")[112:272, 112:272]
    error = fused.light[16:-16, 16:-16] - sharp
    assert fused.noise == pytest.approx(float(error.std()), rel=0.35)
    assert fused.noise < fused.single_noise


def test_memory_does_not_grow_with_the_frames() -> None:
    scene = _scene([MotionVector(0, 3.0)] * 3)

    def peak(frames: int) -> int:
        views = [View(n % 3, ALONG, scene.views[n % 3].offset_px, 10.0) for n in range(frames)]
        tracemalloc.start()
        scene.fuser().fuse(views[0], views[1:])
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(24) < 1.05 * peak(4)


def test_grey_frames_are_fused_too() -> None:
    scene = _scene([ALONG, MotionVector(0, 5.0)])
    grey = [np.ascontiguousarray(pixels[..., 1]) for pixels in scene.pixels]
    scene.pixels[:] = grey
    assert scene.fuse().light.shape == grey[0].shape


@settings(max_examples=6, deadline=None)
@given(dy=st.floats(-9, 9), dx=st.floats(-9, 9), y=st.floats(-40, 40), x=st.floats(-40, 40))
def test_a_frame_anywhere_with_any_motion_never_makes_it_worse(
    dy: float, dx: float, y: float, x: float
) -> None:
    scene = Scene()
    scene.shoot(ALONG)
    scene.shoot(MotionVector(dy, dx), (y, x))
    scene.shoot(ALONG)
    both, alone = scene.fuse(), scene.fuse([0, 2])
    assert np.isfinite(both.light).all()
    assert scene.psnr_db(both.light) > scene.psnr_db(alone.light) - 0.6


def test_blurring_the_estimate_again_gives_the_frames_back() -> None:
    scene = _scene([ALONG, MotionVector(0, 5.0)])
    fused = scene.fuse()
    again = reblur(fused.light, ALONG)[16:-16, 16:-16]
    seen = to_linear(scene.pixels[0], "srgb")[16:-16, 16:-16]
    assert float((again - seen).std()) < 0.02
