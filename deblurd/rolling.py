"""Rolling shutters: frames whose rows were exposed one after the other, put to what a camera would have seen that exposes all at once.

A row that is exposed later sees the specimen where the motion has brought it by then. The blur of each row is the same, so only its place has to be put right,
and with it the blur's own geometry is.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from deblurd.frames import MotionVector, Pixels

Offsets = NDArray[np.float64]

REACH_PX = 4
"""Of Lanczos interpolation: so much of the margin is left for it."""

MOST_MARGIN = 1 / 8
"""Of a frame's shorter side, on each side: what is cut off is seen by another frame."""

_FASTER = 1.1
"""Than it was told to drive a stage may be, or seem to be."""

_NEAR_PX = 0.5
"""Rows that would have to be moved by so much more than there is margin for are as good as right."""

_STEPS = 32
"""Of interpolation, in a pixel: what is off by half of one stays as it is."""

_ROUNDS = 8


def margin_px(shape: tuple[int, ...], speed_px_ms: float, rolling_ms: float) -> int:
    """How much is cut off on each side of frames of `shape`, so that no row is moved out of what was seen at speeds up to `speed_px_ms` of the image, and a
    little above."""
    wanted = math.ceil(min(_FASTER * speed_px_ms * abs(rolling_ms) / 2, MOST_MARGIN * min(shape[:2])))
    return wanted + REACH_PX


def speed_within(margin: int, rolling_ms: float) -> float:
    """The fastest of the image, px/ms, for which `margin` is wide enough; inf with a global shutter."""
    return 2 * (margin - REACH_PX) / (_FASTER * abs(rolling_ms)) if rolling_ms else math.inf


def row_offsets(height: int, margin: int, motion: MotionVector, share: float) -> Offsets:
    """(height - 2 margin, 2), (y, x) px: how far from where it belongs each row's picture lies in a frame of `height` rows.

    share: time from the first row to the last over the exposure; negative where the last row comes first. motion: known.
    """
    rows = np.arange(margin, height - margin, dtype=np.float64)
    found = np.zeros((len(rows), 2))
    for _ in range(_ROUNDS):
        # when a row was exposed depends on where in the frame its picture lies
        found = motion.later((rows + found[:, 0] - (height - 1) / 2) * share / (height - 1))
    return found


def is_within(shape: tuple[int, ...], margin: int, motion: MotionVector, share: float) -> bool:
    """Whether the margin is wide enough for the rows of a frame; True where the motion is not known, as then nothing is moved."""
    if not motion.is_known:
        return True
    return bool(np.abs(row_offsets(shape[0], margin, motion, share)).max() <= margin - REACH_PX + _NEAR_PX)


def straightened(pixels: Pixels, motion: MotionVector, share: float, margin: int) -> Pixels:
    """`pixels` (H, W) or (H, W, 3), less `margin` on each side, each row as seen when the middle one was exposed; share: as of `row_offsets`.

    Where the motion is not known nothing is moved, and where it is too fast for the margin, as much as fits.
    """
    inner = slice(margin, pixels.shape[0] - margin), slice(margin, pixels.shape[1] - margin)
    if not motion.is_known:
        return np.ascontiguousarray(pixels[inner])
    offsets = row_offsets(pixels.shape[0], margin, motion, share)
    most = float(np.abs(offsets).max())
    if most * _STEPS < 0.5:
        return np.ascontiguousarray(pixels[inner])
    return resampled(pixels, offsets * min(1.0, (margin - REACH_PX) / most), margin)


def resampled(image: Pixels, offsets: Offsets, margin: int) -> Pixels:
    """What `image` shows `offsets` (H - 2 margin, 2), (y, x) px, beside each pixel, row by row, less `margin` on each side; same dtype, also float32.

    By Lanczos interpolation (a = 4), in steps of 1/32 px. No offset may exceed margin - REACH_PX. Neighbouring rows that go the same way are one
    call of OpenCV: for motion along the rows that takes a seventh of the time of `cv2.remap`, for others about half.
    """
    height, width = len(offsets), image.shape[1] - 2 * margin
    out = np.empty((height, width, *image.shape[2:]), image.dtype)
    at = np.rint(offsets * _STEPS).astype(int)
    cuts = (np.flatnonzero((at[1:] != at[:-1]).any(axis=1)) + 1).tolist()
    for first, last in zip([0, *cuts], [*cuts, height], strict=True):
        (down, part_y), (right, part_x) = (divmod(int(along), _STEPS) for along in at[first])
        rows, columns = _TAPS[part_y], _TAPS[part_x]
        y, x = ((len(taps) - 1) // 2 for taps in (rows, columns))
        top, left = first + margin + down - y, margin + right - x
        seen = image[top : top + last - first + len(rows) - 1, left : left + width + len(columns) - 1]
        filtered = cv2.sepFilter2D(seen, -1, columns, rows, anchor=(x, y))
        out[first:last] = filtered[y : y + last - first, x : x + width]
    return out


def _taps(part: int) -> NDArray[np.float32]:
    """What a sample so many steps after a pixel takes of this one, the three before it and the four after it; of a whole pixel, of itself alone."""
    if part == 0:
        return np.ones(1, np.float32)
    distance = np.arange(-REACH_PX + 1, REACH_PX + 1) - part / _STEPS
    weights = np.sinc(distance) * np.sinc(distance / REACH_PX)
    return np.asarray(weights / weights.sum(), dtype=np.float32)


_TAPS = [_taps(part) for part in range(_STEPS)]
