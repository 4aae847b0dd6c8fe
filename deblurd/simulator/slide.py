"""What lies under the virtual microscope: an image of a slide, or generated tissue.

A virtual slide is an image in the slide's own orientation: pixel (i, j) has its centre at y = i and x = j times the pixel
size, in stage micrometres. Around it there is empty glass.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import openslide
import tifffile
from PIL import Image, UnidentifiedImageError

from deblurd.errors import DataError, NoInputError
from deblurd.frames import Pixels
from deblurd.imagefiles import believable_pixel_um, tiff_pixel_um
from deblurd.simulator.tissue import EMPTY_GLASS, Tissue

DEFAULT_PIXEL_SIZE_UM = 0.5
_TIFFFILE_DECODES = (tifffile.COMPRESSION.NONE, tifffile.COMPRESSION.ADOBE_DEFLATE)
"""What tifffile reads without further packages; Pillow has libtiff for the rest."""

_BLOCK_PX = 512
_CACHED_BLOCKS = 80
"""60 MiB: what two rows of fields over a slide of 1 cm at 0.5 um need."""


_GLANCES, _GLANCE_PX = 32, 32
"""A slide is glanced at in at most so many places along each side, each so large."""


class Source(Protocol):
    """An image that can be read in parts; shape is (H, W)."""

    shape: tuple[int, int]

    def read(self, y0: int, x0: int, height: int, width: int) -> Pixels:
        """(height, width, 3) uint8 sRGB, wholly inside the image."""


class VirtualSlide:
    """A slide that can be read anywhere, in any thread."""

    def __init__(self, source: Source, pixel_size_um: float) -> None:
        self._source = source
        self.shape = source.shape
        self.pixel_size_um = pixel_size_um

    @property
    def size_um(self) -> tuple[float, float]:
        """Width, height."""
        return self.shape[1] * self.pixel_size_um, self.shape[0] * self.pixel_size_um

    def region(self, y0: int, x0: int, height: int, width: int) -> Pixels:
        """(height, width, 3) uint8 sRGB from pixel (y0, x0) on; empty glass outside the image."""
        top, left, bottom, right = self._inside(y0, x0, height, width)
        inside = bottom > top and right > left
        if inside and (bottom - top, right - left) == (height, width):
            return self._source.read(top, left, height, width)
        out = np.full((height, width, 3), EMPTY_GLASS, np.uint8)
        if inside:
            part = self._source.read(top, left, bottom - top, right - left)
            out[top - y0 : bottom - y0, left - x0 : right - x0] = part
        return out

    def look_ahead(self, y0: int, x0: int, height: int, width: int) -> None:
        """Have these pixels made in the background, where they are not there yet."""
        top, left, bottom, right = self._inside(y0, x0, height, width)
        if isinstance(self._source, _Cached) and bottom > top and right > left:
            self._source.look_ahead(top, left, bottom - top, right - left)

    def _inside(self, y0: int, x0: int, height: int, width: int) -> tuple[int, int, int, int]:
        return max(y0, 0), max(x0, 0), min(y0 + height, self.shape[0]), min(x0 + width, self.shape[1])


class _Array:
    """An image in memory."""

    def __init__(self, pixels: Pixels) -> None:
        self._pixels = pixels
        self.shape = (pixels.shape[0], pixels.shape[1])

    def read(self, y0: int, x0: int, height: int, width: int) -> Pixels:
        return self._pixels[y0 : y0 + height, x0 : x0 + width]


class _Cached:
    """The latest blocks of a source that takes its time; they are made in a thread of their own, so that they can be asked for ahead."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.shape = source.shape
        self._blocks: OrderedDict[tuple[int, int], Future[Pixels]] = OrderedDict()
        self._lock = threading.Lock()
        self._maker = ThreadPoolExecutor(1, thread_name_prefix="virtual slide")

    def read(self, y0: int, x0: int, height: int, width: int) -> Pixels:
        out = np.empty((height, width, 3), np.uint8)
        for (top, left), made in self.look_ahead(y0, x0, height, width).items():
            block = made.result()
            y, x = max(top, y0), max(left, x0)
            part = block[y - top : y0 + height - top, x - left : x0 + width - left]
            out[y - y0 : y - y0 + part.shape[0], x - x0 : x - x0 + part.shape[1]] = part
        return out

    def look_ahead(self, y0: int, x0: int, height: int, width: int) -> dict[tuple[int, int], Future[Pixels]]:
        """The blocks that make up these pixels, made or in the making."""
        with self._lock:
            return {
                (top, left): self._block(top, left)
                for top in range(y0 - y0 % _BLOCK_PX, y0 + height, _BLOCK_PX)
                for left in range(x0 - x0 % _BLOCK_PX, x0 + width, _BLOCK_PX)
            }

    def _block(self, top: int, left: int) -> Future[Pixels]:
        made = self._blocks.get((top, left))
        if made is None:
            height, width = min(_BLOCK_PX, self.shape[0] - top), min(_BLOCK_PX, self.shape[1] - left)
            made = self._maker.submit(self._source.read, top, left, height, width)
            self._blocks[top, left] = made
            if len(self._blocks) > _CACHED_BLOCKS:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end((top, left))
        return made


class _OpenSlide:
    """Level 0 of a slide scanner's file."""

    def __init__(self, slide: openslide.OpenSlide, name: Path) -> None:
        self._slide, self._name = slide, name
        width, height = slide.dimensions
        self.shape = (height, width)

    def read(self, y0: int, x0: int, height: int, width: int) -> Pixels:
        try:
            image = self._slide.read_region((x0, y0), 0, (width, height))
        except openslide.OpenSlideError as err:
            raise DataError(f"{self._name} cannot be read ({err}): it is damaged, copy it again.") from err
        return _on_glass(image)


def open_slide(
    path: Path | None,
    pixel_size_um: float | None = None,
    seed: int = 1,
    size_mm: tuple[float, float] = (4.0, 3.0),
) -> VirtualSlide:
    """The slide in an image file, or generated tissue of `size_mm` (width, height) where there is no path.

    pixel_size_um: what counts, whatever the file says; None: what the file says, else 0.5. Raises NoInputError for a missing file
    and DataError for one that is broken or no image.
    """
    if path is None:
        pixel_um = pixel_size_um or DEFAULT_PIXEL_SIZE_UM
        shape = (max(1, round(size_mm[1] * 1000 / pixel_um)), max(1, round(size_mm[0] * 1000 / pixel_um)))
        return VirtualSlide(_Cached(Tissue(shape, pixel_um, seed)), pixel_um)
    if not path.is_file():
        raise NoInputError(f"There is no slide image {path}: check the name.")
    try:
        source, found_um = _open(path)
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, tifffile.TiffFileError) as err:
        raise DataError(f"{path} cannot be read as an image ({err}): give a PNG, TIFF or SVS.") from err
    except openslide.OpenSlideError as err:
        raise DataError(f"{path} cannot be opened ({err}): it is damaged, copy it again.") from err
    return VirtualSlide(source, pixel_size_um or found_um or DEFAULT_PIXEL_SIZE_UM)


def most_to_see_um(slide: VirtualSlide, size_um: tuple[float, float]) -> tuple[float, float]:
    """The top left corner, (x, y) um, of the part of `size_um` (width, height) of a slide in which there is most detail, by glances all over it."""
    cell = max(math.ceil(max(slide.shape) / _GLANCES), _GLANCE_PX)
    rows, columns = (max(1, side // cell) for side in slide.shape)
    detail = np.empty((rows, columns), np.float32)
    for row, column in np.ndindex(rows, columns):
        seen = slide.region(row * cell + cell // 2, column * cell + cell // 2, _GLANCE_PX, _GLANCE_PX)
        detail[row, column] = seen.std(axis=(0, 1)).mean()
    window = [
        min(max(1, round(um / slide.pixel_size_um / cell)), count)
        for um, count in zip(size_um[::-1], detail.shape, strict=True)
    ]
    sums = np.lib.stride_tricks.sliding_window_view(detail, window).sum(axis=(2, 3))
    row, column = np.unravel_index(int(sums.argmax()), sums.shape)
    y_um, x_um = (
        max(0.0, min(int(at) * cell * slide.pixel_size_um, whole - size))
        for at, whole, size in zip((row, column), slide.size_um[::-1], size_um[::-1], strict=True)
    )
    return x_um, y_um


def _open(path: Path) -> tuple[Source, float | None]:
    if openslide.OpenSlide.detect_format(path) is not None:
        slide = openslide.OpenSlide(path)
        mpp = slide.properties.get(openslide.PROPERTY_NAME_MPP_X)
        return _Cached(_OpenSlide(slide, path)), believable_pixel_um(float(mpp)) if mpp else None
    if path.suffix.lower() in (".tif", ".tiff"):
        with tifffile.TiffFile(path) as tiff:
            found, page = tiff_pixel_um(tiff), tiff.pages.first
            if page.compression in _TIFFFILE_DECODES:
                return _Array(_eight_bit(page.asarray(), path)), found
            with Image.open(path) as image:
                return _decoded(image, path), found
    with Image.open(path) as image:
        dpi = image.info.get("dpi")
        found = believable_pixel_um(25400.0 / float(dpi[0])) if dpi and dpi[0] > 0 else None
        return _decoded(image, path), found


def _decoded(image: Image.Image, path: Path) -> _Array:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _Array(_eight_bit(np.asarray(image), path))
    return _Array(_on_glass(image))


def _on_glass(image: Image.Image) -> Pixels:
    """RGB of an image of any mode; transparent parts show empty glass."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return np.asarray(image.convert("RGB"))
    image = image.convert("RGBA")
    glass = Image.new("RGBA", image.size, (EMPTY_GLASS,) * 3 + (255,))
    return np.asarray(Image.alpha_composite(glass, image).convert("RGB"))


def _eight_bit(pixels: Any, path: Path) -> Pixels:
    """(H, W, 3) uint8 from (H, W) or (H, W, 1..4) of 8 or 16 bit."""
    array = np.asarray(pixels)
    if array.dtype.kind == "i" and array.size and array.min() >= 0 and array.max() < 65536:
        array = array.astype(np.uint16)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] > 4 or array.dtype not in (np.uint8, np.uint16) or not array.size:
        raise DataError(
            f"{path} holds {array.dtype} of shape {np.shape(pixels)}: give a grey or RGB image of 8 or 16 bit."
        )
    if array.dtype == np.uint16:
        array = (array // 257).astype(np.uint8)
    if array.shape[2] == 4:
        return _on_glass(Image.fromarray(array))
    if array.shape[2] != 3:
        return np.repeat(array[..., :1], 3, axis=2)
    return np.ascontiguousarray(array)
