"""OME-Zarr 0.5 on disk: levels, shards written whole, the provenance label, trimming at the end."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections import OrderedDict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from deblurd.errors import OutputError
from deblurd.frames import Pixels
from deblurd.mosaic.canvas import MIDDLE, Shard

LEVELS = 8
SIDE = 2 * MIDDLE
_SMALL_PX = 1024
_KEPT_SHARDS = 8
_COLOURS = ("FF0000", "00FF00", "0000FF")
LABEL = "labels/source"


class MosaicStore:
    """The arrays of one growing mosaic: image (c, y, x) and provenance (y, x), eight levels each.

    Level n + 1 is the mean of 2 x 2 pixels of level n (of the provenance: the upper left one). Shards of coarser levels gather in
    memory, at most eight at a time for each pyramid, and are written whole.
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
        self.path, self._name, self._channels, self._dtype = path, name, channels, dtype
        self._pixel_size_um, self._chunk_px, self._shard_px = pixel_size_um, chunk_px, shard_px
        self._sources = sources
        self._levels: list[Any] = []
        self._labels: list[Any] = []
        self._buffers: OrderedDict[tuple[int, Shard], tuple[Pixels, NDArray[np.uint8]]] = OrderedDict()
        self._changed: set[tuple[int, Shard]] = set()
        self.written = 0

    def create(self, origin_um: NDArray[np.float64]) -> None:
        """Makes the arrays, empty and valid. origin_um: stage position of the canvas's pixel (0, 0), (y, x).

        Raises OutputError where the folder cannot be written.
        """
        try:
            root = zarr.open_group(str(self.path), mode="w", zarr_format=3)
            self._arrays(root, (SIDE, SIDE), LEVELS)
            self._describe(root, origin_um, LEVELS, "growing")
        except OSError as err:
            raise _cannot_write(self.path, err) from err

    def write(self, shard: Shard, pixels: Pixels, source: NDArray[np.uint8]) -> None:
        """One shard of level 0: (shard_px, shard_px, c) pixels and (shard_px, shard_px) provenance; coarser levels follow.

        Raises OutputError; the shard can be written again.
        """
        corner = np.array(shard) * self._shard_px
        try:
            self._put(0, shard, pixels, source)
            for level in range(1, len(self._levels)):
                pixels, source = _halved(pixels), source[::2, ::2]
                self._merge(level, corner >> level, pixels, source)
        except OSError as err:
            raise _cannot_write(self.path, err) from err

    def flush(self) -> None:
        """Writes the coarser levels that are only in memory."""
        try:
            for level, shard in sorted(self._changed):
                self._put(level, shard, *self._buffers[level, shard])
            self._changed.clear()
        except OSError as err:
            raise _cannot_write(self.path, err) from err

    def finish(self, used_px: tuple[int, int, int, int], origin_um: NDArray[np.float64]) -> tuple[int, int]:
        """Trims the canvas to `used_px` (y0, x0, y1, x1) and closes it; origin_um as in `create`. Returns height, width.

        Where the mosaic begins at the canvas's middle, as it does when the scan began in a corner, shards are only renamed. Otherwise the
        pixels are copied to a new grid.
        """
        self.flush()
        y0, x0, y1, x1 = used_px
        try:
            if 0 <= y0 - MIDDLE < self._shard_px and 0 <= x0 - MIDDLE < self._shard_px:
                return self._rename((y1 - MIDDLE, x1 - MIDDLE), origin_um + MIDDLE * self._pixel_size_um)
            return self._copy(used_px, origin_um + np.array([y0, x0]) * self._pixel_size_um)
        except OSError as err:
            raise _cannot_write(self.path, err) from err

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
            old, content = self._buffers.popitem(last=False)
            if old in self._changed:
                self._put(*old, *content)
                self._changed.discard(old)

    def _window(self, level: int, shard: Shard) -> tuple[slice, slice]:
        height, width = self._levels[level].shape[1:]
        y, x = shard[0] * self._shard_px, shard[1] * self._shard_px
        return slice(y, min(y + self._shard_px, height)), slice(x, min(x + self._shard_px, width))

    def _put(self, level: int, shard: Shard, pixels: Pixels, source: NDArray[np.uint8]) -> None:
        rows, columns = self._window(level, shard)
        h, w = rows.stop - rows.start, columns.stop - columns.start
        if h <= 0 or w <= 0:
            return
        self._levels[level][:, rows, columns] = np.ascontiguousarray(np.moveaxis(pixels[:h, :w], 2, 0))
        self._labels[level][rows, columns] = source[:h, :w]
        self.written += 1

    def _get(self, level: int, shard: Shard) -> tuple[Pixels, NDArray[np.uint8]]:
        side = self._shard_px
        image, label = np.zeros((side, side, self._channels), self._dtype), np.zeros((side, side), np.uint8)
        rows, columns = self._window(level, shard)
        h, w = rows.stop - rows.start, columns.stop - columns.start
        if h > 0 and w > 0:
            image[:h, :w] = np.moveaxis(np.asarray(self._levels[level][:, rows, columns]), 0, 2)
            label[:h, :w] = self._labels[level][rows, columns]
        return image, label

    # --- trimming ---

    def _rename(self, shape: tuple[int, int], origin_um: NDArray[np.float64]) -> tuple[int, int]:
        levels = _levels_for(shape)
        root = zarr.open_group(str(self.path), mode="r+", zarr_format=3)
        self._describe(root, origin_um, levels, "trimming")
        for level in range(LEVELS):
            side = _at_level(shape, level)
            for array, leading in ((f"{level}", 1), (f"{LABEL}/{level}", 0)):
                folder = self.path / array
                if level >= levels:
                    shutil.rmtree(folder)
                    continue
                chunks = folder.joinpath("c", *["0"] * leading)
                _renumber(chunks, (MIDDLE >> level) // self._shard_px)
                _reshape(folder / "zarr.json", side)
        self._open(root, levels)
        self._describe(root, origin_um, levels, "final")
        return shape

    def _copy(self, used_px: tuple[int, int, int, int], origin_um: NDArray[np.float64]) -> tuple[int, int]:
        y0, x0, y1, x1 = used_px
        shape = (y1 - y0, x1 - x0)
        part = self.path.with_name(self.path.name + ".part")
        trimmed = MosaicStore(
            part,
            name=self._name,
            channels=self._channels,
            dtype=self._dtype,
            pixel_size_um=self._pixel_size_um,
            chunk_px=self._chunk_px,
            shard_px=self._shard_px,
            sources=self._sources,
        )
        levels = _levels_for(shape)
        root = zarr.open_group(str(part), mode="w", zarr_format=3)
        trimmed._arrays(root, shape, levels)
        side = self._shard_px
        for y in range(0, shape[0], side):
            for x in range(0, shape[1], side):
                rows, columns = slice(y0 + y, y0 + y + side), slice(x0 + x, x0 + x + side)
                source = np.asarray(self._labels[0][rows, columns])
                if source.any():
                    pixels = np.moveaxis(np.asarray(self._levels[0][:, rows, columns]), 0, 2)
                    trimmed.write((y // side, x // side), pixels, source)
        trimmed.flush()
        trimmed._describe(root, origin_um, levels, "final")
        shutil.rmtree(self.path)
        part.rename(self.path)
        self._open(zarr.open_group(str(self.path), mode="r+", zarr_format=3), levels)
        return shape

    # --- metadata ---

    def _arrays(self, root: zarr.Group, shape: tuple[int, int], levels: int) -> None:
        label = root.create_group(LABEL)
        c, side, chunk = self._channels, self._shard_px, self._chunk_px
        compressor = ZstdCodec(level=1, checksum=True)
        for level in range(levels):
            size = _at_level(shape, level)
            root.create_array(
                f"{level}", shape=(c, *size), dtype=self._dtype, chunks=(c, chunk, chunk), shards=(c, side, side),
                compressors=compressor, fill_value=0, dimension_names=["c", "y", "x"],
            )  # fmt: skip
            label.create_array(
                f"{level}", shape=size, dtype="uint8", chunks=(chunk, chunk), shards=(side, side),
                compressors=compressor, fill_value=0, dimension_names=["y", "x"],
            )  # fmt: skip
        self._open(root, levels)

    def _open(self, root: zarr.Group, levels: int) -> None:
        with zarr.config.set(_pipeline()):
            self._levels = [root[f"{level}"] for level in range(levels)]
            self._labels = [root[f"{LABEL}/{level}"] for level in range(levels)]

    def _describe(self, root: zarr.Group, origin_um: NDArray[np.float64], levels: int, state: str) -> None:
        top = float(np.iinfo(self._dtype).max)
        colours = _COLOURS if self._channels == 3 else ("FFFFFF",)
        names = ("red", "green", "blue") if self._channels == 3 else ("grey",)
        root.attrs.put(
            {
                "ome": {
                    "version": "0.5",
                    "multiscales": [self._multiscale("cyx", origin_um, levels)],
                    "omero": {
                        "channels": [
                            {
                                "label": label,
                                "color": colour,
                                "active": True,
                                "window": {"min": 0.0, "max": top, "start": 0.0, "end": top},
                            }
                            for label, colour in zip(names, colours, strict=True)
                        ],
                        "rdefs": {"model": "color"},
                    },
                },
                "deblurd": {"state": state, "research_use_only": True},
            }
        )
        root["labels"].attrs.put({"ome": {"version": "0.5", "labels": ["source"]}})
        shades = [[0, 0, 0, 0], [128, 128, 128, 255], [0, 160, 90, 255], [60, 90, 200, 255]]
        values = list(enumerate(["none", *self._sources]))
        root[LABEL].attrs.put(
            {
                "ome": {
                    "version": "0.5",
                    "multiscales": [self._multiscale("yx", origin_um, levels)],
                    "image-label": {
                        "colors": [{"label-value": i, "rgba": shades[min(i, 3)]} for i, _ in values],
                        "properties": [{"label-value": i, "source": source} for i, source in values],
                        "source": {"image": "../../"},
                    },
                }
            }
        )

    def _multiscale(self, axes: str, origin_um: NDArray[np.float64], levels: int) -> dict[str, Any]:
        lead_scale, lead_shift = ([1.0], [0.0]) if axes[0] == "c" else ([], [])
        datasets = []
        for level in range(levels):
            scale = self._pixel_size_um * 2**level
            # the middle of 2**n pixels lies (2**n - 1) / 2 pixels behind the middle of the first
            shift = origin_um + self._pixel_size_um * (2**level - 1) / 2
            datasets.append(
                {
                    "path": f"{level}",
                    "coordinateTransformations": [
                        {"type": "scale", "scale": [*lead_scale, scale, scale]},
                        {
                            "type": "translation",
                            "translation": [*lead_shift, float(shift[0]), float(shift[1])],
                        },
                    ],
                }
            )
        return {
            "name": self._name,
            "type": "mean" if axes[0] == "c" else "nearest",
            "axes": [
                {"name": "c", "type": "channel"}
                if axis == "c"
                else {"name": axis, "type": "space", "unit": "micrometer"}
                for axis in axes
            ],
            "datasets": datasets,
        }


def _pipeline() -> dict[str, str]:
    """The codec pipeline that writes shards nearly twice as fast, where it is installed."""
    found = importlib.util.find_spec("zarrs") is not None
    return {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"} if found else {}


def _halved(pixels: Pixels) -> Pixels:
    """Mean of 2 x 2 pixels of (h, w, c), sides even."""
    size = (pixels.shape[1] // 2, pixels.shape[0] // 2)
    if min(size) == 0:
        return pixels[:1, :1]
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)).reshape(size[1], size[0], -1)


def _at_level(shape: tuple[int, int], level: int) -> tuple[int, int]:
    return max(-(-shape[0] // 2**level), 1), max(-(-shape[1] // 2**level), 1)


def _levels_for(shape: tuple[int, int]) -> int:
    levels = 1
    while max(_at_level(shape, levels - 1)) > _SMALL_PX and levels < LEVELS:
        levels += 1
    return levels


def _renumber(chunks: Path, by: int) -> None:
    """Shards <y>/<x> become <y - by>/<x - by>; those that would be negative do not exist."""
    if not chunks.is_dir():
        return
    for row in sorted(chunks.iterdir(), key=lambda p: int(p.name)):
        for shard in sorted(row.iterdir(), key=lambda p: int(p.name)):
            shard.rename(row / f"{int(shard.name) - by}")
        row.rename(chunks / f"{int(row.name) - by}")


def _reshape(metadata: Path, size: tuple[int, int]) -> None:
    content = json.loads(metadata.read_text(encoding="utf-8"))
    content["shape"] = [*content["shape"][:-2], *size]
    part = metadata.with_name("zarr.json.part")
    part.write_text(json.dumps(content, indent=2), encoding="utf-8")
    part.replace(metadata)


def _cannot_write(path: Path, err: OSError) -> OutputError:
    return OutputError(
        f"the mosaic {path} cannot be written ({err.strerror or err}): make room or give the folder back; "
        "the raw tiles are safe and the mosaic can be painted again"
    )
