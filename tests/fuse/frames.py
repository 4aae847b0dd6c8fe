"""Frames of one tissue-like scene, each with its own place, motion and noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from deblurd.frames import MotionVector, Pixels
from deblurd.fuse.fuser import Fused, Fuser, Noise
from deblurd.fuse.views import View
from deblurd.kernel import motion_transfer
from deblurd.light import encode, from_linear, to_linear
from tests.deblur.samples import tissue

SIDE_PX = 192
READ_E = 4.0
UNKNOWN = MotionVector(np.nan, np.nan, sigma_px=np.inf)


def exactly(linear: NDArray[np.float32], motion: MotionVector) -> NDArray[np.float32]:
    """What a camera sees of (H, W, C) that moves: no interpolation between pixels."""
    left = motion_transfer(motion, linear.shape[:2])
    out = np.fft.irfft2(np.fft.rfft2(linear, axes=(0, 1)) * left[..., None], s=linear.shape[:2], axes=(0, 1))
    return np.asarray(out, np.float32)


@dataclass
class Scene:
    """Frames of `SIDE_PX` in the middle of a larger picture. electrons: of white in 10 ms."""

    electrons: float = 10_000.0
    read_e: float = READ_E
    seed: int = 1
    pixels: list[Pixels] = field(default_factory=list)
    views: list[View] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sharp = cv2.GaussianBlur(tissue(384, 384, self.seed), (0, 0), 0.7)
        self.rng = np.random.default_rng(self.seed)

    def shoot(
        self,
        motion: MotionVector,
        offset_px: tuple[float, float] = (0.0, 0.0),
        *,
        exposure_ms: float = 10.0,
        brightness: float = 1.0,
        told_px: tuple[float, float] = (0.0, 0.0),
        told_motion: MotionVector | None = None,
        mark: Callable[[Pixels], object] = lambda pixels: None,
    ) -> None:
        """One more frame. told_px: how far off its place is said to be. brightness: gain of the camera. mark: soils the pixels."""
        light = (
            exactly(to_linear(self.sharp, "srgb"), motion)
            if motion.is_known
            else to_linear(self.sharp, "srgb")
        )
        at = np.array([[1, 0, offset_px[1]], [0, 1, offset_px[0]]], np.float32)
        flags = cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP
        light = np.asarray(cv2.warpAffine(light, at, light.shape[1::-1], flags=flags), np.float32)
        first = (light.shape[0] - SIDE_PX) // 2
        light = light[first : first + SIDE_PX, first : first + SIDE_PX]
        electrons = self.electrons * exposure_ms / 10.0
        noise = np.sqrt(np.maximum(light, 0) * electrons + self.read_e**2) / electrons
        seen = (light + noise * self.rng.normal(size=light.shape)) * brightness
        pixels = from_linear(seen.astype(np.float32), np.uint8, "srgb")
        mark(pixels)
        self.pixels.append(pixels)
        said = (offset_px[0] + told_px[0], offset_px[1] + told_px[1])
        self.views.append(View(len(self.views), told_motion or motion, said, exposure_ms))

    def fuser(self, *, measured: bool = True) -> Fuser:
        noise = Noise(self.electrons, self.read_e) if measured else None
        return Fuser(self.pixels.__getitem__, "srgb", noise=noise)

    def fuse(self, only: Sequence[int] | None = None) -> Fused:
        views = self.views if only is None else [self.views[n] for n in only]
        fused = self.fuser().fuse(views[0], views[1:])
        assert fused is not None
        return fused

    def psnr_db(self, light: NDArray[np.float32]) -> float:
        """Of an estimate of the first frame, which lies in the middle; encoded, without a border of 16 px."""
        first = (self.sharp.shape[0] - SIDE_PX) // 2
        true = self.sharp[first : first + SIDE_PX, first : first + SIDE_PX] / 255.0
        inner = slice(16, -16), slice(16, -16)
        return float(-10 * np.log10(np.mean((encode(light)[inner] - true[inner]) ** 2)))
