"""Whether a tile is worth deblurring, and whether it may be."""

from __future__ import annotations

import math

import cv2
import numpy as np

from deblurd.frames import Gate, MotionVector
from deblurd.kernel import motion_kernel, reblur
from deblurd.light import Image

_SHORT_PX = 4.0
_SEEN = 0.5
"""Of the noise: what a short blur must change to be worth taking out. On held-out slides blurred by 2 px the model lost up to 0.3 dB where that was 0.4 and less, and
gained 0.2 dB and more from 0.5 on."""

_WORTH_PX = 1.5
"""What a shorter motion takes is less than a model's own errors: on held-out slides `fast` lost 0.8 to 2.1 dB at 1 px, in any light from 200 to 20,000 electrons, was as good as the
raw frame at 1.5 px (-0.5 to +0.4 dB), and gained 0.3 to 1.5 dB at 2 px from 700 electrons on; `bank` and `wiener` turn at the same place."""

_VAGUE_PX = 1.0
_VAGUE_SHARE = 0.1
_BLANK_STEP = 4
_BLANK_SIGMA = 8.0
_BLANK_CONTRAST = 0.004
_BLANK_NOISES = 3.0


def gate(
    luminance: Image,
    motion: MotionVector,
    noise: float,
    sharp_below_px: float,
    blur_range_px: tuple[float, float],
) -> Gate:
    """The way of a tile, before any work is done on it.

    luminance: (H, W) float32 linear light. noise: its standard deviation, by `noise_sigma`. blur_range_px: of the model.
    """
    if (way := gate_by_motion(motion, sharp_below_px)) is not None:
        return way
    if is_blank(luminance, noise):
        return "blank"
    if motion.length_px > blur_range_px[1]:
        return "out_of_range"
    return "deblur"


def gate_by_motion(motion: MotionVector, sharp_below_px: float) -> Gate | None:
    """The way of a tile where its motion alone tells; then its pixels need not be looked at."""
    if not motion.is_known or _is_vague(motion):
        return "unknown_motion"
    return "sharp" if motion.length_px < sharp_below_px else None


def lost_in_noise(luminance: Image, motion: MotionVector, noise: float) -> bool:
    """Whether a short motion changed so little of what is there to see that its undoing would mostly change noise.

    What another blur by the same motion takes from the tile is its structure's share and the noise's own, which the kernel tells.
    """
    if motion.length_px >= _SHORT_PX:
        return False
    kernel = motion_kernel(motion)
    of_noise = 1 - 2 * float(kernel[kernel.shape[0] // 2, kernel.shape[1] // 2]) + float((kernel**2).sum())
    taken = float(np.mean(np.square(luminance - reblur(luminance, motion)), dtype=np.float64))
    return is_not_worth_it(motion, taken - of_noise * noise**2, noise**2)


def is_not_worth_it(motion: MotionVector, taken: float, variance: float) -> bool:
    """Whether a motion is better left in. taken: what it took of the luminance, light squared, beside noise of `variance`."""
    if motion.length_px < _WORTH_PX:
        return True
    return motion.length_px < _SHORT_PX and taken < _SEEN**2 * variance


def _is_vague(motion: MotionVector) -> bool:
    """Whether the motion is known so badly that the wrong kernel would do more harm than the blur (10 % in length cost 3 dB at 20 px)."""
    return motion.sigma_px > max(_VAGUE_PX, _VAGUE_SHARE * motion.length_px)


def is_blank(luminance: Image, noise: float) -> bool:
    """No structure between 4 and some 30 px: neither tissue nor dirt, whatever the lamp's slow fall-off."""
    if min(luminance.shape) < 2 * _BLANK_STEP:
        return False
    size = luminance.shape[1] // _BLANK_STEP, luminance.shape[0] // _BLANK_STEP
    small: Image = np.asarray(cv2.resize(luminance, size, interpolation=cv2.INTER_AREA), np.float32)
    level = small - _lamp(small)
    structure = level - cv2.GaussianBlur(level, (0, 0), _BLANK_SIGMA)
    mean = max(float(small.mean()), 1e-6)
    limit = math.hypot(_BLANK_CONTRAST * mean, _BLANK_NOISES * noise / _BLANK_STEP)
    # a high percentile, not the mean: one cell in the corner makes a tile worth its while
    return float(np.percentile(np.abs(structure), 99.5)) < 3 * limit


def _lamp(small: Image) -> Image:
    """The surface of second order nearest to `small` (H, W): blurring a slope would leave a rim of false structure."""
    y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in small.shape)
    terms = np.stack([np.outer(y**i, x**j).ravel() for i in range(3) for j in range(3 - i)], axis=1)
    factors = np.linalg.lstsq(terms.T @ terms, terms.T @ small.ravel(), rcond=None)[0]
    return np.asarray((terms @ factors).reshape(small.shape), dtype=np.float32)
