"""Never invent: what was deblurred, blurred again, must give the raw tile back."""

from __future__ import annotations

import math

import cv2
import numpy as np

from deblurd.frames import MotionVector
from deblurd.kernel import reblur
from deblurd.light import Image

UNEXPLAINED = 0.15
"""What even a right result may leave, as a share of the raw tile's own fine contrast: no regularised deconvolution gives all of it back.

Measured on stained tissue, 3 to 40 px of blur: right results reach 0.2 to 1.1, texture of 10 grey levels or eight nuclei
painted in reach 3.5 to 5 (median), a kernel 30 % too long or across the motion 1.2 to 6.8.
"""

_FINE_PX = 25

_SATURATED = 0.995


def residual(raw: Image, result: Image, motion: MotionVector, noise: float, defocus_px: float = 0.0) -> float:
    """Root mean square of (result blurred again - raw) over the noise floor; about 1 for a right result.

    raw, result: (H, W) float32 linear light. noise: of `raw`, by `noise_sigma`. defocus_px: sigma of
    the blur besides the motion. A border as wide as the blur and saturated pixels are left out.
    A kernel that is wrong all over can still be consistent with itself: this finds invention, not a wrong motion vector.
    inf where `result` is not finite; nan where nothing is left to compare.
    """
    border = math.ceil(motion.length_px + 3 * defocus_px) + 2
    if min(raw.shape) <= 2 * border + 8:
        border = 0
    inside = (slice(border, raw.shape[0] - border), slice(border, raw.shape[1] - border))
    again = reblur(result, motion, defocus_px)[inside]
    seen = raw[inside]
    good = seen < _SATURATED
    if not good.any():
        return math.nan
    difference = (again - seen)[good]
    mean_square = float(np.mean(np.square(difference), dtype=np.float64))
    if not math.isfinite(mean_square):
        return math.inf
    contrast = fine_contrast(raw[inside])
    floor = math.hypot(noise, UNEXPLAINED * contrast)
    return math.sqrt(mean_square) / max(floor, 1e-6)


def fine_contrast(luminance: Image) -> float:
    """Standard deviation of (H, W) without what varies more slowly than some 25 px."""
    return float((luminance - cv2.blur(luminance, (_FINE_PX, _FINE_PX))).std())
