"""How much of what a tile shows is noise, and so how far a deconvolution may go."""

from __future__ import annotations

import cv2
import numpy as np

from deblurd.light import Image

_FINE_PX = 25

_MOST_NSR = 1.0
"""A tile of nothing but noise needs no more: its estimate is then the tile itself, smoothed."""


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


def fine_contrast(luminance: Image) -> float:
    """Standard deviation of (H, W) without what varies more slowly than some 25 px."""
    return float((luminance - cv2.blur(luminance, (_FINE_PX, _FINE_PX))).std())


def noise_to_signal(luminance: Image, noise: float, length_px: float, least: float, of_noise: float) -> float:
    """The ratio that the Wiener filter is told: ``least + of_noise (noise / fine contrast)^2 / length``, at most 1.

    luminance: (H, W) float32 linear light. noise: its standard deviation. length_px: of the motion. A blur takes contrast away in proportion to its length, so
    dividing by that leaves noise over the *sharp* image's contrast. Measured on stained tissue, smears and fluorescence at 5 to 40 px, the ratio that gives the best PSNR
    lies at 50 (noise / contrast)^2 / length within a factor of 2, over two decades of it.
    """
    ratio = noise / max(fine_contrast(luminance), 1e-6)
    return min(least + of_noise * ratio**2 / max(length_px, 1.0), _MOST_NSR)
