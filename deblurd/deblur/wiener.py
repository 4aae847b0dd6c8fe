"""Non-blind Wiener deconvolution of motion blur, in linear light.

``X = conj(K) Y / (|K|^2 + nsr * sqrt(f / 0.25))`` (Wiener 1949), f in cycles per pixel: what the signal's power spectrum
falls off with. Exponents 0 to 2 were measured on stained tissue and smears, each at its best nsr: a constant loses 0.4 to
4.5 dB at 5 px; 1 loses up to 1 dB at 40 px and 2 up to 6, as they let the border's error through. The best nsr is near
0.01 for crisp tissue and near 0.06 for smooth smears. The image is continued beyond its border by its own mirror
image, faded from one side into the other, so that the transform sees no step.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from deblurd.frames import MotionVector
from deblurd.kernel import axis_of, motion_kernel
from deblurd.light import Image


def wiener(linear: Image, motion: MotionVector, nsr: float) -> Image:
    """Sharpen (H, W) or (H, W, C) linear light that was blurred by `motion`; float32 of the same shape, not clipped.

    nsr: noise power over signal power at a quarter cycle per pixel, > 0. Motion along either axis (within 0.3 px) transforms
    rows only; any other, bent or slanting, the plane. Raises DataError where the motion is not known.
    """
    kernel = motion_kernel(motion).astype(np.float64)
    image = np.asarray(linear, dtype=np.float32)
    axis = axis_of(motion)
    if axis is None:
        return deconvolve(image, kernel, nsr)
    return _rows(image, kernel.sum(axis=1 - axis), nsr, axis)


def _rows(image: Image, kernel: NDArray[np.float64], nsr: float, axis: int) -> Image:
    size = image.shape[axis]
    padded = _continued(image, axis, len(kernel))
    length = padded.shape[axis]
    transfer = scipy.fft.rfft(_centred(kernel, (length,)))
    gain = _gain(transfer, scipy.fft.rfftfreq(length), nsr)
    shape = [1] * image.ndim
    shape[axis] = -1
    spectrum = scipy.fft.rfft(padded, axis=axis)
    spectrum *= gain.reshape(shape)
    sharp = scipy.fft.irfft(spectrum, n=length, axis=axis, overwrite_x=True)
    return np.ascontiguousarray(sharp[:size] if axis == 0 else sharp[:, :size])


def deconvolve(image: Image, kernel: NDArray[np.float64], nsr: float) -> Image:
    """Sharpen (H, W) or (H, W, C) float32 that was blurred by any kernel (kh, kw), both odd, sum 1; as `wiener`, of which it is the general case."""
    height, width = image.shape[:2]
    padded = _continued(_continued(image, 0, kernel.shape[0]), 1, kernel.shape[1])
    rows, columns = padded.shape[:2]
    transfer = scipy.fft.rfft2(_centred(kernel, (rows, columns)).astype(np.float32))
    frequency = np.hypot(scipy.fft.fftfreq(rows)[:, None], scipy.fft.rfftfreq(columns)[None, :])
    gain = _gain(transfer, frequency, nsr)
    spectrum = scipy.fft.rfft2(padded, axes=(0, 1))
    spectrum *= gain.reshape(gain.shape + (1,) * (image.ndim - 2))
    sharp = scipy.fft.irfft2(spectrum, s=(rows, columns), axes=(0, 1), overwrite_x=True)
    return np.ascontiguousarray(sharp[:height, :width])


def _gain(
    transfer: NDArray[np.complexfloating], frequency: NDArray[np.float64], nsr: float
) -> NDArray[np.complex64]:
    """The Wiener filter of a transfer function; 1 at frequency 0, so brightness stays."""
    penalty = nsr * np.sqrt(frequency / 0.25)
    return np.asarray(np.conj(transfer) / (np.abs(transfer) ** 2 + penalty), dtype=np.complex64)


def _centred(kernel: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
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
