"""``deblurd stitch``: the mosaic of image files whose stage positions are known, by the code of a live scan."""

from __future__ import annotations

import csv
import io
import math
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deblurd.deblur.deblurrer import Deblurrer
from deblurd.deblur.model import find_model
from deblurd.errors import DataError, OutputError, UsageError
from deblurd.frames import Encoding
from deblurd.geometry import PixelToStage
from deblurd.host.disk import DiskGuard
from deblurd.host.lock import output_lock
from deblurd.mosaic.canvas import MIDDLE
from deblurd.mosaic.reader import MosaicReader
from deblurd.pipeline import Finished, SlidePipeline, finish_in_sight, make_deblurrer
from deblurd.settings import (
    DeblurSettings,
    MicroscopeSettings,
    MosaicSettings,
    ScanSettings,
    Settings,
    SlideSettings,
)
from deblurd.slides.camera import Camera
from deblurd.slides.folder import SlideFolder, utc_now
from deblurd.slides.states import Story
from deblurd.tileset import TileSet, name_some, read_tileset

POSITIONS = "positions.csv"
DEFAULT_OVERLAP = 0.2
_LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class Stitched:
    """What became of a folder of tiles. notes: sentences for people, of what was not as it should be."""

    finished: Finished
    positions: Path
    notes: tuple[str, ...]


def stitch_folder(
    folder: Path,
    output: Path,
    *,
    pixel_size_um: float | None = None,
    model: str = "raw",
    overlap: float | None = None,
    encoding: Encoding | None = None,
    on_progress: Callable[[int, int], None] = lambda painted, tiles: None,
    stop: threading.Event | None = None,
) -> Stitched:
    """A new slide folder below `output` from the images and ``tiles.csv`` in `folder`, with ``positions.csv`` beside its mosaic.

    pixel_size_um: what TIFFs say of themselves if None. overlap: share of a tile; by the positions if None. encoding: 8 bit is
    taken for sRGB and 16 bit for linear if None. on_progress: called with tiles painted and all tiles, now and then, from this
    thread. stop: ends it early, with a finished mosaic of the tiles so far.
    Raises UsageError, NoInputError, DataError and ModelError before anything is written; OutputError, LockedError.
    """
    if pixel_size_um is not None and not 0 < pixel_size_um <= 1000:
        raise UsageError(f"the pixel size is {pixel_size_um:g} um, but must be positive and at most 1000")
    if overlap is not None and not 0.02 <= overlap <= 0.9:
        raise UsageError(
            f"the overlap is {overlap:g}, but must lie between 0.02 and 0.9, as a share of a tile"
        )
    found = find_model(model)
    tiles = read_tileset(folder)
    camera = _camera(tiles, pixel_size_um, encoding)
    settings = _settings(tiles, camera, output, model, overlap)
    with output_lock(output):
        DiskGuard(output).check()
        deblurrer = make_deblurrer(found, camera, settings.deblur)
        try:
            slide = SlideFolder.create(output, settings.slide.name)
            return _run(tiles, slide, camera, deblurrer, settings, on_progress, stop or threading.Event())
        finally:
            deblurrer.close()


def _run(
    tiles: TileSet,
    slide: SlideFolder,
    camera: Camera,
    deblurrer: Deblurrer,
    settings: Settings,
    on_progress: Callable[[int, int], None],
    stop: threading.Event,
) -> Stitched:
    manifest: dict[str, Any] = {
        "slide_id": settings.slide.name,
        "research_use_only": True,
        "begun": utc_now(),
        "stitched_from": str(tiles.folder.absolute()),
        "config": settings.model_dump(mode="json", include={"scan", "deblur", "mosaic", "slide"}),
        "model": deblurrer.model_id,
        "engine": deblurrer.engine_name,
        "frames": len(tiles.rows),
    }
    pipeline = SlidePipeline(slide, camera, deblurrer, settings)
    story = Story(pipeline.event)
    story.to("scanning", f"stitching {len(tiles.rows)} files")
    slide.write_manifest(manifest | {"state": "growing"})
    failure: Exception | None = None
    try:
        for frame, tile in tiles.frames(camera.affine):
            pipeline.intake(frame, tile)
            on_progress(pipeline.progress.painted, len(tiles.rows))
            if stop.is_set():
                break
    except (DataError, OutputError) as err:
        # what was recorded so far is finished, as in a scan
        failure = err
    reason = "stopped" if stop.is_set() else "all tiles read" if failure is None else "not all tiles read"
    story.to("closing", reason)
    finished = finish_in_sight(pipeline, lambda painted: on_progress(painted, len(tiles.rows)))
    finished = replace(finished, failure=finished.failure or failure)
    notes = (*tiles.notes, *_shortfalls(tiles, finished))
    content = manifest | finished.to_manifest(reason) | {"notes": notes}
    slide.write_manifest(content)
    story.end(slide, content["state"], finished.verdict)
    if finished.failure is not None:
        raise finished.failure
    return Stitched(finished, _write_positions(tiles, finished, camera), notes)


# --- what a scan would know from its microscope ---


def _camera(tiles: TileSet, pixel_size_um: float | None, encoding: Encoding | None) -> Camera:
    pixel_um = pixel_size_um or tiles.pixel_size_um()
    if pixel_um is None:
        raise UsageError(
            "the images do not say how large a pixel is: give --pixel-size-um, micrometres on the slide per camera pixel"
        )
    if tiles.extent_px(pixel_um) > MIDDLE // 2:
        raise DataError(
            f"tiles lie {tiles.extent_px(pixel_um):.0f} px from the first one, but a mosaic reaches "
            f"{MIDDLE // 2}: check x_um, y_um and the pixel size of {pixel_um:g} um, or stitch in parts"
        )
    usual: Encoding = "srgb" if tiles.dtype.itemsize == 1 else "linear"
    affine = PixelToStage.from_scale(pixel_um)
    return Camera(tiles.shape, tiles.dtype.name, encoding or usual, affine, tiles.exposure_ms)


def _settings(tiles: TileSet, camera: Camera, output: Path, model: str, overlap: float | None) -> Settings:
    expected = overlap or tiles.overlap(camera.affine.pixel_size_um) or DEFAULT_OVERLAP
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", tiles.folder.resolve().name)[:64]
    return Settings(
        # there is none, and nothing asks for one
        microscope=MicroscopeSettings(backend="simulator"),
        scan=ScanSettings(overlap=min(max(expected, 0.02), 0.9)),
        deblur=DeblurSettings(model=model),
        mosaic=MosaicSettings(output=output),
        slide=SlideSettings(name=name or "slide"),
    )


# --- what comes of it ---


def _shortfalls(tiles: TileSet, finished: Finished) -> list[str]:
    notes = []
    if finished.acknowledged < len(tiles.rows):
        notes.append(f"stopped after {finished.acknowledged} of {len(tiles.rows)} tiles")
    weak = [tiles.rows[index].file for index in finished.weak_tiles]
    if weak and len(finished.places) > 1:
        who = f"all {len(weak)} tiles" if len(weak) == len(finished.places) else name_some(weak)
        notes.append(
            f"placed by the stage alone, as nothing in them matched a neighbour: {who}; if they show tissue, check "
            "the pixel size, the overlap, and that x_um runs to the right and y_um down"
        )
    return notes


def _write_positions(tiles: TileSet, finished: Finished, camera: Camera) -> Path:
    """Centres of the tiles in pixels of the mosaic's level 0, counted from the middle of its first pixel."""
    path = finished.folder.path / POSITIONS
    origin_px = MosaicReader(finished.folder.mosaic).origin_um / camera.affine.pixel_size_um
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(("file", "y_px", "x_px", "sigma_px"))
    for index, place in sorted(finished.places.items()):
        y, x = camera.affine.rotation @ place.yx_px - origin_px
        sigma = f"{place.sigma_px:.4f}" if math.isfinite(place.sigma_px) else ""
        table.writerow((tiles.rows[index].file, f"{y:.4f}", f"{x:.4f}", sigma))
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text.getvalue(), encoding="utf-8", newline="")
        part.replace(path)
    except OSError as err:
        raise OutputError(
            f"{path} cannot be written ({err.strerror}): make room; the mosaic beside it is finished"
        ) from err
    return path
