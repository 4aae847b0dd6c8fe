"""The blur kernel that a motion leaves, and the blur itself.

At the exposure fraction u the image stands at ``motion.at(u)``, so ``blurred(x) = integral of sharp(x - p(u)) du``.
A shift by a fraction of a pixel is bilinear, as in ``cv2.warpAffine``: the kernel is the path, uniform in time,
convolved with the bilinear footprint (a hat of half width 1 px) and sampled at whole pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deblurd.errors import DataError
from deblurd.frames import MotionVector
from deblurd.light import Image

STEPS_PER_PX = 32
"""Positions along the path per pixel of travel; the sum is then within 1e-4 of the integral."""

CROSS_PX = 0.3
"""Motion that strays across its axis by less than this counts as motion along the axis."""

_BENT_PX = 0.05

_NO_DEFOCUS_PX = 0.05
"""A Gaussian of so small a sigma leaves every pixel as it is."""


def motion_kernel(motion: MotionVector) -> Image:
    """(kh, kw) float32, both odd, sum 1; element [kh//2 + y, kw//2 + x] is the share of time spent at offset (y, x).

    Symmetric about its centre unless the motion bends. Raises DataError where the motion is not known.
    """
    path = _path(motion)
    radius_y, radius_x = (int(r) for r in np.ceil(np.abs(path).max(axis=0) - 1e-6))
    kernel = np.zeros((2 * radius_y + 3, 2 * radius_x + 3))  # one spare on each side for the hat's foot
    whole = np.floor(path).astype(np.intp)
    part = path - whole
    for step_y, weight_y in ((0, 1 - part[:, 0]), (1, part[:, 0])):
        for step_x, weight_x in ((0, 1 - part[:, 1]), (1, part[:, 1])):
            rows, columns = whole[:, 0] + radius_y + 1 + step_y, whole[:, 1] + radius_x + 1 + step_x
            np.add.at(kernel, (rows, columns), weight_y * weight_x)
    kernel = kernel[1:-1, 1:-1]
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)


def motion_transfer(motion: MotionVector, shape: Sequence[int]) -> NDArray[np.complex128]:
    """What a motion leaves of each frequency, on the grid of `rfft2` of `shape`: the mean of ``exp(-2 pi i f p(u))``, without the bilinear footprint
    that `motion_kernel` has, which no camera has: at 0.4 cycles per pixel that is 20 % and more.

    A path that bends across its axis is taken from the kernel all the same. Raises DataError where the motion is not known.
    """
    path = _path(motion)
    fy, fx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None, :]
    if max(abs(motion.bend_dy), abs(motion.bend_dx)) < _BENT_PX:
        return np.sinc(fy * motion.dy + fx * motion.dx).astype(np.complex128)
    axis = axis_of(motion)
    if axis is None:
        kernel = motion_kernel(motion)
        out = np.zeros(shape)
        out[: kernel.shape[0], : kernel.shape[1]] = kernel
        return np.fft.rfft2(np.roll(out, [-(n // 2) for n in kernel.shape], axis=(0, 1)))
    along = np.exp(-2j * np.pi * (fy.T if axis == 0 else fx) * path[:, axis : axis + 1]).mean(axis=0)
    return np.broadcast_to(along[:, None] if axis == 0 else along[None, :], (shape[0], fx.shape[1]))


def reblur(linear: Image, motion: MotionVector, defocus_px: float = 0.0) -> Image:
    """Blur (H, W) or (H, W, C) linear light by `motion`; float32 of the same shape, mirrored at the border.

    Motion within `CROSS_PX` of an axis is one separable filter, anything else a full 2-D one. defocus_px: sigma of a Gaussian that is
    added, for a frame out of focus; 0 for none.
    """
    kernel = motion_kernel(motion)[::-1, ::-1]  # OpenCV correlates
    blurred: NDArray[Any] = linear
    if axis_of(motion) is None:
        blurred = cv2.filter2D(linear, cv2.CV_32F, kernel, borderType=cv2.BORDER_REFLECT)
    elif kernel.size > 1:
        blurred = cv2.sepFilter2D(
            linear, cv2.CV_32F, kernel.sum(axis=0), kernel.sum(axis=1), borderType=cv2.BORDER_REFLECT
        )
    if defocus_px > _NO_DEFOCUS_PX:
        blurred = cv2.GaussianBlur(blurred, (0, 0), defocus_px, borderType=cv2.BORDER_REFLECT)
    return np.asarray(blurred, dtype=np.float32).reshape(linear.shape)


def axis_of(motion: MotionVector) -> int | None:
    """0 or 1 where the path runs along y or x within `CROSS_PX`, None otherwise."""
    travel_y, travel_x = np.ptp(_path(motion), axis=0)
    if travel_y <= CROSS_PX and travel_y <= travel_x:
        return 1
    return 0 if travel_x <= CROSS_PX else None


def _path(motion: MotionVector) -> NDArray[np.float64]:
    """Offsets (n, 2) px at n equal steps of time, taken at the middle of each."""
    reach = motion.length_px + 4 * float(np.hypot(motion.bend_dy, motion.bend_dx))
    if not (motion.is_known and np.isfinite(reach)):
        raise DataError("The motion is not known, so there is no kernel: leave this frame as it is.")
    steps = max(64, int(np.ceil(reach * STEPS_PER_PX)))
    return motion.at((np.arange(steps) + 0.5) / steps - 0.5)
