"""Places inside a slide that no field covers: to be gone over again before the slide leaves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

CELLS = 16
"""A field is so many cells high and wide."""

LEAST_CELLS = 3
"""Fewer uncovered cells, about a hundredth of a field, are stage noise at the seams."""


def count_gaps(centres_um: NDArray[np.float64], field_um: tuple[float, float]) -> int:
    """How many separate places without a field are enclosed by fields.

    centres_um: (n, 2), (y, x). field_um: height, width of each field's box.
    """
    return int(gap_mask(centres_um, field_um)[1])


def gap_mask(centres_um: NDArray[np.float64], field_um: tuple[float, float]) -> tuple[NDArray[np.bool_], int]:
    """Raster of the enclosed places, in cells of a sixteenth of a field from the least corner on, and their number."""
    if len(centres_um) == 0:
        return np.zeros((0, 0), np.bool_), 0
    cell_um = np.array(field_um) / CELLS
    corners = np.round((centres_um - centres_um.min(axis=0)) / cell_um).astype(np.intp)
    covered = np.zeros(corners.max(axis=0) + CELLS, np.bool_)
    for y, x in np.unique(corners, axis=0):
        covered[y : y + CELLS, x : x + CELLS] = True
    holes = ndimage.binary_fill_holes(covered) & ~covered
    labels, count = ndimage.label(holes)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    kept = sizes >= LEAST_CELLS
    kept[0] = False
    return kept[labels], int(kept.sum())
