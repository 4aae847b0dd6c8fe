"""What a folder of sharp images may hold beside image files: OME-Zarr mosaics, slides of deblurd, and captured pairs."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openslide
import zarr
import zarr.errors
from numpy.typing import NDArray

from deblurd import light
from deblurd.errors import DataError, DeblurdError
from deblurd.frames import MotionVector, Pixels
from deblurd.record.journal import Journal
from deblurd.record.raw import RawStore
from deblurd.slides.camera import Camera
from deblurd.slides.folder import SlideFolder
from deblurd.train.recipe import AT_REST_PX

Picture = NDArray[np.uint8]
"""(H, W, 3) uint8 RGB, sRGB-encoded."""

SUFFIXES = {".png", ".tif", ".tiff", ".jpg", ".jpeg", ".webp", ".bmp", ".svs"}
PAIRS = "pairs.csv"
BLOCK_PX = 1024
MOST_BLOCKS = 48
"""Of one mosaic: as much as some thirty microscope fields."""


@dataclass(frozen=True, slots=True)
class Captured:
    """A frame that was taken blurred, and the sharp one of the same place, pixel on pixel. Files: paths in the folder, with "/"."""

    blurred: str
    sharp: str
    motion: MotionVector
    group: str


def is_slide(path: Path) -> bool:
    """Whether it is the folder of a slide that deblurd scanned."""
    return (path / "journal.sqlite").is_file() and (path / "raw.zarr").is_dir()


def is_mosaic(path: Path) -> bool:
    """Whether it is an OME-Zarr image by its name."""
    return path.name.endswith((".ome.zarr", ".zarr")) and path.is_dir()


def find(folder: Path) -> list[Path]:
    """Every source below `folder`, in order: image files, mosaics, slides, and lists of captured pairs, which stand for the images beside them."""
    if (folder / PAIRS).is_file():
        return [folder / PAIRS]
    found: list[Path] = []
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not (is_slide(path) or is_mosaic(path)):
            found += find(path)
        elif path.is_dir() or path.suffix.lower() in SUFFIXES:
            found.append(path)
    return found


def pictures(path: Path) -> list[Picture]:
    """The sharp pictures of one source: of a file one, of a mosaic its fullest blocks, of a slide the frames taken at rest.

    Raises DataError where it is broken; a slide may have none.
    """
    if is_slide(path):
        return list(_resting(SlideFolder(path)))
    if is_mosaic(path):
        return list(_blocks(path))
    return [read_image(path)]


def read_image(path: Path) -> Picture:
    """Of an image file (grey is tripled, 16 bit scaled down). DataError if it is broken."""
    if path.suffix.lower() == ".svs":
        try:
            with openslide.OpenSlide(path) as slide:
                return np.array(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
        except openslide.OpenSlideError as err:
            raise DataError(f"{path} cannot be read ({err}): remove or replace it.") from err
    try:
        image = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_COLOR)
    except (cv2.error, OSError) as err:
        raise DataError(f"{path} cannot be read ({err}): remove or replace it.") from err
    if image is None:
        raise DataError(f"{path} is not an image, or broken: remove or replace it.")
    return np.ascontiguousarray(image[..., ::-1], dtype=np.uint8)


def read_pairs(folder: Path, file: str) -> list[Captured]:
    """The rows of a list of captured pairs: blurred, sharp (files beside it), dy, dx (px), and maybe bend_dy, bend_dx, group.

    file: its path in `folder`, with "/". DataError where a column is missing or a number is none.
    """
    parent = f"{file.rpartition('/')[0]}/".lstrip("/")
    path = folder / file
    try:
        with path.open(encoding="utf-8", newline="") as opened:
            rows = list(csv.DictReader(opened))
    except (OSError, UnicodeDecodeError, csv.Error) as err:
        raise DataError(f"{path} cannot be read ({err}): write it as CSV in UTF-8.") from err
    missing = {"blurred", "sharp", "dy", "dx"} - set(rows[0] if rows else ())
    if missing:
        raise DataError(f"{path} lacks the column(s) {sorted(missing)}, or any row: add them.")
    return [_captured(row, parent, f"{path}, row {n}") for n, row in enumerate(rows, 2)]


def _captured(row: dict[str, Any], parent: str, where: str) -> Captured:
    try:
        motion = MotionVector(*(float(row.get(key) or 0) for key in ("dy", "dx", "bend_dy", "bend_dx")))
    except ValueError as err:
        raise DataError(f"{where}: {err}: correct it.") from err
    if not all(math.isfinite(x) for x in (motion.dy, motion.dx, motion.bend_dy, motion.bend_dx)):
        raise DataError(f"{where}: the motion must be finite: correct it.")
    group = row.get("group") or parent.rstrip("/") or "captured"
    return Captured(parent + row["blurred"], parent + row["sharp"], motion, group)


def _resting(slide: SlideFolder) -> Iterator[Picture]:
    try:
        journal = Journal(slide.journal)
        try:
            encoding = Camera.from_json(journal.slide("camera")).encoding
            resting = [t for t in journal.tiles() if t.motion.is_known and t.motion.length_px < AT_REST_PX]
        finally:
            journal.close()
        raw = RawStore.open(slide.raw)
        for tile in resting[:: -(-len(resting) // MOST_BLOCKS) or 1]:
            seen = light.to_linear(raw.read(tile.index), encoding)
            yield _rgb(np.asarray(light.from_linear(seen, np.uint8, "srgb")))
    except DeblurdError as err:
        raise DataError(f"The slide {slide.path} cannot be learnt from: {err}") from err


def _blocks(path: Path) -> Iterator[Picture]:
    """The blocks with the most structure, wherever they lie."""
    try:
        attributes: dict[str, Any] = zarr.open_group(str(path), mode="r").attrs.asdict()
        image = attributes.get("ome", attributes)["multiscales"][0]
        axes = [axis["name"] for axis in image["axes"]]
        arrays = [zarr.open_array(f"{path / level['path']}", mode="r") for level in image["datasets"]]
        small = next((array for array in arrays if max(array.shape) <= 2 * BLOCK_PX), arrays[-1])
        height, width = (arrays[0].shape[axes.index(name)] for name in "yx")
        overview = _region(small, axes, (0, 0), (height, width))
    except (zarr.errors.BaseZarrError, OSError, KeyError, IndexError, TypeError, ValueError) as err:
        raise DataError(f"{path} cannot be read as an OME-Zarr image ({err}): remove or replace it.") from err
    corners = [
        (y, x)
        for y in range(0, max(height - BLOCK_PX, 0) + 1, BLOCK_PX)
        for x in range(0, max(width - BLOCK_PX, 0) + 1, BLOCK_PX)
    ]
    scale = overview.shape[0] / height

    def structure(corner: tuple[int, int]) -> float:
        top, left = (int(c * scale) for c in corner)
        side = max(2, int(BLOCK_PX * scale))
        return float(overview[top : top + side, left : left + side].std())

    best = sorted(corners, key=structure, reverse=True)[:MOST_BLOCKS]
    for corner in sorted(c for c in best if structure(c) > 0):
        yield _region(arrays[0], axes, corner, (BLOCK_PX, BLOCK_PX))


def _region(array: Any, axes: list[str], corner: tuple[int, int], size: tuple[int, int]) -> Picture:
    """(y, x, 3) of an OME-Zarr level whose axes are c, y, x and maybe others, of which the first is taken."""
    along = {name: slice(first, first + n) for name, first, n in zip("yx", corner, size, strict=True)}
    cut = np.asarray(array[tuple(along.get(name, slice(None) if name == "c" else 0) for name in axes)])
    kept = [name for name in axes if name in "cyx"]
    pixels = cut.transpose([kept.index(name) for name in "yxc" if name in kept])
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.dtype not in (np.uint8, np.uint16) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise ValueError(f"{pixels.dtype} {pixels.shape} is neither grey nor RGB of 8 or 16 bits")
    return _rgb(pixels if pixels.dtype == np.uint8 else (pixels // 257).astype(np.uint8))


def _rgb(pixels: Pixels) -> Picture:
    whole = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    return np.ascontiguousarray(whole, dtype=np.uint8)
