"""The mosaic of one slide as a function of its raw tiles, its journal and its model.

Live scanning, resuming and repainting all paint through this one class, so they cannot differ.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from deblurd.frames import DeblurredTile, Encoding, Pixels, Place
from deblurd.geometry import PixelToStage
from deblurd.mosaic.writer import MosaicSummary, MosaicWriter
from deblurd.record.raw import RawStore
from deblurd.settings import MosaicSettings

_NO_PIXELS: Pixels = np.empty(0, np.uint8)


@dataclass(frozen=True, slots=True)
class Camera:
    """What the pixels of a slide are: (H, W) or (H, W, 3) `shape`, dtype, how values follow light, where they lie."""

    shape: tuple[int, ...]
    dtype: str
    encoding: Encoding
    affine: PixelToStage
    exposure_ms: float
    name: str = ""

    def to_json(self) -> str:
        return json.dumps(
            {
                "shape": list(self.shape),
                "dtype": self.dtype,
                "encoding": self.encoding,
                "affine_um": self.affine.matrix.tolist(),
                "exposure_ms": self.exposure_ms,
                "name": self.name,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Camera:
        c = json.loads(text)
        return cls(
            tuple(c["shape"]),
            c["dtype"],
            c["encoding"],
            PixelToStage(np.array(c["affine_um"], dtype=np.float64)),
            c["exposure_ms"],
            c["name"],
        )


class Painter:
    """Takes deblurred tiles and places as they come, keeps the mosaic up to date, finishes it.

    mosaic: path of the OME-Zarr. scratch: a folder that holds the pixels of deblurred tiles until the end; those of tiles
    whose raw pixels stand come from `read_raw`. model: name of source 2. Everything from one thread.
    """

    def __init__(
        self,
        mosaic: Path,
        scratch: Path,
        camera: Camera,
        read_raw: Callable[[int], Pixels],
        settings: MosaicSettings,
        model: str,
    ) -> None:
        self._read_raw, self._scratch_folder = read_raw, scratch
        self._scratch = RawStore.create(scratch, camera.shape, camera.dtype)
        self._results: dict[int, DeblurredTile] = {}
        self._places: dict[int, Place] = {}
        self._writer = MosaicWriter(
            mosaic,
            name=mosaic.parent.name,
            affine=camera.affine,
            tile_shape=camera.shape,
            dtype=np.dtype(camera.dtype),
            encoding=camera.encoding,
            sources=["raw", model],
            fetch=self._fetch,
            chunk_px=settings.chunk_px,
            shard_px=settings.shard_px,
            refresh_s=settings.refresh_s,
        )

    @property
    def painted(self) -> int:
        """Tiles that have both their pixels and their place."""
        return len(self._results.keys() & self._places.keys())

    def add(self, result: DeblurredTile) -> None:
        if result.gate == "deblur":
            self._scratch.write(result.index, result.pixels)
        self._results[result.index] = replace(result, pixels=_NO_PIXELS)
        if result.index in self._places:
            self._writer.place(result.index, self._places[result.index])

    def move(self, places: Mapping[int, Place]) -> None:
        """New or better places; a tile shows in the mosaic when it has both its place and its pixels."""
        if not self._places and places:
            # by what is known first of the first tile, so that a slide worked through again gets the same grid
            self._writer.begin(places[min(places)])
        self._places.update(places)
        for index, place in places.items():
            if index in self._results:
                self._writer.place(index, place)

    def set_gain(self, gain: Pixels | None) -> None:
        """(h, w) float32 correction of the illumination, of any size; it is stretched over the tile."""
        self._writer.set_gain(gain)

    def render_due(self, now_s: float) -> int:
        """Paints some of what is due; returns how many shards."""
        return self._writer.render_due(now_s)

    def finish(self, rows: Sequence[Mapping[str, Any]]) -> MosaicSummary:
        """Paints what is left and closes the mosaic. rows: the journal's, for the table of tiles."""
        summary = self._writer.finish(rows)
        self._scratch.close()
        shutil.rmtree(self._scratch_folder, ignore_errors=True)
        return summary

    def _fetch(self, index: int) -> DeblurredTile:
        result = self._results[index]
        pixels = self._scratch.read(index) if result.gate == "deblur" else self._read_raw(index)
        return replace(result, pixels=pixels)
