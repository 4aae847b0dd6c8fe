"""Pixels to linear light and back: blur adds up light, so it has to be undone in light.

The transfer curve is that of IEC 61966-2-1 (sRGB). Tables of 65,536 entries do the work: they are off by at
most 1e-4 (0.03 of an 8-bit count) and several times faster than powers.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import DTypeLike, NDArray

from deblurd.errors import DataError
from deblurd.frames import Encoding, Pixels

Image = NDArray[np.float32]
"""(H, W) or (H, W, C) float32."""

_STEPS = 65535

_LUMINANCE = np.array([0.25, 0.5, 0.25], np.float32)
"""Nearly the shares of noise in the channels of a Bayer camera."""


def to_linear(pixels: Pixels, encoding: Encoding) -> Image:
    """Pixels of any shape, uint8 or uint16, to light in [0, 1], float32; full scale is 1."""
    return np.take(_pixel_table(_checked(pixels.dtype), encoding), pixels)


def from_linear(linear: Image, dtype: DTypeLike, encoding: Encoding) -> Pixels:
    """Light to pixels of `dtype` (uint8 or uint16), clipped to [0, 1] and rounded; same shape."""
    dtype = _checked(np.dtype(dtype))
    if dtype == np.uint8 and encoding == "srgb":
        return np.take(_byte_table(), _index(linear))
    light = np.clip(linear, 0.0, 1.0)
    values = light if encoding == "linear" else _encode_exactly(light)
    values = values * np.float32(np.iinfo(dtype).max) + np.float32(0.5)
    return np.asarray(values.astype(dtype))


def luminance_of(linear: Image) -> Image:
    """(H, W) of (H, W, 3) linear light; (H, W) as it is. For checks, not for looks."""
    if linear.ndim == 2:
        return linear
    mixed = cv2.transform(linear, _LUMINANCE.reshape(1, 3))
    return np.asarray(mixed, dtype=np.float32).reshape(linear.shape[:2])


def encode(linear: Image) -> Image:
    """Linear light to sRGB values, float32 of the same shape, clipped to [0, 1]."""
    return np.take(_encode_table(), _index(linear))


def decode(srgb: Image) -> Image:
    """sRGB values to linear light, float32 of the same shape, clipped to [0, 1]."""
    return np.take(_decode_table(), _index(srgb))


def _checked(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype not in (np.uint8, np.uint16):
        raise DataError(f"Pixels are {dtype}, but only uint8 and uint16 are known: convert the image first.")
    return dtype


def _index(values: Image) -> NDArray[np.uint16]:
    scaled = np.clip(values, 0.0, 1.0)
    scaled *= np.float32(_STEPS)
    scaled += np.float32(0.5)
    return scaled.astype(np.uint16)


def _encode_exactly(linear: NDArray[Any]) -> NDArray[Any]:
    return np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055
    )


def _decode_exactly(srgb: NDArray[Any]) -> NDArray[Any]:
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


@cache
def _pixel_table(dtype: np.dtype[Any], encoding: Encoding) -> Image:
    scale = np.linspace(0.0, 1.0, np.iinfo(dtype).max + 1)
    return (scale if encoding == "linear" else _decode_exactly(scale)).astype(np.float32)


@cache
def _encode_table() -> Image:
    return _encode_exactly(np.linspace(0.0, 1.0, _STEPS + 1)).astype(np.float32)


@cache
def _decode_table() -> Image:
    return _decode_exactly(np.linspace(0.0, 1.0, _STEPS + 1)).astype(np.float32)


@cache
def _byte_table() -> NDArray[np.uint8]:
    return np.asarray(np.rint(_encode_exactly(np.linspace(0.0, 1.0, _STEPS + 1)) * 255), dtype=np.uint8)
