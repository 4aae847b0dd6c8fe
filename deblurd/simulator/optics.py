"""What falls on the sensor while the stage moves: the slide, averaged in linear light along the true path.

The slide between its pixels is what Lanczos interpolation (a = 4) says. A path becomes one kernel: the
interpolation weights of each of its points, averaged. Where it runs along one axis of the stage the kernel is a product of two short
ones (`cv2.sepFilter2D`, whatever the acceleration, however the camera is turned); other paths take the full 2-D kernel.
The mean place's fraction of a pixel is in the kernel too, so an upright camera interpolates once, and not at all where
the stage stands on a whole pixel.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from deblurd.geometry import PixelToStage
from deblurd.light import Image, to_linear
from deblurd.rolling import REACH_PX, resampled
from deblurd.simulator.slide import VirtualSlide

_LOBES = 4
_STRAY_PX = 0.02
"""A path that strays from its axis by less than this counts as running along it, which changes no pixel by half a grey level."""

_DECODE: Image = to_linear(np.arange(256, dtype=np.uint8).reshape(1, 256), "srgb")


class Optics:
    """The light path from a slide to a sensor of `shape` (H, W) pixels."""

    def __init__(
        self, slide: VirtualSlide, affine: PixelToStage, shape: tuple[int, int], color: bool
    ) -> None:
        """affine: the true one; its pixel size must be the slide's."""
        self.slide = slide
        self._color, self._affine = color, affine
        self._shape = shape
        turn = affine.matrix / slide.pixel_size_um
        self._upright = bool(np.allclose(turn, np.rint(turn), atol=1e-9))
        self._turn = np.rint(turn) if self._upright else turn
        extent = np.abs(self._turn) @ (np.array(shape) - 1.0) + 1
        # an upright camera sees whole pixels; a turned one needs a border for the interpolation
        self._window = np.rint(extent) if self._upright else np.ceil(extent) + 4

    def rolled_light(
        self, path_um: NDArray[np.float64], rows_um: NDArray[np.float64], defocus_px: float = 0.0
    ) -> Image:
        """The same of a rolling shutter. rows_um: (H, 2), where the stage was, in the mean, while each row was exposed, against the mean of `path_um`, by
        which all of them are blurred."""
        rows_px = self._affine.to_pixels(rows_um)
        margin = math.ceil(float(np.abs(rows_px).max())) + REACH_PX
        height, width = (side + 2 * margin for side in self._shape)
        wide = Optics(self.slide, self._affine, (height, width), self._color)
        return np.asarray(resampled(wide.light(path_um, defocus_px), rows_px, margin), np.float32)

    def light(self, path_um: NDArray[np.float64], defocus_px: float = 0.0) -> Image:
        """Mean light, (H, W, 3) or (H, W) float32, 1 at full scale, over stage positions (n, 2), (y, x) um, equal in time."""
        path_px = path_um / self.slide.pixel_size_um
        mean = path_px.mean(axis=0)
        corner = mean - (self._window - 1) / 2
        whole = np.floor(corner + 1e-9)
        weights = [_weights(path_px[:, i] - mean[i] + corner[i] - whole[i], defocus_px) for i in (0, 1)]
        (first_y, rows), (first_x, columns) = weights
        pad_y, pad_x = rows.shape[1], columns.shape[1]
        seen = self.slide.region(
            int(whole[0]) + first_y,
            int(whole[1]) + first_x,
            int(self._window[0]) + pad_y - 1,
            int(self._window[1]) + pad_x - 1,
        )
        linear = cv2.LUT(seen, _DECODE)
        if not self._color:
            linear = cv2.cvtColor(linear, cv2.COLOR_RGB2GRAY)
        if min(np.ptp(path_px, axis=0)) < _STRAY_PX:
            blurred = cv2.sepFilter2D(
                linear, cv2.CV_32F, columns.mean(axis=0), rows.mean(axis=0), anchor=(0, 0)
            )
        else:
            kernel = rows.T @ columns / len(path_px)
            blurred = cv2.filter2D(linear, cv2.CV_32F, kernel, anchor=(0, 0))
        return self._turned(np.asarray(blurred, np.float32)[: int(self._window[0]), : int(self._window[1])])

    def look_ahead(self, at_um: NDArray[np.float64]) -> None:
        """Have a part of the slide ready that will be needed at the stage position (2,), (y, x) um."""
        y0, x0 = np.floor(at_um / self.slide.pixel_size_um - self._window / 2).astype(int)
        self.slide.look_ahead(int(y0), int(x0), int(self._window[0]), int(self._window[1]))

    def _turned(self, window: Image) -> Image:
        """From the slide's orientation to the camera's."""
        turn = self._turn
        if self._upright:
            if turn[0, 0] == 0:
                window = np.asarray(
                    cv2.transpose(window), np.float32
                )  # in one go: faster than through strides
            along_y, along_x = turn.sum(axis=0)
            return window[:: int(along_y), :: int(along_x)]
        centre = (self._window - 1) / 2
        corner = centre - turn @ ((np.array(self._shape) - 1) / 2)
        to_window = np.array([[turn[1, 1], turn[1, 0], corner[1]], [turn[0, 1], turn[0, 0], corner[0]]])
        # bicubic: Lanczos costs four times as much here
        return np.asarray(
            cv2.warpAffine(window, to_window, self._shape[::-1], flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)
        )


def _weights(offsets: NDArray[np.float64], sigma_px: float) -> tuple[int, NDArray[np.float32]]:
    """Of each pixel (columns), for a sample at each offset (rows), blurred by a Gaussian; and which pixel is the first."""
    reach = _LOBES + math.ceil(4 * sigma_px)
    first = math.floor(offsets.min()) - reach + 1
    last = math.floor(offsets.max() + 1e-9) + reach
    distance = np.arange(first, last + 1) - offsets[:, None]
    weights = np.sinc(distance) * np.sinc(distance / _LOBES) * (np.abs(distance) < _LOBES)
    weights[np.abs(weights) < 1e-7] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    if sigma_px > 0:
        x = np.arange(-math.ceil(4 * sigma_px), math.ceil(4 * sigma_px) + 1)
        gauss = np.exp(-(x**2) / (2 * sigma_px**2))
        gauss /= gauss.sum()
        weights = np.array([np.convolve(row, gauss, "same") for row in weights])
    used = np.flatnonzero(np.abs(weights).sum(axis=0))
    return first + int(used[0]), weights[:, used[0] : used[-1] + 1].astype(np.float32)
