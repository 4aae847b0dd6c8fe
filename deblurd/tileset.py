"""A folder of image files and where the stage stood for each: ``tiles.csv``."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from scipy.spatial import cKDTree

from deblurd.errors import DataError, NoInputError
from deblurd.frames import Frame, MotionVector, Pixels, Pose, Tile
from deblurd.geometry import PixelToStage
from deblurd.imagefiles import read_image, tiff_pixel_um

TABLE = "tiles.csv"
NEEDED = ("file", "x_um", "y_um")
OPTIONAL = ("t_s", "exposure_ms", "vx_um_s", "vy_um_s")
SMALLEST_PX = 64
_NAMED = 5
"""So many files are named in a sentence; of more, the number is."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. x_um, y_um: stage position of the tile's centre; None where a cell is empty."""

    line: int
    file: str
    x_um: float
    y_um: float
    t_s: float | None
    exposure_ms: float | None
    vx_um_s: float | None
    vy_um_s: float | None


@dataclass(frozen=True, slots=True)
class TileSet:
    """Tiles in the order of the scan, all of one `shape`, (H, W) or (H, W, 3), and dtype. notes: sentences for people."""

    folder: Path
    rows: tuple[Row, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    notes: tuple[str, ...]

    @property
    def exposure_ms(self) -> float:
        """The usual one; 0 where nobody said."""
        said = [row.exposure_ms for row in self.rows if row.exposure_ms is not None]
        return float(np.median(said)) if said else 0.0

    def pixel_size_um(self) -> float | None:
        """What the first image says, if it is a TIFF that does."""
        path = self.folder / self.rows[0].file
        if path.suffix.lower() not in (".tif", ".tiff"):
            return None
        with tifffile.TiffFile(path) as tiff:
            return tiff_pixel_um(tiff)

    def overlap(self, pixel_size_um: float) -> float | None:
        """Share of a tile that neighbours have in common by their positions, the median; None where there is none."""
        if len(self.rows) < 2:
            return None
        steps = self._positions_um() / (np.array(self.shape[:2]) * pixel_size_um)
        nearest = np.asarray(cKDTree(steps).query(steps, k=2, p=np.inf)[0])
        overlap = 1.0 - float(np.median(nearest[:, 1]))
        return overlap if overlap > 0 else None

    def extent_px(self, pixel_size_um: float) -> float:
        """How far the farthest tile lies from the first, along an axis."""
        off = self._positions_um() - self._positions_um()[0]
        return float(np.abs(off).max()) / pixel_size_um

    def frames(self, affine: PixelToStage) -> Iterator[tuple[Frame, Tile]]:
        """Each tile with its pixels, read when it is its turn. Raises DataError."""
        for number, row in enumerate(self.rows):
            pixels = _opaque(read_image(self.folder / row.file))
            t_s = float(number) if row.t_s is None else row.t_s
            exposure_ms = row.exposure_ms or 0.0
            pose = Pose(t_s, row.y_um, row.x_um)
            tile = Tile(-1, 0, number, pose, motion_vector(row, affine), exposure_ms, pixels.shape, "")
            yield Frame(pixels, number, t_s, exposure_ms), tile

    def _positions_um(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.array([[row.y_um, row.x_um] for row in self.rows])


def motion_vector(row: Row, affine: PixelToStage) -> MotionVector:
    """How far the image travelled over the sensor: against the stage's velocity, for the exposure. Sharp where nobody said."""
    if row.vx_um_s is None or row.vy_um_s is None or row.exposure_ms is None:
        return MotionVector(0.0, 0.0)
    travel_um = np.array([row.vy_um_s, row.vx_um_s]) * row.exposure_ms / 1000
    dy, dx = affine.to_pixels(-travel_um)
    return MotionVector(float(dy), float(dx))


def read_tileset(folder: Path) -> TileSet:
    """What ``tiles.csv`` in `folder` says, after every image was read once: nothing is begun that cannot be ended.

    Raises NoInputError where folder, table or images are missing; DataError for a table or an image that is broken, and for
    images that are not alike.
    """
    rows = _in_order(folder / TABLE, read_table(folder))
    missing = [row.file for row in rows if not (folder / row.file).is_file()]
    if missing:
        raise NoInputError(
            f"{folder / TABLE} names {name_some(missing)}, not there in {folder}: add what is missing or delete the lines"
        )
    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="deblurd-images") as pool:
        kinds = list(pool.map(_kind, [folder / row.file for row in rows]))
    for row, (shape, dtype, _) in zip(rows, kinds, strict=True):
        if (shape, dtype) != kinds[0][:2]:
            raise DataError(
                f"{row.file} is {_words(shape, dtype)} and {rows[0].file} is {_words(*kinds[0][:2])}: "
                "tiles of one mosaic must be alike, stitch the others by themselves"
            )
    if min(kinds[0][0][:2]) < SMALLEST_PX:
        raise DataError(
            f"{rows[0].file} is {_words(*kinds[0][:2])}: it takes {SMALLEST_PX} px a side to match tiles"
        )
    notes = _notes(rows)
    if with_alpha := [row.file for row, (_, _, alpha) in zip(rows, kinds, strict=True) if alpha]:
        notes.append(f"the alpha channel of {name_some(with_alpha)} is left out")
    return TileSet(folder, tuple(rows), kinds[0][0], kinds[0][1], tuple(notes))


# --- the table ---


def read_table(folder: Path) -> list[Row]:
    """The lines of ``tiles.csv`` in `folder` as they stand. Raises NoInputError, DataError."""
    if not folder.is_dir():
        raise NoInputError(f"{folder} is not a folder: give the one that holds the images and {TABLE}")
    path = folder / TABLE
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
            if absent := [name for name in NEEDED if name not in reader.fieldnames]:
                raise DataError(
                    f"{path} has no column {' and no column '.join(absent)}: its first line must name "
                    f"{','.join(NEEDED)} and may name {','.join(OPTIONAL)}, separated by commas"
                )
            return [_row(path, reader.line_num, cells) for cells in reader]
    except FileNotFoundError as err:
        raise NoInputError(
            f"{path} is not there: write one with the columns {','.join(NEEDED)}, a line for each image"
        ) from err
    except OSError as err:
        raise NoInputError(f"{path} cannot be read ({err.strerror}): check the file") from err
    except (UnicodeDecodeError, csv.Error) as err:
        raise DataError(f"{path} is not a table in UTF-8 ({err}): save it as CSV, UTF-8") from err


def _row(path: Path, line: int, cells: Mapping[str, Any]) -> Row:
    numbers = [_number(path, line, name, cells.get(name)) for name in (*NEEDED[1:], *OPTIONAL)]
    file, (x_um, y_um, *rest) = (cells["file"] or "").strip(), numbers
    if not file or x_um is None or y_um is None:
        raise DataError(f"{path}, line {line}, is not whole: it needs {', '.join(NEEDED)}")
    return Row(line, file, x_um, y_um, *rest)


def _number(path: Path, line: int, name: str, cell: str | None) -> float | None:
    if not (text := (cell or "").strip()):
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or (name == "exposure_ms" and value < 0):
        raise DataError(f"{path}, line {line}: {name} is {text!r}, but must be a finite number, as in 1.5")
    return value


def _in_order(path: Path, rows: list[Row]) -> list[Row]:
    """Checked against one another, and by time where it is known."""
    if not rows:
        raise DataError(f"{path} has no tiles: write a line for each image below the first one")
    seen: dict[str, int] = {}
    for row in rows:
        if (first := seen.setdefault(row.file, row.line)) != row.line:
            raise DataError(f"{path} names {row.file} in lines {first} and {row.line}: delete one of them")
    if len(rows) > 1 and len({(row.y_um, row.x_um) for row in rows}) == 1:
        raise DataError(
            f"{path} has all {len(rows)} tiles at the same position, {rows[0].x_um:g}, {rows[0].y_um:g} um: "
            "fill in where the stage stood for each"
        )
    times = [row.t_s for row in rows if row.t_s is not None]
    if not times:
        return rows
    if len(times) < len(rows):
        line = next(row.line for row in rows if row.t_s is None)
        raise DataError(
            f"{path}, line {line}, has no t_s though others have: fill it in, or delete the column"
        )
    return sorted(rows, key=lambda row: row.t_s or 0.0)


def _notes(rows: Sequence[Row]) -> list[str]:
    at: dict[tuple[float, float], list[str]] = {}
    for row in rows:
        at.setdefault((row.y_um, row.x_um), []).append(row.file)
    notes = []
    if twice := [files for files in at.values() if len(files) > 1]:
        both = " and ".join(twice[0][:_NAMED])
        more = f" (and {len(twice) - 1} more such groups)" if len(twice) > 1 else ""
        notes.append(f"{both} have the same position{more}: all are used, each placed by what it shows")
    said = [(row.file, (row.vx_um_s, row.vy_um_s, row.exposure_ms)) for row in rows]
    half = [file for file, motion in said if motion[:2] != (None, None) and None in motion]
    if half:
        notes.append(
            f"{name_some(half)} count as sharp, because motion takes all of vx_um_s, vy_um_s and exposure_ms"
        )
    return notes


# --- the images ---


def _kind(path: Path) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    """Shape and dtype as the mosaic will have it, and whether there is an alpha channel."""
    pixels = read_image(path)
    return _opaque(pixels).shape, pixels.dtype, pixels.ndim == 3 and pixels.shape[2] == 4


def _opaque(pixels: Pixels) -> Pixels:
    """Without an alpha channel."""
    return pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., :3])


def _words(shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    return f"{shape[1]} x {shape[0]} px, {8 * dtype.itemsize} bit, {'RGB' if len(shape) == 3 else 'grey'}"


def name_some(files: Sequence[str]) -> str:
    """For a sentence: all of a few, the first of many."""
    if len(files) <= _NAMED:
        return ", ".join(files)
    return f"{', '.join(files[:_NAMED])} and {len(files) - _NAMED} more"
