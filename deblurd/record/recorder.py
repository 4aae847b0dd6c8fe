"""Durable first: what `record` has returned outlives a power cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from deblurd.errors import DataError, OutputError
from deblurd.frames import Frame, Tile
from deblurd.host.durable import fsync_dir
from deblurd.record.journal import Journal
from deblurd.record.raw import RawStore, crc32


class Recorder:
    """Keeps the raw tiles of the slide at `folder`: raw.zarr and journal.sqlite.

    An existing slide is continued. shape, dtype: of a tile. One thread records; raw and journal may be read from any.
    Raises OutputError where the folder cannot be written, DataError where what lies there does not fit or is damaged.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        path = folder / "raw.zarr"
        if (path / "zarr.json").is_file():
            self.raw = RawStore.open(path)
            self.raw.check(np.empty(shape, dtype))
        else:
            self.raw = RawStore.create(path, tuple(shape), dtype)
        self.journal = Journal(folder / "journal.sqlite")
        self._next = self.journal.next_index()
        try:
            for new in (folder, folder.parent):
                fsync_dir(new)
        except OSError as err:
            raise OutputError(
                f"cannot write {folder} ({err.strerror}): choose another output folder"
            ) from err

    def record(self, items: Sequence[tuple[Frame, Tile]]) -> list[Tile]:
        """Makes frames durable together; the tiles that come back, with their index, are acknowledged.

        The pixels come first and the journal last, so a crash in between leaves rows that nobody refers to, and that the next
        tiles take. Raises DataError for a frame of another shape or dtype or a pose that is not finite, and OutputError where
        the disk refuses: then none of `items` is acknowledged, and they may be given again.
        """
        for frame, tile in items:
            self.raw.check(frame.pixels)
            if not np.isfinite([tile.pose.y_um, tile.pose.x_um, tile.pose.t_s]).all():
                raise DataError(
                    f"frame {tile.number} has no finite position ({tile.pose.y_um}, {tile.pose.x_um} um): "
                    "check the stage's readings"
                )
        tiles = [tile.with_index(self._next + n) for n, (_, tile) in enumerate(items)]
        for tile, (frame, _) in zip(tiles, items, strict=True):
            self.raw.write(tile.index, frame.pixels)
        self.raw.sync(tile.index for tile in tiles)
        self.journal.add(tiles, [crc32(frame.pixels) for frame, _ in items])
        self._next += len(tiles)
        return tiles

    def close(self) -> None:
        """Trims raw.zarr to the acknowledged tiles and closes the journal. Raises OutputError if the folder is gone."""
        try:
            self.raw.trim(self._next)
        finally:
            self.journal.close()


def damaged_tiles(
    raw: RawStore, journal: Journal, on_progress: Callable[[int, int], None] = lambda read, tiles: None
) -> list[int]:
    """Tiles whose raw pixels are no longer those that were acknowledged: missing, cut short or altered. Writes nothing."""
    damaged, crcs = [], journal.crcs()
    for n, (index, crc) in enumerate(crcs.items()):
        if not raw.is_intact(index, crc):
            damaged.append(index)
        on_progress(n + 1, len(crcs))
    return damaged
