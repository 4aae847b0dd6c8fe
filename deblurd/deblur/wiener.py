"""Non-blind Wiener deconvolution of motion blur, in linear light.

``X = conj(K) Y / (|K|^2 + nsr * sqrt(f / 0.25))`` (Wiener 1949), f in cycles per pixel: what the signal's power spectrum
falls off with. Exponents 0 to 2 were measured on stained tissue and smears, each at its best nsr: a constant loses 0.4 to
4.5 dB at 5 px; 1 loses up to 1 dB at 40 px and 2 up to 6, as they let the border's error through. The best nsr is near
0.01 for crisp tissue and near 0.06 for smooth smears.

The transform takes the image for periodic, and the blur has carried light in from beyond the border, which nobody saw. So the image is first continued by its own
mirror image, faded from one side into the other; then what the estimate, blurred again, shows beyond the border takes the place of that guess, and the filter
is run once more. That is one step of the least squares that leave the border free (Reeves 2005; Almeida and Figueiredo 2013).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from deblurd.frames import MotionVector
from deblurd.kernel import axis_of, motion_kernel
from deblurd.light import Image

_STEP = 1.9
"""How far the guess beyond the border goes towards what the estimate shows there; below 2 it cannot diverge. One step of 1.9 gains as much as an exact line search, and
four of them hardly more: on crisp tissue the estimate gains 0.6 and 1.1 dB at 10 and 20 px, slanting, in fields of 256 px, and 0.4 and 0.5 dB along an axis."""


def wiener(linear: Image, motion: MotionVector, nsr: float, *, free_border: bool = True) -> Image:
    """Sharpen (H, W) or (H, W, C) linear light that was blurred by `motion`; float32 of the same shape, not clipped.

    nsr: noise power over signal power at a quarter cycle per pixel, > 0. free_border: as above; without, the textbook's filter, in half the time. Motion along either
    axis (within 0.3 px) transforms rows only; any other, bent or slanting, the plane. Raises DataError where the motion is not known.
    """
    kernel = motion_kernel(motion).astype(np.float64)
    axis = axis_of(motion)
    if axis is None:
        return deconvolve(linear, kernel, nsr, free_border=free_border)
    return _filtered(linear, kernel.sum(axis=1 - axis, keepdims=True), nsr, (axis,), free_border)


def deconvolve(image: Image, kernel: NDArray[np.float64], nsr: float, *, free_border: bool = False) -> Image:
    """Sharpen (H, W) or (H, W, C) float32 that was blurred by any kernel (kh, kw), both odd, sum 1; as `wiener`, of which it is the general case."""
    return _filtered(image, kernel, nsr, (0, 1), free_border)


def _filtered(
    image: Image, kernel: NDArray[np.float64], nsr: float, axes: Sequence[int], free_border: bool
) -> Image:
    """Along the axes that the kernel reaches along; it has one element along any other."""
    padded = np.asarray(image, dtype=np.float32)
    for axis in axes:
        padded = _continued(padded, axis, kernel.shape[axis])
    size = [padded.shape[axis] if axis in axes else 1 for axis in (0, 1)]
    colours = (1,) * (image.ndim - 2)
    transfer = scipy.fft.rfftn(_centred(kernel, size).astype(np.float32), axes=axes)
    gain = _gain(transfer, _frequency(size, axes), nsr).reshape(*transfer.shape, *colours)

    def through(image: Image, factor: NDArray[np.complex64]) -> Image:
        spectrum = scipy.fft.rfftn(image, axes=axes)
        spectrum *= factor
        shape = [image.shape[axis] for axis in axes]
        return np.asarray(scipy.fft.irfftn(spectrum, s=shape, axes=axes, overwrite_x=True), np.float32)

    seen = tuple(slice(n) for n in image.shape[:2])
    if free_border:
        again = through(padded, gain * transfer.reshape(gain.shape).astype(np.complex64))
        padded = padded + np.float32(_STEP) * (again - padded)
        padded[seen] = image
    return np.ascontiguousarray(through(padded, gain)[seen])


def _frequency(size: Sequence[int], axes: Sequence[int]) -> NDArray[np.float64]:
    """Cycles per pixel of each element of a real transform along `axes`; only the last of them is halved."""
    halved = [
        scipy.fft.rfftfreq(n) if axis == axes[-1] else scipy.fft.fftfreq(n) for axis, n in enumerate(size)
    ]
    return np.hypot(halved[0][:, None], halved[1][None, :])


def _gain(
    transfer: NDArray[np.complexfloating], frequency: NDArray[np.float64], nsr: float
) -> NDArray[np.complex64]:
    """The Wiener filter of a transfer function; 1 at frequency 0, so brightness stays."""
    penalty = nsr * np.sqrt(frequency / 0.25)
    return np.asarray(np.conj(transfer) / (np.abs(transfer) ** 2 + penalty), dtype=np.complex64)


def _centred(kernel: NDArray[np.float64], shape: Sequence[int]) -> NDArray[np.float64]:
    """The kernel in an array of `shape` with its centre at index 0, wrapped."""
    out = np.zeros(shape)
    out[tuple(slice(n) for n in kernel.shape)] = kernel
    return np.roll(out, [-(n // 2) for n in kernel.shape], axis=tuple(range(len(shape))))


def _continued(image: Image, axis: int, kernel_size: int) -> Image:
    """Lengthen `axis` to a fast transform size: its end's mirror image fading into its start's."""
    size = image.shape[axis]
    extra = scipy.fft.next_fast_len(size + 2 * kernel_size + 8, real=True) - size
    ahead = np.arange(extra)
    shape = [1] * image.ndim
    shape[axis] = -1
    fade = (0.5 - 0.5 * np.cos(np.pi * (ahead + 0.5) / extra)).astype(np.float32).reshape(shape)
    after = np.take(image, _mirror(size + ahead, size), axis=axis)
    before = np.take(image, _mirror(ahead - extra, size), axis=axis)
    return np.concatenate([image, after + fade * (before - after)], axis=axis)


def _mirror(index: NDArray[np.intp], size: int) -> NDArray[np.intp]:
    """Indices outside [0, size) folded back in, the border pixel twice."""
    folded = index % (2 * size)
    return np.minimum(folded, 2 * size - 1 - folded)
