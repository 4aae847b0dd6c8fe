"""Which way a tile goes, what comes out, and that nothing is invented."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest

from deblurd.deblur.consistency import residual, unexplained
from deblurd.deblur.deblurrer import Deblurrer
from deblurd.deblur.defocus import defocus_px
from deblurd.deblur.gate import gate, lost_in_noise
from deblurd.deblur.model import find_model
from deblurd.deblur.noise import noise_sigma
from deblurd.frames import Gate, MotionVector, Pixels
from deblurd.kernel import reblur
from deblurd.light import Image, from_linear, luminance_of, to_linear
from tests.deblur.samples import MakeModel, blurred, identity_taps, network, psnr, tile, tissue

ACROSS = MotionVector(0.0, 12.0)
UNKNOWN = MotionVector(math.nan, math.nan, sigma_px=math.inf)


@pytest.fixture(params=["wiener", "fast", "bank"])
def deblurrer(request: pytest.FixtureRequest) -> Iterator[Deblurrer]:
    made = Deblurrer(find_model(request.param), encoding="srgb", threads=2, device="cpu")
    yield made
    made.close()


@pytest.mark.parametrize(
    "motion", [ACROSS, MotionVector(9.0, 0.0), MotionVector(7.0, -8.0), MotionVector(0, 10, 0, 0.8)]
)
def test_deblurring_comes_nearer_to_the_truth(deblurrer: Deblurrer, motion: MotionVector) -> None:
    truth = tissue()
    raw = blurred(truth, motion)
    result = deblurrer.deblur([(tile(motion), raw)])[0]
    assert result.gate == "deblur"
    assert result.source == 2
    assert psnr(result.pixels, truth) > psnr(raw, truth) + 2


def test_batches_change_nothing_but_the_time(deblurrer: Deblurrer) -> None:
    motions = [ACROSS, MotionVector(0.1, 11.0), UNKNOWN, MotionVector(0, 0.1), MotionVector(5.0, 5.0)]
    items = [
        (tile(m, i), blurred(tissue(seed=i), m) if m.is_known else tissue(seed=i))
        for i, m in enumerate(motions)
    ]
    together = deblurrer.deblur(items)
    alone = [deblurrer.deblur([item])[0] for item in items]
    assert [r.index for r in together] == list(range(5))
    for a, b in zip(together, alone, strict=True):
        assert (a.gate, a.source) == (b.gate, b.source)
        assert np.array_equal(a.pixels, b.pixels)


@pytest.mark.parametrize(
    ("motion", "image", "way"),
    [
        (UNKNOWN, tissue(), "unknown_motion"),
        (MotionVector(0.0, 12.0, sigma_px=1.5), tissue(), "unknown_motion"),
        (MotionVector(0.3, 0.2), tissue(), "sharp"),
        (ACROSS, np.full((256, 320, 3), 230, np.uint8), "blank"),
        (MotionVector(0.0, 60.0), tissue(), "out_of_range"),
    ],
)
def test_what_must_not_be_deblurred_stays_raw(
    make_model: MakeModel, motion: MotionVector, image: Pixels, way: Gate
) -> None:
    result = Deblurrer(find_model(str(make_model())), encoding="srgb").deblur([(tile(motion), image)])[0]
    assert result.gate == way
    assert result.source == 1
    assert result.pixels is image


def test_blank_glass_with_noise_and_shading_is_blank_and_one_cell_is_not() -> None:
    rng = np.random.default_rng(1)
    x, y = np.meshgrid(np.linspace(-1, 1, 320), np.linspace(-1, 1, 256))
    glass = 235 - 14 * (x**2 + y**2)
    noisy = np.clip(glass[..., None] + rng.normal(0, 1.5, (256, 320, 3)), 0, 255).astype(np.uint8)
    light = to_linear(noisy, "srgb").mean(axis=2)
    assert gate(light, ACROSS, noise_sigma(light), 0.7, (1, 48)) == "blank"
    cv2.circle(noisy, (200, 100), 9, (120, 80, 160), -1)
    cell = to_linear(noisy, "srgb").mean(axis=2)
    assert gate(cell, ACROSS, noise_sigma(cell), 0.7, (1, 48)) == "deblur"


@pytest.mark.parametrize(
    ("contrast", "length_px", "lost"), [(1.0, 2, False), (0.04, 2, True), (0.04, 8, False)]
)
def test_a_short_blur_that_is_lost_in_noise_is_left_alone(
    make_model: MakeModel, contrast: float, length_px: float, lost: bool
) -> None:
    light = 0.5 + contrast * (to_linear(tissue(), "srgb") - 0.5)
    motion = MotionVector(0, length_px)
    noisy = reblur(light, motion) + np.random.default_rng(1).normal(0, 0.01, light.shape).astype(np.float32)
    luminance = luminance_of(noisy)
    assert lost_in_noise(luminance, motion, noise_sigma(luminance)) is lost
    if lost:
        result = Deblurrer(find_model(str(make_model())), encoding="linear").deblur(
            [(tile(motion), from_linear(noisy, np.uint8, "linear"))]
        )[0]
        assert (result.gate, result.source) == ("sharp", 1)


@pytest.mark.parametrize("sigma", [0.002, 0.01, 0.05])
def test_noise_is_measured_in_spite_of_structure(sigma: float) -> None:
    light = to_linear(blurred(tissue(), MotionVector(0, 20)), "srgb").mean(axis=2).astype(np.float32)
    smooth = cv2.GaussianBlur(light, (0, 0), 3)
    noisy = smooth + np.random.default_rng(1).normal(0, sigma, smooth.shape).astype(np.float32)
    assert noise_sigma(noisy) == pytest.approx(sigma, rel=0.1)
    assert noise_sigma(np.zeros((2, 2), np.float32)) == 0


def test_a_network_that_invents_is_caught(make_model: MakeModel) -> None:
    rings = np.zeros((3, 3, 9, 9), np.float32)
    for c in range(3):
        rings[c, c, 4, 4], rings[c, c, 0, :], rings[c, c, 8, :] = 3.0, -0.12, -0.102
    folder = make_model(network(rings))
    raw = blurred(tissue(), ACROSS)
    result = Deblurrer(find_model(str(folder)), encoding="srgb").deblur([(tile(ACROSS), raw)])[0]
    assert result.gate == "inconsistent"
    assert result.residual > 0.7
    assert result.pixels is raw


@pytest.mark.parametrize("bias", [math.nan, math.inf])
def test_a_network_that_gives_no_numbers_is_caught(make_model: MakeModel, bias: float) -> None:
    folder = make_model(network(identity_taps(), bias=bias))
    raw = blurred(tissue(), ACROSS)
    result = Deblurrer(find_model(str(folder)), encoding="srgb").deblur([(tile(ACROSS), raw)])[0]
    assert (result.gate, result.source) == ("inconsistent", 1)
    assert result.pixels is raw


def test_each_tile_of_a_batch_goes_through_the_sub_model_of_its_motion(make_model: MakeModel) -> None:
    folder = make_model()
    broken = network(identity_taps(), bias=math.nan).SerializeToString()
    (folder / "long.onnx").write_bytes(broken)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["kind"] = "bank"
    manifest["files"][0]["blur_px"] = [1, 10]
    manifest["files"].append(
        {"file": "long.onnx", "sha256": hashlib.sha256(broken).hexdigest(), "blur_px": [10, 48]}
    )
    (folder / "manifest.json").write_text(json.dumps(manifest))
    motions = [MotionVector(0, 6), MotionVector(15, 0), MotionVector(-6, 0)]
    items = [(tile(m, i), blurred(tissue(), m)) for i, m in enumerate(motions)]
    results = Deblurrer(find_model(str(folder)), encoding="srgb", device="cpu").deblur(items)
    assert [r.gate for r in results] == ["deblur", "inconsistent", "deblur"]


def raw_right_painted_noise() -> tuple[Image, Image, Image, float]:
    """Linear light of a tile, of what it shows, and of that with nuclei painted in; and the tile's noise."""
    truth = tissue()
    invented = truth.copy()
    for x in range(40, 300, 40):
        cv2.circle(invented, (x, 120), 8, (90, 60, 140), -1)
    raw, right, painted = (
        to_linear(pixels, "srgb").mean(axis=2) for pixels in (blurred(truth, ACROSS), truth, invented)
    )
    return raw, right, painted, noise_sigma(raw)


def test_the_residual_tells_right_from_painted_in() -> None:
    raw, right, painted, noise = raw_right_painted_noise()
    assert residual(raw, right, ACROSS, noise) < 1
    assert residual(raw, painted, ACROSS, noise) > 1.4
    assert math.isnan(residual(np.ones_like(raw), right, ACROSS, noise))


def test_what_a_result_leaves_unexplained_is_counted_in_what_the_blur_does() -> None:
    raw, right, painted, noise = raw_right_painted_noise()
    assert unexplained(raw, right, ACROSS, noise) < 0.3
    assert unexplained(raw, raw, ACROSS, 0.0) == pytest.approx(1)
    assert unexplained(raw, painted, ACROSS, noise) > 0.7
    assert math.isnan(unexplained(np.ones_like(raw), right, ACROSS, noise))


def test_a_doubtful_result_is_mixed_with_the_raw_pixels(make_model: MakeModel) -> None:
    """The identity leaves the Wiener estimate, so a limit just above what that leaves puts it in doubt."""
    model, item = find_model(str(make_model())), (tile(ACROSS), blurred(tissue(), ACROSS))
    plain = Deblurrer(model, encoding="srgb", consistency_limit=9).deblur([item])[0]
    doubted = Deblurrer(model, encoding="srgb", consistency_limit=plain.residual + 0.1).deblur([item])[0]
    refused = Deblurrer(model, encoding="srgb", consistency_limit=plain.residual - 0.01).deblur([item])[0]
    raw = item[1].astype(np.float32)
    half = (plain.pixels.astype(np.float32) + raw) / 2
    assert (plain.gate, doubted.gate, refused.gate) == ("deblur", "deblur", "inconsistent")
    assert np.abs(doubted.pixels - half).mean() < 0.25 * np.abs(plain.pixels - raw).mean()


@pytest.mark.parametrize(
    ("dtype", "shape"), [("uint16", (256, 320, 3)), ("uint8", (256, 320)), ("uint16", (256, 320))]
)
def test_16_bit_and_mono_keep_their_kind(deblurrer: Deblurrer, dtype: str, shape: tuple[int, ...]) -> None:
    truth: Any = tissue().astype(dtype) * (257 if dtype == "uint16" else 1)
    truth = np.ascontiguousarray(truth if len(shape) == 3 else truth[..., 1])
    raw = blurred(truth, ACROSS)
    result = deblurrer.deblur([(tile(ACROSS, shape=shape), raw)])[0]
    assert (result.pixels.dtype, result.pixels.shape) == (np.dtype(dtype), shape)
    assert psnr(result.pixels, truth) > psnr(raw, truth) + 2


def test_a_flat_field_is_taken_out_and_put_back(make_model: MakeModel) -> None:
    field = np.full((256, 320, 1), 0.5, np.float32)
    raw = (blurred(tissue(), ACROSS) // 2).astype(np.uint8)
    folder = make_model()
    result = Deblurrer(find_model(str(folder)), encoding="linear", flat_field=field).deblur(
        [(tile(ACROSS), raw)]
    )[0]
    assert result.gate == "deblur"
    assert abs(float(result.pixels.mean()) - float(raw.mean())) < 2


def unsharp(sigma_px: float, gain: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Taps that take a Gaussian blur away again, roughly."""
    profile = np.exp(-0.5 * (np.arange(-6, 7) / sigma_px) ** 2)
    profile /= profile.sum()
    one = -gain * np.outer(profile, profile)
    one[6, 6] += 1 + gain
    taps = np.zeros((3, 3, 13, 13), np.float32)
    taps[range(3), range(3)] = one
    return taps


AT_REST = MotionVector(0.0, 0.2)


def defocus_model(make_model: MakeModel, taps: Any) -> Deblurrer:
    folder = make_model(network(taps), kind="defocus", blur_range_px=[0, 24], defocus_px=4.0)
    return Deblurrer(find_model(str(folder)), encoding="srgb", device="cpu")


@pytest.mark.parametrize("motion", [AT_REST, MotionVector(0, 6)])
def test_a_frame_out_of_focus_is_sharpened_by_a_model_for_defocus(
    make_model: MakeModel, motion: MotionVector
) -> None:
    truth = cv2.GaussianBlur(tissue(), (0, 0), 1.0).astype(np.uint8)
    raw = blurred(cv2.GaussianBlur(truth, (0, 0), 2.0).astype(np.uint8), motion)
    result = defocus_model(make_model, unsharp(2.0, 1.0)).deblur([(tile(motion), raw)])[0]
    assert (result.gate, result.source) == ("deblur", 2)
    assert psnr(result.pixels, truth) > psnr(raw, truth) + 1
    # to a mosaic it is worth less than a frame that was never out of focus
    assert (
        result.sharpness
        < Deblurrer(find_model("wiener"), encoding="srgb").deblur([(tile(motion), truth)])[0].sharpness
    )


def test_a_frame_in_focus_is_left_to_the_pixel_by_a_model_for_defocus(make_model: MakeModel) -> None:
    raw = blurred(tissue(), AT_REST)
    result = defocus_model(make_model, identity_taps()).deblur([(tile(AT_REST), raw)])[0]
    assert (result.gate, result.source) == ("sharp", 1)
    assert result.pixels is raw


def test_a_model_for_defocus_that_invents_is_caught(make_model: MakeModel) -> None:
    shifted = np.zeros((3, 3, 13, 13), np.float32)
    shifted[range(3), range(3), 0, 0] = 1.0
    raw = blurred(cv2.GaussianBlur(tissue(), (0, 0), 2.0).astype(np.uint8), AT_REST)
    result = defocus_model(make_model, shifted).deblur([(tile(AT_REST), raw)])[0]
    assert result.gate == "inconsistent"
    assert result.pixels is raw


@pytest.mark.parametrize("sigma", [0.8, 2.0, 4.0])
def test_the_defocus_is_read_off_a_right_result(sigma: float) -> None:
    light = to_linear(tissue(700, 640), "srgb").mean(axis=2).astype(np.float32)
    motion = MotionVector(3, 7)
    raw = reblur(light, motion, sigma)
    raw += np.random.default_rng(1).normal(0, 0.01, raw.shape).astype(np.float32)
    assert defocus_px(raw, light, motion) == pytest.approx(sigma, abs=0.1)
    assert defocus_px(reblur(light, motion), light, motion) < 0.3  # a pixel wide, that is nothing


def test_a_frame_at_rest_a_little_out_of_focus_is_sharpened() -> None:
    truth = tissue()
    soft = reblur(to_linear(truth, "srgb"), MotionVector(0, 0), 1.0)
    raw = from_linear(soft, np.uint8, "srgb")
    result = Deblurrer(find_model("defocus"), encoding="srgb", device="cpu").deblur(
        [(tile(MotionVector(0, 0)), raw)]
    )[0]
    assert result.gate == "deblur"
    assert psnr(result.pixels, truth) > psnr(raw, truth) + 1


def test_what_a_motion_of_a_pixel_took_is_less_than_a_models_own_errors() -> None:
    light = luminance_of(to_linear(tissue(), "srgb"))
    assert lost_in_noise(reblur(light, MotionVector(0.0, 1.4)), MotionVector(0.0, 1.4), 1e-4)
    assert not lost_in_noise(reblur(light, MotionVector(0.0, 1.6)), MotionVector(0.0, 1.6), 1e-4)
