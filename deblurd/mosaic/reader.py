"""A mosaic that was written: where it lies on the slide, and its pixels, read in parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from deblurd.errors import DataError, NoInputError
from deblurd.frames import Pixels
from deblurd.mosaic.metadata import LABEL


class MosaicReader:
    """The OME-Zarr at `path`, open for reading; nothing is held in memory.

    state: "growing" or "final". pixel_size_um: of level 0. origin_um: stage position of the middle of its first
    pixel, (y, x). shapes: of each level, (c, h, w). channels: their names. sources: by number in the provenance, "none" at 0.
    shard_px: side of a shard of level 0.
    Raises NoInputError where there is no mosaic, DataError where it is not one that deblurd wrote.
    """

    def __init__(self, path: Path) -> None:
        metadata = path / "zarr.json"
        try:
            attributes = json.loads(metadata.read_text(encoding="utf-8"))["attributes"]
            ome, self.state = attributes["ome"], str(attributes["deblurd"]["state"])
            datasets = ome["multiscales"][0]["datasets"]
            scale, shift = datasets[0]["coordinateTransformations"]
            self.pixel_size_um = float(scale["scale"][-1])
            self.origin_um: NDArray[np.float64] = np.array(shift["translation"][-2:], dtype=np.float64)
            self.name = str(ome["multiscales"][0]["name"])
            self.channels = [str(channel["label"]) for channel in ome["omero"]["channels"]]
            group = zarr.open_group(str(path), mode="r")
            self._levels: list[Any] = [group[dataset["path"]] for dataset in datasets]
            self._labels: list[Any] = [group[f"{LABEL}/{dataset['path']}"] for dataset in datasets]
            label: Any = group[LABEL].attrs["ome"]
            self.sources = [str(each["source"]) for each in label["image-label"]["properties"]]
        except FileNotFoundError as err:
            raise NoInputError(
                f"{path} is not there: the slide has no mosaic yet, resume or repaint it"
            ) from err
        except (OSError, KeyError, IndexError, TypeError, ValueError) as err:
            raise DataError(
                f"{path} is not a whole mosaic ({type(err).__name__}: {err}): repaint the slide"
            ) from err
        self.shapes: list[tuple[int, int, int]] = [level.shape for level in self._levels]
        self.dtype: np.dtype[Any] = self._levels[0].dtype
        self.shard_px = int((self._levels[0].shards or self._levels[0].chunks)[-1])

    def read(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        """(height, width, c) of a level from pixel (y, x) on; what lies beyond the mosaic is 0. Raises DataError."""
        found = self._get(self._levels[level], level, y, x, height, width)
        pixels = np.zeros((height, width, len(found)), self.dtype)
        pixels[: found.shape[1], : found.shape[2]] = np.moveaxis(found, 0, 2)
        return pixels

    def read_source(self, level: int, y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        """The same of the provenance, (height, width). Raises DataError."""
        found = self._get(self._labels[level], level, y, x, height, width)
        source = np.zeros((height, width), np.uint8)
        source[: found.shape[0], : found.shape[1]] = found
        return source

    def _get(self, array: Any, level: int, y: int, x: int, height: int, width: int) -> NDArray[Any]:
        try:
            return np.asarray(array[..., y : y + height, x : x + width])
        except (OSError, ValueError, RuntimeError) as err:
            raise DataError(
                f"the mosaic is damaged at level {level}, row {y}, column {x} ({err}): repaint the slide"
            ) from err
