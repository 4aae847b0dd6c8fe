"""Mosaics as pictures of TILE_PX a side: the one that grows, from memory where it is there, and finished ones, from the disk."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np

from deblurd.errors import DataError, NoInputError
from deblurd.mosaic.canvas import Shard
from deblurd.mosaic.reader import MosaicReader
from deblurd.mosaic.store import LEVELS, SIDE, MosaicStore
from deblurd.serve.pictures import jpeg, top_of
from deblurd.serve.view import TILE_PX, Mosaic

_MOST_OPEN = 4


class StoredMosaics:
    """Finished mosaics; the last few stay open. Safe to use from several threads."""

    def __init__(self) -> None:
        self._open: OrderedDict[Path, tuple[int, MosaicReader, int]] = OrderedDict()
        self._lock = threading.Lock()

    def describe(self, path: Path, field_px: tuple[float, float] | None) -> Mosaic | None:
        """None where the mosaic is not final, or not there. Raises DataError."""
        try:
            changed, reader, _ = self._reader(path)
        except NoInputError:
            return None
        _, height, width = reader.shapes[0]
        return Mosaic(
            size_px=[height, width],
            used_px=[0, 0, height, width],
            levels=len(reader.shapes),
            shard_px=reader.shard_px,
            pixel_size_um=reader.pixel_size_um,
            origin_um=reader.origin_um.tolist(),
            revision=changed % 2**31,
            shards=None,
            field_px=None if field_px is None else list(field_px),
        )

    def tile(self, path: Path, level: int, row: int, column: int) -> bytes | None:
        """A JPEG; None beyond the mosaic, and where it is not final. Raises DataError."""
        try:
            _, reader, top = self._reader(path)
        except NoInputError:
            return None
        if level >= len(reader.shapes):
            return None
        y, x = row * TILE_PX, column * TILE_PX
        _, height, width = reader.shapes[level]
        if y >= height or x >= width:
            return None
        h, w = min(TILE_PX, height - y), min(TILE_PX, width - x)
        source = reader.read_source(level, y, x, h, w)
        return jpeg(reader.read(level, y, x, h, w), top, source)

    def _reader(self, path: Path) -> tuple[int, MosaicReader, int]:
        try:
            changed = (path / "zarr.json").stat().st_mtime_ns
        except OSError:
            # the reader says what is missing
            changed = 0
        with self._lock:
            found = self._open.get(path)
            if found is not None and found[0] == changed:
                self._open.move_to_end(path)
                return found
        try:
            reader = MosaicReader(path)
        except DataError:
            # a finished one may just have taken the place of one that grew
            reader = MosaicReader(path)
        if reader.state != "final":
            raise NoInputError(
                f"the mosaic {path.parent.name} is not finished: wait for it, or resume the slide"
            )
        coarsest = len(reader.shapes) - 1
        _, height, width = reader.shapes[coarsest]
        opened = changed, reader, top_of(reader.read(coarsest, 0, 0, height, width))
        with self._lock:
            self._open[path] = opened
            while len(self._open) > _MOST_OPEN:
                self._open.popitem(last=False)
        return opened


def describe_live(
    store: MosaicStore, shard_px: int, pixel_size_um: float, field_px: tuple[float, float]
) -> Mosaic | None:
    """The mosaic that grows; None while nothing of it is painted."""
    shards: dict[Shard, int] = dict(store.revisions)
    if not shards:
        return None
    corners = np.array(list(shards))
    (y0, x0), (y1, x1) = corners.min(axis=0) * shard_px, (corners.max(axis=0) + 1) * shard_px
    return Mosaic(
        size_px=[SIDE, SIDE],
        used_px=[int(y0), int(x0), int(y1), int(x1)],
        levels=LEVELS,
        shard_px=shard_px,
        pixel_size_um=pixel_size_um,
        origin_um=store.origin_um.tolist(),
        revision=max(shards.values()),
        shards={f"{row},{column}": revision for (row, column), revision in shards.items()},
        field_px=list(field_px),
    )


def live_tile(store: MosaicStore, top: int, level: int, row: int, column: int) -> bytes | None:
    """A JPEG of the mosaic that grows, grey where nothing is painted; None beyond it."""
    if level >= LEVELS or max(row, column) * TILE_PX >= SIDE >> level:
        return None
    found = store.peek(level, row * TILE_PX, column * TILE_PX, TILE_PX)
    if found is None:
        found = np.zeros((TILE_PX, TILE_PX, 1), np.uint8), np.zeros((TILE_PX, TILE_PX), np.uint8)
    return jpeg(found[0], top, found[1])
