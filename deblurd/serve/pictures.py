"""Pixels as a browser shows them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from deblurd.errors import DataError
from deblurd.frames import Pixels
from deblurd.serve.view import TILE_PX

QUALITY = 85
EMPTY_GREY = 24
"""Where nothing is painted: as dark as the page behind it."""


def top_of(pixels: Pixels) -> int:
    """The largest value that the camera behind these pixels can give: 255, or 2**n - 1 of its bit depth as far as can be seen."""
    if pixels.dtype == np.uint8:
        return 255
    return int(max(2 ** int(pixels.max(initial=0)).bit_length() - 1, 255))


def jpeg(pixels: Pixels, top: int, source: NDArray[np.uint8] | None = None, longest_px: int = 0) -> bytes:
    """(h, w), (h, w, 1) or (h, w, 3) RGB, 8 or 16 bits, as a JPEG. top: shown as white. source: 0 where nothing is painted.
    longest_px: largest side; 0: as it is."""
    if pixels.dtype != np.uint8:
        pixels = np.clip(pixels.astype(np.float32) * (255 / top), 0, 255).astype(np.uint8)
    scale = longest_px / max(pixels.shape[:2])
    if 0 < scale < 1:
        size = (max(round(pixels.shape[1] * scale), 1), max(round(pixels.shape[0] * scale), 1))
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))
    if source is not None:
        pixels = pixels.copy()
        pixels[source == 0] = EMPTY_GREY
    image = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 and pixels.shape[2] == 3 else pixels
    ok, encoded = cv2.imencode(".jpg", np.ascontiguousarray(image), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not ok:
        raise DataError(f"a picture of shape {pixels.shape} cannot be shown: report it")
    return encoded.tobytes()


def empty_tile() -> bytes:
    """A picture of the mosaic where there is none."""
    return jpeg(np.full((TILE_PX, TILE_PX), EMPTY_GREY, np.uint8), 255)
