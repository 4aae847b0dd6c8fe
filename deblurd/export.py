"""``deblurd export``: a finished mosaic as one file that other programs open."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tifffile

from deblurd import __version__
from deblurd.errors import DataError, OutputError, UsageError
from deblurd.mosaic.reader import MosaicReader
from deblurd.slides.folder import SlideFolder

TILE_PX = 512
DEFLATE_LEVEL = 3
"""Of 9: a camera's noise hardly gets smaller with more."""

BUFFER_BYTES = 32 * 2**20
"""Tiles that wait to be compressed."""


def export_ome_tiff(
    slide: Path,
    output: Path | None = None,
    *,
    on_progress: Callable[[int, int], None] = lambda done, tiles: None,
) -> Path:
    """The mosaic of the slide folder `slide` as a tiled OME-TIFF with its pyramid in SubIFDs; returns its path.

    output: ``mosaic.ome.tif`` in the slide folder if None; never overwritten. Every pixel is kept (deflate). Tiles are read
    as they are written: memory does not grow with the mosaic. PositionX and PositionY are
    the stage position of the middle of the first pixel, as in the mosaic itself. on_progress: called with tiles written and all tiles.
    Raises NoInputError where there is no slide, DataError where it is unfinished or damaged, UsageError, OutputError.
    """
    folder = SlideFolder.open(slide)
    mosaic = MosaicReader(folder.mosaic)
    if mosaic.state != "final":
        raise DataError(
            f"{slide} is unfinished (its mosaic is {mosaic.state}): end its scan, or resume the slide, then export it"
        )
    path = folder.path / "mosaic.ome.tif" if output is None else output
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise UsageError(f"{path} does not end in .tif: name a file such as mosaic.ome.tif")
    if path.exists():
        raise OutputError(f"{path} is there already: give another name, or delete it first")
    part = path.with_name(path.name + ".part")
    try:
        _write(part, mosaic, on_progress)
        part.rename(path)
    except OSError as err:
        raise OutputError(
            f"{path} cannot be written ({err.strerror or err}): make room, or choose a folder that exists and is yours"
        ) from err
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
    return path


def _write(path: Path, mosaic: MosaicReader, on_progress: Callable[[int, int], None]) -> None:
    grids = [(-(-h // TILE_PX), -(-w // TILE_PX)) for _, h, w in mosaic.shapes]
    total, done = sum(rows * columns for rows, columns in grids), 0
    colour = len(mosaic.channels) == 3

    def tiles(level: int) -> Iterator[Any]:
        nonlocal done
        for row in range(grids[level][0]):
            for column in range(grids[level][1]):
                pixels = mosaic.read(level, row * TILE_PX, column * TILE_PX, TILE_PX, TILE_PX)
                done += 1
                on_progress(done, total)
                yield pixels if colour else pixels[..., 0]

    with tifffile.TiffWriter(path, bigtiff=True, ome=True) as tiff:
        for level, (channels, height, width) in enumerate(mosaic.shapes):
            per_cm = 1e4 / (mosaic.pixel_size_um * 2**level)
            tiff.write(
                tiles(level),
                shape=(height, width, channels) if colour else (height, width),
                dtype=mosaic.dtype,
                tile=(TILE_PX, TILE_PX),
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                software=f"deblurd {__version__}",
                maxworkers=min(os.cpu_count() or 1, 8),
                buffersize=BUFFER_BYTES,
                metadata=_ome(mosaic, colour) if level == 0 else None,
                subifds=len(mosaic.shapes) - 1 if level == 0 else None,
                subfiletype=0 if level == 0 else 1,
                photometric="rgb" if colour else "minisblack",
                compression="zlib",
                compressionargs={"level": DEFLATE_LEVEL},
                predictor=True,
            )


def _ome(mosaic: MosaicReader, colour: bool) -> dict[str, Any]:
    y_um, x_um = (float(v) for v in mosaic.origin_um)
    return {
        "axes": "YXS" if colour else "YX",
        "Name": mosaic.name,
        "Description": "For research use only.",
        "PhysicalSizeX": mosaic.pixel_size_um,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": mosaic.pixel_size_um,
        "PhysicalSizeYUnit": "µm",
        # OME counts a colour image as one channel of three samples
        "Channel": {"Name": [" ".join(mosaic.channels)]},
        "Plane": {
            "PositionX": [x_um],
            "PositionXUnit": ["µm"],
            "PositionY": [y_um],
            "PositionYUnit": ["µm"],
        },
    }
