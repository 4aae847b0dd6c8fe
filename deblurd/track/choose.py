"""Which frames become tiles: those without which ground would be lost, or the chain of overlaps would break."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deblurd.frames import Pose
from deblurd.geometry import PixelToStage

_CELLS = 16
_BLOCK = 64
_MARGIN = 0.5
_REST_PX = 1.0
_REST_SIGMAS = 3.0
_MOST_REST_CELLS = 0.25
_WORTH_A_REST = 0.1

Choice = Literal["none", "before", "this"]
Floats = NDArray[np.float64]
Cells = NDArray[np.int64]


class TileChooser:
    """Decides frame by frame, from the poses, which frame becomes a tile.

    The ground is cut into cells, sixteen to the shorter side of a frame. "before", the frame before this one, is chosen when this one sees new
    ground but no tile shares the wanted overlap with it any more, or when ground leaves the view that no tile holds: so a
    path that turns anywhere loses nothing but a margin (half the overlap) at the outer border. "this" is chosen when it is the first,
    or when the stage rests over new ground. On old ground nothing is chosen. The cost of a frame does not grow with the tiles;
    memory: 4 kB for each patch of 4 x 4 tiles.

    overlap: share of a tile's area in (0, 1) that it has in common with another.
    """

    def __init__(self, affine: PixelToStage, shape: tuple[int, ...], overlap: float) -> None:
        self._inverse = np.linalg.inv(affine.matrix)
        self._size_px = np.array(shape[:2], dtype=np.float64)
        self._overlap = overlap
        self._middle = 1 - 2 * _MARGIN * overlap
        self._pixel_um = affine.pixel_size_um
        self._cell_um = float(self._size_px.min()) / _CELLS * affine.pixel_size_um
        corners = affine.to_stage(np.array([[1, 1], [1, -1]]) * self._size_px / 2)
        self._reach_um = float(np.linalg.norm(corners, axis=1).max())
        span = np.arange(-int(self._reach_um / self._cell_um) - 2, int(self._reach_um / self._cell_um) + 3)
        self._window = np.stack(np.meshgrid(span, span, indexing="ij"), axis=-1).reshape(-1, 2)
        self._ground = _Ground()
        self._tiles: dict[tuple[int, int], list[Floats]] = {}
        self._before: Floats | None = None
        self._before_is_tile = False

    def see(self, pose: Pose) -> Choice:
        """The next frame's pose."""
        at = pose.yx_um
        before, was_tile = self._before, self._before_is_tile
        self._before, self._before_is_tile = at, False
        if before is None and not self._tiles:
            return self._take_this(at)
        view = self._view(at)
        new = view[~self._ground.holds(view)]
        if before is not None and not was_tile and self._must_take(before, at, view, len(new) > 0):
            self._take(before)
            new = new[~self._ground.holds(new)]
            choice: Choice = "before"
        else:
            choice = "none"
        if choice == "none" and self._rests(before, pose) and len(new) > _WORTH_A_REST * len(view):
            return self._take_this(at)
        return choice

    def last(self) -> bool:
        """No frame follows. True if the last one must become a tile."""
        at, was_tile = self._before, self._before_is_tile
        self._before = None
        if at is None or was_tile or self._ground.holds(self._view(at)).all():
            return False
        self._take(at)
        return True

    def _rests(self, before: Floats | None, pose: Pose) -> bool:
        """Whether the stage has stood still since the frame before, as far as can be known."""
        sigma_um = pose.sigma_um if np.isfinite(pose.sigma_um) else 0.0
        least_um = max(_REST_PX * self._pixel_um, _REST_SIGMAS * sigma_um)
        return before is not None and float(np.linalg.norm(pose.yx_um - before)) < min(
            least_um, _MOST_REST_CELLS * self._cell_um
        )

    def _must_take(self, before: Floats, at: Floats, view: Cells, sees_new: bool) -> bool:
        if sees_new and self._shared(at) < self._overlap:
            return True
        leaving = self._view(before)
        leaving = leaving[~self._inside(leaving, at, self._middle)]
        return not bool(self._ground.holds(leaving).all())

    def _take_this(self, at: Floats) -> Choice:
        self._take(at)
        self._before_is_tile = True
        return "this"

    def _take(self, at: Floats) -> None:
        self._tiles.setdefault(self._bin(at), []).append(at)
        cells = self._cells(at)
        self._ground.hold(cells[self._inside(cells, at, 1.0)])

    def _shared(self, at: Floats) -> float:
        """The largest share of area that a frame at `at` has in common with one tile."""
        row, column = self._bin(at)
        near = [
            tile
            for i in (row - 1, row, row + 1)
            for j in (column - 1, column, column + 1)
            for tile in self._tiles.get((i, j), ())
        ]
        if not near:
            return 0.0
        off_px = np.abs((np.array(near) - at) @ self._inverse.T)
        return float(np.clip(1 - off_px / self._size_px, 0, None).prod(axis=1).max())

    def _bin(self, at: Floats) -> tuple[int, int]:
        i, j = np.floor(at / (2 * self._reach_um)).astype(int)
        return int(i), int(j)

    def _view(self, at: Floats) -> Cells:
        """The cells that a frame at `at` sees, but for a margin at its border."""
        cells = self._cells(at)
        return np.asarray(cells[self._inside(cells, at, self._middle)])

    def _cells(self, at: Floats) -> Cells:
        return np.asarray(self._window + np.floor(at / self._cell_um).astype(np.int64))

    def _inside(self, cells: Cells, at: Floats, share: float) -> NDArray[np.bool_]:
        """Which cells have their centres in the middle `share` (of each side) of a frame at `at`."""
        pixels = ((cells + 0.5) * self._cell_um - at) @ self._inverse.T
        return np.asarray((np.abs(pixels) <= share * self._size_px / 2).all(axis=1))


class _Ground:
    """Cells that tiles hold, as bits in square blocks."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[int, int], NDArray[np.bool_]] = {}

    def holds(self, cells: Cells) -> NDArray[np.bool_]:
        held = np.zeros(len(cells), dtype=bool)
        for key, rows in _by_block(cells):
            if (block := self._blocks.get(key)) is not None:
                within = cells[rows] % _BLOCK
                held[rows] = block[within[:, 0], within[:, 1]]
        return held

    def hold(self, cells: Cells) -> None:
        for key, rows in _by_block(cells):
            block = self._blocks.setdefault(key, np.zeros((_BLOCK, _BLOCK), dtype=bool))
            within = cells[rows] % _BLOCK
            block[within[:, 0], within[:, 1]] = True


def _by_block(cells: Cells) -> list[tuple[tuple[int, int], NDArray[np.bool_]]]:
    blocks = cells // _BLOCK
    if len(cells) == 0:
        return []
    low, high = blocks.min(axis=0), blocks.max(axis=0)
    return [
        ((i, j), (blocks == (i, j)).all(axis=1))
        for i in range(int(low[0]), int(high[0]) + 1)
        for j in range(int(low[1]), int(high[1]) + 1)
    ]
