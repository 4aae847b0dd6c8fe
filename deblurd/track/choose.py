"""Which frames become tiles: those without which ground would be lost, or the chain of overlaps would break."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deblurd.frames import MotionVector, Pose
from deblurd.geometry import PixelToStage

_CELLS = 16
_BLOCK = 64
_MARGIN = 0.5
_REST_PX = 1.0
_REST_SIGMAS = 3.0
_MOST_REST_CELLS = 0.25
_WORTH_A_REST = 0.1
_WORTH_A_PASS = 0.7
"""A frame in motion over old ground becomes a tile where it is sharper for so much of its view: so it overlaps the one before."""

SHARPEST = 8
_SHARPER = 2
_VAGUE_PX = 1.0
_VAGUE_SHARE = 0.1

Choice = Literal["none", "before", "this"]
Floats = NDArray[np.float64]
Cells = NDArray[np.int64]


def grade(motion: MotionVector) -> int:
    """How sharp a frame is: SHARPEST up to 1 px of motion, one less for each doubling, at least 2; 1 where the motion is not known well enough.

    0 stands for ground that was never seen.
    """
    if not motion.is_known or motion.sigma_px > max(_VAGUE_PX, _VAGUE_SHARE * motion.length_px):
        return 1
    return max(SHARPEST - math.ceil(math.log2(max(motion.length_px, 1.0))), 2)


class TileChooser:
    """Decides frame by frame, from the poses, which frame becomes a tile.

    The ground is cut into cells, sixteen to the shorter side of a frame. "before", the frame before this one, is chosen when this one sees new
    ground but no tile shares the wanted overlap with it any more, or when ground leaves the view that no tile holds: so a
    path that turns anywhere loses nothing but a margin (half the overlap) at the outer border. "this" is chosen when it is the first,
    or when the stage rests over new ground. On old ground "this" is chosen only where it is sharper by two grades than what tiles hold there: so it
    replaces them, and a place is not taken twice at rest. The cost of a frame does not grow with the tiles;
    memory: 4 kB for each patch of 4 x 4 tiles.

    overlap: share of a tile's area in (0, 1) that it has in common with another. only_at_rest: frames in motion become no tiles.
    """

    def __init__(
        self, affine: PixelToStage, shape: tuple[int, ...], overlap: float, *, only_at_rest: bool = False
    ) -> None:
        self._only_at_rest = only_at_rest
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
        self._before_grade = SHARPEST

    def see(self, pose: Pose, grade: int = SHARPEST) -> Choice:
        """The next frame's pose, and its grade."""
        at = pose.yx_um
        before, was_tile, before_grade = self._before, self._before_is_tile, self._before_grade
        self._before, self._before_is_tile, self._before_grade = at, False, grade
        rests = self._rests(before, pose)
        if self._only_at_rest and not rests:
            return "none"
        if before is None and not self._tiles:
            return self._take_this(at, grade)
        view = self._view(at)
        new = view[self._ground.grades(view) == 0]
        choice: Choice = "none"
        if (
            not self._only_at_rest
            and before is not None
            and not was_tile
            and self._must_take(before, at, view, len(new) > 0)
        ):
            self._take(before, before_grade)
            choice = "before"
        held = self._ground.grades(view)
        gained = int(((held == 0) & rests | (held > 0) & (grade >= held + _SHARPER)).sum())
        if choice == "none" and gained > (_WORTH_A_REST if rests else _WORTH_A_PASS) * len(view):
            return self._take_this(at, grade)
        return choice

    def grades_at(self, yx_um: Floats) -> NDArray[np.uint8]:
        """The best grade (n,) of the tiles that show the places (n, 2), 0 where none does."""
        return self._ground.grades(np.floor(yx_um / self._cell_um).astype(np.int64))

    def doubt(self, at: Floats) -> None:
        """What the tile at `at` (2,) shows, and only it, counts as hardly seen: a frame that is better may replace it."""
        cells = self._cells(at)
        cells = cells[self._inside(cells, at, self._middle)]
        self._ground.lower(cells)

    def last(self) -> bool:
        """No frame follows. True if the last one must become a tile."""
        at, was_tile = self._before, self._before_is_tile
        self._before = None
        if self._only_at_rest or at is None or was_tile or (self._ground.grades(self._view(at)) > 0).all():
            return False
        self._take(at, self._before_grade)
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
        return not bool((self._ground.grades(leaving) > 0).all())

    def _take_this(self, at: Floats, grade: int) -> Choice:
        self._take(at, grade)
        self._before_is_tile = True
        return "this"

    def _take(self, at: Floats, grade: int) -> None:
        self._tiles.setdefault(self._bin(at), []).append(at)
        cells = self._cells(at)
        self._ground.hold(cells[self._inside(cells, at, 1.0)], grade)

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


class EachFrame:
    """Beside `TileChooser`, where more frames are recorded than the mosaic needs: every frame that the stage brought further by a step.

    observations: steps to the shorter side of a frame.
    """

    def __init__(self, affine: PixelToStage, shape: tuple[int, ...], observations: int) -> None:
        self._inverse = np.linalg.inv(affine.matrix)
        self._step_px = min(shape[:2]) / observations
        self._last: Floats | None = None

    def see(self, pose: Pose) -> Choice:
        """The next frame's pose."""
        at = self._inverse @ pose.yx_um
        if self._last is not None and float(np.linalg.norm(at - self._last)) < self._step_px:
            return "none"
        self._last = at
        return "this"


class _Ground:
    """The best grade of the tiles that show each cell, as bytes in square blocks. Written by one thread, read by any."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[int, int], NDArray[np.uint8]] = {}

    def grades(self, cells: Cells) -> NDArray[np.uint8]:
        found = np.zeros(len(cells), dtype=np.uint8)
        for key, rows in _by_block(cells):
            if (block := self._blocks.get(key)) is not None:
                within = cells[rows] % _BLOCK
                found[rows] = block[within[:, 0], within[:, 1]]
        return found

    def hold(self, cells: Cells, grade: int) -> None:
        for key, rows in _by_block(cells):
            block = self._blocks.setdefault(key, np.zeros((_BLOCK, _BLOCK), dtype=np.uint8))
            within = cells[rows] % _BLOCK
            held = block[within[:, 0], within[:, 1]]
            block[within[:, 0], within[:, 1]] = np.maximum(held, grade)

    def lower(self, cells: Cells) -> None:
        for key, rows in _by_block(cells):
            if (block := self._blocks.get(key)) is not None:
                within = cells[rows] % _BLOCK
                held = block[within[:, 0], within[:, 1]]
                block[within[:, 0], within[:, 1]] = np.minimum(held, 1)


def _by_block(cells: Cells) -> Iterator[tuple[tuple[int, int], NDArray[np.intp]]]:
    """Blocks, and which of the cells lie in each."""
    if len(cells) == 0:
        return
    keys, which = np.unique(cells // _BLOCK, axis=0, return_inverse=True)
    for i, (row, column) in enumerate(keys):
        yield (int(row), int(column)), np.flatnonzero(which.ravel() == i)
