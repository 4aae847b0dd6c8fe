"""Which frames lie near a place, without asking all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from deblurd.frames import Place

Cell = tuple[int, int]


class Near:
    """Numbers of frames in square cells, as large as a frame's longer side. size_px: (2,) of a frame, (y, x). Written by one thread, read by any."""

    def __init__(self, size_px: NDArray[np.float64]) -> None:
        self._side_px = float(size_px.max())
        self._cells: dict[Cell, list[int]] = {}

    def add(self, index: int, place: Place) -> None:
        self._cells.setdefault(self._cell(place), []).append(index)

    def move(self, indices: Sequence[int], places: Mapping[int, Place]) -> None:
        """Files all of them again, by better places."""
        cells: dict[Cell, list[int]] = {}
        for index in indices:
            if index in places:
                cells.setdefault(self._cell(places[index]), []).append(index)
        self._cells = cells

    def around(self, place: Place) -> list[int]:
        """All frames that may have area in common with one at `place`, in the order in which they came."""
        row, column = self._cell(place)
        cells = self._cells
        found = [
            index
            for y in (row - 1, row, row + 1)
            for x in (column - 1, column, column + 1)
            for index in tuple(cells.get((y, x), ()))
        ]
        return sorted(found)

    def _cell(self, place: Place) -> Cell:
        return int(place.y_px // self._side_px), int(place.x_px // self._side_px)
