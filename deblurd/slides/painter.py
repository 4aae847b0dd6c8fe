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

from deblurd.frames import DeblurredTile, Encoding, Pixels, Place, Tile
from deblurd.geometry import PixelToStage
from deblurd.mosaic.store import MosaicStore
from deblurd.mosaic.writer import MosaicSummary, MosaicWriter
from deblurd.record.raw import RawStore
from deblurd.rolling import is_within, speed_within, straightened
from deblurd.settings import MosaicSettings
from deblurd.track.motion import UNKNOWN

_NO_PIXELS: Pixels = np.empty(0, np.uint8)


@dataclass(frozen=True, slots=True)
class Camera:
    """What the pixels of a slide are: (H, W) or (H, W, 3) `shape`, dtype, how values follow light, where they lie. full_scale_e, read_e: electrons
    at full scale and the read noise, electrons, as they were measured when the slide began; None, 0 where they were not. rolling_ms: from the exposure of the
    first row of a frame to that of the last, 0 where all are exposed at once; margin_px: what `straight` cuts off on each side of it for that.
    """

    shape: tuple[int, ...]
    dtype: str
    encoding: Encoding
    affine: PixelToStage
    exposure_ms: float
    name: str = ""
    full_scale_e: float | None = None
    read_e: float = 0.0
    rolling_ms: float = 0.0
    margin_px: int = 0

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """Of a frame as the camera gives it, and as it is recorded."""
        height, width = (side + 2 * self.margin_px for side in self.shape[:2])
        return (height, width, *self.shape[2:])

    def rolling(self, rolling_ms: float, margin_px: int) -> Camera:
        """The same camera with another shutter; margin_px: 0 where no frames in motion are to be straightened."""
        height, width, *colours = self.raw_shape
        shape = (height - 2 * margin_px, width - 2 * margin_px, *colours)
        return replace(self, shape=shape, rolling_ms=rolling_ms if margin_px else 0.0, margin_px=margin_px)

    @property
    def most_um_s(self) -> float:
        """The fastest that the stage may move for `straight`; inf where nothing has to be straightened."""
        return 1000 * self.affine.pixel_size_um * speed_within(self.margin_px, self.rolling_ms)

    def straight(self, pixels: Pixels, tile: Tile) -> Pixels:
        """The frame of a tile, of `raw_shape`, as it had looked if all rows had been exposed with the middle one: of `shape`."""
        if self.rolling_ms == 0:
            return pixels
        return straightened(pixels, tile.motion, self._share(tile), self.margin_px)

    def believed(self, tile: Tile) -> Tile:
        """The tile, with unknown motion where it moved too fast for `straight`: such a frame is taken again, or lies under all others."""
        if self.rolling_ms == 0 or is_within(self.raw_shape, self.margin_px, tile.motion, self._share(tile)):
            return tile
        return replace(tile, motion=UNKNOWN)

    def _share(self, tile: Tile) -> float:
        """As of `row_offsets`; 0 where nobody said how long the tile was exposed: it counts as sharp."""
        return self.rolling_ms / tile.exposure_ms if tile.exposure_ms > 0 else 0.0

    def reader(self, raw: RawStore, tiles: Mapping[int, Tile]) -> Callable[[int], Pixels]:
        """Gives the tile of each index, `straight`, from where it was recorded: the one way to the pixels of a slide."""
        if self.rolling_ms == 0:
            return raw.read
        return lambda index: self.straight(raw.read(index), tiles[index])

    def to_json(self) -> str:
        return json.dumps(
            {
                "shape": list(self.shape),
                "dtype": self.dtype,
                "encoding": self.encoding,
                "affine_um": self.affine.matrix.tolist(),
                "exposure_ms": self.exposure_ms,
                "name": self.name,
                "full_scale_e": self.full_scale_e,
                "read_e": self.read_e,
                "rolling_ms": self.rolling_ms,
                "margin_px": self.margin_px,
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
            # slides from before there was such a measurement
            c.get("full_scale_e"),
            c.get("read_e", 0.0),
            # and from before rolling shutters were known
            c.get("rolling_ms", 0.0),
            c.get("margin_px", 0),
        )


class Painter:
    """Takes deblurred tiles and places as they come, keeps the mosaic up to date, finishes it.

    mosaic: path of the OME-Zarr. scratch: a folder that holds the pixels of deblurred tiles until the end; those of tiles
    whose raw pixels stand come from `read_raw`. sources: names of provenance ids 1, 2, ... Everything from one thread.
    """

    def __init__(
        self,
        mosaic: Path,
        scratch: Path,
        camera: Camera,
        read_raw: Callable[[int], Pixels],
        settings: MosaicSettings,
        sources: Sequence[str],
    ) -> None:
        self._read_raw, self._scratch_folder = read_raw, scratch
        self._scratch = RawStore.create(scratch, camera.shape, camera.dtype)
        # what was fused lies beside what was made of the same tile alone, which it was made with
        self._fused_scratch: tuple[RawStore, RawStore] | None = None
        self._results: dict[int, DeblurredTile] = {}
        self._fused: dict[int, DeblurredTile] = {}
        self._places: dict[int, Place] = {}
        self._writer = MosaicWriter(
            mosaic,
            name=mosaic.parent.name,
            affine=camera.affine,
            tile_shape=camera.shape,
            dtype=np.dtype(camera.dtype),
            encoding=camera.encoding,
            sources=sources,
            fetch=self._fetch,
            chunk_px=settings.chunk_px,
            shard_px=settings.shard_px,
            refresh_s=settings.refresh_s,
        )

    @property
    def painted(self) -> int:
        """Tiles that have both their pixels and their place."""
        return len(self._results.keys() & self._places.keys())

    @property
    def store(self) -> MosaicStore:
        """The mosaic that grows, for those who look on from other threads."""
        return self._writer.store

    def add(self, result: DeblurredTile) -> None:
        if result.gate == "deblur":
            self._scratch.write(result.index, result.pixels)
        is_better = result.index in self._results
        self._results[result.index] = replace(result, pixels=_NO_PIXELS)
        if result.index in self._places:
            self._writer.place(result.index, self._places[result.index])
        if is_better:
            self._writer.repaint(result.index)

    def add_fused(self, index: int, fused: DeblurredTile | None) -> None:
        """What all frames that see a tile say of it, with its `sources`, in place of what was made of it alone; None: that is the best after all."""
        if fused is not None and fused.sources is not None:
            pixels, sources = self._scratch_of_fused()
            pixels.write(index, fused.pixels)
            sources.write(index, fused.sources)
            self._fused[index] = replace(fused, pixels=_NO_PIXELS, sources=None)
        elif self._fused.pop(index, None) is None:
            return
        if index in self._results:
            self._writer.repaint(index)

    def alone(self, index: int) -> DeblurredTile | None:
        """What was made of a tile by itself, with its pixels; None before it was `add`ed. From any thread."""
        result = self._results.get(index)
        if result is None:
            return None
        pixels = self._scratch.read(index) if result.gate == "deblur" else self._read_raw(index)
        return replace(result, pixels=pixels)

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

    def set_lights(self, lights: Mapping[int, float]) -> None:
        """Factors that even the tiles' exposures out, by tile; 1 for all others."""
        self._writer.set_lights(lights)

    def render_due(self, now_s: float) -> int:
        """Paints some of what is due; returns how many shards."""
        return self._writer.render_due(now_s)

    def close(self) -> None:
        """Nothing is painted any more: gives memory back, however long somebody still looks at it."""
        self._writer.close()

    def abandon(self) -> None:
        """Has `finish` raise DeblurdError soon; the slide is to be resumed. From any thread."""
        self._writer.abandon()

    def finish(self, rows: Sequence[Mapping[str, Any]]) -> MosaicSummary:
        """Paints what is left and closes the mosaic. rows: the journal's, for the table of tiles."""
        summary = self._writer.finish(rows)
        self._scratch.close()
        shutil.rmtree(self._scratch_folder, ignore_errors=True)
        return summary

    def _fetch(self, index: int) -> DeblurredTile:
        fused = self._fused.get(index)
        if fused is not None:
            pixels, sources = self._scratch_of_fused()
            return replace(fused, pixels=pixels.read(index), sources=sources.read(index))
        alone = self.alone(index)
        assert alone is not None
        return alone

    def _scratch_of_fused(self) -> tuple[RawStore, RawStore]:
        """Pixels and sources; within the other scratch, so that they go with it."""
        if self._fused_scratch is None:
            shape = self._scratch.shape
            self._fused_scratch = (
                RawStore.create(self._scratch_folder / "fused", shape, self._scratch.dtype),
                RawStore.create(self._scratch_folder / "sources", shape[:2], np.uint8),
            )
        return self._fused_scratch
