"""Painting a slide again from what its folder holds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from deblurd.frames import DeblurredTile
from deblurd.record.journal import Journal
from deblurd.record.raw import RawStore
from deblurd.settings import MosaicSettings
from deblurd.slides.folder import SlideFolder
from deblurd.slides.painter import Camera, Painter


def paint_raw(folder: SlideFolder, target: Path) -> Path:
    """The mosaic of the raw tiles, at the places where the slide's own mosaic has them.

    target: a folder that gets ``mosaic.ome.zarr``; the slide itself is left alone. Returns the mosaic's path.
    """
    journal, raw = Journal(folder.journal), RawStore.open(folder.raw)
    camera = Camera.from_json(journal.slide("camera"))
    mosaic = target / folder.mosaic.name
    painter = Painter(mosaic, target / folder.scratch.name, camera, raw.read, MosaicSettings(), "raw")
    if gain := journal.slide("gain", ""):
        painter.set_gain(np.array(json.loads(gain), dtype=np.float32))
    painter.move(journal.places())
    for tile in journal.tiles():
        painter.add(DeblurredTile(tile.index, raw.read(tile.index), 1, "sharp", 0.0))
    painter.finish(journal.rows())
    journal.close()
    return mosaic
