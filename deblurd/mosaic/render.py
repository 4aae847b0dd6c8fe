"""Painting a window of the mosaic from the tiles that touch it: each tile resampled once, feathered, rounded once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deblurd.frames import Encoding, Pixels
from deblurd.geometry import Matrix

Float = NDArray[np.float32]

FEATHER = 0.25
"""Width of the ramp at a tile's border, as a share of its side."""

_STRAIGHT_PX = 0.1
_TAPS = np.arange(-3, 5)
_SHARPNESS_POWER = 4
_UNSURE = 1e-6
# sRGB (IEC 61966-2-1) above its toe: value = 1.055 * light**(1/2.4) - 0.055, so a gain on light acts on (value + 0.055)
_SRGB_OFFSET, _SRGB_POWER = 0.055, 1 / 2.4


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of the mosaic, in whole pixels."""

    y: int
    x: int
    height: int
    width: int


@dataclass(frozen=True, slots=True, eq=False)
class PlacedTile:
    """A tile where it lies. centre_px: (2,) of its centre on the mosaic's pixel grid, (y, x). source: for the provenance, 1 to 255,
    or (H, W) of each pixel. light: factor
    that evens its exposure out with its neighbours', in linear light. is_sure: whether it surely lies there; what does not is seen only where
    nothing else is."""

    centre_px: NDArray[np.float64]
    pixels: Pixels
    source: int | NDArray[np.uint8]
    sharpness: float
    light: float = 1.0
    is_sure: bool = True


class Brush:
    """Paints tiles of one shape. rotation: (2, 2), camera pixels to mosaic pixels, (y, x).

    Turns by quarters and mirror images are exact; what is left of the rotation, if it is more than a tenth of a pixel in the
    corner, is resampled together with the sub-pixel shift (Lanczos, 8 taps).
    """

    def __init__(self, tile_shape: tuple[int, ...], rotation: Matrix, encoding: Encoding) -> None:
        self._turn = nearest_turn(rotation)
        self._rest = rotation @ np.linalg.inv(self._turn)
        height, width = tile_shape[:2] if self._turn[0, 0] else (tile_shape[1], tile_shape[0])
        self._size = np.array([height, width], dtype=np.float64)
        corner = np.abs((self._rest - np.eye(2)) @ self._size / 2).max()
        self._straight = bool(corner < _STRAIGHT_PX)
        self._encoding = encoding
        self._weight = np.outer(_ramp(height), _ramp(width)).astype(np.float32)
        self._gain: Float | None = None

    def set_gain(self, gain: Float | None) -> None:
        """Correction (h, w) of the light over the tile, any size, in camera orientation; None for none."""
        if gain is None:
            self._gain = None
            return
        size = (int(self._size[1]), int(self._size[0]))
        turned = cv2.resize(self.oriented(gain.astype(np.float32)), size, interpolation=cv2.INTER_CUBIC)
        self._gain = np.asarray(np.maximum(turned, 1e-3) ** self._power, dtype=np.float32)

    @property
    def _power(self) -> float:
        """What a factor on light is raised to, to act on encoded values."""
        return _SRGB_POWER if self._encoding == "srgb" else 1.0

    @property
    def half_extent_px(self) -> NDArray[np.float64]:
        """Half the sides of the box, (y, x), that a tile covers on the mosaic."""
        return np.asarray(np.abs(self._rest) @ self._size / 2, dtype=np.float64)

    def oriented(self, image: Pixels) -> Pixels:
        """An image of the camera, turned and flipped into the slide's own orientation."""
        s = self._turn
        if s[0, 0] == 0:
            image = np.swapaxes(image, 0, 1)
        if s[0].sum() < 0:
            image = image[::-1]
        if s[1].sum() < 0:
            image = image[:, ::-1]
        return np.ascontiguousarray(image)

    def paint(
        self, window: Window, tiles: Iterable[PlacedTile], dtype: np.dtype[Any], channels: int
    ) -> tuple[Pixels, NDArray[np.uint8]]:
        """Pixels (h, w, channels) of `dtype` and provenance (h, w) uint8; both 0 where no tile is.

        Blends in encoded values, with weights that fall towards the tiles' borders and favour sharper tiles. The result depends on the
        order of `tiles` in its last rounding only: give them in the order of their numbers.
        """
        shape = (window.height, window.width)
        total = np.zeros((channels, *shape), np.float32)  # in planes: a weight is the same for all channels
        weights, best = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        source = np.zeros(shape, np.uint8)
        full = float(np.iinfo(dtype).max)
        offset = np.float32(_SRGB_OFFSET * full if self._encoding == "srgb" else 0.0)
        for tile in tiles:
            box = self._box(window, tile.centre_px)
            if box is None:
                continue
            values, weight, gain = self._resample(tile, window, box)
            weight *= np.float32(tile.sharpness**_SHARPNESS_POWER * (1.0 if tile.is_sure else _UNSURE))
            factor: Float | np.float32 | None = gain
            if tile.light != 1.0:
                light = np.float32(tile.light**self._power)
                factor = light if gain is None else gain * light
            for channel, plane in zip(total, values, strict=True):
                if factor is not None:
                    plane += offset
                    plane *= factor
                    plane -= offset
                plane *= weight
                channel[box] += plane
            weights[box] += weight
            stronger = weight > best[box]
            best[box][stronger] = weight[stronger]
            if isinstance(tile.source, int):
                source[box][stronger] = tile.source
            else:
                source[box][stronger] = self._sources(tile.source, tile.centre_px, window, box)[stronger]
        out = np.zeros((*shape, channels), dtype)
        np.maximum(weights, np.float32(1e-30), out=weights)
        for n, channel in enumerate(total):
            channel /= weights
            np.clip(channel + np.float32(0.5), 0, full, out=channel)
            channel[source == 0] = 0
            out[..., n] = channel
        return out, source

    def _box(self, window: Window, centre: NDArray[np.float64]) -> tuple[slice, slice] | None:
        """The part of the window that a tile may touch."""
        half = self.half_extent_px - 0.5  # centres of pixels, not their edges
        low = np.ceil(centre - half - (window.y, window.x)).astype(int)
        high = np.floor(centre + half - (window.y, window.x)).astype(int) + 1
        y0, x0 = max(low[0], 0), max(low[1], 0)
        y1, x1 = min(high[0], window.height), min(high[1], window.width)
        return (slice(y0, y1), slice(x0, x1)) if y1 > y0 and x1 > x0 else None

    def _resample(
        self, tile: PlacedTile, window: Window, box: tuple[slice, slice]
    ) -> tuple[Sequence[Float], Float, Float | None]:
        """Values (h, w) of each channel, weights (h, w) and gain of a tile on the pixels of `box`."""
        image = self.oriented(tile.pixels)
        if image.ndim == 2:
            image = image[..., None]
        first = np.array([box[0].start + window.y, box[1].start + window.x], dtype=np.float64)
        size = (box[0].stop - box[0].start, box[1].stop - box[1].start)
        middle = (self._size - 1) / 2
        if self._straight:
            return self._shifted(image, first - tile.centre_px + middle, size)
        inverse = np.linalg.inv(self._rest)
        start = inverse @ (first - tile.centre_px) + middle
        # OpenCV wants (x, y)
        back = np.array([[inverse[1, 1], inverse[1, 0], start[1]], [inverse[0, 1], inverse[0, 0], start[0]]])
        to = (size[1], size[0])
        values = cv2.warpAffine(
            image, back, to, flags=cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
        )
        linear = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        weight = cv2.warpAffine(self._weight, back, to, flags=linear, borderMode=cv2.BORDER_CONSTANT)
        gain: Float | None = None
        if self._gain is not None:
            gain = np.asarray(
                cv2.warpAffine(self._gain, back, to, flags=linear, borderMode=cv2.BORDER_REPLICATE),
                np.float32,
            )
        return _planes(values.reshape(*size, -1)), np.asarray(weight, np.float32), gain

    def _sources(
        self,
        sources: NDArray[np.uint8],
        centre_px: NDArray[np.float64],
        window: Window,
        box: tuple[slice, slice],
    ) -> NDArray[np.uint8]:
        """That of the nearest pixel of a tile, for each of `box`."""
        rows, columns = (np.arange(each.start, each.stop) for each in box)
        off = (
            np.stack(np.meshgrid(rows + window.y, columns + window.x, indexing="ij"))
            - centre_px[:, None, None]
        )
        inverse = np.eye(2) if self._straight else np.linalg.inv(self._rest)
        at = np.rint(np.tensordot(inverse, off, 1) + ((self._size - 1) / 2)[:, None, None]).astype(int)
        turned = self.oriented(sources)
        y, x = (np.clip(at[axis], 0, turned.shape[axis] - 1) for axis in (0, 1))
        return np.asarray(turned[y, x])

    def _shifted(
        self, image: Pixels, start: NDArray[np.float64], size: tuple[int, int]
    ) -> tuple[Sequence[Float], Float, Float | None]:
        """The same for a tile that is not turned: a separable shift by less than a pixel. start: where the box begins in the tile."""
        whole = np.floor(start + 1e-9).astype(int)
        part = start - whole
        spare = 4
        y0, x0 = max(whole[0] - spare, 0), max(whole[1] - spare, 0)
        y1 = min(whole[0] + size[0] + spare + 1, image.shape[0])
        x1 = min(whole[1] + size[1] + spare + 1, image.shape[1])
        piece = np.ascontiguousarray(image[y0:y1, x0:x1])
        values: Float
        if np.abs(part).max() < 1e-3:
            values = np.asarray(piece, np.float32)
        else:
            taps = _lanczos(part[1]), _lanczos(part[0])
            shifted = cv2.sepFilter2D(
                piece, cv2.CV_32F, *taps, anchor=(3, 3), borderType=cv2.BORDER_REPLICATE
            )
            values = np.asarray(shifted, np.float32)
        values = values.reshape(*piece.shape[:2], -1)
        inner = slice(whole[0] - y0, whole[0] - y0 + size[0]), slice(whole[1] - x0, whole[1] - x0 + size[1])
        outer = slice(whole[0], whole[0] + size[0]), slice(whole[1], whole[1] + size[1])
        gain = None if self._gain is None else self._gain[outer]
        return _planes(values[inner]), self._weight[outer].copy(), gain


def _planes(values: NDArray[Any]) -> list[Float]:
    """Each channel of (h, w, c) by itself, float32."""
    return [np.asarray(plane, np.float32) for plane in cv2.split(np.ascontiguousarray(values, np.float32))]


def nearest_turn(rotation: Matrix) -> Matrix:
    """The signed permutation nearest to `rotation`: quarter turns and mirror images."""
    turn = np.zeros((2, 2))
    if abs(rotation[0, 0]) + abs(rotation[1, 1]) >= abs(rotation[0, 1]) + abs(rotation[1, 0]):
        turn[0, 0], turn[1, 1] = np.sign(rotation[0, 0]), np.sign(rotation[1, 1])
    else:
        turn[0, 1], turn[1, 0] = np.sign(rotation[0, 1]), np.sign(rotation[1, 0])
    return turn


def _ramp(n: int) -> Float:
    """Weights along one side: a raised cosine at both ends, never 0 inside."""
    distance = np.minimum(np.arange(n) + 0.5, n - np.arange(n) - 0.5) / max(FEATHER * n, 1.0)
    ramp = 0.5 - 0.5 * np.cos(math.pi * np.clip(distance, 0, 1))
    return np.asarray(np.maximum(ramp, 1e-4), dtype=np.float32)


def _lanczos(part: float) -> NDArray[np.float64]:
    """Eight taps that read a line of pixels at `part` of a pixel after tap 3 (Lanczos window of 4 lobes)."""
    t = _TAPS - part
    taps = np.sinc(t) * np.sinc(t / 4)
    return np.asarray(taps / taps.sum(), dtype=np.float64)
