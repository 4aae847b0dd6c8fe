"""The shift of two overlapping images to a hundredth of a pixel, and how certain it is.

Symmetric Lucas-Kanade (Lucas & Kanade 1981): both images are moved by half the shift, so that interpolation blurs them
alike, and noise, which pulls an asymmetric estimate towards zero, cancels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from deblurd.frames import Pixels

Image = NDArray[np.float32]
Vector = NDArray[np.float64]

MIN_SCORE = 0.35
"""Right matches of H&E score 0.7 and more, of noisy or nearly empty overlaps 0.35; wrong ones up to 0.3."""

MIN_EVIDENCE = 1.5
"""Of atanh(score) * sqrt(features): the fewer details an overlap shows, the better they must match."""

MIN_OVERLAP_PX = 14
"""An overlap narrower than this, along an axis, says nothing."""

MOST_PX = 160_000
"""About how many pixels of an overlap are looked at; more costs time and gains nothing that shows."""

SIGMA_FLOOR_PX = 0.02
"""What interpolation, aliasing and distortion leave, however much an overlap shows."""

GROUND_PX = 49
"""Light that varies more slowly than this is no feature: it differs between tiles, and falls off to the corners."""

SMOOTH_PX = (1.0, 3.0)
"""Standard deviation of the smoothing against noise; the stronger one for overlaps that are mostly noise."""

_NOISY_SCORE = 0.8
_LAST_STEP_PX = 0.03
"""The step after one so small would be a hundred times smaller still."""

_INNER = (slice(3, -3), slice(3, -3))
_CENTRAL, _ONE = np.array([-0.5, 0.0, 0.5]), np.ones(1)


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """What tile b shows at pixel p, tile a shows at p + `shift` (2,) px, with `covariance` (2, 2) px**2.

    score: normalised correlation of the overlap, without its ground. features: about how many independent
    details the overlap shows.
    """

    shift: Vector
    covariance: Vector
    score: float
    features: float

    @property
    def ok(self) -> bool:
        """Whether this is hardly an accident."""
        evidence = math.atanh(min(self.score, 0.999)) * math.sqrt(self.features)
        return self.score >= MIN_SCORE and evidence >= MIN_EVIDENCE


def refine(a: Pixels, b: Pixels, shift: Vector) -> Match | None:
    """The match of images a and b near `shift` (2,) px, which is right to a pixel or two.

    None where they overlap by less than MIN_OVERLAP_PX along an axis, or show nothing to hold on to.
    """
    best = _refine(a, b, shift, SMOOTH_PX[0])
    for smooth_px in SMOOTH_PX[1:]:
        if best is None or best.score >= _NOISY_SCORE:
            return best
        smoother = _refine(a, b, best.shift, smooth_px)
        if smoother is not None and np.trace(smoother.covariance) < np.trace(best.covariance):
            best = smoother
    return best


def crops(a: Pixels, b: Pixels, shift: NDArray[np.int_]) -> tuple[Pixels, Pixels] | None:
    """The parts of two images of one shape that overlap at a whole shift; None where they do not."""
    (height, width), (dy, dx) = a.shape, (int(d) for d in shift)
    if abs(dy) >= height or abs(dx) >= width:
        return None
    in_a = slice(max(0, dy), min(height, height + dy)), slice(max(0, dx), min(width, width + dx))
    in_b = slice(max(0, -dy), min(height, height - dy)), slice(max(0, -dx), min(width, width - dx))
    return a[in_a], b[in_b]


def smoothed(image: Pixels, sigma_px: float) -> Image:
    """By a Gaussian; float32."""
    return np.asarray(cv2.GaussianBlur(image.astype(np.float32), (0, 0), sigma_px), dtype=np.float32)


def without_ground(image: Image) -> Image:
    """Less its mean over GROUND_PX."""
    size = max(1, min(GROUND_PX, 2 * (min(image.shape) // 2) - 1))
    return np.asarray(image - cv2.blur(image, (size, size)))


def correlation(a: Image, b: Image) -> float:
    """Of the values as they are, -1 to 1; 0 where one is all zero."""
    first, second = a.ravel(), b.ravel()
    power = float(first @ first) * float(second @ second)
    return float(first @ second) / math.sqrt(power) if power > 0 else 0.0


def _refine(a: Pixels, b: Pixels, shift: Vector, smooth_px: float) -> Match | None:
    whole = np.round(shift)
    rest = shift - whole
    for _ in range(4):
        pair = crops(a, b, whole.astype(int))
        if pair is None or min(pair[0].shape) < MIN_OVERLAP_PX:
            return None
        first, second = (smoothed(part, smooth_px) for part in _richest(*pair))
        match = _lucas_kanade(first, second, rest, smooth_px)
        if match is None:
            return None
        if np.abs(match.shift).max() <= 0.75:
            return replace(match, shift=whole + match.shift)
        whole, rest = whole + np.round(match.shift), match.shift - np.round(match.shift)
    return None


def _richest(a: Pixels, b: Pixels) -> tuple[Pixels, Pixels]:
    """The part of a large overlap that shows most."""
    height, width = a.shape
    most = MOST_PX // min(height, width, 500)
    if max(height, width) <= most:
        return a, b
    rows, columns = min(height, most), min(width, most)
    small = cv2.resize(a, (-(-width // 8), -(-height // 8)), interpolation=cv2.INTER_AREA)
    power = cv2.blur(without_ground(small.astype(np.float32)) ** 2, (-(-columns // 8), -(-rows // 8)))
    y, x = np.unravel_index(int(power.argmax()), power.shape)
    top = int(np.clip(8 * y - rows // 2, 0, height - rows))
    left = int(np.clip(8 * x - columns // 2, 0, width - columns))
    part = slice(top, top + rows), slice(left, left + columns)
    return a[part], b[part]


def _lucas_kanade(a: Image, b: Image, start: Vector, smooth_px: float) -> Match | None:
    """The shift d, of less than 1.5 px, for which b shows at p what a shows at p + d."""
    d = start
    for _ in range(5):
        # the ground last, so that both lose the mean of exactly the same part of the specimen
        first, second = (
            without_ground(_moved(image, by)[_INNER]) for image, by in ((a, 0.5 * d), (b, -0.5 * d))
        )
        mean, half = 0.5 * (first + second), 0.5 * (second - first)
        gradient, residual = _gradient(mean), 2.0 * half[_INNER].ravel()
        tensor = (gradient @ gradient.T).astype(np.float64)
        if _is_flat(tensor):
            return None
        step = np.linalg.solve(tensor, (gradient @ residual).astype(np.float64))
        d = d + np.clip(step, -1.0, 1.0)
        if np.abs(d).max() > 1.5 or np.abs(step).max() < _LAST_STEP_PX:
            break
    of_noise = _gradient(half)
    signal = tensor - of_noise @ of_noise.T
    if _is_flat(signal):
        return None
    # noise that was smoothed by a Gaussian is one independent value in 4 pi sigma**2 pixels; only what both tiles show
    # holds the shift, but the gradients of their noise shake it too
    power = float(residual @ residual) / residual.size * 4 * math.pi * smooth_px**2
    inverse = np.linalg.inv(signal)
    covariance = power * inverse @ tensor @ inverse + SIGMA_FLOOR_PX**2 * np.eye(2)
    # a detail is as large as the picture's power over that of its gradient; bright ones count most
    energy = (mean[_INNER] ** 2).ravel()
    total = float(energy.sum())
    spread = total**2 / float(energy @ energy)
    features = spread * float(np.trace(tensor)) / (4 * math.pi * total)
    return Match(d, covariance, correlation(first, second), features)


def _gradient(image: Image) -> Image:
    """(2, n): along y and x, in the inner part."""
    along = ((_ONE, _CENTRAL), (_CENTRAL, _ONE))
    return np.stack([cv2.sepFilter2D(image, -1, *kernels)[_INNER].ravel() for kernels in along])


def _is_flat(tensor: Vector) -> bool:
    """Whether a structure tensor (2, 2) leaves a direction open."""
    (yy, yx), (xy, xx) = tensor.tolist()
    return bool(yy + xx <= 0.0 or yy * xx - yx * xy <= 1e-4 * (yy + xx) ** 2)


def _moved(image: Image, d: Vector) -> Image:
    """The image whose pixel p shows what `image` shows at p + d, |d| < 1; cubic convolution (Keys 1981)."""
    return np.asarray(cv2.sepFilter2D(image, -1, _keys(d[1]), _keys(d[0])))


def _keys(d: float) -> Vector:
    """Five taps that read a line of pixels `d` after the third."""
    taps = np.empty(5)
    for n in range(5):
        t = abs(n - 2 - d)
        if t <= 1:
            taps[n] = 1.5 * t**3 - 2.5 * t**2 + 1
        else:
            taps[n] = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0.0
    return taps
