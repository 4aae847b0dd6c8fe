"""How far one tile lies from another, measured in the picture that both show.

Coarse: range-limited, softly whitened correlation of the strips that can overlap, at low resolution; its highest peaks are
judged by the normalised correlation of the true overlap. Fine: symmetric Lucas-Kanade (Lucas & Kanade 1981; both
images are moved by half the shift, so that interpolation blurs them alike), first at low, then at full resolution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from deblurd.frames import Pixels

Image = NDArray[np.float32]
Vector = NDArray[np.float64]

COARSE_PX = 256
"""The low resolution has about this many pixels along the longer side of a tile."""

FINE_PX = 160_000
"""About how many pixels of an overlap the fine registration looks at; more costs time and gains nothing that shows."""

MIN_OVERLAP_PX = 12
"""An overlap narrower than this at full resolution is not registered."""

MIN_SCORE = 0.35
"""Right matches of H&E score 0.7 and more, of noisy or nearly empty overlaps 0.35; wrong ones up to 0.3."""

MIN_EVIDENCE = 1.5
"""Of atanh(score) * sqrt(features): two lone cells match any two others, and only many features are no accident."""

_PEAKS = 5
_SMOOTH_PX = 1.0
_GROUND_PX = 49
_SIGMA_FLOOR_PX = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A tile ready for registration: `grey` (H, W) as the camera gave it, `coarse` (H/n, W/n) float32 without its ground."""

    grey: Pixels
    coarse: Image
    binning: int

    @property
    def nbytes(self) -> int:
        return self.grey.nbytes + self.coarse.nbytes


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


@dataclass(frozen=True, slots=True, eq=False)
class Edge:
    """The match of tiles i (as a) and j (as b): j lies at (dy, dx) camera pixels from i."""

    i: int
    j: int
    match: Match

    @property
    def dy(self) -> float:
        return float(self.match.shift[0])

    @property
    def dx(self) -> float:
        return float(self.match.shift[1])


def prepare(pixels: Pixels) -> Prepared:
    """Of a tile (H, W) or (H, W, 3), uint8 or uint16."""
    grey = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    binning = max(1, round(max(grey.shape) / COARSE_PX))
    size = (grey.shape[1] // binning, grey.shape[0] // binning)
    whole = grey[: size[1] * binning, : size[0] * binning]
    coarse = cv2.resize(whole, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    return Prepared(grey, _without_ground(coarse, 0.6), binning)


def register(a: Prepared, b: Prepared, predicted: Vector, radius_px: float) -> Match | None:
    """Finds b's shift from a; None where they do not overlap or the overlap shows nothing.

    predicted: (2,) px, where to look. radius_px: how far around it, along each axis.
    """
    coarse = _coarse_shift(a, b, predicted / a.binning, max(2.0, radius_px / a.binning))
    if coarse is None:
        return None
    nearer = _refine(a.coarse, b.coarse, coarse, fine=False)
    if nearer is None:
        return None
    return _refine(a.grey, b.grey, nearer.shift * a.binning, fine=True)


def overlap(shape: tuple[int, ...], shift: Vector) -> tuple[int, int]:
    """Height and width that two tiles of `shape` at `shift` share, in px; 0 where none."""
    return max(0, shape[0] - math.ceil(abs(shift[0]))), max(0, shape[1] - math.ceil(abs(shift[1])))


# --- coarse ---


def _coarse_shift(a: Prepared, b: Prepared, predicted: Vector, radius: float) -> Vector | None:
    reach = np.array(a.coarse.shape) - 4
    low = np.maximum(np.floor(predicted - radius), -reach).astype(int)
    high = np.minimum(np.ceil(predicted + radius), reach).astype(int)
    if (low > high).any():
        return None
    rows, columns = (_strips(a.coarse.shape[n], low[n], high[n]) for n in (0, 1))
    if rows is None or columns is None:
        return None
    strip_a = a.coarse[rows[0], columns[0]]
    strip_b = b.coarse[rows[1], columns[1]]
    padded = tuple(
        scipy.fft.next_fast_len(n + math.ceil(radius), real=True)
        for n in np.maximum(strip_a.shape, strip_b.shape)
    )
    spectrum = scipy.fft.rfft2(_tapered(strip_a), padded)
    spectrum *= np.conj(scipy.fft.rfft2(_tapered(strip_b), padded))
    power = np.abs(spectrum)
    spectrum /= power + 0.1 * power.mean() + 1e-12
    surface = scipy.fft.irfft2(spectrum, padded)
    origin = (rows[0].start - rows[1].start, columns[0].start - columns[1].start)
    window = surface[np.ix_(*((np.arange(low[n], high[n] + 1) - origin[n]) % padded[n] for n in (0, 1)))]
    return _best_peak(a.coarse, b.coarse, window, low)


def _strips(length: int, low: int, high: int) -> tuple[slice, slice] | None:
    """The parts of one axis that can overlap for any shift from `low` to `high`."""
    in_a = slice(max(0, low), min(length, length + high))
    in_b = slice(max(0, -high), min(length, length - low))
    return (in_a, in_b) if min(in_a.stop - in_a.start, in_b.stop - in_b.start) >= 4 else None


def _best_peak(a: Image, b: Image, window: Image, low: NDArray[np.int_]) -> Vector | None:
    best, best_merit = None, 0.0
    window = window.copy()
    for _ in range(_PEAKS):
        y, x = np.unravel_index(int(window.argmax()), window.shape)
        shift = low + np.array([y, x])
        window[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3] = -np.inf
        pair = _crops(a, b, shift)
        if pair is None or min(pair[0].shape) < 4:
            continue
        # by chance the correlation of n pixels reaches some / sqrt(n)
        merit = _correlation(*pair) * math.sqrt(pair[0].size)
        if merit > best_merit:
            best, best_merit = shift.astype(np.float64), merit
    return best


# --- fine ---


def _refine(a: Pixels, b: Pixels, shift: Vector, fine: bool) -> Match | None:
    """Lucas-Kanade from `shift`; None where the overlap is too narrow or there is nothing to hold on to."""
    whole = np.round(shift)
    rest = shift - whole
    for _ in range(4):
        pair = _crops(a, b, whole.astype(int))
        if pair is None or min(pair[0].shape) < (MIN_OVERLAP_PX if fine else 6):
            return None
        if fine:
            pair = _richest(*pair)
            pair = tuple(_without_ground(part.astype(np.float32), _SMOOTH_PX) for part in pair)
        match = _lucas_kanade(*pair, rest)
        if match is None:
            return None
        if np.abs(match.shift).max() <= 0.75:
            return replace(match, shift=whole + match.shift)
        whole, rest = whole + np.round(match.shift), match.shift - np.round(match.shift)
    return None


def _richest(a: Pixels, b: Pixels) -> tuple[Pixels, Pixels]:
    """The part of a large overlap that shows most."""
    height, width = a.shape
    most = FINE_PX // min(height, width, 500)
    if max(height, width) <= most:
        return a, b
    small = cv2.resize(a, (-(-width // 8), -(-height // 8)), interpolation=cv2.INTER_AREA).astype(np.float32)
    window = (min(height, most), min(width, most))
    power = cv2.blur(_without_ground(small, 0.6) ** 2, (-(-window[1] // 8), -(-window[0] // 8)))
    y, x = np.unravel_index(int(power.argmax()), power.shape)
    top = int(np.clip(8 * y - window[0] // 2, 0, height - window[0]))
    left = int(np.clip(8 * x - window[1] // 2, 0, width - window[1]))
    part = slice(top, top + window[0]), slice(left, left + window[1])
    return a[part], b[part]


def _lucas_kanade(a: Image, b: Image, start: Vector) -> Match | None:
    """The shift d, of less than 1.5 px, for which b shows at p what a shows at p + d."""
    d = start
    for _ in range(5):
        first, second = _moved(a, 0.5 * d), _moved(b, -0.5 * d)
        mean, difference = 0.5 * (first + second), second - first
        gy, gx = (cv2.sepFilter2D(mean, -1, *kernels)[_INNER].ravel() for kernels in _GRADIENTS)
        residual = difference[_INNER].ravel()
        tensor = np.array([[gy @ gy, gy @ gx], [gy @ gx, gx @ gx]], dtype=np.float64)
        if np.linalg.det(tensor) <= 1e-6 * max(np.trace(tensor), 1e-12) ** 2:
            return None
        step = np.linalg.solve(tensor, np.array([gy @ residual, gx @ residual], dtype=np.float64))
        d = d + np.clip(step, -1.0, 1.0)
        if np.abs(d).max() > 1.5 or np.abs(step).max() < 0.01:
            break
    # noise that was smoothed by a Gaussian is one independent value in 4 pi sigma**2 pixels
    covariance = (
        np.linalg.inv(tensor) * float(residual @ residual) / residual.size * 4 * math.pi * _SMOOTH_PX**2
    )
    # a detail is as large as the picture's power over that of its gradient; bright ones count most
    energy = (mean[_INNER] ** 2).ravel()
    total = float(energy.sum())
    spread = total**2 / float(energy @ energy)
    features = spread * float(np.trace(tensor)) / (4 * math.pi * total)
    return Match(d, covariance + _SIGMA_FLOOR_PX**2 * np.eye(2), _correlation(first, second), features)


_INNER = (slice(3, -3), slice(3, -3))
_CENTRAL, _ONE = np.array([-0.5, 0.0, 0.5]), np.ones(1)
_GRADIENTS = ((_ONE, _CENTRAL), (_CENTRAL, _ONE))


def _moved(image: Image, d: Vector) -> Image:
    """The image whose pixel p shows what `image` shows at p + d, |d| < 1; cubic convolution (Keys 1981)."""
    return np.asarray(cv2.sepFilter2D(image, -1, _keys(d[1]), _keys(d[0])))


def _keys(d: float) -> Vector:
    t = np.abs(np.arange(-2, 3) - d)
    near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    return np.where(t <= 1, near, np.where(t < 2, far, 0.0))


# --- both ---


def _crops(a: Pixels, b: Pixels, shift: NDArray[np.int_]) -> tuple[Pixels, Pixels] | None:
    """The parts of two images that overlap at a whole shift, of equal shape."""
    rows, columns = (_strips(a.shape[n], int(shift[n]), int(shift[n])) for n in (0, 1))
    if rows is None or columns is None:
        return None
    return a[rows[0], columns[0]], b[rows[1], columns[1]]


def _without_ground(image: Image, smooth_px: float) -> Image:
    """Slightly smoothed, less its slow part: light that differs between the tiles, or falls off to the corners."""
    size = min(_GROUND_PX, 2 * (min(image.shape) // 2) - 1)
    return np.asarray(cv2.GaussianBlur(image, (0, 0), smooth_px) - cv2.blur(image, (size, size)))


def _tapered(strip: Image) -> Image:
    """Its edges faded out over a few pixels: they are no feature of the specimen."""
    fades = []
    for length in strip.shape:
        ramp = np.minimum(np.arange(length) + 0.5, length - 0.5 - np.arange(length)) / min(8.0, length / 3)
        fades.append(np.minimum(ramp, 1.0).astype(np.float32))
    return np.asarray(strip * fades[0][:, None] * fades[1])


def _correlation(a: Image, b: Image) -> float:
    a, b = a.ravel(), b.ravel()
    power = float(a @ a) * float(b @ b)
    return float(a @ b) / math.sqrt(power) if power > 0 else 0.0
