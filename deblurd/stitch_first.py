"""The other order: the raw fields are put together first, and the whole mosaic is deblurred after.

Each tile's box is cut out of the raw mosaic, with so much of its neighbours that the blur at its border is known too, and deblurred with the
tile's own motion. Where tiles of unlike motion overlap, their mean is blurred by neither: that is what this order costs.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from deblurd.deblur.deblurrer import Deblurrer
from deblurd.errors import DataError
from deblurd.frames import DeblurredTile, MotionVector, Pixels, Place, Tile
from deblurd.geometry import PixelToStage
from deblurd.mosaic.reader import MosaicReader
from deblurd.mosaic.render import nearest_turn
from deblurd.pipeline import make_deblurrer
from deblurd.record.journal import Journal
from deblurd.resume import model_of, recorded, replaced_mosaic, settings_of, without_version
from deblurd.slides.camera import Camera
from deblurd.slides.folder import SlideFolder, utc_now
from deblurd.slides.painter import Painter
from deblurd.slides.repaint import paint_raw

OnProgress = Callable[[int, int], None]

HALO_PX = 32
"""Beside the blur: what the network looks at around a pixel."""

_RAW_MOSAIC = "raw-mosaic.part"
"""Swept with the other leavings of a kill."""


def stitch_first(folder: SlideFolder, model: str, on_progress: OnProgress) -> dict[str, int]:
    """Makes the mosaic of a finished slide anew in this order; returns how many boxes went which way of the gate.

    The mosaic that is there is kept until the new one is finished, and comes back where that fails. The caller holds the lock of the output folder.
    Raises DataError where the slide is not done, ModelError, OutputError.
    """
    manifest = folder.read_manifest() if folder.manifest.is_file() else {}
    if manifest.get("state") != "done" or not folder.mosaic.is_dir():
        raise DataError(
            f"{folder.path} is not done, and its tiles have no places yet: run `deblurd slides resume` first"
        )
    settings = settings_of(folder, manifest, model, None)
    found = model_of(model, folder, manifest)
    camera, _, damaged = recorded(folder, True)
    content = without_version(manifest)
    with replaced_mosaic(folder, content, keep=True):
        raw_mosaic = paint_raw(folder, folder.path / _RAW_MOSAIC, without=damaged)
        boxes = Boxes(MosaicReader(raw_mosaic), camera)
        with make_deblurrer(found, boxes.camera, settings.deblur) as deblurrer:
            gates, summary = _deblur_boxes(folder, boxes, deblurrer, settings.mosaic, damaged, on_progress)
            made = {"model": deblurrer.model_id, "engine": deblurrer.engine_name}
        shutil.rmtree(raw_mosaic.parent)
    folder.write_manifest(
        content
        | made
        | {"state": "done", "order": "stitch-first", "gates": gates, "ended": utc_now(), "mosaic": summary}
        | {"config": manifest.get("config", {}) | settings.model_dump(mode="json", include={"deblur"})}
    )
    shutil.rmtree(folder.mosaic_before, ignore_errors=True)
    return gates


class Boxes:
    """Rectangles of a raw mosaic, one for each tile; in the mosaic's own orientation, on whole pixels.

    camera: the one that would have taken them.
    """

    def __init__(self, mosaic: MosaicReader, camera: Camera) -> None:
        self._mosaic, self._rotation = mosaic, camera.affine.rotation
        size = np.array(camera.shape[:2], np.float64)
        straight = np.abs(nearest_turn(self._rotation)) @ size
        # of a tile that is turned a little, what lies inside it whichever way
        inner = np.floor(2 * straight - np.abs(self._rotation) @ size + 1e-6).astype(int)
        self.height, self.width = int(inner[0]), int(inner[1])
        shape = (self.height, self.width, *camera.shape[2:])
        affine = PixelToStage.from_scale(mosaic.pixel_size_um)
        self.camera = replace(camera, shape=shape, affine=affine)

    def corner(self, place: Place) -> NDArray[np.int_]:
        """First row and column, in pixels of the mosaic, of the box of a tile at `place`."""
        centre = self._rotation @ place.yx_px - self._mosaic.origin_um / self._mosaic.pixel_size_um
        return np.rint(centre - (np.array([self.height, self.width]) - 1) / 2).astype(int)

    def place(self, corner: NDArray[np.int_]) -> Place:
        """Where the box at `corner` lies, as the place of a tile of `camera`."""
        middle = corner + (np.array([self.height, self.width]) - 1) / 2
        y, x = middle + self._mosaic.origin_um / self._mosaic.pixel_size_um
        return Place(float(y), float(x), 0.0)

    def motion(self, motion: MotionVector) -> MotionVector:
        """A motion in camera pixels, in pixels of the mosaic."""
        dy, dx = self._rotation @ (motion.dy, motion.dx)
        bend_dy, bend_dx = self._rotation @ (motion.bend_dy, motion.bend_dx)
        return replace(motion, dy=dy, dx=dx, bend_dy=bend_dy, bend_dx=bend_dx)

    def cut(self, corner: NDArray[np.int_], halo_px: int = 0) -> Pixels:
        """Pixels of the box at `corner` and of `halo_px` around it; where no tile is, those of the nearest place where one is."""
        y, x = (int(v) for v in corner - halo_px)
        height, width = self.height + 2 * halo_px, self.width + 2 * halo_px
        y0, x0 = max(y, 0), max(x, 0)
        window = (0, y0, x0, height - (y0 - y), width - (x0 - x))
        before = ((y0 - y, 0), (x0 - x, 0))
        pixels = np.pad(self._mosaic.read(*window), (*before, (0, 0)))
        empty = np.pad(self._mosaic.read_source(*window), before) == 0
        if empty.any() and not empty.all():
            nearest = distance_transform_edt(empty, return_distances=False, return_indices=True)
            pixels = pixels[tuple(nearest)]
        return np.ascontiguousarray(pixels if len(self.camera.shape) == 3 else pixels[..., 0])


def _deblur_boxes(
    folder: SlideFolder,
    boxes: Boxes,
    deblurrer: Deblurrer,
    settings: Any,
    damaged: list[int],
    on_progress: OnProgress,
) -> tuple[dict[str, int], dict[str, Any]]:
    journal = Journal(folder.journal)
    places = journal.places()
    tiles = [tile for tile in journal.tiles() if tile.index in places and tile.index not in damaged]
    corners = {tile.index: boxes.corner(places[tile.index]) for tile in tiles}
    painter = Painter(
        folder.mosaic,
        folder.scratch,
        boxes.camera,
        lambda index: boxes.cut(corners[index]),
        settings,
        ["raw", deblurrer.name],
    )
    painter.move({index: boxes.place(corner) for index, corner in corners.items()})
    gates: dict[str, int] = {}
    results: list[DeblurredTile] = []
    for count, tile in enumerate(tiles, 1):
        result = _deblur_box(tile, boxes, corners[tile.index], deblurrer)
        gates[result.gate] = gates.get(result.gate, 0) + 1
        painter.add(result)
        results.append(replace(result, pixels=np.empty(0, result.pixels.dtype)))
        on_progress(count, len(tiles))
    journal.set_deblurred(results, deblurrer.name)
    journal.event("repaint", f"stitched first, deblurred with {deblurrer.name} after")
    summary = painter.finish(journal.rows())
    journal.close()
    return gates, summary.to_dict()


def _deblur_box(tile: Tile, boxes: Boxes, corner: NDArray[np.int_], deblurrer: Deblurrer) -> DeblurredTile:
    motion = boxes.motion(tile.motion)
    halo_px = HALO_PX + (math.ceil(motion.length_px / 2) if motion.is_known else 0)
    pixels = boxes.cut(corner, halo_px)
    result = deblurrer.deblur([(replace(tile, motion=motion, shape=pixels.shape), pixels)])[0]
    inner = slice(halo_px, -halo_px)
    return replace(result, pixels=np.ascontiguousarray(result.pixels[inner, inner]))
