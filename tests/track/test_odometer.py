"""A stage that is moved by hand and tells nothing: motion vectors from the frames alone."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from deblurd.calibrate.registrar import FrameRegistrar
from deblurd.errors import MicroscopeError
from deblurd.frames import Frame, MotionVector, Pose
from deblurd.geometry import PixelToStage
from deblurd.track.tracker import Tracker

Floats = NDArray[np.float64]
PERIOD_S, EXPOSURE_S, SIDE = 1 / 30, 0.01, 256


def ground(seed: int = 3) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    fine, coarse = (cv2.GaussianBlur(rng.normal(size=(1200, 2400)), (0, 0), s) * s for s in (2.0, 9.0))
    return np.asarray(128 + 60 * fine + 60 * coarse, np.float32).clip(0, 255)


def tracked(
    path_px: Callable[[float], Floats], affine: PixelToStage, frames: int = 60, blank: range = range(0)
) -> dict[int, tuple[Pose, MotionVector]]:
    """What the tracker makes of frames of a camera whose view moves by path_px(t), (y, x), over the ground."""
    picture = ground()

    def read() -> tuple[float, float]:
        raise MicroscopeError("nobody reads this stage")

    found: dict[int, tuple[Pose, MotionVector]] = {}
    tracker = Tracker(
        read, affine, (SIDE, SIDE), 1000 * EXPOSURE_S, overlap=0.2, latency_ms=10.0, poll_s=0.005,
        registrar=FrameRegistrar("linear"), by_frames=True, on_frame=lambda n, p, m: found.update({n: (p, m)}),
    )  # fmt: skip
    tracker.start()
    rng = np.random.default_rng(0)
    for number in range(frames):
        start_s = number * PERIOD_S
        steps = [path_px(start_s + EXPOSURE_S * (k + 0.5) / 8) for k in range(8)]
        views = [cv2.getRectSubPix(picture, (SIDE, SIDE), (300 + s[1], 300 + s[0])) for s in steps]
        pixels = np.mean(views, axis=0) + rng.normal(0, 2, (SIDE, SIDE))
        if number in blank:
            pixels = np.full((SIDE, SIDE), 128.0)
        arrived_s = start_s + EXPOSURE_S + 0.010 + rng.normal(0, 5e-4)
        for _ in tracker.feed(
            Frame(pixels.clip(0, 255).astype(np.uint8), number, arrived_s, 1000 * EXPOSURE_S)
        ):
            pass
    for _ in tracker.drain():
        pass
    tracker.stop()
    return found


def errors(found: dict[int, tuple[Pose, MotionVector]], path_px: Callable[[float], Floats]) -> Floats:
    """(n, 2): length off (share) and angle off (degrees), of frames of known motion after the first second."""
    rows = []
    for number, (_, motion) in sorted(found.items())[15:-6]:
        start_s = number * PERIOD_S
        true = -(path_px(start_s + EXPOSURE_S) - path_px(start_s))
        ratio = complex(motion.dx, motion.dy) / complex(true[1], true[0])
        rows.append((abs(ratio) - 1, np.degrees(np.angle(ratio))))
    return np.array(rows)


@pytest.mark.parametrize("speed_px_s", [200.0, 900.0])
@pytest.mark.parametrize(
    "affine", [PixelToStage.from_scale(0.5), PixelToStage.from_scale(0.25, 30, mirrored=True)]
)
def test_an_even_motion_is_known_to_three_percent_and_a_degree(
    speed_px_s: float, affine: PixelToStage
) -> None:
    def path(t: float) -> Floats:
        return speed_px_s * t * np.array([0.3, 0.95])

    off = errors(tracked(path, affine), path)
    assert np.sqrt((off[:, 0] ** 2).mean()) < 0.03
    assert np.sqrt((off[:, 1] ** 2).mean()) < 1.0


def test_a_hand_that_speeds_up_and_slows_down_is_followed() -> None:
    def path(t: float) -> Floats:
        return np.array([40 * np.sin(2 * t), 400 * t + 60 * np.sin(3 * t)])

    off = errors(tracked(path, PixelToStage.from_scale(0.5)), path)
    assert np.sqrt((off[:, 0] ** 2).mean()) < 0.03
    assert np.sqrt((off[:, 1] ** 2).mean()) < 1.0


def test_frames_without_anything_to_see_are_not_guessed_at() -> None:
    found = tracked(
        lambda t: 400 * t * np.array([0.0, 1.0]), PixelToStage.from_scale(0.5), blank=range(25, 45)
    )
    for number in range(33, 37):
        pose, motion = found[number]
        assert (
            not motion.is_known or motion.sigma_px > 0.1 * motion.length_px or not np.isfinite(pose.sigma_um)
        )
