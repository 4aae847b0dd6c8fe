"""The mosaic of one slide as a function of its raw tiles, its journal and its model.

Live scanning, resuming and repainting all paint through this one class, so they cannot differ.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from deblurd.frames import DeblurredTile, Pixels, Place
from deblurd.mosaic.store import MosaicStore
from deblurd.mosaic.writer import MosaicSummary, MosaicWriter
from deblurd.record.raw import RawStore
from deblurd.settings import MosaicSettings
from deblurd.slides.camera import Camera

_NO_PIXELS: Pixels = np.empty(0, np.uint8)


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
