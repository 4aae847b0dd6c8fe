"""How far one tile lies from another, measured in the picture that both show.

At low resolution, range-limited and softly whitened correlation of the strips that can overlap; its highest peaks are judged
by the normalised correlation of the true overlap. Then `subpixel`, at low and at full resolution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from deblurd.frames import Pixels
from deblurd.place.subpixel import (
    Image,
    Match,
    Vector,
    correlation,
    crops,
    quick,
    refine,
    smoothed,
    without_ground,
)

COARSE_PX = 256
"""The low resolution has about this many pixels along the longer side of a tile."""

_PEAKS = 6
_CHANCE = 8.0
_NEARER = 0.15
"""How much better a match at the border of the search must be than one in its middle."""

_LEAST_STRIP = 5
_WHITENING = 3.0
"""Spectral power, of the mean, below which a frequency counts less: it is noise."""


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
    size = (max(1, grey.shape[1] // binning), max(1, grey.shape[0] // binning))
    whole = grey[: size[1] * binning, : size[0] * binning]
    coarse = smoothed(cv2.resize(whole, size, interpolation=cv2.INTER_AREA), 0.6)
    return Prepared(grey, without_ground(coarse), binning)


def register(a: Prepared, b: Prepared, predicted: Vector, radius_px: float) -> Match | None:
    """Finds b's shift from a; None where they do not overlap or the overlap shows nothing.

    predicted: (2,) px, where to look. radius_px: how far around it, along each axis.
    """
    coarse = _coarse_shift(a.coarse, b.coarse, predicted / a.binning, max(2.0, radius_px / a.binning))
    if coarse is None:
        return None
    if a.binning > 1 and (nearer := quick(a.coarse, b.coarse, coarse)) is not None:
        coarse = nearer.shift
    return refine(a.grey, b.grey, coarse * a.binning)


def _coarse_shift(a: Image, b: Image, predicted: Vector, radius: float) -> Vector | None:
    reach = np.array(a.shape) - _LEAST_STRIP
    low = np.maximum(np.floor(predicted - radius), -reach).astype(int)
    high = np.minimum(np.ceil(predicted + radius), reach).astype(int)
    if (low > high).any():
        return None
    rows, columns = (_strips(a.shape[n], low[n], high[n]) for n in (0, 1))
    strip_a, strip_b = a[rows[0], columns[0]], b[rows[1], columns[1]]
    padded = [
        scipy.fft.next_fast_len(int(n) + math.ceil(radius), real=True)
        for n in np.maximum(strip_a.shape, strip_b.shape)
    ]
    spectrum = scipy.fft.rfft2(_tapered(strip_a), padded)
    spectrum *= np.conj(scipy.fft.rfft2(_tapered(strip_b), padded))
    power = np.abs(spectrum)
    spectrum /= power + _WHITENING * power.mean() + 1e-12
    surface = scipy.fft.irfft2(spectrum, padded)
    origin = (rows[0].start - rows[1].start, columns[0].start - columns[1].start)
    window = surface[np.ix_(*((np.arange(low[n], high[n] + 1) - origin[n]) % padded[n] for n in (0, 1)))]
    return _best_peak(a, b, window, low, predicted, radius)


def _strips(length: int, low: int, high: int) -> tuple[slice, slice]:
    """The parts of one axis of a and of b that can overlap for any shift from `low` to `high`."""
    return slice(max(0, low), min(length, length + high)), slice(max(0, -high), min(length, length - low))


def _best_peak(
    a: Image, b: Image, window: Image, low: NDArray[np.int_], predicted: Vector, radius: float
) -> Vector | None:
    """window: correlation for the shifts from `low` on."""
    best, best_merit = None, 0.0
    window = window.copy()
    middle = predicted - low
    nearby = tuple(slice(max(0, int(m - radius / 3)), int(m + radius / 3) + 1) for m in middle)
    whole = (slice(0, None), slice(0, None))
    for n in range(_PEAKS):
        # a repeated pattern has many equal peaks: the nearest is looked at in any case
        part = nearby if n == 0 and window[nearby].size else whole
        peak = np.array(np.unravel_index(int(window[part].argmax()), window[part].shape))
        peak += [along.start for along in part]
        window[max(0, peak[0] - 2) : peak[0] + 3, max(0, peak[1] - 2) : peak[1] + 3] = -np.inf
        pair = crops(a, b, low + peak)
        if pair is None:
            continue
        # by chance the correlation of n pixels reaches some / sqrt(n); of equal peaks the nearest to the prediction counts
        sure = correlation(*pair) - _CHANCE / math.sqrt(pair[0].size)
        merit = sure * (1.0 - _NEARER * float(np.abs(peak - middle).max()) / radius)
        if merit > best_merit:
            best, best_merit = (low + peak).astype(np.float64), merit
    return best


def _tapered(strip: Image) -> Image:
    """Its edges faded out over a few pixels: they are no feature of the specimen."""
    fades = []
    for length in strip.shape:
        ramp = np.minimum(np.arange(length) + 0.5, length - 0.5 - np.arange(length)) / min(8.0, length / 3)
        fades.append(np.minimum(ramp, 1.0).astype(np.float32))
    return np.asarray(strip * fades[0][:, None] * fades[1])
