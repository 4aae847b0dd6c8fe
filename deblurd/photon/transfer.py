"""Photon transfer: the camera's gain, read noise, offset and saturation, and the light, from frames at rest.

Two frames of one exposure differ by nothing but noise, whatever they show. Sorted by brightness, the variance of their difference over 2 lies on a straight
line over the mean: ``variance = (mean - offset) / E + (read / E)^2``, with E the electrons at full scale (Janesick 2007, *Photon Transfer*). All values are
linear light, 1 at full scale, so that cameras that encode light are measured the same way. Several exposures tell the offset and the light, and
whether the camera does what it is told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deblurd.errors import DataError
from deblurd.frames import Encoding, Pixels
from deblurd.light import Image, luminance_of, to_linear

Floats = NDArray[np.float64]

_BINS = 40
_LEAST_PIXELS = 200
_LEAST_BINS = 3
_LEAST_COUNTS = 4
_SATURATED = 0.98
_MOVED_PX = 0.05
_FLICKER = 0.02
_CROOKED = 0.08
_PILED_UP = 1e-3
_LEAST_SPREAD = 1.5
"""Exposures have to differ by such a factor to tell the offset."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two frames of one place, (H, W) or (H, W, 3), taken at rest with the same exposure."""

    exposure_ms: float
    first: Pixels
    second: Pixels


@dataclass(frozen=True, slots=True)
class PhotonTransfer:
    """What a camera and its light are. full_scale_e: electrons at full scale. gain_e: electrons per count, of a linear camera; at full scale of one that
    encodes light. read_e: read noise, electrons, standard deviation. offset: counts without light. saturation: counts above which it says nothing.
    light_e_ms: electrons of the brightest part of the specimen, per ms. exposure_ms: the longest that was measured. error: relative uncertainty of
    `full_scale_e`, one standard deviation."""

    full_scale_e: float
    gain_e: float
    read_e: float
    offset: float
    saturation: int
    light_e_ms: float
    exposure_ms: float
    error: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> PhotonTransfer:
        """Raises TypeError or ValueError where it is not one."""
        found = cls(**content)
        if (
            not all(math.isfinite(v) for v in asdict(found).values())
            or min(found.full_scale_e, found.light_e_ms) <= 0
        ):
            raise ValueError("a value is not a positive number")
        return found

    def sentence(self) -> str:
        """For people."""
        return (
            f"{self.gain_e:.3g} e-/count, read noise {self.read_e:.1f} e-, offset {self.offset:.1f}, saturates at {self.saturation}; "
            f"light {self.light_e_ms:.0f} e-/ms"
        )


def measure_transfer(pairs: Sequence[Pair], encoding: Encoding) -> PhotonTransfer:
    """From pairs of frames at one or more exposures; the specimen may be anything that is not all dark or all white.

    Raises DataError, which says what is wrong and what to do, where the frames make no sense: something moves, the lamp flickers, the camera
    sets its own exposure or gain, too dark, too bright, or no noise at all.
    """
    if not pairs:
        raise DataError("no frames were given to measure the camera by: take at least two at rest")
    for pair in pairs:
        if not pair.exposure_ms > 0:
            raise DataError(
                f"frames of {pair.exposure_ms:g} ms tell nothing of the light: say how long they were exposed, then measure again"
            )
        _check(pair, encoding)
    means, variances, weights = (
        np.concatenate(each) for each in zip(*(_curve(p, encoding) for p in pairs), strict=True)
    )
    if len(means) < _LEAST_BINS:
        raise DataError(
            "the frames are nearly all black, or nearly all burnt out, and tell nothing of the camera's noise: change the exposure, then measure again"
        )
    offset = _offset(pairs, encoding)
    slope, floor, error = _line(means - offset, variances, weights)
    if not slope > 0 or error > 0.5:
        raise DataError(
            "the noise of the frames does not grow with the light, as that of photons does: switch noise reduction, sharpening and "
            "automatic gain of the camera off, then measure again"
        )
    full = np.iinfo(pairs[0].first.dtype).max
    electrons = 1 / slope
    longest = max(pairs, key=lambda pair: pair.exposure_ms)
    white = max(_white(pair, encoding, offset) / pair.exposure_ms for pair in pairs)
    return PhotonTransfer(
        full_scale_e=electrons,
        gain_e=electrons * _slope_at_full_scale(encoding) / full,
        read_e=math.sqrt(max(floor, 0.0)) * electrons,
        offset=offset * full,
        saturation=_saturation(pairs),
        light_e_ms=white * electrons,
        exposure_ms=longest.exposure_ms,
        error=error,
    )


def _check(pair: Pair, encoding: Encoding) -> None:
    """Whether two frames show the same in the same light."""
    a, b = (luminance_of(to_linear(pixels, encoding)) for pixels in (pair.first, pair.second))
    if (a >= _SATURATED).mean() > 0.5:
        raise DataError(
            f"more than half of the field is burnt out at {pair.exposure_ms:g} ms: expose shorter, then measure again"
        )
    ratio = (float(b.mean()) + 1e-3) / (float(a.mean()) + 1e-3)  # black is as dark as black
    if not 1 / (1 + _FLICKER) < ratio < 1 + _FLICKER:
        raise DataError(
            f"two frames of {pair.exposure_ms:g} ms differ by {100 * abs(ratio - 1):.0f} % in brightness: let the lamp warm up, and switch the "
            "camera's automatic exposure and gain off, then measure again"
        )
    if (moved := _moved_px(a, b)) > _MOVED_PX:
        raise DataError(
            f"the picture moved by {moved:.2f} px between two frames of {pair.exposure_ms:g} ms: let the stage stand still, on a specimen that does not "
            "move, then measure again"
        )


def _moved_px(a: Image, b: Image) -> float:
    """How far b lies from a: one step of Lucas & Kanade 1981 on both smoothed, of which what noise alone explains is taken off."""
    a, b = (np.asarray(cv2.GaussianBlur(each, (0, 0), 1.5), np.float32) for each in (a, b))
    gy, gx = np.gradient((a + b) / 2)
    difference = (b - a) - float(np.mean(b - a))
    normal = np.array([[(gy * gy).sum(), (gy * gx).sum()], [(gy * gx).sum(), (gx * gx).sum()]], np.float64)
    # two noise images of the same variance; neighbours are correlated by the smoothing over some 28 px
    sigma = float(np.median(np.abs(difference))) / 0.6745 * math.sqrt(28)
    if np.linalg.det(normal) <= 0 or normal.trace() < 1e-6:
        return 0.0
    moved = np.linalg.solve(normal, [(gy * difference).sum(), (gx * difference).sum()])
    unsure = sigma * math.sqrt(float(np.linalg.inv(normal).trace()))
    return max(float(np.hypot(*moved)) - 3 * unsure, 0.0)


def _curve(pair: Pair, encoding: Encoding) -> tuple[Floats, Floats, Floats]:
    """Mean, variance and weight of each bin of brightness, all channels together."""
    a, b = (to_linear(pixels, encoding).ravel().astype(np.float64) for pixels in (pair.first, pair.second))
    mean, difference = (a + b) / 2, b - a
    good = (a > 0) & (b > 0) & (np.maximum(a, b) < _SATURATED)
    mean, difference = mean[good], difference[good]
    if len(mean) < _LEAST_PIXELS:
        return np.empty(0), np.empty(0), np.empty(0)
    low, high = (float(v) for v in np.percentile(mean, [0.5, 99.5]))
    # several counts wide, or rounding would sort pixels by how alike their two values are
    narrowest = _LEAST_COUNTS * 2.4 / 1.055 / np.iinfo(pair.first.dtype).max
    edges = np.linspace(low, high + 1e-9, int(np.clip((high - low) / narrowest, 1, _BINS)) + 1)
    index = np.digitize(mean, edges) - 1
    rows = []
    for n in range(len(edges) - 1):
        own = difference[index == n]
        if len(own) < _LEAST_PIXELS:
            continue
        own = own - own.mean()
        # pixels in which something happened do not count
        own = own[np.abs(own) <= 5 * own.std()]
        rows.append((float(mean[index == n].mean()), float(own.var()) / 2, math.sqrt(len(own))))
    table = np.array(rows).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2]


def _line(x: Floats, variance: Floats, weight: Floats) -> tuple[float, float, float]:
    """Slope and intercept (not below 0) of the variance over the light, reweighted (Cauchy); and the slope's relative error."""
    design = np.stack([x, np.ones_like(x)], axis=1)
    relative = weight / np.maximum(variance, 1e-12)
    fit: Floats = np.zeros(2)
    for _ in range(8):
        fit = np.asarray(
            np.linalg.lstsq(design * relative[:, None], variance * relative, rcond=None)[0], np.float64
        )
        if fit[1] < 0:
            fit = np.array([float((x * variance * relative**2).sum() / (x * x * relative**2).sum()), 0.0])
        off = (variance - design @ fit) / np.maximum(variance, 1e-12)
        scale = 3 * float(np.median(np.abs(off))) + 1e-6
        relative = weight / np.maximum(variance, 1e-12) / np.sqrt(1 + (off / scale) ** 2)
    rest = (variance - design @ fit) * relative
    covariance = np.linalg.pinv((design * relative[:, None]).T @ (design * relative[:, None]))
    sigma = math.sqrt(float(covariance[0, 0] * (rest @ rest)) / max(len(x) - 2, 1))
    return float(fit[0]), float(fit[1]), sigma / max(abs(float(fit[0])), 1e-12)


def _offset(pairs: Sequence[Pair], encoding: Encoding) -> float:
    """Light that is seen where there is none, as a share of full scale: 0 unless exposures that differ enough tell; they must lie on a line."""
    times = np.array([pair.exposure_ms for pair in pairs])
    if times.max() < _LEAST_SPREAD * times.min():
        return 0.0
    levels = []
    for pair in pairs:
        a = luminance_of(to_linear(pair.first, encoding)).ravel()
        levels.append(float(np.median(a)))
    level = np.array(levels)
    dim = level < 0.9
    if len(np.unique(times[dim])) < 2:
        return 0.0
    slope, offset = np.polyfit(times[dim], level[dim], 1)
    off = np.abs(np.polyval((slope, offset), times[dim]) - level[dim]).max()
    expected = level.max() * (1 - times.min() / times.max())
    if (
        slope <= 0
        or off > _CROOKED * level[dim].max()
        or level[dim].max() - level[dim].min() < 0.5 * expected * dim.all()
    ):
        raise DataError(
            "the brightness does not follow the exposure: the camera sets its own exposure or gain; switch that off, then measure again"
        )
    return float(max(offset, 0.0)) if offset > 0.002 else 0.0


def _white(pair: Pair, encoding: Encoding, offset: float) -> float:
    light = luminance_of(to_linear(pair.first, encoding))
    return max(float(np.percentile(light, 99)) - offset, 1e-6)


def _saturation(pairs: Sequence[Pair]) -> int:
    """The highest count, if pixels pile up there; else the largest that fits the type."""
    highest = max(int(pair.first.max()) for pair in pairs)
    piled = max(float((pair.first == highest).mean()) for pair in pairs)
    return highest if piled > _PILED_UP else int(np.iinfo(pairs[0].first.dtype).max)


def _slope_at_full_scale(encoding: Encoding) -> float:
    """Light per count, relative to a linear camera's."""
    return 1.0 if encoding == "linear" else 2.4 / 1.055
