"""How near a result comes to the truth, and whether it holds what the truth does not."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_otsu
from skimage.metrics import structural_similarity
from skimage.morphology import label

from deblurd.train.sources import Picture

_GMSD_C = 170.0
_LEAST_NUCLEUS_PX = 40
_OVERLAP = 0.1


def psnr_db(truth: Picture, result: Picture) -> float:
    """Peak signal-to-noise ratio of 8-bit images; at most 60, where nothing can be seen any more."""
    error = float(np.mean((truth.astype(np.float64) - result) ** 2))
    return 10 * math.log10(255**2 / max(error, 255**2 * 1e-6))


def ssim(truth: Picture, result: Picture) -> float:
    """Structural similarity (Wang et al. 2004): Gaussian of 1.5 px, data range 255, mean of the channels."""
    return float(
        structural_similarity(  # type: ignore[no-untyped-call]
            truth,
            result,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
            channel_axis=2,
        )
    )


def gmsd(truth: Picture, result: Picture) -> float:
    """Gradient magnitude similarity deviation (Xue et al. 2014) of the luminance: 0 is the truth, and more is worse.

    It answers to edges that are lost and to edges that are made up, where PSNR sees little of either.
    """
    one, other = (_gradient(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)) for image in (truth, result))
    similarity = (2 * one * other + _GMSD_C) / (one**2 + other**2 + _GMSD_C)
    return float(similarity.std())


def _gradient(luminance: NDArray[np.integer | np.floating]) -> NDArray[np.float64]:
    small = cv2.blur(luminance.astype(np.float64), (2, 2))[::2, ::2]
    prewitt = np.array([[1, 0, -1]] * 3) / 3
    return np.hypot(cv2.filter2D(small, -1, prewitt), cv2.filter2D(small, -1, prewitt.T))


@dataclass(frozen=True, slots=True)
class Nuclei:
    """How many nuclei are seen in an image, and how many of them lie where the truth has none."""

    seen: int
    invented: int


def count_nuclei(truth: Picture, result: Picture) -> Nuclei:
    """Dark objects in the red light that haematoxylin and Giemsa take away, by the truth's own threshold (Otsu 1979).

    Objects under 40 px are not counted; one that the truth's objects cover to less than a tenth is an invented one.
    """
    red = _red(truth)
    if float(red.min()) == float(red.max()):
        return Nuclei(0, 0)
    threshold = float(threshold_otsu(red))  # type: ignore[no-untyped-call]
    objects = label(_red(result) < threshold)  # type: ignore[no-untyped-call]
    sizes = np.bincount(objects.ravel())
    covered = np.bincount(objects.ravel(), weights=(red < threshold).ravel())
    counted = (sizes >= _LEAST_NUCLEUS_PX) & (np.arange(len(sizes)) > 0)
    return Nuclei(int(counted.sum()), int((counted & (covered < _OVERLAP * sizes)).sum()))


def _red(image: Picture) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(image[..., 0].astype(np.float32), (0, 0), 1.0), np.float32)
