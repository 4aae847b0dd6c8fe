"""The power that a specimen has at each frequency: what tells detail from noise.

A table over the length of the frequency vector: the power of tissue falls off nearly as a power of the frequency (as that of natural
scenes: Field 1987), but optics and compression cut its high end, and prediction and filter are the better for knowing that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from deblurd.light import Image

Floats = NDArray[np.float64]

_BINS = 20
_EDGES = np.geomspace(0.012, 0.6, _BINS + 1)
_MIDDLES = np.sqrt(_EDGES[1:] * _EDGES[:-1])

_STANDS_OUT = 0.5
"""A frequency counts where the specimen's power is at least this share of the noise's."""

_SEEN = 0.25
"""... and where the blur leaves at least this share of it."""

_FALLOFF = 2.6
"""Of the power of crisp H&E at about 0.5 um per pixel, as a power of the frequency: what is assumed where nothing can be measured."""

_FALLOFFS = (1.0, 6.0)
_LEAST = math.log(1e-10)


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Expected power of the specimen, light squared per pixel: its natural logarithm in each of 20 bins, from 0.012 to 0.6 cycles per pixel."""

    log_power: tuple[float, ...]

    @classmethod
    def falling(cls, level: float, falloff: float = _FALLOFF) -> Spectrum:
        """``level (f / 0.1)^-falloff``."""
        return cls(tuple(float(v) for v in math.log(level) - falloff * np.log(_MIDDLES / 0.1)))

    def power(self, frequency: Floats) -> Floats:
        """At `frequency` (cycles per pixel), of any shape; beyond the table, that of its end."""
        at = np.log(np.maximum(frequency, _MIDDLES[0]))
        return np.asarray(np.exp(np.interp(at, np.log(_MIDDLES), self.log_power)), np.float64)

    def inverse(self, frequency: Floats) -> Floats:
        """1 / S; 0 at frequency 0, so that brightness stays as it is."""
        return np.where(frequency > 0, 1 / self.power(frequency), 0.0)

    def times(self, factor: float) -> Spectrum:
        """That of a specimen whose contrast has `factor` times the variance."""
        log_factor = math.log(max(factor, 1e-6))
        return Spectrum(tuple(max(v + log_factor, _LEAST) for v in self.log_power))


TISSUE = Spectrum.falling(0.06)
"""Of crisp H&E at about 0.5 um per pixel; in place of one that was measured."""

_DARKEST = 0.02
"""The curve of sRGB is steep in the dark; below this share of white it is taken to be as steep as here."""


@dataclass(frozen=True, slots=True)
class Specimen:
    """What is known of a specimen beforehand. spectrum: of its light. level: its mean light, as a share of white. steepness: mean square of the slope
    of the sRGB curve over its pixels: it makes errors in light errors in encoded values, as PSNR counts them."""

    spectrum: Spectrum = TISSUE
    level: float = 0.6
    steepness: float = 0.35


def measure_specimen(images: Sequence[Image], variance: float = 0.0) -> Specimen:
    """From sharp images (H, W) or (H, W, C) of one shape, linear light, with noise of `variance`."""
    planes = [plane for image in images for plane in np.moveaxis(np.atleast_3d(image), 2, 0)]
    light = np.concatenate([plane.ravel() for plane in planes])
    slope = 1.055 / 2.4 * np.maximum(light, _DARKEST) ** (1 / 2.4 - 1)
    even, by_light = (float(np.average(slope**2, weights=w)) for w in (None, np.maximum(light, 1e-3)))
    # errors lie between those that are alike everywhere and those of photons, which go with the light
    steepness = math.sqrt(even * by_light)
    return Specimen(fit_spectrum(planes, variance), float(light.mean()), steepness)


def fit_spectrum(
    planes: Sequence[NDArray[np.floating]],
    variance: float = 0.0,
    transfer: NDArray[np.complexfloating] | None = None,
) -> Spectrum:
    """That of planes (H, W) of one shape, all with noise of `variance`, after what a blur with `transfer` (on their `rfft2` grid) has taken.

    Where noise or blur hide the specimen it is continued along a straight line of logarithms through what is seen.
    """
    height, width = planes[0].shape
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1]).astype(np.float32)
    energy = float((window**2).sum())
    power = np.zeros((height, width // 2 + 1))
    for plane in planes:
        flat = plane - float((plane * window).sum() / window.sum())
        power += np.abs(scipy.fft.rfft2(flat * window)) ** 2 / energy / len(planes)
    frequency = np.hypot(scipy.fft.fftfreq(height)[:, None], scipy.fft.rfftfreq(width)[None, :])
    seen = np.ones_like(power) if transfer is None else np.abs(transfer) ** 2
    bins = np.digitize(frequency, _EDGES) - 1
    good = (bins >= 0) & (bins < _BINS) & (seen >= _SEEN) & (frequency >= 2.5 / min(height, width))
    count = np.bincount(bins[good], minlength=_BINS)
    signal = np.bincount(bins[good], (power[good] - variance) / seen[good], minlength=_BINS) / np.maximum(
        count, 1
    )
    usable = (count > 4) & (signal > _STANDS_OUT * variance) & (signal > math.exp(_LEAST))
    if usable.sum() < 4:
        band = (frequency > _EDGES[0]) & good
        rest = max(float(((power[band] - variance) / seen[band]).mean()) if band.any() else 0.0, 1e-9)
        return TISSUE.times(rest / float(TISSUE.power(frequency[band] if band.any() else _MIDDLES).mean()))
    x, y = np.log(_MIDDLES), np.log(np.maximum(signal, math.exp(_LEAST)))
    slope = float(np.clip(-np.polyfit(x[usable], y[usable], 1)[0], *_FALLOFFS))
    table = np.interp(x, x[usable], y[usable])
    first, last = np.flatnonzero(usable)[[0, -1]]
    table[last + 1 :] = table[last] - slope * (x[last + 1 :] - x[last])
    table[:first] = table[first] - slope * (x[:first] - x[first])
    return Spectrum(tuple(float(max(v, _LEAST)) for v in table))
