"""What a network made of one frame, made better by the frames around."""

from __future__ import annotations

import numpy as np
import pytest

from deblurd.frames import MotionVector, Pixels
from deblurd.fuse.fuser import Fused
from deblurd.light import encode, to_linear
from tests.fuse.frames import SIDE_PX, Scene
from tests.fuse.test_fuser import ALONG, PLACES


def _scene(others: list[MotionVector], electrons: float = 10_000.0) -> Scene:
    scene = Scene(electrons=electrons)
    for motion, place in zip([ALONG, *others], PLACES, strict=False):
        scene.shoot(motion, place)
    return scene


def _alone(scene: Scene, error: float) -> Pixels:
    """The sharp picture with the errors of an estimate: a network's stand-in whose quality is known."""
    first = (scene.sharp.shape[0] - SIDE_PX) // 2
    sharp = scene.sharp[first : first + SIDE_PX, first : first + SIDE_PX]
    noise = np.random.default_rng(9).normal(0, error, sharp.shape)
    return np.clip(sharp + noise, 0, 255).round().astype(np.uint8)


def _fuse(scene: Scene, alone: Pixels) -> Fused:
    fused = scene.fuser().fuse(scene.views[0], scene.views[1:], alone)
    assert fused is not None
    return fused


@pytest.mark.parametrize("others", [[MotionVector(0.0, 5.0)] * 3, [MotionVector(7.0, 0.0)] * 4])
def test_the_others_make_it_better_and_a_good_one_stays_good(others: list[MotionVector]) -> None:
    scene = _scene(others)
    poor, good = _alone(scene, 8.0), _alone(scene, 2.0)
    assert scene.psnr_db(_fuse(scene, poor).light) > scene.psnr_db(to_linear(poor, "srgb")) + 1.0
    fused = scene.psnr_db(_fuse(scene, good).light)
    assert fused > scene.psnr_db(scene.fuse().light) + 0.3


def test_where_nothing_else_is_seen_it_stays_as_it_is() -> None:
    scene = Scene()
    scene.shoot(ALONG)
    scene.shoot(MotionVector(0.0, 5.0), (0.0, 90.0))
    alone = _alone(scene, 3.0)
    fused = _fuse(scene, alone)
    unseen = (slice(20, -20), slice(20, 60))
    assert fused.observations[unseen].max() == 1
    off = encode(fused.light)[unseen] - alone[unseen] / 255.0
    assert float(np.sqrt(np.mean(off**2))) < 1.5 / 255
    assert fused.observations[20:-20, 120:-20].min() == 2


def test_the_error_expected_falls_with_the_frames() -> None:
    few, many = _scene([MotionVector(0.0, 5.0)]), _scene([MotionVector(0.0, 5.0)] * 4)
    a, b = _fuse(few, _alone(few, 4.0)), _fuse(many, _alone(many, 4.0))
    assert b.noise < a.noise < a.single_noise


def test_in_dim_light_raw_frames_say_more_than_what_was_made_of_one() -> None:
    scene = _scene([MotionVector(0.0, 5.0)] * 3, electrons=100.0)
    poor = _alone(scene, 20.0)
    assert scene.psnr_db(_fuse(scene, poor).light) == scene.psnr_db(scene.fuse().light)
