"""What a model is compared with: Wiener's filter and Richardson-Lucy, told the very kernel that blurred the image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from deblurd.deblur.wiener import deconvolve, wiener
from deblurd.frames import MotionVector
from deblurd.kernel import reblur
from deblurd.light import Image
from deblurd.train.degrade import defocused

WIENER_NSR = 0.02
"""Of the filter that is told nothing but the kernel."""

DISC = 0.5
"""A measured defocus is half a disc and half a Gaussian, by variance."""


@dataclass(frozen=True, slots=True)
class Blur:
    """One kind of blur to be measured at. angle_deg: from +x towards +y. defocus_px: sigma; 0 in focus."""

    level_px: float
    angle_deg: float = 0.0
    defocus_px: float = 0.0

    @property
    def motion(self) -> MotionVector:
        angle = math.radians(self.angle_deg)
        return MotionVector(self.level_px * math.sin(angle), self.level_px * math.cos(angle))

    @property
    def reach_px(self) -> int:
        """How far light is carried, at most, rounded up."""
        return math.ceil(self.level_px / 2 + 3 * self.defocus_px)

    def of(self, linear: Image) -> Image:
        """(H, W, C) linear light, blurred. The blur is its own adjoint, as its path does not bend."""
        return reblur(defocused(linear, self.defocus_px, DISC), self.motion)


def richardson_lucy(blurred: Image, blur: Blur, steps: int) -> Image:
    """Richardson (1972) and Lucy (1974), in linear light, starting from the blurred image."""
    observed = np.maximum(blurred, 1e-5)
    sharp = observed
    for _ in range(steps):
        ratio = np.asarray(observed / np.maximum(blur.of(sharp), 1e-5), dtype=np.float32)
        sharp = sharp * blur.of(ratio)
    return sharp


def wiener_filtered(blurred: Image, blur: Blur, nsr: float, *, free_border: bool) -> Image:
    """As the engine's estimate, but with the defocus known. free_border: as in `wiener`; the textbook's filter has none."""
    if not blur.defocus_px:
        return wiener(blurred, blur.motion, nsr, free_border=free_border)
    side = 2 * (blur.reach_px + 2) + 1
    point = np.zeros((side, side), np.float32)
    point[side // 2, side // 2] = 1
    return deconvolve(blurred, blur.of(point).astype(np.float64), nsr, free_border=free_border)
