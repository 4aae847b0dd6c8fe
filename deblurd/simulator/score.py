"""How near a mosaic is to the virtual slide that it was scanned from."""

from __future__ import annotations

import cmath
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import zarr
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from deblurd.frames import Pixels, Place, Tile
from deblurd.geometry import PixelToStage
from deblurd.simulator.camera import Truth
from deblurd.simulator.slide import VirtualSlide

_BLOCK_PX = 1024
_MARGIN_PX = 8
_BORDER_PX = 16
"""Left out at the edge of the mosaic: no tile's far side is there to be compared fairly."""


MOVING_PX = 1.0
"""A blur of less has no length and direction worth speaking of."""


@dataclass(frozen=True, slots=True)
class Tracking:
    """Root mean square errors over tiles: of the pose (um, of the distance), and of the motion vector's length (per cent) and angle (degrees).

    The latter two over tiles whose true motion is at least MOVING_PX; nan where there are none, inf where one is unknown.
    """

    pose_rms_um: float
    length_error_pct: float
    angle_error_deg: float


@dataclass(frozen=True, slots=True)
class Score:
    """psnr_db over all covered pixels and channels; ssim by Wang et al. 2004 (Gaussian, sigma 1.5, range 255)."""

    psnr_db: float
    ssim: float


def score_tracking(tiles: Sequence[Tile], truth: Mapping[int, Truth]) -> Tracking:
    """Compares each tile's pose and motion, as tracked, with the truth of its index."""
    off_um, length, angle = [], [], []
    for tile in tiles:
        true = truth[tile.index]
        off_um.append(float(np.linalg.norm(tile.pose.yx_um - true.mean_um)))
        if true.motion.length_px < MOVING_PX:
            continue
        if not tile.motion.is_known:
            length.append(math.inf)
            angle.append(math.inf)
            continue
        # the angle between the two, whatever their quadrants
        seen, real = complex(tile.motion.dx, tile.motion.dy), complex(true.motion.dx, true.motion.dy)
        length.append(100 * (abs(seen) / abs(real) - 1))
        angle.append(math.degrees(cmath.phase(seen / real)))
    return Tracking(_rms(off_um), _rms(length), _rms(angle))


def _rms(errors: Sequence[float]) -> float:
    return math.sqrt(float(np.mean(np.square(errors)))) if len(errors) else math.nan


def position_error_px(
    places: Mapping[int, Place], truth_um: Mapping[int, NDArray[np.float64]], affine: PixelToStage
) -> tuple[float, NDArray[np.float64]]:
    """Root mean square distance (px) of solved tile centres from the truth, and the offset that was taken out of it.

    truth_um: true stage position (2,), (y, x), of each tile. The offset (2,), (y, x) in micrometres, is the mean of solved - true: a
    mosaic as a whole can only be as well placed as the stage's own zero.
    """
    common = sorted(places.keys() & truth_um.keys())
    if not common:
        return math.nan, np.zeros(2)
    solved = affine.to_stage(np.array([places[i].yx_px for i in common]))
    error = solved - np.array([truth_um[i] for i in common])
    offset = error.mean(axis=0)
    rms_um = math.sqrt(float(np.mean(np.sum((error - offset) ** 2, axis=1))))
    return rms_um / affine.pixel_size_um, offset


def score_mosaic(mosaic: Path, slide: VirtualSlide, offset_um: NDArray[np.float64]) -> Score:
    """Compares a finished OME-Zarr mosaic (sRGB-encoded, 8 bit) with the slide, block by block.

    offset_um: what `position_error_px` took out. One brightness factor for the whole mosaic is taken out as well, in encoded
    values by least squares: nobody knows the lamp's absolute brightness.
    """
    sums = np.zeros(4)
    ssim_sum = ssim_n = 0.0
    for seen, true, covered in _blocks(mosaic, slide, offset_um):
        a, b = seen[covered].astype(np.float64), true[covered].astype(np.float64)
        sums += [(a * a).sum(), (a * b).sum(), (b * b).sum(), a.size]
        if min(covered.shape) >= 32:
            axis = 2 if seen.ndim == 3 else None
            _, similarity = structural_similarity(  # type: ignore[no-untyped-call]
                true,
                seen,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
                data_range=255,
                channel_axis=axis,
                full=True,
            )
            ssim_sum += float(similarity[covered].sum())
            ssim_n += float(similarity[covered].size)
    saa, sab, sbb, n = sums
    if n == 0 or saa == 0:
        return Score(math.nan, math.nan)
    mse = max((sbb - sab * sab / saa) / n, 1e-12)
    return Score(10 * math.log10(255.0**2 / mse), ssim_sum / ssim_n if ssim_n else math.nan)


def _blocks(
    mosaic: Path, slide: VirtualSlide, offset_um: NDArray[np.float64]
) -> Iterator[tuple[Pixels, Pixels, NDArray[np.bool_]]]:
    group = zarr.open_group(str(mosaic), mode="r")
    level: Any = group["0"]
    source: Any = group["labels/source/0"]
    ome: Any = group.attrs["ome"]
    transforms = ome["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    scale = np.array(transforms[0]["scale"][-2:])
    translation = np.array(transforms[1]["translation"][-2:]) - offset_um
    height, width = level.shape[-2:]
    for y in range(0, height, _BLOCK_PX):
        for x in range(0, width, _BLOCK_PX):
            h, w = min(_BLOCK_PX, height - y), min(_BLOCK_PX, width - x)
            label = np.asarray(source[..., y : y + h, x : x + w]).reshape(h, w)
            if not label.any():
                continue
            seen = np.moveaxis(np.asarray(level[:, y : y + h, x : x + w]), 0, 2)
            if seen.dtype == np.uint16:
                seen = (seen // 257).astype(np.uint8)
            true = slide_view(slide, translation + np.array([y, x]) * scale, scale, (h, w))
            if seen.shape[2] == 1:
                seen, true = seen[..., 0], cv2.cvtColor(true, cv2.COLOR_RGB2GRAY)
            kernel = np.ones((2 * _BORDER_PX + 1, 2 * _BORDER_PX + 1), np.uint8)
            covered = cv2.erode((label > 0).astype(np.uint8), kernel, borderValue=1).astype(bool)
            inside_y = (np.arange(y, y + h) >= _BORDER_PX) & (np.arange(y, y + h) < height - _BORDER_PX)
            inside_x = (np.arange(x, x + w) >= _BORDER_PX) & (np.arange(x, x + w) < width - _BORDER_PX)
            covered &= inside_y[:, None] & inside_x[None, :]
            if covered.any():
                yield np.ascontiguousarray(seen), np.ascontiguousarray(true), covered


def slide_view(
    slide: VirtualSlide, origin_um: NDArray[np.float64], scale_um: NDArray[np.float64], shape: tuple[int, int]
) -> Pixels:
    """The slide's own pixels (h, w, 3) on the mosaic's grid."""
    step = scale_um / slide.pixel_size_um
    first = origin_um / slide.pixel_size_um
    y0, x0 = (math.floor(v) - _MARGIN_PX for v in first)
    h = math.ceil(shape[0] * step[0]) + 2 * _MARGIN_PX
    w = math.ceil(shape[1] * step[1]) + 2 * _MARGIN_PX
    region = slide.region(y0, x0, h, w)
    to_region = np.array([[step[1], 0, first[1] - x0], [0, step[0], first[0] - y0]])
    view = cv2.warpAffine(
        region,
        to_region,
        (shape[1], shape[0]),
        flags=cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(view)
