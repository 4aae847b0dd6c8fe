"""A sharp frame laid under a blurred one of the same place, pixel on pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deblurd.deblur.defocus import defocus_px
from deblurd.frames import Encoding, MotionVector, Pixels
from deblurd.kernel import reblur
from deblurd.light import Image, from_linear, luminance_of, to_linear
from deblurd.place.pairwise import Prepared, prepare, register
from deblurd.place.subpixel import Match

MOST_UNSURE_PX = 0.25
"""A registration less certain than this teaches a network to shift what it sees."""

SEARCH_PX = 48.0
_SHADING_PX = 40.0
_BORDER_PX = 8
"""Beside the blur: what the interpolation of the shifted frame needs."""


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """blurred, sharp: (H, W) or (H, W, 3), the camera's dtype, sRGB-encoded, of the same part of the specimen.

    shift_px: (2,), how far the blurred frame lay from the sharp one. score: of the registration. defocus_px: sigma besides the motion.
    """

    blurred: Pixels
    sharp: Pixels
    motion: MotionVector
    shift_px: NDArray[np.float64]
    score: float
    defocus_px: float


def middle_light(frames: Sequence[Pixels], encoding: Encoding) -> Image:
    """The median of frames taken at rest: less noise than any of them, and a frame that did not quite rest does not show."""
    return np.asarray(np.median([to_linear(frame, encoding) for frame in frames], axis=0), np.float32)


def pair(
    sharp: Image,
    frame: Pixels,
    motion: MotionVector,
    predicted_px: NDArray[np.float64],
    encoding: Encoding,
) -> Pair | None:
    """`sharp` (H, W[, C]) linear light under `frame`; None where it cannot be told where the frame lies.

    predicted_px: (2,), by the stage: what the frame shows at p, the sharp one shows at p + predicted.
    """
    seen = to_linear(frame, encoding)
    match = _registered(sharp, seen, motion, 0.0, predicted_px)
    if match is not None and motion.length_px < 1:
        # so far out of focus as it seems to be, it is compared once more
        still = defocus_px(luminance_of(seen), luminance_of(_moved(sharp, match.shift)), motion)
        match = _registered(sharp, seen, motion, still, match.shift)
    if match is None:
        return None
    border = int(np.ceil(motion.length_px / 2)) + _BORDER_PX
    rows, columns = (
        _common(side, along, border)
        for side, along in zip(frame.shape[:2], match.shift.tolist(), strict=True)
    )
    if min(rows.stop - rows.start, columns.stop - columns.start) < 2 * _BORDER_PX:
        return None
    under = _moved(sharp, match.shift)
    inside = (rows, columns)
    sigma_px = defocus_px(luminance_of(seen)[inside], luminance_of(under)[inside], motion)
    lit = under * _shading(seen, reblur(under, motion, sigma_px))
    dtype = frame.dtype
    return Pair(
        from_linear(np.ascontiguousarray(seen[inside]), dtype, "srgb"),
        from_linear(np.ascontiguousarray(lit[inside]), dtype, "srgb"),
        motion,
        match.shift,
        match.score,
        sigma_px,
    )


def _registered(
    sharp: Image, seen: Image, motion: MotionVector, sigma_px: float, predicted_px: NDArray[np.float64]
) -> Match | None:
    """Where the frame lies on the sharp one, which is made alike first: a blurred edge is not where the sharp one is."""
    alike = reblur(sharp, motion, sigma_px)
    match = register(_grey(alike), _grey(seen), predicted_px, SEARCH_PX)
    if match is None or not match.ok or np.sqrt(np.trace(match.covariance)) > MOST_UNSURE_PX:
        return None
    return match


def _grey(linear: Image) -> Prepared:
    return prepare(from_linear(linear, np.uint8, "srgb"))


def _common(side: int, shift: float, border: int) -> slice:
    """Along one axis, the part of the frame that the sharp one shows too, without the border."""
    first, last = max(0, int(np.ceil(-shift))), min(side, side - int(np.ceil(shift)))
    return slice(first + border, last - border)


def _moved(image: Image, shift: NDArray[np.float64]) -> Image:
    """The image whose pixel p shows what `image` shows at p + shift; by Lanczos' kernel, in linear light."""
    matrix = np.array([[1.0, 0.0, shift[1]], [0.0, 1.0, shift[0]]])
    moved = cv2.warpAffine(
        image,
        matrix,
        image.shape[1::-1],
        flags=cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    )
    return np.asarray(moved, np.float32).reshape(image.shape)


def _shading(seen: Image, again: Image) -> Image:
    """What the lamp and the lens make of the other place on the sensor: the ratio of the two frames, smoothed."""
    smooth = [
        np.asarray(cv2.GaussianBlur(image, (0, 0), _SHADING_PX, borderType=cv2.BORDER_REFLECT), np.float32)
        for image in (seen, again)
    ]
    return np.asarray(smooth[0] / np.maximum(smooth[1], 1e-4), np.float32).reshape(seen.shape)
