"""Image files as pixels: what a camera or another program saved."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import tifffile

from deblurd.errors import DataError
from deblurd.frames import Pixels

LARGEST_PIXEL_UM = 20.0
"""Metadata that say more are screen or print resolutions."""


def read_image(path: Path) -> Pixels:
    """(H, W), (H, W, 3) RGB or (H, W, 4) RGBA, uint8 or uint16; PNG, TIFF, JPEG, WebP and what else OpenCV knows.

    Raises DataError for a file that cannot be read, is cut short, holds several images or other values.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as err:
        raise DataError(f"{path} cannot be read ({err.strerror}): check the file") from err
    if not data.size:
        raise DataError(f"{path} is empty, 0 bytes: export or copy it again")
    try:
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except cv2.error:
        # says the same as None
        image = None
    if image is None:
        raise DataError(
            f"{path} is not an image that can be read, it may be cut short: export it again as PNG or TIFF"
        )
    if (count := _images(path)) > 1:
        raise DataError(f"{path} holds {count} images, but one is wanted: export each as a file of its own")
    if image.dtype not in (np.uint8, np.uint16):
        raise DataError(
            f"{path} holds {image.dtype} values, but only 8 and 16 bit are known: convert it first"
        )
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    return np.ascontiguousarray(image)


def tiff_pixel_um(tiff: tifffile.TiffFile) -> float | None:
    """Micrometres per pixel, from OME metadata or else the resolution tags; None where they say nothing believable."""
    if tiff.ome_metadata:
        for element in ElementTree.fromstring(tiff.ome_metadata).iter():
            if element.tag.endswith("}Pixels") and element.get("PhysicalSizeXUnit", "µm") == "µm":
                return believable_pixel_um(float(element.get("PhysicalSizeX", "nan")))
    page = tiff.pages.first
    per_unit, unit = page.tags.get("XResolution"), page.tags.get("ResolutionUnit")
    unit_um = {2: 25400.0, 3: 10000.0}.get(int(unit.value)) if unit is not None else None
    if per_unit is None or unit_um is None or not per_unit.value[0]:
        return None
    return believable_pixel_um(unit_um * per_unit.value[1] / per_unit.value[0])


def believable_pixel_um(pixel_um: float) -> float | None:
    return pixel_um if 0 < pixel_um < LARGEST_PIXEL_UM else None


def _images(path: Path) -> int:
    """Planes and channels of a TIFF's first image, of which OpenCV gives one; smaller versions of the same do not count."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        return 1
    try:
        with tifffile.TiffFile(path) as tiff:
            return len(tiff.series[0].pages)
    except (tifffile.TiffFileError, ValueError) as err:
        raise DataError(f"{path} is not a whole TIFF ({err}): export it again") from err
