"""Recordings on disk: which kind is it, and what does it say?"""

from __future__ import annotations

import contextlib
import importlib
import io
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from deblurd.errors import ConfigError, DataError, NoInputError
from deblurd.frames import Encoding, Pixels
from deblurd.geometry import PixelToStage
from deblurd.imagefiles import believable_pixel_um, read_image, tiff_pixel_um
from deblurd.record.journal import Journal
from deblurd.record.raw import RawStore
from deblurd.replay.recording import Plane, Recorded, Recording, recording_of
from deblurd.settings import Settings
from deblurd.slides.camera import Camera
from deblurd.slides.folder import SlideFolder
from deblurd.tileset import TABLE, motion_vector, read_tileset

_UM = {"m": 1e6, "mm": 1e3, "µm": 1.0, "um": 1.0, "nm": 1e-3, "reference frame": 1.0, "": 1.0}
_S = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "us": 1e-6, "min": 60.0, "": 1.0}
_NDTIFF = "NDTiff.index"


def read_recording(path: Path, settings: Settings) -> Recording:
    """A slide's folder, a folder with tiles.csv, an OME-TIFF with positions, or an NDTiff.

    settings: for pixel size, turn and encoding, where the recording does not say. Raises NoInputError where there is none, DataError where
    it is broken or says too little, ConfigError where the pixel size is not known.
    """
    if path.is_file():
        return _ome_tiff(path, settings)
    if not path.is_dir():
        raise NoInputError(f"the recording {path} is not there: write its path into replay.path")
    if SlideFolder(path).journal.is_file():
        return _slide(SlideFolder(path))
    if (path / TABLE).is_file():
        return _tileset(path, settings)
    if (path / _NDTIFF).is_file():
        return _ndtiff(path, settings)
    raise NoInputError(
        f"{path} holds no recording: replay.path wants a slide's folder, a folder with {TABLE}, an OME-TIFF, or an NDTiff"
    )


# --- each kind ---


def _slide(folder: SlideFolder) -> Recording:
    journal = Journal(folder.journal, read_only=True)
    try:
        camera = Camera.from_json(journal.slide("camera"))
        tiles = sorted(journal.tiles(), key=lambda tile: tile.pose.t_s)
    finally:
        journal.close()
    if not tiles:
        raise DataError(f"{folder.path} holds no tiles: name another recording")
    raw = RawStore.open(folder.raw)
    frames = [Recorded(partial(raw.read, t.index), t.pose, t.motion, t.exposure_ms) for t in tiles]
    return Recording(
        camera.name,
        camera.raw_shape,
        camera.dtype,
        camera.encoding,
        camera.affine,
        frames,
        True,
        rolling_ms=camera.rolling_ms or None,
    )


def _tileset(folder: Path, settings: Settings) -> Recording:
    tiles = read_tileset(folder)
    affine = _affine(folder, settings, tiles.pixel_size_um())

    def opaque(path: Path) -> Pixels:
        pixels = read_image(path)
        return pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., :3])

    planes = [
        Plane(partial(opaque, folder / row.file), row.y_um, row.x_um, None, row.t_s, row.exposure_ms)
        for row in tiles.rows
    ]
    found = recording_of(planes, folder.name, _encoding(settings, tiles.dtype), affine, moving=False)
    # the table knows the speeds
    frames = [
        Recorded(frame.read, frame.pose, motion_vector(row, affine), frame.exposure_ms)
        for frame, row in zip(found.frames, tiles.rows, strict=True)
    ]
    return Recording(found.camera, found.shape, found.dtype, found.encoding, affine, frames, found.timed)


def _ome_tiff(path: Path, settings: Settings) -> Recording:
    with contextlib.ExitStack() as files:
        try:
            tiff = files.enter_context(tifffile.TiffFile(path))
            if not tiff.ome_metadata:
                raise DataError(
                    f"{path} has no OME metadata, so where the stage stood is not known: export it as OME-TIFF"
                )
            planes = list(_planes(path, tiff))
            affine = _affine(path, settings, tiff_pixel_um(tiff))
            dtype = np.dtype(tiff.series[0].dtype)
        except (tifffile.TiffFileError, OSError, struct.error) as err:
            raise DataError(f"{path} is not a whole TIFF ({err}): export it again") from err
        found = recording_of(planes, path.name, _encoding(settings, dtype), affine, moving=_moving(settings))
        return replace(found, close=files.pop_all().close)


def _planes(path: Path, tiff: tifffile.TiffFile) -> Iterator[Plane]:
    images = [e for e in ElementTree.fromstring(tiff.ome_metadata or "").iter() if e.tag.endswith("}Image")]
    for image, series in zip(images, tiff.series, strict=False):
        said = {
            tuple(int(e.get(f"The{axis}", 0)) for axis in "TZC"): e
            for e in image.iter()
            if e.tag.endswith("}Plane")
        }
        lead = {axis: size for axis, size in zip(series.axes, series.shape, strict=True) if axis not in "YXS"}
        if any(size > 1 for axis, size in lead.items() if axis in "ZC"):
            raise DataError(
                f"{path} holds focus steps or channels, and a mosaic is made of one picture for each place: export one of them"
            )
        for n, page in enumerate(series.pages):
            at = dict(zip(lead, np.unravel_index(n, tuple(lead.values())), strict=True)) if lead else {}
            plane = said.get((int(at.get("T", at.get("I", 0))), 0, 0))
            if page is None or plane is None:
                raise DataError(f"{path} says nothing of its plane {n}, or does not hold it: export it again")
            y_um, x_um, z_um = (_quantity(plane, f"Position{axis}", _UM) for axis in "YXZ")
            exposure_s = _quantity(plane, "ExposureTime", _S)
            yield Plane(
                partial(_page, path, page),
                y_um,
                x_um,
                z_um,
                _quantity(plane, "DeltaT", _S),
                None if exposure_s is None else 1000 * exposure_s,
            )


def _page(path: Path, page: Any) -> Pixels:
    try:
        return np.ascontiguousarray(page.asarray())
    except (ValueError, OSError, RuntimeError, tifffile.TiffFileError) as err:
        raise DataError(f"a plane of {path} cannot be read ({err}): export it again") from err


def _quantity(element: ElementTree.Element, name: str, units: Mapping[str, float]) -> float | None:
    text = element.get(name)
    return None if text is None else float(text) * units.get(element.get(f"{name}Unit", ""), math.nan)


def _ndtiff(path: Path, settings: Settings) -> Recording:
    try:
        ndstorage = importlib.import_module("ndstorage")
    except ImportError as err:
        raise NoInputError(
            f'{path} is an NDTiff, and ndstorage, which reads it, is not installed: pip install "deblurd[studio]"'
        ) from err
    with contextlib.ExitStack() as files:
        with contextlib.redirect_stdout(io.StringIO()):  # it talks about its progress
            try:
                data = ndstorage.Dataset(str(path))
            except Exception as err:
                raise DataError(
                    f"{path} cannot be read as NDTiff ({err}): copy it again, with all its files"
                ) from err
        files.callback(data.close)
        tags = [(at, data.read_metadata(**at)) for at in data.get_image_coordinates_list()]
        planes = [_ndtiff_plane(_ndtiff_image(path, data, at), said) for at, said in tags]
        pixel_um = _first_number(tags[0][1], "PixelSizeUm", "PixelSize_um") if tags else None
        affine = _affine(path, settings, None if pixel_um is None else believable_pixel_um(pixel_um))
        dtype = planes[0].read().dtype if planes else np.dtype(np.uint8)
        found = recording_of(planes, path.name, _encoding(settings, dtype), affine, moving=_moving(settings))
        return replace(found, close=files.pop_all().close)


def _ndtiff_plane(read: Callable[[], Pixels], tags: Mapping[str, Any]) -> Plane:
    y_um, x_um, z_um = (
        _first_number(tags, f"{axis}Position_um", f"{axis}PositionUm", f"{axis}Position_um_Intended")
        for axis in "YXZ"
    )
    elapsed_ms, exposure_ms = (
        _first_number(tags, "ElapsedTime-ms"),
        _first_number(tags, "Exposure", "Exposure-ms"),
    )
    return Plane(read, y_um, x_um, z_um, None if elapsed_ms is None else elapsed_ms / 1000, exposure_ms)


def _ndtiff_image(path: Path, data: Any, at: Mapping[str, Any]) -> Callable[[], Pixels]:
    def read() -> Pixels:
        try:
            return np.ascontiguousarray(data.read_image(**at))
        except Exception as err:
            raise DataError(f"the image {dict(at)} of {path} cannot be read ({err}): copy it again") from err

    return read


def _first_number(tags: Mapping[str, Any], *names: str) -> float | None:
    for name in names:
        try:
            return float(tags[name])
        except (KeyError, TypeError, ValueError):
            continue
    return None


# --- what the settings say ---


def _moving(settings: Settings) -> bool:
    return settings.replay is not None and settings.replay.moving


def _affine(path: Path, settings: Settings, pixel_um: float | None) -> PixelToStage:
    s = settings.microscope
    size_um = s.pixel_size_um or pixel_um
    if size_um is None:
        raise ConfigError(f"{path} does not say how large a pixel is: set microscope.pixel_size_um")
    return PixelToStage.from_scale(size_um, s.rotation_deg or 0.0, bool(s.mirrored))


def _encoding(settings: Settings, dtype: np.dtype[Any]) -> Encoding:
    """8-bit pictures of unknown origin are mostly made for people to look at."""
    if "encoding" in settings.microscope.model_fields_set:
        return settings.microscope.encoding
    return "srgb" if dtype == np.uint8 else "linear"
