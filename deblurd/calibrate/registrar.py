"""Shifts between frames, fast enough for a live scan: at low resolution, with unlike motion blur made alike."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deblurd.calibrate.skew import skew
from deblurd.frames import Encoding, MotionVector, Pixels
from deblurd.kernel import reblur
from deblurd.light import from_linear, to_linear
from deblurd.place import pairwise, subpixel

LOOKED_AT_PX = 256
"""Frames are reduced to about so many pixels along the longer side: that costs a hundredth of a pixel and saves most of the time."""

_ALIKE_PX = 1.0
"""Motions of the reduced frame that differ by less shift no edges."""

_NEAR_PX = 2.0
_GOOD_SCORE = 0.8


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """A reduced frame (h, w), as the camera encodes it, and its motion in reduced pixels."""

    grey: Pixels
    binning: int
    motion: MotionVector


class FrameRegistrar:
    """A `deblurd.track.witness.Registrar`. encoding: what a pixel value means."""

    def __init__(self, encoding: Encoding) -> None:
        self._encoding: Encoding = encoding

    def prepare(self, pixels: Pixels, motion: MotionVector) -> Look:
        """Of a frame (H, W) or (H, W, 3), uint8 or uint16, taken in `motion`."""
        binning = max(1, round(max(pixels.shape[:2]) / LOOKED_AT_PX))
        height, width = (side // binning for side in pixels.shape[:2])
        whole = pixels[: height * binning, : width * binning]
        small = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
        grey = small if small.ndim == 2 else cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        n = 1 / binning
        reduced = MotionVector(motion.dy * n, motion.dx * n, motion.bend_dy * n, motion.bend_dx * n)
        return Look(np.asarray(grey), binning, reduced)

    def shift(
        self, a: Look, b: Look, expected_px: NDArray[np.float64], radius_px: float
    ) -> tuple[NDArray[np.float64], float] | None:
        """Where b lies from a, (2,) px of the camera, and its standard deviation; None where no match can be trusted."""
        expected, radius = expected_px / a.binning, radius_px / a.binning
        first, second = self._made_alike(a, b)
        match = subpixel.refine(first, second, expected)
        if match is None or match.score < _GOOD_SCORE or _far(match, expected, min(radius, _NEAR_PX)):
            match = pairwise.register(pairwise.prepare(first), pairwise.prepare(second), expected, radius)
        if match is None or not match.ok or _far(match, expected, radius + 1):
            return None
        sigma = math.sqrt(0.5 * float(np.trace(match.covariance)))
        return match.shift * a.binning, sigma * a.binning

    def skew(
        self, a: Look, b: Look, shift_px: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], float] | None:
        """By how much that shift grows from one row to the next, (2,), and its standard deviation; None where the pictures do not tell."""
        return skew(*self._made_alike(a, b), shift_px / a.binning)

    def _made_alike(self, a: Look, b: Look) -> tuple[Pixels, Pixels]:
        """Both pictures, each with the other one's blur as well where they differ in it."""
        if _alike(a.motion, b.motion):
            return a.grey, b.grey
        return self._blurred(a, b.motion), self._blurred(b, a.motion)

    def _blurred(self, look: Look, motion: MotionVector) -> Pixels:
        light = reblur(to_linear(look.grey, self._encoding), motion)
        return from_linear(light, look.grey.dtype, self._encoding)


def _far(match: subpixel.Match, expected: NDArray[np.float64], px: float) -> bool:
    return bool(np.abs(match.shift - expected).max() > px)


def _alike(a: MotionVector, b: MotionVector) -> bool:
    """Whether two frames show an edge in the same place; also where one motion is unknown, as nothing helps there."""
    if not (math.isfinite(a.length_px) and math.isfinite(b.length_px)):
        return True
    first, second = np.array([a.dy, a.dx]), np.array([b.dy, b.dx])
    return bool(min(np.abs(first - second).max(), np.abs(first + second).max()) <= _ALIKE_PX)
