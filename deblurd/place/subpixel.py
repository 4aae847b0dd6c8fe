"""The shift of two overlapping images to a hundredth of a pixel, and how certain it is.

Symmetric Lucas-Kanade (Lucas & Kanade 1981): both images are moved by half the shift, so that interpolation blurs them
alike, and noise, which pulls an asymmetric estimate towards zero, cancels. Moving and smoothing are one filter: a Gaussian whose middle
lies between the pixels.
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
"""The fewer details an overlap shows, the better they must match."""

MIN_OVERLAP_PX = 14
"""An overlap narrower than this, along an axis, says nothing."""

MOST_PX = 160_000
"""About how many pixels of an overlap are looked at; more costs time and gains nothing that shows."""

ELSEWHERE_PX, ELSEWHERE_SHARE = 16, 0.7
"""A match is one of place if so far beside it images match by less than this share as well."""

EVENED_SHARE = 0.4
"""What must be left of it without the light's fall-off: of glass nothing is, of details as faint as the noise half."""

SIGMA_FLOOR_PX = 0.02
"""What interpolation, aliasing and distortion leave, however much an overlap shows."""

GROUND_PX = 49
"""Light that varies more slowly than this is no feature: it differs between tiles, and falls off to the corners."""

SMOOTH_PX = 1.0
"""Standard deviation of the smoothing against noise."""

STRONGLY_PX = 1.5
"""The same for overlaps that are mostly noise, in pixels of half the resolution."""

_REACH = 4.0
"""Standard deviations after which the Gaussian ends."""

_NOISY_SCORE = 0.8
_LAST_STEP_PX = 0.03
"""The step after one so small would be a hundred times smaller still."""

_LONG_STEP_PX = 0.25
"""After a longer step the gradient is that of another place."""


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
    def evidence(self) -> float:
        """How far the score is from that of an accident, in its standard deviations (Fisher's z)."""
        return math.atanh(min(self.score, 0.999)) * math.sqrt(self.features)

    @property
    def ok(self) -> bool:
        """Whether this is hardly an accident."""
        return self.score >= MIN_SCORE and self.evidence >= MIN_EVIDENCE


def refine(a: Pixels, b: Pixels, shift: Vector) -> Match | None:
    """The match of images a and b near `shift` (2,) px, which is right to a pixel or two.

    None where they overlap by less than MIN_OVERLAP_PX along an axis, or show nothing to hold on to.
    """
    best = quick(a, b, shift)
    if best is None or best.score >= _NOISY_SCORE:
        return best
    smoother = _at_half_resolution(a, b, best.shift)
    if smoother is not None and np.trace(smoother.covariance) < np.trace(best.covariance):
        return smoother
    return best


def quick(a: Pixels, b: Pixels, shift: Vector) -> Match | None:
    """The same for images that show more than noise."""
    whole = np.round(shift)
    rest = shift - whole
    for _ in range(4):
        pair = crops(a, b, whole.astype(int))
        if pair is None or min(pair[0].shape) < MIN_OVERLAP_PX:
            return None
        match = _lucas_kanade(*_richest(*pair), rest, SMOOTH_PX)
        if match is None:
            return None
        if np.abs(match.shift).max() <= 0.75:
            return _settled(match, whole, 1)
        whole, rest = whole + np.round(match.shift), match.shift - np.round(match.shift)
    return None


def crops(a: Pixels, b: Pixels, shift: NDArray[np.int_]) -> tuple[Pixels, Pixels] | None:
    """The parts of two images of one shape that overlap at a whole shift; None where they do not."""
    (height, width), (dy, dx) = a.shape, (int(d) for d in shift)
    if abs(dy) >= height or abs(dx) >= width:
        return None
    in_a = slice(max(0, dy), min(height, height + dy)), slice(max(0, dx), min(width, width + dx))
    in_b = slice(max(0, -dy), min(height, height - dy)), slice(max(0, -dx), min(width, width - dx))
    return a[in_a], b[in_b]


def stands_out(a: Pixels, b: Pixels, match: Match) -> bool:
    """Whether images match there better than a little beside it, along one diagonal at least, and without the light that falls off to their corners.

    Bare tiles do not: where an overlap ends, that light leaves a rim when its ground is taken off, and a rim matches a rim wherever it lies. Nor does
    a pattern finer than ELSEWHERE_PX that repeats itself.
    """
    whole = np.round(match.shift).astype(int)
    long = int(np.abs(whole).argmax())
    even_a, even_b = _evened(a), _evened(b)
    here, evened = _likeness(a, b, whole), _likeness(even_a, even_b, whole)
    if here is None or evened is None or evened < EVENED_SHARE * here:
        return False
    scores = []
    for side in (-ELSEWHERE_PX, ELSEWHERE_PX):
        beside = np.full(2, side)
        # further into the overlap, which would end otherwise
        beside[long] = -ELSEWHERE_PX if whole[long] > 0 else ELSEWHERE_PX
        if (there := _likeness(a, b, whole + beside)) is None:
            return True
        scores.append(there)
    return min(scores) < ELSEWHERE_SHARE * match.score


def _likeness(a: Pixels, b: Pixels, shift: NDArray[np.int_]) -> float | None:
    """Correlation of the overlap at a whole shift, without its ground; None where it is too narrow."""
    pair = crops(a, b, shift)
    if pair is None or min(pair[0].shape) < MIN_OVERLAP_PX:
        return None
    return correlation(*(without_ground(smoothed(part, SMOOTH_PX)) for part in pair))


def _evened(image: Pixels) -> Image:
    """Less a polynomial of fourth order, which is what light falls off like."""
    side = 32
    u = np.linspace(-1.0, 1.0, side)
    y, x = np.meshgrid(u, u, indexing="ij")
    basis = np.stack([y**n * x**m for n in range(5) for m in range(5 - n)], axis=-1).reshape(side**2, -1)
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA).astype(np.float64).ravel()
    light = basis @ np.linalg.lstsq(basis, small, rcond=None)[0]
    whole = cv2.resize(light.reshape(side, side), image.shape[::-1], interpolation=cv2.INTER_CUBIC)
    return np.asarray(image - whole, dtype=np.float32)


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


def _at_half_resolution(a: Pixels, b: Pixels, shift: Vector) -> Match | None:
    """A match near `shift`, right to a pixel, of images that are mostly noise."""
    whole = np.round(shift)
    pair = crops(a, b, whole.astype(int))
    if pair is None or min(pair[0].shape) < 2 * MIN_OVERLAP_PX:
        return None
    first, second = (_halved(part) for part in _richest(*pair))
    match = _lucas_kanade(first, second, 0.5 * (shift - whole), STRONGLY_PX)
    return None if match is None else _settled(match, whole, 2)


def _settled(match: Match, whole: Vector, binning: int) -> Match:
    """In pixels of the images, for a match in binned ones that were cropped at a `whole` shift."""
    floor = SIGMA_FLOOR_PX**2 * np.eye(2)
    return replace(
        match, shift=whole + binning * match.shift, covariance=binning**2 * match.covariance + floor
    )


def _halved(image: Pixels) -> Image:
    """Mean of 2 x 2 pixels."""
    height, width = (n // 2 for n in image.shape)
    even = image[: 2 * height, : 2 * width].astype(np.float32)
    return np.asarray(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA))


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


def _lucas_kanade(a: Pixels, b: Pixels, start: Vector, smooth_px: float) -> Match | None:
    """The shift d, of less than 1.5 px, for which b shows at p what a shows at p + d; without a floor to its covariance."""
    if a.shape[0] > a.shape[1]:
        # OpenCV filters few long rows several times faster than many short ones
        turned = _lucas_kanade(cv2.transpose(a), cv2.transpose(b), start[::-1], smooth_px)
        return turned and replace(turned, shift=turned.shift[::-1], covariance=turned.covariance[::-1, ::-1])
    d, step = start, np.full(2, np.inf)
    for _ in range(6):
        first, second = _moved(a, 0.5 * d, smooth_px), _moved(b, -0.5 * d, smooth_px)
        # the ground last, so that both lose the mean of exactly the same part of the specimen
        half = without_ground(0.5 * (second - first))
        if np.abs(step).max() > _LONG_STEP_PX:
            mean = without_ground(0.5 * (first + second))
            along_y, along_x = _gradient(mean)
            tensor = _products(along_y, along_x)
            if _is_flat(tensor):
                return None
            inverse = _inverse(tensor)
        residual = half[1:-1, 1:-1].ravel()
        step = inverse @ (2.0 * np.array([along_y @ residual, along_x @ residual], np.float64))
        d = d + np.minimum(np.maximum(step, -1.0), 1.0)
        if np.abs(d).max() > 1.5 or np.abs(step).max() < _LAST_STEP_PX:
            break
    signal = tensor - _products(*_gradient(half))
    if _is_flat(signal):
        return None
    # noise that was smoothed by a Gaussian is one independent value in 4 pi sigma**2 pixels; only what both tiles show
    # holds the shift, but the gradients of their noise shake it too
    power = 4.0 * float(residual @ residual) / residual.size * 4 * math.pi * smooth_px**2
    inverse = _inverse(signal)
    covariance = power * inverse @ tensor @ inverse
    # a detail is as large as the picture's power over that of its gradient; bright ones count most
    energy = mean.ravel() ** 2
    total = float(energy.sum())
    spread = total**2 / float(energy @ energy)
    features = spread * float(np.trace(tensor)) / (4 * math.pi * total)
    return Match(d, covariance, correlation(mean - half, mean + half), features)


def _gradient(image: Image) -> tuple[Image, Image]:
    """(n,) along y and (n,) along x, without the border."""
    along_y, along_x = image[2:, 1:-1] - image[:-2, 1:-1], image[1:-1, 2:] - image[1:-1, :-2]
    return 0.5 * along_y.ravel(), 0.5 * along_x.ravel()


def _products(along_y: Image, along_x: Image) -> Vector:
    """Structure tensor (2, 2)."""
    yx = along_y @ along_x
    return np.array([[along_y @ along_y, yx], [yx, along_x @ along_x]], np.float64)


def _inverse(tensor: Vector) -> Vector:
    """Of a symmetric (2, 2); for so few numbers LAPACK takes ten times as long."""
    (yy, yx), (_, xx) = tensor.tolist()
    return np.array([[xx, -yx], [-yx, yy]], np.float64) / float(yy * xx - yx * yx)


def _is_flat(tensor: Vector) -> bool:
    """Whether a structure tensor (2, 2) leaves a direction open."""
    (yy, yx), (xy, xx) = tensor.tolist()
    return bool(yy + xx <= 0.0 or yy * xx - yx * xy <= 1e-4 * (yy + xx) ** 2)


def _moved(image: Pixels, d: Vector, sigma_px: float) -> Image:
    """The image, smoothed, whose pixel p shows what `image` shows at p + d, |d| < 1; without the border that the filter cannot see."""
    reach = round(_REACH * sigma_px)
    taps = [_gaussian(float(along), sigma_px, reach) for along in d]
    moved = cv2.sepFilter2D(image, cv2.CV_32F, taps[1], taps[0])
    return np.asarray(moved[reach:-reach, reach:-reach])


def _gaussian(d: float, sigma_px: float, reach: int) -> Vector:
    """Taps that smooth a line of pixels and read it `d` after the middle one."""
    taps = np.exp(-0.5 * ((np.arange(-reach, reach + 1) - d) / sigma_px) ** 2)
    return np.asarray(taps / taps.sum(), dtype=np.float64)
