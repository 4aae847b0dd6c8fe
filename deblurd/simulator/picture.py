"""Before and after, side by side, for people to look at."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import zarr
from numpy.typing import NDArray

from deblurd.frames import Pixels
from deblurd.simulator.score import slide_view
from deblurd.simulator.slide import VirtualSlide

VIEW_PX = 240
ENLARGED = 2
_CAPTION_PX = 36
_GAP_PX = 8


def before_and_after(
    raw: Path, deblurred: Path, slide: VirtualSlide, offset_um: NDArray[np.float64], path: Path
) -> None:
    """Writes a PNG of the place with the most detail: in the mosaic of raw tiles, in the deblurred one, and on the slide itself.

    offset_um: (2,), (y, x), what the mosaics are shifted by as a whole. Raises OSError.
    """
    y, x = _most_detail(deblurred)
    panels = [_crop(raw, y, x), _crop(deblurred, y, x)]
    scale_um, translation_um = _transform(deblurred)
    origin_um = translation_um - offset_um + np.array([y, x]) * scale_um
    panels.append(slide_view(slide, origin_um, scale_um, (VIEW_PX, VIEW_PX)))
    captions = ("as the moving camera saw it", "deblurd", "the slide itself")
    gap = np.full((_CAPTION_PX + VIEW_PX * ENLARGED, _GAP_PX, 3), 255, np.uint8)
    row = [part for panel in zip(panels, captions, strict=True) for part in (_captioned(*panel), gap)][:-1]
    done, png = cv2.imencode(".png", cv2.cvtColor(np.hstack(row), cv2.COLOR_RGB2BGR))
    if done:
        path.write_bytes(png.tobytes())


def _most_detail(mosaic: Path) -> tuple[int, int]:
    """Corner (y, x) of the view with the largest mean gradient in the second pyramid level, in pixels of the first."""
    group = zarr.open_group(str(mosaic), mode="r")
    levels: Any = group["0"], group["1"] if "1" in group else group["0"]
    factor = 2 if "1" in group else 1
    grey = np.asarray(levels[1][:]).astype(np.float32).mean(axis=0)
    covered = cv2.erode((grey > 0).astype(np.float32), np.ones((5, 5)))
    gradient = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)) * covered
    side = VIEW_PX // factor
    detail = cv2.blur(gradient, (side, side), anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)
    rows, columns = max(grey.shape[0] - side, 1), max(grey.shape[1] - side, 1)
    y, x = np.unravel_index(int(detail[:rows, :columns].argmax()), (rows, columns))
    return int(y) * factor, int(x) * factor


def _crop(mosaic: Path, y: int, x: int) -> Pixels:
    level: Any = zarr.open_group(str(mosaic), mode="r")["0"]
    part = np.moveaxis(np.asarray(level[:, y : y + VIEW_PX, x : x + VIEW_PX]), 0, 2)
    if part.dtype == np.uint16:
        part = (part // 257).astype(np.uint8)
    part = np.repeat(part, 3, axis=2) if part.shape[2] == 1 else part
    return np.pad(part, ((0, VIEW_PX - part.shape[0]), (0, VIEW_PX - part.shape[1]), (0, 0)))


def _transform(mosaic: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scale and translation (2,), (y, x), um, of the finest level."""
    ome: Any = zarr.open_group(str(mosaic), mode="r").attrs["ome"]
    scale, translation = ome["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    return np.array(scale["scale"][-2:]), np.array(translation["translation"][-2:])


def _captioned(view: Pixels, caption: str) -> Pixels:
    size = VIEW_PX * ENLARGED
    panel = np.full((_CAPTION_PX + size, size, 3), 255, np.uint8)
    panel[_CAPTION_PX:] = cv2.resize(view, (size, size), interpolation=cv2.INTER_CUBIC)
    height = math.floor(0.7 * _CAPTION_PX)
    cv2.putText(panel, caption, (4, height), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (40, 40, 40), 1, cv2.LINE_AA)
    return panel
