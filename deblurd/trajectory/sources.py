"""Where series come from: a slide, a folder of images, a TIFF of many pages, an OME-Zarr with time."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr

from deblurd.errors import DataError, NoInputError, UsageError
from deblurd.frames import Encoding, MotionVector, Pixels
from deblurd.geometry import PixelToStage
from deblurd.imagefiles import read_image, tiff_pixel_um
from deblurd.record.journal import Journal
from deblurd.record.raw import RawStore
from deblurd.slides.camera import Camera
from deblurd.slides.folder import SlideFolder
from deblurd.tileset import TABLE, motion_vector, read_table
from deblurd.trajectory.series import AT_REST, Instant, Series, in_order, numbered

SERIES_NOTE = "series.json"
"""Beside ``tiles.csv``: affine and encoding of the camera, where deblurd itself kept the series."""

_IMAGES = {".png", ".tif", ".tiff", ".jpg", ".jpeg", ".webp", ".bmp"}
_TIFFS = {".tif", ".tiff"}
_SECONDS = {
    "second": 1.0,
    "s": 1.0,
    "sec": 1.0,
    "millisecond": 1e-3,
    "ms": 1e-3,
    "minute": 60.0,
    "min": 60.0,
    "hour": 3600.0,
}
_MICROMETRES = {
    "micrometer": 1.0,
    "micron": 1.0,
    "um": 1.0,
    "\u00b5m": 1.0,
    "\u03bcm": 1.0,
    "nanometer": 1e-3,
    "millimeter": 1e3,
}


@dataclass(frozen=True, slots=True)
class Told:
    """What a person says of a series; None: the source tells."""

    pixel_size_um: float | None = None
    fps: float | None = None
    exposure_ms: float | None = None
    encoding: Encoding | None = None


@dataclass(frozen=True, slots=True)
class _Raw:
    """What a source tells by itself."""

    instants: Sequence[Instant]
    shapes: Sequence[tuple[int, ...]]
    dtype: np.dtype[Any]
    read: Callable[[int], Pixels]
    pixel_size_um: float | None = None
    affine: PixelToStage | None = None
    encoding: Encoding | None = None
    exposure_ms: float = 0.0
    notes: tuple[str, ...] = ()
    close: Callable[[], None] = lambda: None


def open_series(source: Path, told: Told) -> Series:
    """The series at `source`, without reading pixels but for the size of each frame.

    Frames of another size than most, and those whose times are missing or go backwards, are left out, with a sentence. Raises NoInputError where there is
    nothing, DataError for what is no series, UsageError where pixel size or times are told by nobody.
    """
    for name, value in (("--pixel-size-um", told.pixel_size_um), ("--fps", told.fps)):
        if value is not None and not (np.isfinite(value) and value > 0):
            raise UsageError(f"{name} is {value:g}, but must be a number above 0")
    if not source.exists():
        raise NoInputError(f"{source} is not there: name a slide, a folder of images, a TIFF or an OME-Zarr")
    raw = _open(source, told)
    try:
        return _series(source, told, raw)
    except BaseException:
        raw.close()
        raise


def _series(source: Path, told: Told, raw: _Raw) -> Series:
    if not raw.instants:
        raise DataError(
            f"{source} holds no frames: name a slide, a folder of images, a TIFF or an OME-Zarr with a time axis"
        )
    if raw.dtype not in (np.uint8, np.uint16):
        raise DataError(
            f"{source} holds {raw.dtype} values, but only 8 and 16 bit are known: convert it first"
        )
    affine = raw.affine
    if told.pixel_size_um is not None or affine is None:
        size_um = told.pixel_size_um or raw.pixel_size_um
        if size_um is None:
            raise UsageError(f"{source} does not say how large its pixels are: give --pixel-size-um")
        affine = PixelToStage.from_scale(size_um)
    instants, notes = list(raw.instants), list(raw.notes)
    if told.fps is not None:
        instants = [replace(each, t_s=number / told.fps) for number, each in enumerate(instants)]
    elif len(instants) > 1 and not np.isfinite([each.t_s for each in instants]).any():
        raise UsageError(f"{source} does not say when its frames were taken: give --fps, frames per second")
    elif len(instants) == 1 and not np.isfinite(instants[0].t_s):
        instants = [replace(instants[0], t_s=0.0)]
    shape, odd = _usual_shape(raw.shapes)
    if odd:
        instants = [each for number, each in enumerate(instants) if number not in odd]
        notes.append(
            f"{_count(len(odd))} left out, of another size than {shape[1]} x {shape[0]} px like most: follow them as a series of their own"
        )
    instants, order = in_order(instants)
    if len(instants) == 1:
        order.append("there is one frame, and so nothing to follow: its objects are listed")
    return Series(
        source.name,
        tuple(instants),
        shape,
        affine,
        told.encoding or raw.encoding or ("srgb" if raw.dtype == np.uint8 else "linear"),
        raw.exposure_ms if told.exposure_ms is None else told.exposure_ms,
        raw.read,
        (*notes, *order),
        raw.close,
    )


def _open(source: Path, told: Told) -> _Raw:
    if source.is_file():
        if source.suffix.lower() in _TIFFS:
            return _tiff(source)
        raise DataError(
            f"{source} is no series: name a slide, a folder of images, a TIFF of many pages or an OME-Zarr"
        )
    if SlideFolder(source).journal.is_file():
        return _slide(SlideFolder(source))
    if (source / TABLE).is_file():
        return _table(source, told)
    if any((source / name).is_file() for name in ("zarr.json", ".zgroup")):
        return _ome_zarr(source)
    return _images(source)


# --- a slide that deblurd scanned ---


def _slide(folder: SlideFolder) -> _Raw:
    journal = Journal(folder.journal, read_only=True)
    try:
        rows, tiles, said = journal.rows(), journal.tiles(), journal.slide("camera")
    finally:
        journal.close()
    try:
        camera = Camera.from_json(said or "")
    except (KeyError, TypeError, ValueError) as err:
        raise DataError(
            f"{folder.journal} does not say what the camera was: restore it from a backup"
        ) from err
    raw = RawStore.open(folder.raw)
    begun_s = min((row["t_s"] for row in rows), default=0.0)
    return _Raw(
        [_tile(row, camera.affine, begun_s) for row in rows],
        [camera.shape] * len(rows),
        raw.dtype,
        camera.reader(raw, {tile.index: tile for tile in tiles}),
        affine=camera.affine,
        encoding=camera.encoding,
        exposure_ms=camera.exposure_ms,
    )


def _tile(row: dict[str, Any], affine: PixelToStage, begun_s: float) -> Instant:
    y_um, x_um = row["y_um"], row["x_um"]
    if row["place_y_px"] is not None:
        # where the pixels say that it lies, better than the stage does
        y_um, x_um = affine.to_stage(np.array([row["place_y_px"], row["place_x_px"]]))
    names = ("motion_dy_px", "motion_dx_px", "motion_bend_dy_px", "motion_bend_dx_px", "motion_sigma_px")
    motion = [np.nan if row[name] is None else float(row[name]) for name in names]
    return Instant(int(row["tile"]), row["t_s"] - begun_s, float(y_um), float(x_um), MotionVector(*motion))


# --- images ---


def _table(folder: Path, told: Told) -> _Raw:
    rows = read_table(folder)
    missing = [row.file for row in rows if not (folder / row.file).is_file()]
    if missing:
        raise NoInputError(
            f"{folder / TABLE} names {missing[0]}, not there in {folder}: add what is missing or delete the lines"
        )
    files = [folder / row.file for row in rows]
    note = _series_note(folder)
    shapes, dtype = _kinds(files)
    size_um = told.pixel_size_um or _pixel_um_of(files)
    affine = note.get("affine") or (PixelToStage.from_scale(size_um) if size_um else None)
    exposures = [row.exposure_ms for row in rows if row.exposure_ms is not None]
    instants = [
        Instant(
            number,
            np.nan if row.t_s is None else row.t_s,
            row.y_um,
            row.x_um,
            AT_REST if affine is None else motion_vector(row, affine),
        )
        for number, row in enumerate(rows)
    ]
    return _Raw(
        instants,
        shapes,
        dtype,
        lambda number: _opaque(read_image(files[number])),
        size_um,
        note.get("affine"),
        note.get("encoding"),
        float(np.median(exposures)) if exposures else 0.0,
    )


def _images(folder: Path) -> _Raw:
    files = sorted((path for path in folder.iterdir() if path.suffix.lower() in _IMAGES), key=_natural)
    if not files:
        raise NoInputError(
            f"{folder} holds neither images, nor {TABLE}, nor a slide, nor an OME-Zarr: name one that does"
        )
    shapes, dtype = _kinds(files)
    return _Raw(
        [Instant(number, np.nan) for number in range(len(files))],
        shapes,
        dtype,
        lambda number: _opaque(read_image(files[number])),
        _pixel_um_of(files),
        notes=(
            f"{folder} has no {TABLE}: the stage is taken to rest, and the images follow one another by name",
        ),
    )


def _series_note(folder: Path) -> dict[str, Any]:
    """Affine and encoding; empty where the folder is not one that deblurd kept."""
    path = folder / SERIES_NOTE
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        affine = PixelToStage(np.array(content["affine_um"], dtype=np.float64).reshape(2, 2))
        return {"affine": affine, "encoding": content["encoding"]}
    except (OSError, KeyError, TypeError, ValueError) as err:
        raise DataError(f"{path} is broken ({err}): delete it, and give --pixel-size-um") from err


def _kinds(files: Sequence[Path]) -> tuple[list[tuple[int, ...]], np.dtype[Any]]:
    """Shape of every image, by its header where Pillow knows it, and the dtype of the first."""
    from PIL import Image, UnidentifiedImageError

    shapes: list[tuple[int, ...]] = []
    for path in files:
        try:
            with Image.open(path) as image:
                colour = image.mode not in ("1", "L", "LA", "I", "F") and not image.mode.startswith("I;16")
                shapes.append((image.height, image.width, 3) if colour else (image.height, image.width))
        except (OSError, UnidentifiedImageError):
            # 16-bit colour, which Pillow does not read, and what is broken, of which this says why
            shapes.append(_opaque(read_image(path)).shape)
    return shapes, read_image(files[0]).dtype if files else np.dtype(np.uint8)


def _pixel_um_of(files: Sequence[Path]) -> float | None:
    if not files or files[0].suffix.lower() not in _TIFFS:
        return None
    with tifffile.TiffFile(files[0]) as tiff:
        return tiff_pixel_um(tiff)


def _natural(path: Path) -> list[Any]:
    """So that frame 10 comes after frame 9."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]


# --- many frames in one file ---


def _tiff(path: Path) -> _Raw:
    try:
        with tifffile.TiffFile(path) as tiff:
            found = max(tiff.series, key=lambda each: len(each.pages))
            others = sum(len(each.pages) for each in tiff.series) - len(found.pages)
            axes, shape, dtype = found.axes, found.shape, np.dtype(found.dtype)
            size_um, interval_s = tiff_pixel_um(tiff), _tiff_interval_s(tiff)
            index = tiff.series.index(found)
    except (tifffile.TiffFileError, ValueError, OSError) as err:
        raise DataError(f"{path} is not a whole TIFF ({err}): export it again") from err
    # read as zarr, a page is read when its turn comes
    store: Any = tifffile.imread(path, aszarr=True, series=index, level=0)
    notes = (f"{others} pages of another size are left out",) if others > 0 else ()
    array = zarr.open_array(store, mode="r")
    return replace(
        _stack(path, array, axes.lower(), shape, dtype, size_um, interval_s, notes), close=store.close
    )


def _tiff_interval_s(tiff: tifffile.TiffFile) -> float | None:
    told = (tiff.imagej_metadata or {}).get("finterval")
    if not told and tiff.ome_metadata:
        found = re.search(r'TimeIncrement="([0-9.eE+-]+)"', tiff.ome_metadata)
        unit = re.search(r'TimeIncrementUnit="(\w+)"', tiff.ome_metadata)
        told = float(found[1]) * _SECONDS.get(unit[1] if unit else "s", 1.0) if found else None
    return float(told) if told else None


def _ome_zarr(path: Path) -> _Raw:
    try:
        group = zarr.open_group(str(path), mode="r")
        attributes: Any = group.attrs.asdict()
        multiscale = attributes.get("ome", attributes)["multiscales"][0]
        named = [axis if isinstance(axis, dict) else {"name": axis} for axis in multiscale["axes"]]
        dataset = multiscale["datasets"][0]
        array: Any = group[dataset["path"]]
        # the time from frame to frame may stand with all levels together, and not with each
        scales = [
            each["scale"]
            for where in (dataset, multiscale)
            for each in where.get("coordinateTransformations", ())
            if each["type"] == "scale"
        ]
        scale = np.prod(scales, axis=0) if scales else np.ones(len(named))
        axes = "".join(str(axis["name"])[:1].lower() for axis in named)
        at = {
            name: (axis.get("unit"), float(step)) for name, axis, step in zip(axes, named, scale, strict=True)
        }
    except (KeyError, IndexError, TypeError, ValueError, OSError) as err:
        raise DataError(
            f"{path} is not an OME-Zarr image ({type(err).__name__}: {err}): name the group that has multiscales"
        ) from err
    if "t" not in axes:
        raise DataError(f"{path} has no time axis (its axes are {', '.join(axes)}): a series needs one")
    (space, size), (time, interval) = at.get("x", (None, 1.0)), at["t"]
    size_um = size * _MICROMETRES[space] if space in _MICROMETRES else None
    interval_s = interval * _SECONDS[time] if time in _SECONDS else None
    return _stack(path, array, axes, array.shape, np.dtype(array.dtype), size_um, interval_s, ())


def _stack(
    path: Path,
    array: Any,
    axes: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    size_um: float | None,
    interval_s: float | None,
    notes: tuple[str, ...],
) -> _Raw:
    """Frames of an array with axes such as "tyx", "tcyx", "qyxs": time is t, else the first axis that is no other."""
    time = next(
        (name for name in axes if name == "t"), next((name for name in axes if name not in "yxsc"), None)
    )
    side = dict(zip(axes, shape, strict=True))
    if "y" not in side or "x" not in side:
        raise DataError(f"{path} has no image axes (its axes are {', '.join(axes)}): a series has y and x")
    colour = next((name for name in "sc" if side.get(name) in (3, 4)), None)
    others = [name for name in axes if name not in ("y", "x", time, colour) and side[name] > 1]
    if others:
        notes += (f"of the axes {', '.join(others)} the first plane is followed",)
    kept = "".join(name for name in axes if name in ("y", "x", colour))

    def read(number: int) -> Pixels:
        at = tuple(slice(None) if name in kept else number if name == time else 0 for name in axes)
        try:
            plane = np.asarray(array[at])
        except (OSError, ValueError, RuntimeError) as err:
            raise DataError(f"frame {number} of {path} is damaged ({err}): copy or export it again") from err
        order = [kept.index(name) for name in ("y", "x", *([colour] if colour else []))]
        return _opaque(np.ascontiguousarray(np.transpose(plane, order)))

    count = side[time] if time else 1
    instants = (
        list(numbered(count, 1 / interval_s)) if interval_s else [Instant(n, np.nan) for n in range(count)]
    )
    frame = (side["y"], side["x"], 3) if colour else (side["y"], side["x"])
    return _Raw(instants, [frame] * count, dtype, read, size_um, notes=notes)


def _opaque(pixels: Pixels) -> Pixels:
    """Without an alpha channel."""
    return pixels if pixels.ndim == 2 or pixels.shape[2] == 3 else np.ascontiguousarray(pixels[..., :3])


def _usual_shape(shapes: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], set[int]]:
    """The shape of most frames, and which frames have another."""
    usual = Counter(shapes).most_common(1)[0][0]
    return usual, {number for number, shape in enumerate(shapes) if shape != usual}


def _count(count: int) -> str:
    return "1 frame is" if count == 1 else f"{count} frames are"
