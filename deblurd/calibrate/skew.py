"""How the shift between two pictures changes from row to row: what a rolling shutter leaves where their motions differ.

Lucas and Kanade's method with two numbers more: the shift, and how much it grows along the height. Both come out of all details at once, so it does not matter
where in the picture they lie.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from deblurd.frames import Pixels
from deblurd.place.subpixel import MIN_OVERLAP_PX, SMOOTH_PX, crops, smoothed, without_ground

Floats = NDArray[np.float64]

_ROUNDS = 5
_BORDER_PX = 4
_LEAST_HEIGHT = 4 * MIN_OVERLAP_PX
"""Of an overlap: of a lower one the ends lie too near to one another."""

_MOST = 0.2
"""Of the height: so much no shutter skews a picture that still matches."""


def skew(a: Pixels, b: Pixels, shift: Floats) -> tuple[Floats, float] | None:
    """By how much the shift from b to a, about `shift` (2,) px, grows from one row to the next, (2,), (y, x) px, and its standard deviation along an axis.

    What b shows at pixel p, a shows at p + shift. a, b: grey images (H, W). None where they overlap too little, or the overlap shows too little.
    """
    whole = np.round(shift).astype(int)
    pair = crops(a, b, whole)
    if pair is None or pair[0].shape[0] < _LEAST_HEIGHT or pair[0].shape[1] < MIN_OVERLAP_PX:
        return None
    first, second = (without_ground(smoothed(part, SMOOTH_PX)) for part in pair)
    height, width = first.shape
    inner = slice(_BORDER_PX, height - _BORDER_PX), slice(_BORDER_PX, width - _BORDER_PX)
    rows = np.linspace(-0.5, 0.5, height)
    # from end to end of the overlap
    along = np.repeat(rows[inner[0]], width - 2 * _BORDER_PX)
    moved, grown = shift - whole, np.zeros(2)
    for _ in range(_ROUNDS):
        seen = _warped(first, moved, grown)[inner]
        rest = (second[inner] - seen).ravel().astype(np.float64)
        by_y, by_x = (g.ravel() for g in np.gradient((0.5 * (seen + second[inner])).astype(np.float64)))
        basis = np.stack([by_y, by_x, by_y * along, by_x * along])
        tensor = basis @ basis.T
        if np.linalg.cond(tensor) > 1e6:
            return None
        step = np.linalg.solve(tensor, basis @ rest)
        moved, grown = moved + step[:2], grown + step[2:]
        if np.abs(grown).max() > _MOST * height or np.abs(moved).max() > _MOST * height:
            return None
    # of neighbouring pixels that were smoothed by a Gaussian 4 pi sigma**2 are one independent value
    power = float(rest @ rest) / rest.size * 4 * math.pi * SMOOTH_PX**2
    variance = power * np.diag(np.linalg.inv(tensor))[2:]
    return grown / (height - 1), math.sqrt(float(variance.mean())) / (height - 1)


def _warped(image: NDArray[np.float32], moved: Floats, grown: Floats) -> NDArray[np.float32]:
    """What `image` shows at p + moved + grown * u, where u runs from -1/2 in the first row to 1/2 in the last."""
    height, width = image.shape
    per_row = grown / (height - 1)
    y0, x0 = moved - grown / 2
    to_image = np.array([[1, per_row[1], x0], [0, 1 + per_row[0], y0]])
    return np.asarray(
        cv2.warpAffine(
            image,
            to_image,
            (width, height),
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
    )
