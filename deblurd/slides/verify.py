"""Whether a slide is still what was recorded and painted. Nothing is written."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from deblurd.errors import DataError, NoInputError
from deblurd.mosaic.reader import MosaicReader
from deblurd.mosaic.table import table_file
from deblurd.record.journal import Journal
from deblurd.record.raw import RawStore
from deblurd.record.recorder import damaged_tiles
from deblurd.slides.camera import Camera
from deblurd.slides.folder import SlideFolder


def verify(
    folder: SlideFolder, on_progress: Callable[[int, int], None] = lambda read, parts: None
) -> tuple[int, int, list[str]]:
    """Reads every raw tile and every shard of the mosaic; returns how many of both, and what is wrong, a sentence each.

    Raises DataError where the journal is not whole, NoInputError where raw tiles or manifest are gone altogether.
    """
    manifest = folder.read_manifest()
    journal = Journal(folder.journal, read_only=True)
    try:
        rows, camera = journal.rows(), Camera.from_json(journal.slide("camera"))
        faults = [] if [row["tile"] for row in rows] == list(range(len(rows))) else ["the journal has gaps"]
        damaged = damaged_tiles(RawStore.open(folder.raw), journal, on_progress)
    finally:
        journal.close()
    left_out = manifest.get("damaged", [])
    for index in damaged:
        fate = "left out of the mosaic" if index in left_out else "in the mosaic, which stands"
        faults.append(f"the raw pixels of tile {index} are not what was recorded; the tile is {fate}")
    if manifest.get("state") != "done":
        return (
            len(rows),
            0,
            [*faults, f"the slide is {manifest.get('state')}: end it with `deblurd slides resume`"],
        )
    expected = [row for row in rows if row["tile"] not in left_out]
    if not expected:
        return len(rows), 0, faults
    try:
        mosaic = MosaicReader(folder.mosaic)
    except (NoInputError, DataError) as err:
        return len(rows), 0, [*faults, str(err)]
    faults += _count_faults(folder, mosaic, expected)
    shards = _shards(mosaic)
    centres = _centres(mosaic, camera, expected)
    for n, (level, y, x) in enumerate(shards):
        faults += _shard_faults(mosaic, level, y, x, centres)
        on_progress(n + 1, len(shards))
    return len(rows), len(shards), faults


def _count_faults(folder: SlideFolder, mosaic: MosaicReader, expected: list[dict[str, Any]]) -> Iterator[str]:
    if mosaic.state != "final":
        yield f"the mosaic is {mosaic.state}, not final: repaint the slide"
    try:
        with table_file(folder.mosaic).open(newline="", encoding="utf-8") as file:
            listed = {row["FieldIndex"] for row in csv.DictReader(file)}
    except (OSError, KeyError, ValueError) as err:
        yield f"the mosaic's table of tiles cannot be read ({err}): repaint the slide"
        return
    if listed != {f"tile_{row['tile']}" for row in expected}:
        yield (
            f"the mosaic has {len(listed)} tiles in its table and the journal {len(expected)} to paint: repaint the slide"
        )


def _shards(mosaic: MosaicReader) -> list[tuple[int, int, int]]:
    """(level, y, x) of every shard of the mosaic."""
    side = mosaic.shard_px
    return [
        (level, y, x)
        for level, (_, height, width) in enumerate(mosaic.shapes)
        for y in range(0, height, side)
        for x in range(0, width, side)
    ]


def _centres(mosaic: MosaicReader, camera: Camera, rows: list[dict[str, Any]]) -> dict[int, tuple[int, int]]:
    """The pixel of the mosaic under the middle of each tile, by tile; without those that have no place."""
    origin_px = mosaic.origin_um / camera.affine.pixel_size_um
    centres = {}
    for row in rows:
        if row["place_y_px"] is not None:
            centre = camera.affine.rotation @ np.array([row["place_y_px"], row["place_x_px"]]) - origin_px
            centres[int(row["tile"])] = (round(float(centre[0])), round(float(centre[1])))
    return centres


def _shard_faults(
    mosaic: MosaicReader, level: int, y: int, x: int, centres: Mapping[int, tuple[int, int]]
) -> Iterator[str]:
    side = mosaic.shard_px
    try:
        mosaic.read(level, y, x, side, side)
        source = mosaic.read_source(level, y, x, side, side)
    except DataError as err:
        yield str(err)
        return
    if source.max() >= len(mosaic.sources):
        yield f"the provenance at level {level}, row {y}, column {x} names unknown sources: repaint the slide"
    if level == 0:
        for tile, centre in centres.items():
            row, column = centre[0] - y, centre[1] - x
            if 0 <= row < side and 0 <= column < side and source[row, column] == 0:
                yield f"the mosaic has nothing where tile {tile} lies: repaint the slide"
