"""Dark or bright blobs by the Laplacian of Gaussians over scales (Lindeberg 1998), with a threshold that finds itself.

``R(s) = -s^2 LoG_s * image`` answers to a blob of sigma b with contrast c by ``c s^2 b^2 ... / (s^2 + b^2)^2``, most at s = b; its noise falls as 1/s. What is compared
from scale to scale is therefore R over its own noise, which is what a person means by "it stands out".
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from skimage.feature import peak_local_max

from deblurd.light import Image
from deblurd.trajectory.detect import Points, Wanted

_STEP = 1.35
"""From scale to scale: blobs between two of them lose less than 2 % of their answer."""

_FALSE_PER_FRAME = 0.1
"""So many detections that noise alone would make, where the threshold finds itself."""

_PLACES = 8.0
"""Chances for noise to make a peak, per square of the smallest sigma: of Rice's formula for a random field of this filter 5, and half as many again for the scales."""

_SIGMA_OF_DIAMETER = 1 / (2 * math.sqrt(2))
"""A disc of diameter d answers most at this sigma."""

_MOST_STEPS = 4
"""Pixels from the clearest place to the top at an object's own scale."""

_LEAST_SIGMA = 0.7
"""Less than a pixel cannot be told from noise."""

_APART = 0.6
"""Two objects nearer than this share of the larger one's diameter are one."""

_EDGE_SHARE, _EDGE_SIGMAS = 0.6, 3.0
"""A peak is the side of an edge where the answer on one side of it, and not on the other, is as far below 0 as this share of its height and so many times the noise."""

LARGEST = 1 / 5
"""Share of a frame's shorter side that an object may fill where nobody says how large it is."""

_RANGE = 1.8
"""From the usual size found to the smallest and the largest that are looked for."""


class BlobDetector:
    """Keeps the polarity once the first frame that shows something has told it."""

    def __init__(self, wanted: Wanted) -> None:
        low, high = (sigma_of(size) for size in wanted.size_px)
        steps = max(math.ceil(math.log(max(high / low, 1.0)) / math.log(_STEP)), 0)
        self._sigmas = [low * _STEP**n for n in range(steps + 1)]
        self._wanted = wanted
        self._sign = {"bright": 1.0, "dark": -1.0, "auto": 0.0}[wanted.polarity]

    def find(self, light: Image) -> Points:
        """See `Detector`."""
        sigmas = [sigma for sigma in self._sigmas if 6 * sigma < min(light.shape)]
        if not sigmas:
            return Points.none()
        answers = np.stack([blob_answer(light, sigma) for sigma in sigmas])
        noise = np.array([_spread(answer) for answer in answers])
        if not (noise > 0).all():
            # without noise, a thousandth of what there is stands for it: drawings, and frames without any contrast
            noise = np.maximum(noise, np.float32(1e-3) * max(float(np.abs(answers).max()), 1e-6))
        clear = answers / noise[:, None, None]
        least = self._threshold(clear)
        sign = self._sign or _sign_of(clear, least)
        clear *= sign
        best = clear.max(axis=0)
        radius = max(round(_APART * sigmas[0] / _SIGMA_OF_DIAMETER), 1)
        peaks: NDArray[np.intp] = peak_local_max(  # type: ignore[no-untyped-call]
            best, min_distance=radius, threshold_abs=least, exclude_border=False
        )
        if not len(peaks):
            return Points.none()
        if not self._sign:
            self._sign = sign
        rows, columns = peaks[:, 0], peaks[:, 1]
        answers *= sign
        # the clearest scale is 1.7 times the object's own, and so its top is drawn towards neighbours: the place is read off at its own
        scale = answers[:, rows, columns].argmax(axis=0)
        yx = _climb(answers, scale, peaks)
        sizes = _sizes(answers[:, rows, columns], np.array(sigmas))
        points = Points(yx, sizes, best[rows, columns].astype(np.float64))
        # what is highest at the very border has its middle beyond it
        inside = np.flatnonzero(np.all((yx >= 1) & (yx <= np.array(light.shape) - 2), axis=1))
        edges = _are_edges(answers, scale[inside], yx[inside], np.array(sigmas), noise)
        return points.chosen(inside[~edges]).apart(_APART)

    def _threshold(self, clear: Image) -> float:
        if self._wanted.threshold is not None:
            return self._wanted.threshold
        independent = _PLACES * clear[0].size / self._sigmas[0] ** 2
        return float(norm.isf(min(_FALSE_PER_FRAME / independent, 0.01)))


def usual_size_px(light: Image, smallest_px: float) -> float | None:
    """Diameter of what stands out most in (H, W) light, the median of blobs weighted by the square of their score; None where nothing does."""
    largest_px = min(light.shape) * LARGEST
    if largest_px < smallest_px:
        return None
    points = BlobDetector(Wanted((smallest_px, largest_px))).find(light)
    if not len(points):
        return None
    order = np.argsort(points.size_px)
    weight = np.cumsum(points.score[order] ** 2)
    return float(points.size_px[order][np.searchsorted(weight, 0.5 * weight[-1])])


def usual_range_px(light: Image, smallest_px: float) -> tuple[float, float] | None:
    """Smallest and largest diameter to look for where nobody says; None where nothing stands out."""
    usual_px = usual_size_px(light, smallest_px)
    return (
        None
        if usual_px is None
        else (max(usual_px / _RANGE, smallest_px), max(usual_px * _RANGE, 2 * smallest_px))
    )


def sigma_of(diameter_px: float) -> float:
    """Of the Gaussian at which a blob of that diameter answers most."""
    return max(diameter_px * _SIGMA_OF_DIAMETER, _LEAST_SIGMA)


def blob_answer(light: Image, sigma: float) -> Image:
    """``-sigma^2`` times the Laplacian of the Gaussian-smoothed (H, W) image, positive at bright blobs; float32, mirrored at the border."""
    reach = np.arange(-math.ceil(4 * sigma), math.ceil(4 * sigma) + 1, dtype=np.float64)
    smooth = np.exp(-0.5 * (reach / sigma) ** 2)
    smooth /= smooth.sum()
    # sampled, it neither sums to 0 nor has the right second moment: brightness would answer, and small scales too weakly
    curved = (reach**2 / sigma**2 - 1) * smooth
    curved -= curved.mean()
    curved *= 2 / float((curved * reach**2).sum()) * sigma**2
    one = cv2.sepFilter2D(light, cv2.CV_32F, curved, smooth, borderType=cv2.BORDER_REFLECT)
    other = cv2.sepFilter2D(light, cv2.CV_32F, smooth, curved, borderType=cv2.BORDER_REFLECT)
    return np.asarray(-(one + other), dtype=np.float32)


def _spread(answer: Image) -> float:
    """Standard deviation of the many pixels that hold no object, by the median of every third one's size."""
    return float(np.median(np.abs(answer[::3, ::3]))) / 0.6745


def _sign_of(clear: Image, least: float) -> float:
    """Whether bright (1) or dark (-1) blobs stand out more."""
    bright, dark = (float(np.square(np.maximum(side - least, 0)).sum()) for side in (clear, -clear))
    return 1.0 if bright >= dark else -1.0


def _climb(answers: Image, scale: NDArray[np.intp], peaks: NDArray[np.intp]) -> NDArray[np.float64]:
    """From each peak (n, 2) uphill at its scale (n,), to the top of the quadratic through the 3 x 3 pixels around the highest one; (n, 2) px."""
    padded = np.pad(answers, ((0, 0), (1, 1), (1, 1)), mode="edge")
    y, x = np.mgrid[0:3, 0:3]
    at = peaks.copy()
    for _ in range(_MOST_STEPS):
        near = padded[scale[:, None, None], at[:, 0, None, None] + y, at[:, 1, None, None] + x]
        best = near.reshape(len(at), 9).argmax(axis=1)
        if (best == 4).all():
            break
        at += np.stack([best // 3 - 1, best % 3 - 1], axis=1)
        np.clip(at, 0, np.array(answers.shape[1:]) - 1, out=at)
    near = padded[scale[:, None, None], at[:, 0, None, None] + y, at[:, 1, None, None] + x]
    return at + quadratic_top(near.astype(np.float64))


def _are_edges(
    answers: Image,
    scale: NDArray[np.intp],
    yx: NDArray[np.float64],
    sigmas: NDArray[np.float64],
    noise: NDArray[np.floating[Any]],
) -> NDArray[np.bool_]:
    """Whether each peak (n, 2), at its scale (n,), lies beside the edge of something larger: an edge answers on its two sides alike, with opposite signs, two sigmas apart."""
    angle = np.arange(8) * np.pi / 4
    around = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    at = np.rint(yx[:, None] + 2 * sigmas[scale, None, None] * around).astype(int)
    np.clip(at, 0, np.array(answers.shape[1:]) - 1, out=at)
    below = np.maximum(-answers[scale[:, None], at[..., 0], at[..., 1]], 0)
    one_sided = (below - np.roll(below, 4, axis=1)).max(axis=1)
    middle = np.rint(yx).astype(int)
    height = answers[scale, middle[:, 0], middle[:, 1]]
    return np.asarray(one_sided > _EDGE_SHARE * height + _EDGE_SIGMAS * noise[scale])


def quadratic_top(near: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where the least-squares quadratics through (n, 3, 3) are highest, (n, 2) from the middle; 0 where there is no top within a pixel."""
    along_y, along_x = near.sum(axis=2), near.sum(axis=1)
    dy, dx = (along_y[:, 2] - along_y[:, 0]) / 6, (along_x[:, 2] - along_x[:, 0]) / 6
    dyy = (along_y[:, 2] - 2 * along_y[:, 1] + along_y[:, 0]) / 3
    dxx = (along_x[:, 2] - 2 * along_x[:, 1] + along_x[:, 0]) / 3
    dxy = (near[:, 2, 2] - near[:, 2, 0] - near[:, 0, 2] + near[:, 0, 0]) / 4
    determinant = dyy * dxx - dxy**2
    with np.errstate(divide="ignore", invalid="ignore"):
        top = np.stack([dxy * dx - dxx * dy, dxy * dy - dyy * dx], axis=1) / determinant[:, None]
    good = (determinant > 0) & (dyy < 0) & (np.abs(top).max(axis=1) <= 1)
    return np.where(good[:, None], top, 0.0)


def _sizes(answers: Image, sigmas: NDArray[np.float64]) -> NDArray[np.float64]:
    """Diameters (n,) px from (scales, n) answers: where the parabola over the logarithm of the scale is highest."""
    best = answers.argmax(axis=0)
    shift = np.zeros(len(best))
    inner = (best > 0) & (best < len(sigmas) - 1)
    if inner.any():
        at, column = best[inner], np.flatnonzero(inner)
        before, top, after = (answers[at + step, column].astype(np.float64) for step in (-1, 0, 1))
        shift[inner] = np.clip(
            0.5 * (before - after) / np.minimum(before - 2 * top + after, -1e-12), -0.5, 0.5
        )
    return np.asarray(sigmas[best] * _STEP**shift / _SIGMA_OF_DIAMETER)
