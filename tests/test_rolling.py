"""Rows that were exposed one after the other, against frames of which all were exposed at once."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from deblurd.frames import MotionVector, Pixels
from deblurd.geometry import PixelToStage
from deblurd.light import from_linear
from deblurd.rolling import REACH_PX, is_within, margin_px, row_offsets, speed_within, straightened
from deblurd.simulator.optics import Optics
from deblurd.simulator.slide import VirtualSlide
from deblurd.simulator.tissue import Tissue
from deblurd.track.motion import UNKNOWN

HEIGHT, WIDTH, MARGIN = 160, 192, 16
EXPOSURE_MS = 10.0

Floats = NDArray[np.float64]


class _Image:
    shape = (420, 440)
    pixels = Tissue((2000, 3000), 0.5, 3).read(800, 1200, *shape)

    def read(self, y0: int, x0: int, height: int, width: int) -> NDArray[np.uint8]:
        return self.pixels[y0 : y0 + height, x0 : x0 + width]


AFFINE = PixelToStage.from_scale(0.5, 180.0)
OPTICS = Optics(VirtualSlide(_Image(), 0.5), AFFINE, (HEIGHT, WIDTH), color=True)


def path_um(t: Floats, speed_px_ms: tuple[float, float], push_px_ms2: tuple[float, float]) -> Floats:
    """Where a stage is at t (n,) ms whose image moves at that speed at t = 0, and is pushed as hard; (y, x)."""
    seen = t[:, None] * np.array(speed_px_ms) + t[:, None] ** 2 * np.array(push_px_ms2) / 2
    return np.array([105.0, 110.0]) - AFFINE.to_stage(seen)


def frames_of(
    speed_px_ms: tuple[float, float], push_px_ms2: tuple[float, float], rolling_ms: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], MotionVector]:
    """A rolling shutter's frame, that of a global one, and the motion of both."""
    u = EXPOSURE_MS * ((np.arange(64) + 0.5) / 64 - 0.5)
    path = path_um(u, speed_px_ms, push_px_ms2)
    later_ms = np.linspace(-0.5, 0.5, HEIGHT) * rolling_ms
    rows = np.array([path_um(u + ms, speed_px_ms, push_px_ms2).mean(axis=0) for ms in later_ms])
    ends = path_um(np.array([-0.5, 0.0, 0.5]) * EXPOSURE_MS, speed_px_ms, push_px_ms2)
    motion = MotionVector.from_path(*-AFFINE.to_pixels(ends))
    rolled, still = OPTICS.rolled_light(path, rows - path.mean(axis=0)), OPTICS.light(path)
    return from_linear(rolled, np.uint8, "srgb"), from_linear(still, np.uint8, "srgb"), motion


def psnr_db(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return 10 * math.log10(255**2 / float(((a.astype(float) - b) ** 2).mean()))


@pytest.mark.parametrize("rolling_ms", [10.0, -16.0])
@pytest.mark.parametrize(
    ("speed", "push"),
    [
        ((0.0, 1.0), (0.0, 0.0)),
        ((-1.2, 0.0), (0.0, 0.0)),
        ((0.7, -0.9), (0.0, 0.0)),
        ((0.1, 0.8), (0.0, 0.04)),
    ],
)
def test_what_a_global_shutter_had_seen_comes_back(
    speed: tuple[float, float], push: tuple[float, float], rolling_ms: float
) -> None:
    rolled, still, motion = frames_of(speed, push, rolling_ms)
    still = still[MARGIN:-MARGIN, MARGIN:-MARGIN]
    straight = straightened(rolled, motion, rolling_ms / EXPOSURE_MS, MARGIN)
    assert psnr_db(straight, still) > 42
    assert psnr_db(rolled[MARGIN:-MARGIN, MARGIN:-MARGIN], still) < 32


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("color", [True, False])
@pytest.mark.parametrize(
    ("motion", "share"), [(MotionVector(0.0, 0.0), 1.0), (UNKNOWN, 1.0), (MotionVector(5.0, 7.0), 0.0)]
)
def test_a_frame_at_rest_or_of_unknown_motion_is_only_cut(
    motion: MotionVector, share: float, color: bool, dtype: type
) -> None:
    pixels: Pixels = (
        np.random.default_rng(1).integers(0, 250, (64, 48, 3) if color else (64, 48)).astype(dtype)
    )
    np.testing.assert_array_equal(straightened(pixels, motion, share, 6), pixels[6:-6, 6:-6])


def test_the_middle_row_stays_and_the_others_go_as_far_as_the_motion_brought_them() -> None:
    # 4 px in an exposure, and twice as long from the first row to the last
    offsets = row_offsets(101, 10, MotionVector(0.0, 4.0), 2.0)
    assert offsets[40].tolist() == [0.0, 0.0]
    np.testing.assert_allclose(offsets[:, 1], np.linspace(-40, 40, 81) / 100 * 8, atol=1e-12)
    # along y a row's picture lies where its own time brought it
    offsets = row_offsets(101, 10, MotionVector(4.0, 0.0), 2.0)
    rows = np.arange(10, 91) - 50
    np.testing.assert_allclose(offsets[:, 0], (rows + offsets[:, 0]) * 8 / 100, atol=1e-6)


def test_the_margin_is_as_wide_as_the_speed_takes_and_never_more_than_an_eighth() -> None:
    assert margin_px((512, 2048), 1.0, 10.0) == 6 + REACH_PX
    assert margin_px((512, 2048), 1.0, -10.0) == 6 + REACH_PX
    assert margin_px((512, 2048), 100.0, 10.0) == 64 + REACH_PX
    assert speed_within(64 + REACH_PX, -10.0) == pytest.approx(12.8 / 1.1)
    assert speed_within(0, 0.0) == math.inf


def test_what_is_too_fast_for_the_margin_is_known_and_moved_as_far_as_it_fits() -> None:
    shape, margin = (101, 101), 10
    assert is_within(shape, margin, MotionVector(0.0, 8.0), 1.6)
    assert not is_within(shape, margin, MotionVector(0.0, 18.0), 1.6)
    assert is_within(shape, margin, UNKNOWN, 1.6)
    ramp = np.broadcast_to(np.arange(101, dtype=np.uint8), shape)
    moved = (
        straightened(ramp, MotionVector(0.0, 18.0), 1.6, margin).astype(float)
        - ramp[margin:-margin, margin:-margin]
    )
    # as far as the margin goes, and no further: what is shown was seen
    assert np.abs(moved[0] + margin - REACH_PX).max() <= 1
    assert np.abs(moved[-1] - margin + REACH_PX).max() <= 1


def test_the_mean_place_of_a_later_exposure() -> None:
    motion = MotionVector(2.0, -6.0, 0.5, 0.25)
    u = (np.arange(1000) + 0.5) / 1000 - 0.5
    for later in (-0.7, 0.0, 1.3):
        np.testing.assert_allclose(
            motion.later(np.array([later]))[0], motion.at(u + later).mean(axis=0), atol=1e-5
        )
