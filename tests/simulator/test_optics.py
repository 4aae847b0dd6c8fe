"""What the virtual sensor sees, against independent ways to get there."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from deblurd.frames import Pixels
from deblurd.geometry import PixelToStage
from deblurd.light import from_linear, to_linear
from deblurd.simulator.optics import Optics
from deblurd.simulator.slide import VirtualSlide
from deblurd.simulator.tissue import Tissue

PIXEL_UM = 0.5
SHAPE = (96, 128)


class _Image:
    def __init__(self, pixels: Pixels) -> None:
        self.pixels = pixels
        self.shape = (pixels.shape[0], pixels.shape[1])

    def read(self, y0: int, x0: int, height: int, width: int) -> Pixels:
        return self.pixels[y0 : y0 + height, x0 : x0 + width]


@pytest.fixture(scope="module")
def slide() -> VirtualSlide:
    return VirtualSlide(_Image(Tissue((2000, 3000), PIXEL_UM, 3).read(800, 1200, 420, 440)), PIXEL_UM)


def _line(
    centre_px: tuple[float, float], travel_px: tuple[float, float], n: int = 256
) -> NDArray[np.float64]:
    u = ((np.arange(n) + 0.5) / n - 0.5)[:, None]
    return np.asarray((np.array(centre_px) + u * np.array(travel_px)) * PIXEL_UM)


def _eight_bit(light: NDArray[np.float32]) -> NDArray[np.float64]:
    """Encoded values, not rounded."""
    return np.asarray(from_linear(light, np.uint16, "srgb") / 257.0)


def _samples(at_px: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """(n, length): how much of each pixel of a row a Lanczos sample (a = 4) at each place takes."""
    x = np.arange(length) - at_px[:, None]
    weights: NDArray[np.float64] = np.where(np.abs(x) < 4, np.sinc(x) * np.sinc(x / 4), 0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _accumulated(slide: VirtualSlide, path_um: NDArray[np.float64]) -> NDArray[np.float32]:
    """The mean of the shifted views, each interpolated by itself."""
    corner, size = np.array([130, 120]), 200
    linear = np.moveaxis(
        to_linear(slide.region(corner[0], corner[1], size, size), "srgb").astype(np.float64), 2, 0
    )
    total = np.zeros((3, *SHAPE))
    i, j = (np.arange(n) - (n - 1) / 2 for n in SHAPE)
    for y, x in path_um / PIXEL_UM - corner:
        total += _samples(y + i, size) @ linear @ _samples(x + j, size).T
    return np.moveaxis(total / len(path_um), 0, 2).astype(np.float32)


@pytest.mark.parametrize(
    ("rotation", "mirrored"), [(0, False), (90, False), (180, True), (-90, True), (0, True)]
)
def test_a_standing_upright_camera_sees_the_slides_own_pixels(
    slide: VirtualSlide, rotation: float, mirrored: bool
) -> None:
    affine = PixelToStage.from_scale(PIXEL_UM, rotation, mirrored)
    centre = np.array([200.5, 210.5])
    seen = Optics(slide, affine, SHAPE, color=True).light(np.array([centre * PIXEL_UM]))
    i, j = np.mgrid[: SHAPE[0], : SHAPE[1]]
    pixels = np.stack([i - (SHAPE[0] - 1) / 2, j - (SHAPE[1] - 1) / 2], axis=-1)
    where = np.rint(centre + affine.to_stage(pixels) / PIXEL_UM).astype(int)
    expected = slide.region(0, 0, *slide.shape)[where[..., 0], where[..., 1]]
    np.testing.assert_array_equal(from_linear(np.ascontiguousarray(seen), np.uint8, "srgb"), expected)


@pytest.mark.parametrize(("rotation", "mirrored"), [(0, False), (17, False), (-33, True), (90, True)])
def test_a_spot_appears_where_the_affine_says(rotation: float, mirrored: bool) -> None:
    pixels = np.full((400, 400, 3), 255, np.uint8)
    y, x = np.mgrid[:400, :400]
    spot_px = np.array([213.0, 188.0])
    pixels[np.hypot(y - spot_px[0], x - spot_px[1]) < 4] = 0
    affine = PixelToStage.from_scale(PIXEL_UM, rotation, mirrored)
    stage_um = np.array([101.3, 98.9])
    light = Optics(VirtualSlide(_Image(pixels), PIXEL_UM), affine, SHAPE, color=False).light(stage_um[None])
    dark = 1 - light
    i, j = np.mgrid[: SHAPE[0], : SHAPE[1]]
    seen = np.array([(dark * i).sum(), (dark * j).sum()]) / dark.sum() - (np.array(SHAPE) - 1) / 2
    np.testing.assert_allclose(seen, affine.to_pixels(spot_px * PIXEL_UM - stage_um), atol=0.05)


@pytest.mark.parametrize("travel", [(0.0, 20.0), (-13.4, 0.0), (9.0, 11.0), (0.019, 31.0), (0.0, 0.0)])
def test_blur_equals_the_sum_of_many_shifted_views(slide: VirtualSlide, travel: tuple[float, float]) -> None:
    path = _line((210.3, 220.8), travel, n=24)
    seen = Optics(slide, PixelToStage.from_scale(PIXEL_UM), SHAPE, color=True).light(path)
    assert np.abs(_eight_bit(seen) - _eight_bit(_accumulated(slide, path))).max() < 0.5


def test_an_accelerating_path_along_an_axis_is_not_a_box(slide: VirtualSlide) -> None:
    u = (np.arange(24) + 0.5) / 24
    path = np.stack([np.full(24, 105.0), 100.0 + 8.0 * u**2], axis=1)
    seen = Optics(slide, PixelToStage.from_scale(PIXEL_UM), SHAPE, color=True).light(path)
    assert np.abs(_eight_bit(seen) - _eight_bit(_accumulated(slide, path))).max() < 0.5
    box = np.stack([path[:, 0], 100.0 + 8.0 * u], axis=1)
    assert np.abs(_eight_bit(seen) - _eight_bit(_accumulated(slide, box))).max() > 5


def test_a_turned_camera_sees_motion_turned(slide: VirtualSlide) -> None:
    """Blur in the slide's frame and then the turn, or the turn of the sharp views and then their mean: the same."""
    affine = PixelToStage.from_scale(PIXEL_UM, 25.0)
    optics = Optics(slide, affine, SHAPE, color=True)
    path = _line((210.0, 220.0), (0.0, 12.0), n=48)
    apart = np.mean([optics.light(at[None]) for at in path], axis=0)
    assert np.abs(_eight_bit(optics.light(path)) - _eight_bit(apart.astype(np.float32))).max() < 1.0


def test_defocus_takes_sharpness_but_no_light(slide: VirtualSlide) -> None:
    optics = Optics(slide, PixelToStage.from_scale(PIXEL_UM), SHAPE, color=False)
    at = np.array([[105.0, 110.0]])
    sharp, soft = optics.light(at), optics.light(at, defocus_px=2.0)
    assert soft.mean() == pytest.approx(sharp.mean(), rel=0.02)
    assert np.abs(np.diff(soft, axis=1)).mean() < 0.5 * np.abs(np.diff(sharp, axis=1)).mean()
    expected = cv2.GaussianBlur(sharp, (0, 0), 2.0)
    assert np.abs(soft - expected)[12:-12, 12:-12].max() < 0.01


def test_outside_the_slide_there_is_empty_glass(slide: VirtualSlide) -> None:
    light = Optics(slide, PixelToStage.from_scale(PIXEL_UM), SHAPE, color=True).light(
        np.array([[-500.0, -500.0]])
    )
    assert np.ptp(light) == 0
    assert light.shape == (*SHAPE, 3)
    assert light[0, 0, 0] > 0.85


@pytest.mark.parametrize(("rotation", "mirrored"), [(0, False), (90, True), (25, False)])
def test_a_row_that_is_exposed_later_sees_what_all_would_see_then(
    slide: VirtualSlide, rotation: float, mirrored: bool
) -> None:
    optics = Optics(slide, PixelToStage.from_scale(PIXEL_UM, rotation, mirrored), SHAPE, color=True)
    path = _line((210.0, 220.0), (0.0, 12.0), n=48)
    rows_um = np.linspace(-0.5, 0.5, SHAPE[0])[:, None] * np.array([1.3, 9.0])
    rolled = optics.rolled_light(path, rows_um)
    for row in (0, 31, SHAPE[0] - 1):
        then = optics.light(path + rows_um[row])
        off = np.abs(_eight_bit(rolled[row : row + 1]) - _eight_bit(then[row : row + 1]))
        # it is interpolated twice; the next row is off by 2 to 8 in the mean
        assert off.mean() < 0.8
