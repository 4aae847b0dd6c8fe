"""The mosaic of one slide while it grows: takes places and pixels, paints what is due, closes it at the end."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deblurd.errors import DeblurdError, OutputError
from deblurd.frames import DeblurredTile, Encoding, Place
from deblurd.geometry import Matrix, PixelToStage
from deblurd.mosaic.canvas import Canvas, Shard
from deblurd.mosaic.render import Brush, PlacedTile, Window
from deblurd.mosaic.store import MosaicStore, Patch
from deblurd.mosaic.table import write_table

SURE_PX = 3.0
"""Tiles whose places are less certain, which no match holds, lie under all others."""

MOVE_PX = 0.3
"""While the slide grows, a tile that moves by less is not painted again."""

FINAL_MOVE_PX = 0.0
"""At the end, every tile is painted where it was solved to be, on the canvas's grid."""

THUMBNAIL_PX = 1024


@dataclass(frozen=True, slots=True)
class MosaicSummary:
    """The finished mosaic: its size, how much of it tiles cover, and the work that it took. left_s: for what was still to be painted at the end."""

    height_px: int
    width_px: int
    covered: float
    shards_written: int
    shards_painted: int
    paint_s: float
    left_s: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class MosaicWriter:
    """Everything from one thread; readers may open the mosaic at any time.

    path: of the OME-Zarr. affine: camera pixels to stage. sources: names of provenance ids 1, 2, ... fetch: gives a tile's pixels and source by its number.
    Memory: a shard's colours and weights (24 bytes a pixel), and a few coarse shards, whatever the number of tiles.
    """

    def __init__(
        self,
        path: Path,
        *,
        name: str,
        affine: PixelToStage,
        tile_shape: tuple[int, ...],
        dtype: np.dtype[Any],
        encoding: Encoding,
        sources: Sequence[str],
        fetch: Callable[[int], DeblurredTile],
        chunk_px: int = 256,
        shard_px: int = 1024,
        refresh_s: float = 5.0,
    ) -> None:
        self.path, self._fetch, self._refresh_s, self._shard_px = path, fetch, refresh_s, shard_px
        self._pixel_size_um = affine.pixel_size_um
        self._rotation: Matrix = affine.rotation
        self._channels, self._dtype = (3 if len(tile_shape) == 3 else 1), dtype
        self._brush = Brush(tile_shape, self._rotation, encoding)
        self._canvas = Canvas(self._brush.half_extent_px, shard_px)
        self._store = MosaicStore(
            path,
            name=name,
            channels=self._channels,
            dtype=dtype,
            pixel_size_um=self._pixel_size_um,
            chunk_px=chunk_px,
            shard_px=shard_px,
            sources=list(sources),
        )
        self._painted = 0
        self._covered: dict[Shard, int] = {}
        self._lights: dict[int, float] = {}
        self._unsure: set[int] = set()
        self._paint_s = 0.0
        self._abandoned = False

    @property
    def store(self) -> MosaicStore:
        """For those who look on from other threads."""
        return self._store

    def begin(self, place: Place) -> None:
        """Creates the mosaic around the first tile's place. Raises OutputError where that is not possible."""
        self._canvas.begin(self._rotation @ place.yx_px)
        self._store.create(self._origin_um())

    def place(self, index: int, place: Place) -> None:
        """A new tile, or a better place for one. Begins with it, unless `begin` was called. Raises OutputError as `begin`."""
        if not self._canvas.has_begun:
            self.begin(place)
        is_sure = place.sigma_px < SURE_PX
        if is_sure == (index in self._unsure):
            (self._unsure.discard if is_sure else self._unsure.add)(index)
            self._canvas.touch(index, time.perf_counter())
        self._canvas.place(index, self._rotation @ place.yx_px, time.perf_counter(), MOVE_PX)

    def repaint(self, index: int) -> None:
        """A tile's pixels changed; its place did not."""
        self._canvas.touch(index, time.perf_counter())

    def set_gain(self, gain: NDArray[np.float32] | None) -> None:
        """A better correction of the light; everything is painted again."""
        self._brush.set_gain(gain)
        self._canvas.touch_all(time.perf_counter())

    def set_lights(self, lights: Mapping[int, float]) -> None:
        """Factors that even the tiles' exposures out; those of all others are 1. Painted again is what changed."""
        before, self._lights = self._lights, dict(lights)
        for index in before.keys() | self._lights.keys():
            if before.get(index) != self._lights.get(index):
                self._canvas.touch(index, time.perf_counter())

    def close(self) -> None:
        """Nothing is painted any more: lets go of memory, threads, and whoever gave the tiles."""
        self._store.close()
        self._fetch = _gone

    def abandon(self) -> None:
        """Has `finish` raise DeblurdError soon, with what was written so far. From any thread."""
        self._abandoned = True

    def render_due(self, now_s: float) -> int:
        """Paints one shard, if one is due; returns how many were. Raises OutputError; the shard stays due."""
        shard = self._canvas.due(now_s, self._refresh_s)
        if shard is None:
            return 0
        self._paint(shard)
        return 1

    def finish(self, rows: Sequence[Mapping[str, Any]]) -> MosaicSummary:
        """Paints the rest, trims, writes the table and ``thumbnail.png`` beside the mosaic.

        rows: the journal's, one for each tile. Raises OutputError; it can be called again.
        """
        if self._canvas.tiles == 0:
            return MosaicSummary(0, 0, 0.0, 0, 0, 0.0, 0.0)
        self._canvas.settle(time.perf_counter(), FINAL_MOVE_PX)
        began_s = time.perf_counter()
        self._paint_all(self._canvas.all_dirty())
        left_s = time.perf_counter() - began_s
        used = self._canvas.used_px()
        height, width = self._store.finish(used, self._origin_um())
        try:
            write_table(self.path, self._regions(rows))
            self._thumbnail()
            self._store.swept()
        except OSError as err:
            raise OutputError(
                f"the mosaic's table cannot be written ({err.strerror}): make room, then repaint"
            ) from err
        return MosaicSummary(
            height,
            width,
            round(sum(self._covered.values()) / max((used[2] - used[0]) * (used[3] - used[1]), 1), 4),
            self._store.written,
            self._painted,
            round(self._paint_s, 3),
            round(left_s, 3),
        )

    def _paint_all(self, shards: Sequence[Shard]) -> None:
        """Like `_paint` of each, but several at once; few wait in memory."""
        workers = os.cpu_count() or 1
        with ThreadPoolExecutor(workers, thread_name_prefix="deblurd-paint") as pool:
            coming = deque(pool.submit(self._written, shard) for shard in shards[: 2 * workers])
            for n, shard in enumerate(shards):
                if self._abandoned:
                    raise DeblurdError("its mosaic was left unfinished: resume it")
                written = coming.popleft().result()
                if n + 2 * workers < len(shards):
                    coming.append(pool.submit(self._written, shards[n + 2 * workers]))
                self._merge(shard, *written)

    def _paint(self, shard: Shard) -> None:
        self._merge(shard, *self._written(shard))

    def _written(self, shard: Shard) -> tuple[Patch, int, float]:
        """Paints a shard into its files; from any thread. Returns what the coarser levels are to have of it, pixels that are covered, and the seconds that it took."""
        began_s = time.perf_counter()
        side = self._shard_px
        window = Window(shard[0] * side, shard[1] * side, side, side)
        pixels, source = self._brush.paint(window, self._tiles(shard), self._dtype, self._channels)
        patch = self._store.write_finer(shard, pixels, source)
        return patch, int(np.count_nonzero(source)), time.perf_counter() - began_s

    def _merge(self, shard: Shard, patch: Patch, covered: int, seconds: float) -> None:
        began_s = time.perf_counter() - seconds
        self._store.merge(shard, patch)
        self._canvas.clean(shard)
        self._covered[shard] = covered
        self._painted += 1
        self._paint_s += time.perf_counter() - began_s

    def _tiles(self, shard: Shard) -> Iterator[PlacedTile]:
        for index, centre in self._canvas.tiles_of(shard):
            tile = self._fetch(index)
            source = tile.source if tile.sources is None else tile.sources
            light, is_sure = self._lights.get(index, 1.0), index not in self._unsure
            yield PlacedTile(centre, tile.pixels, source, tile.sharpness, light, is_sure)

    def _origin_um(self) -> NDArray[np.float64]:
        """Stage position of the canvas's first pixel."""
        return -self._canvas.origin_px * self._pixel_size_um

    def _regions(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        extent_um = 2 * self._brush.half_extent_px * self._pixel_size_um
        for row in rows:
            if row["place_y_px"] is None:
                continue
            centre_um = (
                self._rotation @ np.array([row["place_y_px"], row["place_x_px"]]) * self._pixel_size_um
            )
            corner_um = centre_um - extent_um / 2
            yield {
                "FieldIndex": f"tile_{row['tile']}",
                "x_micrometer": round(float(corner_um[1]), 4),
                "y_micrometer": round(float(corner_um[0]), 4),
                "z_micrometer": 0.0,
                "len_x_micrometer": round(float(extent_um[1]), 4),
                "len_y_micrometer": round(float(extent_um[0]), 4),
                "len_z_micrometer": 1.0,
                **{key: value for key, value in row.items() if key not in ("place_y_px", "place_x_px")},
            }

    def _thumbnail(self) -> None:
        image = self._store.thumbnail(THUMBNAIL_PX)
        ok, png = cv2.imencode(
            ".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.shape[2] == 3 else image
        )
        if ok:
            self.path.with_name("thumbnail.png").write_bytes(png.tobytes())


def _gone(index: int) -> DeblurredTile:
    raise DeblurdError(f"tile {index} is asked for after the mosaic was closed")
