"""Which frames become tiles: those that see ground which would be lost otherwise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deblurd.frames import Pose
from deblurd.geometry import PixelToStage

_CELLS = 12
_BLOCK = 64
_WORTH = 0.15
_SLACK_CELLS = 0.5

Cell = tuple[int, int]


class TileChooser:
    """Chooses, frame by frame, whether the frame before must be kept.

    The ground is cut into cells, twelve to a side of a tile's core (the tile less half the wanted overlap on each side). When ground leaves the view that
    no tile's core has covered yet, the frame that still saw it becomes a tile. So no ground that a frame has seen is missed, whatever way the
    stage goes, and neighbouring tiles share at least the wanted overlap. A sliver under 15 % of what leaves the view is let go: it lies within the overlap.
    What is in view is taken half a cell larger than what leaves it, so that the noise of poses makes no cell come and go.
    Memory: 4 kB for each patch of 5 x 5 tiles or so.
    """

    def __init__(self, affine: PixelToStage, shape: tuple[int, ...], overlap: float) -> None:
        core_px = (1 - overlap) * np.array(shape[:2], dtype=np.float64)
        self._inverse = np.linalg.inv(affine.matrix)
        self._half_px = core_px / 2
        self._cell_px = float(core_px.min()) / _CELLS
        self._cell_um = self._cell_px * affine.pixel_size_um
        corners = affine.to_stage(np.array([[1, 1], [1, -1]]) * self._half_px)
        self._reach = int(np.ceil(np.abs(corners).max() / self._cell_um)) + 1
        self._covered: dict[Cell, NDArray[np.bool_]] = {}
        self._before: Pose | None = None

    def see(self, pose: Pose) -> bool:
        """The next frame's pose. True if the frame before it must become a tile."""
        before, self._before = self._before, pose
        if before is None:
            return False
        leaving = self._cells(before) - self._cells(pose, _SLACK_CELLS)
        return self._take(before, leaving, _WORTH * len(leaving))

    def last(self) -> bool:
        """No frame follows. True if the last one must become a tile."""
        before, self._before = self._before, None
        if before is None:
            return False
        leaving = self._cells(before)
        return self._take(before, leaving, 0.5 * _WORTH * len(leaving))

    def _take(self, pose: Pose, leaving: frozenset[Cell], let_go: float) -> bool:
        if sum(not self._is_covered(cell) for cell in leaving) <= let_go:
            return False
        self._cover(self._cells(pose, _SLACK_CELLS))
        return True

    def _cells(self, pose: Pose, slack: float = 0.0) -> frozenset[Cell]:
        """The cells whose centres lie in the core of a frame at `pose`, or within `slack` cells of it."""
        centre = np.floor(pose.yx_um / self._cell_um).astype(int)
        span = np.arange(-self._reach, self._reach + 1)
        cells = np.stack(np.meshgrid(centre[0] + span, centre[1] + span, indexing="ij"), axis=-1).reshape(
            -1, 2
        )
        pixels = ((cells + 0.5) * self._cell_um - pose.yx_um) @ self._inverse.T
        inside = (np.abs(pixels) <= self._half_px + slack * self._cell_px).all(axis=1)
        return frozenset(map(tuple, cells[inside].tolist()))

    def _is_covered(self, cell: Cell) -> bool:
        block = self._covered.get((cell[0] // _BLOCK, cell[1] // _BLOCK))
        return block is not None and bool(block[cell[0] % _BLOCK, cell[1] % _BLOCK])

    def _cover(self, cells: frozenset[Cell]) -> None:
        for y, x in cells:
            block = self._covered.setdefault(
                (y // _BLOCK, x // _BLOCK), np.zeros((_BLOCK, _BLOCK), dtype=bool)
            )
            block[y % _BLOCK, x % _BLOCK] = True
