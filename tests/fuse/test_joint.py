from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from deblurd.deblur.wiener import deconvolve
from deblurd.errors import DataError
from deblurd.frames import MotionVector
from deblurd.fuse.expect import Known, View, expected_psnr_db
from deblurd.fuse.joint import Kind, joint_wiener
from deblurd.fuse.spectrum import TISSUE, Specimen, Spectrum, fit_spectrum, measure_specimen
from deblurd.kernel import motion_kernel, reblur
from deblurd.light import encode, to_linear
from deblurd.simulator.slide import open_slide
from tests.deblur.samples import tissue
from tests.fuse.frames import exactly


def test_one_kind_is_the_single_frame_filter() -> None:
    light = to_linear(tissue(), "srgb")
    motion, nsr, variance = MotionVector(3.0, 7.0), 0.02, 1e-4
    blurred = reblur(light, motion)
    kernel = motion_kernel(motion)
    # the penalty of `deblur.wiener`, as a spectrum: S = v / (nsr sqrt(f / 0.25))
    spectrum = Spectrum.falling(variance / nsr * (0.25 / 0.1) ** 0.5, 0.5)
    joint = joint_wiener([Kind(blurred, kernel, np.full(3, variance))], [spectrum] * 3).image
    single = deconvolve(blurred, kernel.astype(np.float64), nsr, free_border=True)
    inner = slice(24, -24), slice(24, -24)
    assert np.abs(joint - single)[inner].max() < 0.01


def test_no_kind_is_an_error() -> None:
    with pytest.raises(DataError, match="nothing to fuse"):
        joint_wiener([], [TISSUE])


def test_brightness_stays() -> None:
    flat = np.full((96, 96, 1), 0.4, np.float32)
    kinds = [Kind(flat, motion_kernel(MotionVector(0, b)), np.full(1, 1e-4)) for b in (5.0, 9.0)]
    assert np.allclose(joint_wiener(kinds, [TISSUE]).image, 0.4, atol=1e-4)


def test_a_hole_in_one_kind_is_filled_by_the_other() -> None:
    light = to_linear(tissue(), "srgb")
    kinds, covered = [], np.ones(light.shape[:2], bool)
    covered[100:150, 100:180] = False
    for n, motion in enumerate((MotionVector(0, 3.0), MotionVector(4.0, 0))):
        blurred = reblur(light, motion)
        if n == 0:
            blurred[~covered] = 7.0
        kinds.append(Kind(blurred, motion_kernel(motion), np.full(3, 1e-5), None if n else covered))

    def error(some: list[Kind], part: tuple[slice, slice]) -> float:
        out = joint_wiener(some, [TISSUE] * 3).image[part]
        return float(np.sqrt(np.mean((out - light[part]) ** 2)))

    inside, outside = (slice(104, 146), slice(104, 176)), (slice(20, 90), slice(20, -20))
    assert error(kinds, inside) < 1.1 * error(kinds[1:], inside)
    assert error(kinds, outside) < 0.7 * error(kinds[1:], outside)


@pytest.mark.parametrize("falloff", [1.5, 3.0])
def test_a_spectrum_is_found_again_under_blur_and_noise(falloff: float) -> None:
    rng = np.random.default_rng(3)
    shape = (256, 256)
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256)[None, :])
    true = Spectrum.falling(0.01, falloff)
    white = np.fft.rfft2(rng.normal(size=shape))
    plane = np.fft.irfft2(white * np.sqrt(true.power(frequency)), s=shape)
    transfer = np.fft.rfft2(
        np.fft.ifftshift(np.pad(motion_kernel(MotionVector(0, 5.0)), ((127, 128), (125, 126)))[:256, :256])
    )
    blurred = np.fft.irfft2(np.fft.rfft2(plane) * np.abs(transfer), s=shape)
    seen = blurred + rng.normal(0, 0.03, shape)
    found = fit_spectrum([seen], 0.03**2, transfer)
    at = np.array([0.03, 0.1, 0.3])
    assert np.log10(found.power(at) / true.power(at)) == pytest.approx(np.zeros(3), abs=0.25)


def test_nothing_but_noise_has_next_to_no_power() -> None:
    noise = np.random.default_rng(0).normal(0, 0.05, (128, 128))
    assert fit_spectrum([noise], 0.05**2).power(np.array([0.3]))[0] < 0.05**2 / 5


def test_prediction_is_within_a_decibel_of_the_result() -> None:
    sharp = virtual_tissue()
    light = to_linear(sharp, "srgb")
    specimen, known = measure_specimen([light]), Known(place_px=0.0, length=0.0, steps=0)
    rng = np.random.default_rng(5)
    for electrons in (8000.0, 600.0):
        kinds, views = [], []
        for blur_px in (8.0, 5.0, 3.0):
            motion, own = MotionVector(0, blur_px), electrons * blur_px / 8
            blurred = exactly(light, motion)
            noise = np.sqrt(np.maximum(blurred, 0) * own + 16) / own
            seen = (blurred + rng.normal(size=light.shape) * noise).astype(np.float32)
            variance = (seen.mean(axis=(0, 1), dtype=np.float64) * own + 16) / own**2
            kinds.append(Kind(seen, motion_kernel(motion), variance, motion=motion))
            views.append(View(motion, own, 4.0))
        estimate = joint_wiener(kinds, [specimen.spectrum] * 3).image
        inner = slice(24, -24), slice(24, -24)
        got = -10 * np.log10(np.mean((encode(estimate)[inner] - sharp[inner] / 255.0) ** 2))
        assert expected_psnr_db(views, specimen, known) == pytest.approx(got, abs=1.0)


def virtual_tissue() -> NDArray[np.uint8]:
    return open_slide(None, 0.5, seed=2, size_mm=(1.0, 1.0)).region(600, 600, 384, 384)


def test_prediction_knows_the_lessons_of_the_design() -> None:
    specimen, known = Specimen(), Known(0.0, 0.0, 0)

    def db(light_e: float, *blurs_px: float) -> float:
        views = [View(MotionVector(0, b), light_e * b / 20, 4.0) for b in blurs_px]
        return expected_psnr_db(views, specimen, known)

    assert db(1e4, *[2.0] * 12) > db(1e4, *[5.0] * 4) > db(1e4, 20, 14) > db(1e4, 20)
    assert db(1e3, 20, 2) > db(1e3, 20, 20)  # unequal beats equal where exposures must be long
    assert db(1e3, *[1.0] * 12) < db(1e3, *[2.0] * 12)  # too short is too dark
    badly = Known(0.5, 0.03, 0)
    assert expected_psnr_db([View(MotionVector(0, 5.0), 1e4, 4.0)] * 4, specimen, badly) < db(2e4, *[5.0] * 4)
