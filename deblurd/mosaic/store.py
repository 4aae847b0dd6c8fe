"""OME-Zarr 0.5 on disk: levels, shards written whole, the provenance label, trimming at the end."""

from __future__ import annotations

import logging
import os
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import LocalStore, StorePath

from deblurd import health
from deblurd.errors import OutputError
from deblurd.frames import Pixels
from deblurd.mosaic.canvas import MIDDLE, Shard
from deblurd.mosaic.metadata import LABEL, About, array_metadata
from deblurd.mosaic.shards import write_shard

log = logging.getLogger(__name__)

LEVELS = 8
SIDE = 2 * MIDDLE
_SMALL_PX = 1024
_KEPT_SHARDS = 8
FEW_SHARDS = 16
"""Mosaics that have no more are copied when they are trimmed, to the pixel: half a second at most. Larger ones are trimmed by whole shards."""

LEAST_SHARD_PX = 128
"""Finer levels have one shard for each of level 0, so that trimming by a shard of level 0 gives them other names only; shards less than this are too many."""

_STRIP_PX = 2**16

Patch = tuple[Pixels, NDArray[np.uint8]]
"""(h, w, c) of the image and (h, w) of the provenance."""

T = TypeVar("T")


class MosaicStore:
    """The arrays of one growing mosaic: image (c, y, x) and provenance (y, x), eight levels each.

    Level n + 1 is the mean of 2 x 2 pixels of level n (of the provenance: the upper left one). The shards of the finer levels cover what a shard of
    level 0 covers, and are written with it. Those of coarser levels gather in memory, at most eight at a time for each pyramid, and are written
    whole. One thread writes; `peek`, `revision`, `revisions` and `origin_um` are for others.

    revision: number of writes; revisions: of each shard of level 0, the last one. Whoever peeks after it sees that write, at every level.
    """

    def __init__(
        self,
        path: Path,
        *,
        name: str,
        channels: int,
        dtype: np.dtype[Any],
        pixel_size_um: float,
        chunk_px: int,
        shard_px: int,
        sources: list[str],
    ) -> None:
        self.path, self._channels, self._dtype = path, channels, dtype
        self._pixel_size_um, self._chunk_px, self._shard_px = pixel_size_um, chunk_px, shard_px
        self._about = About(name, channels, dtype, pixel_size_um, sources)
        self._finer = sum(shard_px >> level >= LEAST_SHARD_PX for level in range(LEVELS))
        self._pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="deblurd-shards")
        self._levels: list[Any] = []
        self._labels: list[Any] = []
        self._buffers: OrderedDict[tuple[int, Shard], Patch] = OrderedDict()
        self._changed: set[tuple[int, Shard]] = set()
        self.written = 0
        self.revision = 0
        self.revisions: dict[Shard, int] = {}
        self.origin_um: NDArray[np.float64] = np.zeros(2)
        self._sweeping: Future[None] | None = None

    def create(self, origin_um: NDArray[np.float64]) -> None:
        """Makes the arrays, empty and valid. origin_um: stage position of the canvas's pixel (0, 0), (y, x).

        Raises OutputError where the folder cannot be written.
        """
        try:
            # zarr would make it
            self.path.parent.stat()
            self._create((SIDE, SIDE), origin_um, LEVELS, "growing")
            self.origin_um = origin_um
        except OSError as err:
            raise _cannot_write(self.path, err) from err

    def write_finer(self, shard: Shard, pixels: Pixels, source: NDArray[np.uint8]) -> Patch:
        """One shard of level 0, (shard_px, shard_px, c) pixels and (shard_px, shard_px) provenance, and the levels that are a file for each of those.

        From any thread, several shards at once. Returns the coarsest of them, for `merge`. Raises OutputError; the shard can be written again.
        """
        try:
            for level in range(min(self._finer, len(self._levels))):
                if level > 0:
                    pixels, source = _halved(pixels, source)
                self._write(level, shard, pixels, source)
        except OSError as err:
            raise _cannot_write(self.path, err) from err
        return pixels, source

    def merge(self, shard: Shard, patch: Patch) -> None:
        """What `write_finer` returned becomes part of the coarser levels. Raises OutputError."""
        corner = np.array(shard) * self._shard_px
        try:
            for level in range(self._finer, len(self._levels)):
                patch = _halved(*patch)
                self._merge(level, corner >> level, *patch)
        except OSError as err:
            raise _cannot_write(self.path, err) from err
        self.written += min(self._finer, len(self._levels))
        self.revision += 1
        self.revisions[shard] = self.revision
        health.beat()

    def peek(self, level: int, y: int, x: int, side: int) -> tuple[Pixels, NDArray[np.uint8]] | None:
        """(side, side, c) pixels and (side, side) provenance of a growing mosaic from (y, x) of a level on, for a thread that looks on.

        side divides shard_px, y and x. None while that shard is just being written.
        """
        px = self._shard_px
        held = self._buffers.get((level, (y // px, x // px)))
        if held is not None:
            rows, columns = slice(y % px, y % px + side), slice(x % px, x % px + side)
            return held[0][rows, columns].copy(), held[1][rows, columns].copy()
        try:
            pixels = np.moveaxis(np.asarray(self._levels[level][:, y : y + side, x : x + side]), 0, 2)
            source = np.asarray(self._labels[level][y : y + side, x : x + side])
        except (OSError, ValueError, RuntimeError, IndexError):
            # half a file; the checksums tell
            return None
        # while the mosaic is trimmed, one of the two may be of the trimmed one already
        return (pixels, source) if pixels.shape[:2] == source.shape == (side, side) else None

    def flush(self) -> None:
        """Writes the coarser levels that are only in memory."""
        try:
            self._on_all_cores(lambda key: self._write(*key, *self._buffers[key]), sorted(self._changed))
            self.written += len(self._changed)
            self._changed.clear()
        except OSError as err:
            raise _cannot_write(self.path, err) from err

    def finish(self, used_px: tuple[int, int, int, int], origin_um: NDArray[np.float64]) -> tuple[int, int]:
        """Trims the canvas to `used_px` (y0, x0, y1, x1) and closes it; origin_um as in `create`. Returns height, width.

        A small mosaic is copied to a grid that begins with its first pixel. A large one begins with its first shard: the shards get other names, which
        costs the same however large they are, and only the levels whose shards would be cut, a 192nd of the pixels, are copied. What it was before is
        deleted meanwhile: see `swept`.
        """
        y0, x0, y1, x1 = used_px
        side = self._shard_px
        is_small = len(self.revisions) <= FEW_SHARDS
        corner = (y0, x0) if is_small else (y0 // side * side, x0 // side * side)
        shape = (y1 - corner[0], x1 - corner[1])
        levels = _levels_for(shape)
        part = self.path.with_name(self.path.name + ".part")
        trimmed = MosaicStore(
            part,
            name=self._about.name,
            channels=self._channels,
            dtype=self._dtype,
            pixel_size_um=self._pixel_size_um,
            chunk_px=self._chunk_px,
            shard_px=side,
            sources=self._about.sources,
        )
        try:
            self.flush()
            self.path.stat()
            trimmed._create(shape, origin_um + np.array(corner) * self._pixel_size_um, levels, "final")
            if is_small:
                self._copy(trimmed, corner)
            else:
                self._hand_over(trimmed, (corner[0] // side, corner[1] // side))
            trimmed.flush()
            # for readers it is there all the time, but for a moment between two renames
            before = self.path.with_name(self.path.name + ".old.part")
            self.path.rename(before)
            part.rename(self.path)
            self._sweeping = self._pool.submit(_sweep, before)
            self._levels, self._labels = map(self._moved_here, (trimmed._levels, trimmed._labels))
        except OSError as err:
            raise _cannot_write(self.path, err) from err
        return shape

    def swept(self) -> None:
        """Returns when what the mosaic was before `finish` is deleted, which takes as long as all else there."""
        if self._sweeping is not None:
            self._sweeping.result()

    def close(self) -> None:
        """Nothing is written any more: gives memory and threads back, however long somebody still looks at it."""
        self._buffers.clear()
        self._pool.shutdown()

    def thumbnail(self, longest_px: int) -> Pixels:
        """The finished mosaic as (h, w, c) uint8, at most `longest_px` a side."""
        level = next((a for a in self._levels if max(a.shape[1:]) <= 2 * longest_px), self._levels[-1])
        image = np.ascontiguousarray(np.moveaxis(np.asarray(level[:]), 0, 2))
        if image.dtype != np.uint8:
            top = max(float(np.percentile(image, 99.8)), 1.0)
            image = np.clip(image.astype(np.float32) * (255 / top), 0, 255).astype(np.uint8)
        scale = longest_px / max(image.shape[:2])
        if scale < 1:
            size = (max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        return image.reshape(*image.shape[:2], -1)

    # --- pyramid ---

    def _merge(
        self, level: int, corner_px: NDArray[np.int_], pixels: Pixels, source: NDArray[np.uint8]
    ) -> None:
        """Puts a patch into the shard of a coarser level that it lies in."""
        shard = (int(corner_px[0]) // self._shard_px, int(corner_px[1]) // self._shard_px)
        key = (level, shard)
        if key not in self._buffers:
            self._buffers[key] = self._get(level, shard)
        self._buffers.move_to_end(key)
        image, label = self._buffers[key]
        y, x = (int(v) % self._shard_px for v in corner_px)
        n = len(pixels)
        image[y : y + n, x : x + n] = pixels
        label[y : y + n, x : x + n] = source
        self._changed.add(key)
        while len(self._buffers) > _KEPT_SHARDS:
            old = next(iter(self._buffers))
            if old in self._changed:
                self._write(*old, *self._buffers[old])
                self.written += 1
                self._changed.discard(old)
            # not before it is written: `peek` would see an older one
            del self._buffers[old]

    def _side(self, level: int) -> int:
        """Of a shard of that level, px."""
        return self._shard_px >> level if level < self._finer else self._shard_px

    def _window(self, level: int, shard: Shard, by: tuple[int, int] = (0, 0)) -> tuple[slice, slice]:
        """Rows and columns of a shard, of one that lies `by` px further on."""
        (height, width), side = self._levels[level].shape[1:], self._side(level)
        y, x = (n * side + offset for n, offset in zip(shard, by, strict=True))
        return slice(y, min(y + side, height)), slice(x, min(x + side, width))

    def _write(self, level: int, shard: Shard, pixels: Pixels, source: NDArray[np.uint8]) -> None:
        """A shard of image and provenance. Raises OSError."""
        rows, columns = self._window(level, shard)
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return
        y, x = (f"{n}" for n in shard)
        chunk_px = min(self._chunk_px, self._side(level))
        write_shard(self.path / f"{level}" / "c" / "0" / y / x, pixels, chunk_px)
        write_shard(self.path / LABEL / f"{level}" / "c" / y / x, source, chunk_px)

    def _get(
        self, level: int, shard: Shard, by: tuple[int, int] = (0, 0)
    ) -> tuple[Pixels, NDArray[np.uint8]]:
        side = self._shard_px
        image, label = np.zeros((side, side, self._channels), self._dtype), np.zeros((side, side), np.uint8)
        rows, columns = self._window(level, shard, by)
        h, w = rows.stop - rows.start, columns.stop - columns.start
        if h > 0 and w > 0:
            image[:h, :w] = np.moveaxis(np.asarray(self._levels[level][:, rows, columns]), 0, 2)
            label[:h, :w] = self._labels[level][rows, columns]
        return image, label

    # --- trimming ---

    def _copy(self, trimmed: MosaicStore, corner: tuple[int, int]) -> None:
        """What lies at `corner` (y, x) px and beyond becomes the pixels of `trimmed` from its first one on."""
        side = self._shard_px
        windows = {
            ((y * side - corner[0]) // side + dy, (x * side - corner[1]) // side + dx)
            for y, x in self.revisions
            for dy in (0, 1)
            for dx in (0, 1)
        }

        def copied(shard: Shard) -> None:
            rows, columns = (
                slice(c + n * side, c + (n + 1) * side) for c, n in zip(corner, shard, strict=True)
            )
            source = np.asarray(self._labels[0][rows, columns])
            if source.any():
                pixels = np.moveaxis(np.asarray(self._levels[0][:, rows, columns]), 0, 2)
                patches[shard] = trimmed.write_finer(shard, pixels, source)

        patches: dict[Shard, Patch] = {}
        self._on_all_cores(copied, sorted(window for window in windows if min(window) >= 0))
        for shard, patch in sorted(patches.items(), key=lambda each: each[0]):
            trimmed.merge(shard, patch)

    def _hand_over(self, trimmed: MosaicStore, first: Shard) -> None:
        """The shards of level 0 from `first` on, and of each level that they do not cut, become those of `trimmed`; the coarser ones are copied."""
        used = [(y - first[0], x - first[1]) for y, x in self.revisions]
        used = [shard for shard in used if min(shard) >= 0]
        coarse: list[tuple[int, Shard, tuple[int, int]]] = []
        for level in range(len(trimmed._levels)):
            by = (first[0] * self._shard_px >> level, first[1] * self._shard_px >> level)
            side = self._side(level)
            if by[0] % side == by[1] % side == 0:
                for array, leading in ((f"{level}", 1), (f"{LABEL}/{level}", 0)):
                    chunks = Path(array, "c", *["0"] * leading)
                    _renumber(self.path / chunks, trimmed.path / chunks, (by[0] // side, by[1] // side))
                    health.beat()
            else:
                coarse += (
                    (level, shard, by) for shard in sorted({(y >> level, x >> level) for y, x in used})
                )
        self._on_all_cores(lambda each: trimmed._write(*each[:2], *self._get(*each)), coarse)

    def _on_all_cores(self, work: Callable[[T], None], items: Iterable[T]) -> None:
        for _ in self._pool.map(work, items):
            health.beat()

    # --- metadata ---

    def _create(
        self, shape: tuple[int, int], origin_um: NDArray[np.float64], levels: int, state: str
    ) -> None:
        """The arrays, empty, and what they say of themselves, in one go: array by array, zarr-python takes ten times as long."""
        nodes: dict[str, Any] = self._about.groups(origin_um, levels, state)
        for level in range(levels):
            size, side = _at_level(shape, level), self._side(level)
            c, chunk = self._channels, min(self._chunk_px, side)
            nodes[f"{level}"] = array_metadata((c, *size), (c, side, side), (c, chunk, chunk), self._dtype)
            nodes[f"{LABEL}/{level}"] = array_metadata(size, (side, side), (chunk, chunk), np.dtype(np.uint8))
        # zarr-python takes a file in its place for a folder
        self.path.mkdir(exist_ok=True)
        made: dict[str, Any] = dict(
            zarr.create_hierarchy(store=LocalStore(self.path), nodes=nodes, overwrite=True)
        )
        self._levels = [made[f"{level}"] for level in range(levels)]
        self._labels = [made[f"{LABEL}/{level}"] for level in range(levels)]
        for level in range(levels):
            for chunks in (Path(f"{level}", "c", "0"), Path(LABEL, f"{level}", "c")):
                (self.path / chunks).mkdir(parents=True)

    def _moved_here(self, arrays: list[Any]) -> list[Any]:
        """Arrays that another store made, in a folder that took this one's place."""
        store = LocalStore(self.path)
        return [zarr.Array(zarr.AsyncArray(a.metadata, StorePath(store, a.path))) for a in arrays]


def _halved(pixels: Pixels, source: NDArray[np.uint8]) -> Patch:
    """Means of 2 x 2 pixels of (h, w, c), and the upper left ones of the provenance (h, w); sides even."""
    height, width = (n // 2 for n in source.shape)
    if min(height, width) == 0:
        return pixels[:1, :1], source[:1, :1]
    # in strips: for larger images, OpenCV would have threads of its own beside ours
    rows = max(2, _STRIP_PX // width)
    half = np.empty((height, width, pixels.shape[2]), pixels.dtype)
    for y in range(0, height, rows):
        size = (width, min(rows, height - y))
        cv2.resize(pixels[2 * y : 2 * (y + rows)], size, half[y : y + rows], interpolation=cv2.INTER_AREA)
    return half, np.asarray(cv2.resize(source, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)


def _at_level(shape: tuple[int, int], level: int) -> tuple[int, int]:
    return max(-(-shape[0] // 2**level), 1), max(-(-shape[1] // 2**level), 1)


def _levels_for(shape: tuple[int, int]) -> int:
    levels = 1
    while max(_at_level(shape, levels - 1)) > _SMALL_PX and levels < LEVELS:
        levels += 1
    return levels


def _sweep(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except OSError as err:
        log.warning("%s is left over and cannot be deleted (%s): delete it", folder, err.strerror or err)


def _renumber(chunks: Path, others: Path, by: tuple[int, int]) -> None:
    """Shards <y>/<x> become <y - by>/<x - by> below `others`; those that would be negative are empty.

    By a second name for the same file, so that whoever reads the mosaic meanwhile finds it whole; where the disk knows no such names, by its new one alone.
    """
    if not chunks.is_dir():
        return
    for row in chunks.iterdir():
        y, shards = int(row.name) - by[0], list(row.iterdir())
        if y < 0 or not shards:
            continue
        others_row = others / f"{y}"
        others_row.mkdir(parents=True, exist_ok=True)
        for shard in shards:
            x = int(shard.name) - by[1]
            if x < 0:
                continue
            new = others_row / f"{x}"
            try:
                new.hardlink_to(shard)
            except OSError:
                shard.rename(new)


def _cannot_write(path: Path, err: OSError) -> OutputError:
    return OutputError(
        f"the mosaic {path} cannot be written ({err.strerror or err}): make room or give the folder back; "
        "the raw tiles are safe and the mosaic can be painted again"
    )
