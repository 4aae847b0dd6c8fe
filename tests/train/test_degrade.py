from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from deblurd import light
from deblurd.frames import MotionVector
from deblurd.kernel import reblur
from deblurd.train.dataset import Images
from deblurd.train.degrade import (
    as_tracked,
    defocused,
    degrade,
    draw_example,
    draw_motion,
    expose,
    turned,
)
from deblurd.train.recipe import AT_REST_PX, DegradeRecipe, Recipe

CALM = DegradeRecipe(
    field_px=64,
    guard_px=8,
    blur_px=(1, 12),
    full_well_e=(1e6, 1e6),
    read_noise_e=(0.1, 0.1),
    linear_share=0,
    length_jitter=0,
    angle_jitter_deg=0,
    gross_share=0,
    soft_share=0,
    defocus_share=0,
)

Drawing = Callable[[int, tuple[int, int]], NDArray[np.uint8]]


def scene(drawn: NDArray[np.uint8]) -> light.Image:
    return light.to_linear(drawn, "srgb")


def psnr(a: NDArray[np.uint16], b: NDArray[np.uint16]) -> float:
    return float(-10 * np.log10(np.mean((a / 65535 - b / 65535) ** 2)))


def test_the_estimate_lies_between_the_blurred_and_the_sharp(draw: Drawing) -> None:
    rng = np.random.default_rng(0)
    linear = scene(draw(1, (CALM.scene_px, CALM.scene_px)))
    example = degrade(linear, MotionVector(0, 9), CALM, rng)
    assert example.sharp.shape == example.blurred.shape == example.estimate.shape == (64, 64, 3)
    assert example.motion.tolist() == [0, 9]
    assert psnr(example.estimate, example.sharp) > psnr(example.blurred, example.sharp) + 2


def test_the_target_lies_where_the_scene_does(draw: Drawing) -> None:
    linear = scene(draw(1, (CALM.scene_px, CALM.scene_px)))
    example = degrade(linear, MotionVector(0, 0), CALM, np.random.default_rng(0))
    cut = CALM.guard_px + CALM.margin_px
    wanted = light.encode(linear)[cut:-cut, cut:-cut]
    for image in (example.sharp, example.blurred):
        assert image / 65535 == pytest.approx(wanted, abs=0.012)


def test_turning_an_example_turns_its_motion(draw: Drawing) -> None:
    motion = MotionVector(3, 8)
    linear = scene(draw(2, (CALM.scene_px, CALM.scene_px)))
    example = degrade(linear, motion, CALM, np.random.default_rng(0))
    seen = set()
    for seed in range(40):
        other = example.turned(np.random.default_rng(seed))
        dy, dx = (float(v) for v in other.motion)
        seen.add((dy, dx))
        # blurring the turned target along the turned motion gives the turned input
        again = light.encode(
            light_blur(light.decode(np.asarray(other.sharp / 65535, dtype=np.float32)), MotionVector(dy, dx))
        )
        inner = (slice(12, -12), slice(12, -12))
        assert np.abs(again - other.blurred / 65535)[inner].mean() < 0.01
    assert seen == {
        (a, b) for a, b in [(3, 8), (-3, 8), (3, -8), (-3, -8), (8, 3), (-8, 3), (8, -3), (-8, -3)]
    }


def light_blur(linear: light.Image, motion: MotionVector) -> light.Image:
    return reblur(np.ascontiguousarray(linear), motion)


@given(st.integers(0, 2**32 - 1))
def test_drawn_motions_keep_to_the_recipe(seed: int) -> None:
    recipe = DegradeRecipe()
    motion = draw_motion(recipe, np.random.default_rng(seed))
    low, high = recipe.blur_px
    assert low * 0.999 <= motion.length_px <= high * 1.001
    reach = np.abs(motion.at(np.linspace(-0.5, 0.5, 65))).max()
    assert reach <= recipe.margin_px


def test_a_good_share_runs_along_an_axis_and_some_bend() -> None:
    rng = np.random.default_rng(0)
    motions = [draw_motion(DegradeRecipe(), rng) for _ in range(400)]
    along = [m for m in motions if min(abs(m.dy), abs(m.dx)) < 1e-6]
    assert 0.4 < len(along) / 400 < 0.6
    assert 0.1 < sum(m.bend_dx**2 + m.bend_dy**2 > 0 for m in motions) / 400 < 0.3
    assert min(m.length_px for m in motions) < 2
    assert max(m.length_px for m in motions) > 40


def test_turned_from_x_towards_y() -> None:
    motion = turned(MotionVector(0, 10, 0, 1), 1.1, 90)
    assert (motion.dy, motion.dx) == pytest.approx((11, 0), abs=1e-9)
    assert (motion.bend_dy, motion.bend_dx) == pytest.approx((1.1, 0), abs=1e-9)


def test_tracking_errors_have_the_recipe_s_size() -> None:
    rng = np.random.default_rng(0)
    recipe = DegradeRecipe(gross_share=0)
    tracked = [as_tracked(MotionVector(0, 10), recipe, rng) for _ in range(500)]
    assert np.std([m.length_px / 10 for m in tracked]) == pytest.approx(0.03, rel=0.2)
    angles = [math.degrees(math.atan2(m.dy, m.dx)) for m in tracked]
    assert np.std(angles) == pytest.approx(1, rel=0.2)


def test_noise_follows_the_light() -> None:
    rng = np.random.default_rng(0)
    light_level = np.full((300, 300), 0.5, dtype=np.float32)
    exposed = expose(light_level, 10000, 5, rng)
    assert exposed.mean() == pytest.approx(0.5, abs=1e-3)
    assert exposed.std() == pytest.approx(math.sqrt(5000 + 25) / 10000, rel=0.03)


def test_examples_follow_from_the_seed(recipe: Recipe, draw: Drawing) -> None:
    images = Images(pixels=[draw(0, (80, 96))])
    weights = np.ones(1)
    one, two = (draw_example(images, weights, recipe.degrade, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(one.estimate, two.estimate)
    assert np.array_equal(one.motion, two.motion)


@pytest.mark.parametrize("disc", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("sigma", [1.0, 3.0])
def test_a_defocus_has_its_sigma_whatever_its_shape(sigma: float, disc: float) -> None:
    point = np.zeros((61, 61, 1), np.float32)
    point[30, 30] = 1
    psf = defocused(point, sigma, disc).reshape(61, 61)
    assert psf.sum() == pytest.approx(1, abs=1e-4)
    place = np.arange(61) - 30
    for axis in (0, 1):
        profile = psf.sum(axis=axis)
        assert float(profile @ place) == pytest.approx(0, abs=1e-4)
        assert math.sqrt(float(profile @ place**2)) == pytest.approx(sigma, rel=0.1)


def test_a_disc_is_flat_and_a_gaussian_is_not() -> None:
    point = np.zeros((61, 61, 1), np.float32)
    point[30, 30] = 1
    for disc, ratio in ((0.0, math.exp(-0.5)), (1.0, 1.0)):
        psf = defocused(point, 4.0, disc).reshape(61, 61)
        assert psf[30, 34] / psf[30, 30] == pytest.approx(ratio, abs=0.02)
    assert defocused(point, 0.0, 0.5) is point


def test_some_frames_rest() -> None:
    rng = np.random.default_rng(0)
    recipe = DegradeRecipe(rest_share=0.5)
    lengths = np.array([draw_motion(recipe, rng).length_px for _ in range(400)])
    assert 0.4 < np.mean(lengths < AT_REST_PX) < 0.6
    assert np.all((lengths < AT_REST_PX) | (lengths >= recipe.blur_px[0] * 0.999))


def test_a_defocus_is_in_the_input_and_not_in_the_target(draw: Drawing) -> None:
    linear = scene(draw(1, (CALM.scene_px, CALM.scene_px)))
    focused, not_focused = (
        degrade(linear, MotionVector(0, 0), CALM, np.random.default_rng(0), sigma) for sigma in (0.0, 2.0)
    )
    assert np.array_equal(focused.sharp, not_focused.sharp)
    assert np.abs(focused.blurred - focused.sharp.astype(float)).mean() < 100
    assert psnr(not_focused.blurred, focused.sharp) < 30
