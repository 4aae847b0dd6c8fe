"""Painting a slide again from what its folder holds."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import numpy as np

from deblurd.frames import DeblurredTile
from deblurd.record.journal import Journal
from deblurd.record.raw import RawStore
from deblurd.settings import MosaicSettings
from deblurd.slides.camera import Camera
from deblurd.slides.folder import SlideFolder
from deblurd.slides.painter import Painter


def paint_raw(folder: SlideFolder, target: Path, without: Collection[int] = ()) -> Path:
    """The mosaic of the raw tiles, at the places where the slide's own mosaic has them.

    target: a folder that gets ``mosaic.ome.zarr``; the slide itself is left alone. without: tiles that are left out. Returns the mosaic's path.
    """
    journal = Journal(folder.journal)
    camera = Camera.from_json(journal.slide("camera"))
    mosaic = target / folder.mosaic.name
    tiles = {tile.index: tile for tile in journal.tiles()}
    read = camera.reader(RawStore.open(folder.raw), tiles)
    painter = Painter(mosaic, target / folder.scratch.name, camera, read, MosaicSettings(), ["raw"])
    if gain := journal.slide("gain", ""):
        painter.set_gain(np.array(json.loads(gain), dtype=np.float32))
    painter.set_lights(
        {int(tile): light for tile, light in json.loads(journal.slide("lights", "{}")).items()}
    )
    painter.move(journal.places())
    # frames that were only recorded to be fused with others were never shown by themselves
    shown = {row["tile"] for row in journal.rows() if row["gate"] is not None}
    for tile in tiles.values():
        if tile.index in without or (shown and tile.index not in shown):
            continue
        painter.add(DeblurredTile(tile.index, read(tile.index), 1, "sharp", 0.0))
    painter.finish(journal.rows())
    journal.close()
    return mosaic
