"""Which tile touches which shard, and which shards are due to be painted. Knows no pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Shard = tuple[int, int]
Point = tuple[float, float]

MIDDLE = 2**19
"""Row and column of the first tile's corner on a canvas of 2**20 pixels a side: the mosaic may grow in every direction."""

GRID = 16
"""Tiles are painted at whole sixteenths of a pixel."""

_CELLS = 16


class Canvas:
    """Tiles and shards on a canvas without borders.

    half_extent_px: half the sides of a tile's box, (y, x). shard_px: side of a shard.
    """

    def __init__(self, half_extent_px: NDArray[np.float64], shard_px: int) -> None:
        self._half, self._shard_px = half_extent_px, shard_px
        self._origin: NDArray[np.float64] | None = None
        # plain numbers: at the end, every tile is asked for at once
        self._box: list[tuple[float, float]] = []
        self._painted_at: dict[int, Point] = {}
        self._wanted_at: dict[int, Point] = {}
        self._touching: dict[Shard, set[int]] = {}
        self._dirty: dict[Shard, float] = {}
        self._complete: dict[Shard, bool] = {}

    @property
    def origin_px(self) -> NDArray[np.float64]:
        """What to add to a mosaic coordinate (2,), (y, x), to get canvas pixels; whole numbers."""
        if self._origin is None:
            raise ValueError("the canvas has no tile yet")
        return self._origin

    @property
    def has_begun(self) -> bool:
        return self._origin is not None

    @property
    def tiles(self) -> int:
        return len(self._painted_at)

    def begin(self, centre_px: NDArray[np.float64]) -> None:
        """Fixes the origin by the centre of the first tile."""
        # a little before its corner: the stage never comes back to the very pixel
        self._origin = MIDDLE - np.floor(centre_px - self._half) + np.ceil(0.2 * self._half)
        self._box = list(zip(self._origin.tolist(), self._half.tolist(), strict=True))

    def place(self, index: int, centre_px: NDArray[np.float64], now_s: float, tolerance_px: float) -> None:
        """A tile's centre in mosaic coordinates: new, or moved; a move within `tolerance_px` of where it is painted is kept in mind."""
        if self._origin is None:
            self.begin(centre_px)
        # on a grid, so that the mosaic does not depend on the last bits of a solution
        y, x = (round(GRID * along) / GRID for along in centre_px.tolist())
        self._show(index, (y, x), now_s, tolerance_px)

    def _show(self, index: int, centre: Point, now_s: float, tolerance_px: float) -> None:
        self._wanted_at[index] = centre
        before = self._painted_at.get(index)
        if before is not None and max(abs(centre[n] - before[n]) for n in (0, 1)) <= tolerance_px:
            return
        if before is not None:
            for shard in self._shards(before):
                self._touching[shard].discard(index)
                self._dirty[shard] = now_s
                self._complete.pop(shard, None)
        self._painted_at[index] = centre
        for shard in self._shards(centre):
            self._touching.setdefault(shard, set()).add(index)
            self._dirty[shard] = now_s
            self._complete.pop(shard, None)

    def settle(self, now_s: float, tolerance_px: float) -> None:
        """Moves every tile that is painted more than `tolerance_px` from where it belongs."""
        for index, centre in list(self._wanted_at.items()):
            self._show(index, centre, now_s, tolerance_px)

    def touch(self, index: int, now_s: float) -> None:
        """A tile's pixels changed; one that is not there yet will be painted anyhow."""
        if index in self._painted_at:
            for shard in self._shards(self._painted_at[index]):
                self._dirty[shard] = now_s

    def touch_all(self, now_s: float) -> None:
        for shard in self._touching:
            self._dirty[shard] = now_s

    def due(self, now_s: float, refresh_s: float) -> Shard | None:
        """A shard to paint now: one that is covered all over, else the one that has waited longest, over `refresh_s`."""
        oldest: Shard | None = None
        for shard, since_s in self._dirty.items():
            if shard not in self._complete:
                self._complete[shard] = self._is_complete(shard)
            if self._complete[shard]:
                return shard
            if oldest is None or since_s < self._dirty[oldest]:
                oldest = shard
        return oldest if oldest is not None and now_s - self._dirty[oldest] >= refresh_s else None

    def all_dirty(self) -> list[Shard]:
        return sorted(self._dirty)

    def clean(self, shard: Shard) -> None:
        """The shard was painted."""
        self._dirty.pop(shard, None)

    def tiles_of(self, shard: Shard) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """Tiles that touch a shard, by number, with their centres in canvas pixels."""
        for index in sorted(self._touching.get(shard, ())):
            yield index, self._painted_at[index] + self.origin_px

    def used_px(self) -> tuple[int, int, int, int]:
        """Canvas rows and columns that tiles cover: y0, x0, y1, x1."""
        centres = np.array(list(self._painted_at.values())) + self.origin_px
        half = self._half - 0.5  # centres of pixels, not their edges
        low = np.ceil(centres.min(axis=0) - half).astype(int)
        high = np.floor(centres.max(axis=0) + half).astype(int) + 1
        return int(low[0]), int(low[1]), int(high[0]), int(high[1])

    def _shards(self, centre: Point) -> Iterator[Shard]:
        px = self._shard_px
        (y0, y1), (x0, x1) = (
            (math.floor((along + origin - half) / px), math.floor((along + origin + half) / px))
            for along, (origin, half) in zip(centre, self._box, strict=True)
        )
        return ((y, x) for y in range(y0, y1 + 1) for x in range(x0, x1 + 1))

    def _is_complete(self, shard: Shard) -> bool:
        """Whether tiles cover all of a shard, to a sixteenth of its side."""
        seen = np.zeros((_CELLS, _CELLS), dtype=bool)
        cell = self._shard_px / _CELLS
        corner = np.array(shard) * self._shard_px
        for _, centre in self.tiles_of(shard):
            low = np.ceil((centre - self._half - corner) / cell - 0.1).astype(int).clip(0, _CELLS)
            high = np.floor((centre + self._half - corner) / cell + 0.1).astype(int).clip(0, _CELLS)
            seen[low[0] : high[0], low[1] : high[1]] = True
        return bool(seen.all())
