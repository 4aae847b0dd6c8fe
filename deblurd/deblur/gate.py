"""Whether a tile is worth deblurring, and whether it may be."""

from __future__ import annotations

import math

import cv2
import numpy as np

from deblurd.frames import Gate, MotionVector
from deblurd.light import Image

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
    if _is_blank(luminance, noise):
        return "blank"
    if motion.length_px > blur_range_px[1]:
        return "out_of_range"
    return "deblur"


def gate_by_motion(motion: MotionVector, sharp_below_px: float) -> Gate | None:
    """The way of a tile where its motion alone tells; then its pixels need not be looked at."""
    if not motion.is_known or _is_vague(motion):
        return "unknown_motion"
    return "sharp" if motion.length_px < sharp_below_px else None


def _is_vague(motion: MotionVector) -> bool:
    """Whether the motion is known so badly that the wrong kernel would do more harm than the blur (10 % in length cost 3 dB at 20 px)."""
    return motion.sigma_px > max(_VAGUE_PX, _VAGUE_SHARE * motion.length_px)


def noise_sigma(luminance: Image) -> float:
    """Standard deviation of white noise in (H, W) float32, by Immerkaer 1996: the mean of a difference of Laplacians.

    Structure blurred along one axis hardly answers to its mask, so that of a frame in motion is mostly noise.
    Every second pixel in each direction would break the mask; the whole image is used. 0 for sides under 3 px.
    """
    if min(luminance.shape) < 3:
        return 0.0
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    answer = cv2.filter2D(luminance, cv2.CV_32F, mask)[1:-1, 1:-1]
    return float(np.median(np.abs(answer)) / 0.6745 / 6.0)


def _is_blank(luminance: Image, noise: float) -> bool:
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
