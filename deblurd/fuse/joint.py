"""Joint Wiener deconvolution: one sharp image from several views of it, each blurred in its own way.

Views with the same kernel are averaged before (`stack.py`), so that the work and the memory here go with the number of *kinds* of blur,
not with the number of frames. In the Fourier domain, with K_k the transfer function of kind k and v_k the variance of its noise,

``X = sum_k conj(K_k) Y_k / w_k  /  (sum_k |K_k|^2 / w_k + 1 / S)``,   ``w_k = v_k + S |K_k|^2 (2 pi f s_k)^2 / n_k``

(Wiener 1949; Yaroslavsky & Caulfield 1994 for several images). S(f) is the power that the specimen is expected to have; the second part of w is
what n_k views that lie s_k px off (standard deviation, each axis) leave besides: it grows with the frequency, and
so fine detail is only believed as far as the places are. Where one kernel has its zeros, another speaks; where all have theirs, nothing does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from deblurd.errors import DataError
from deblurd.frames import MotionVector
from deblurd.fuse.spectrum import Spectrum
from deblurd.kernel import motion_transfer
from deblurd.light import Image

Floats = NDArray[np.float64]

ZERO = 0.05
"""A transfer function below this says nothing about its frequency."""

_HOLES = 0.002
"""A kind that lacks a larger share within what it covers is filled in from the others first."""

ROUNDS = 1
_STEP = 1.9
"""What the estimate, blurred again, shows where a kind saw nothing, within or beyond its border, takes the place of what was guessed there, and the estimate is made again; so
often, and so far (see `deblur.wiener`)."""


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """The mean of all views of one kind of blur, on the common grid.

    image: (H, W, C) float32 linear light, anything where `covered` is False. kernel: (kh, kw), both odd, sum 1. variance: of the mean's noise in
    each channel, (C,), light squared. covered: (H, W) bool, None for everywhere. views: how many went in. sigma_px: how far off each may lie.
    motion: that the kernel stands for, which tells more exactly what it leaves.
    """

    image: Image
    kernel: NDArray[np.floating]
    variance: Floats
    covered: NDArray[np.bool_] | None = None
    views: int = 1
    sigma_px: float = 0.0
    motion: MotionVector | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Before:
    """An estimate that was made before, of data that are not among the kinds: of one frame, by a network.

    image: (H, W, C) float32 linear light, anything where `covered` (H, W) is False. motion, variance: (C,), of the frame that it was made of. share: of the
    square error of the best linear estimate of that frame, that this one is expected to have.
    """

    image: Image
    covered: NDArray[np.bool_]
    motion: MotionVector
    variance: Floats
    share: float


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """image: (H, W, C) float32, not clipped. noise: standard deviation of its error in each channel, (C,), as expected. unseen: share of
    the frequencies up to a quarter cycle per pixel that no kind saw: 0 where the zeros of each are filled by others."""

    image: Image
    noise: Floats
    unseen: float


def joint_wiener(
    kinds: Sequence[Kind], spectra: Sequence[Spectrum], before: Before | None = None
) -> Estimate:
    """The image that explains all `kinds`. spectra: of the specimen, one for each channel. before: in place of nothing but its spectrum, what is known.

    What is known is made better where the kinds know more, by the errors of both; where no kind says anything it stays. A kind with holes is filled from the others, or by its own mean where there are none. Raises DataError without a kind.
    """
    if not kinds:
        raise DataError("There is nothing to fuse: no frame that covers this place has a known motion.")
    height, width = kinds[0].image.shape[:2]
    reach = max(max(kind.kernel.shape) for kind in kinds)
    padded = tuple(scipy.fft.next_fast_len(side + reach + 16, real=True) for side in (height, width))
    frequency = frequencies(padded)
    transfers = [_transfer(kind, padded, frequency) for kind in kinds]
    images = [continued(_filled(kind, kinds), padded) for kind in kinds]
    seen = [_seen(kind, padded) for kind in kinds]

    def fill(n: int, sharp: Image, step: float) -> None:
        guess = np.float32(step) * (_blurred(sharp, transfers[n]) - images[n])
        images[n] += np.where(seen[n], np.float32(0), guess)
        if len(kinds) > 1:
            images[n] = continued(images[n][:height, :width], padded)

    if len(kinds) > 1:
        for n, kind in enumerate(kinds):
            if _is_pierced(kind):
                others = [m for m in range(len(kinds)) if m != n]
                chosen = [images[m] for m in others], [kinds[m] for m in others]
                rest = _solve(*chosen, [transfers[m] for m in others], spectra, padded, frequency)
                fill(n, rest[0], 1.0)
    sharp, noise = _solve(images, kinds, transfers, spectra, padded, frequency)
    for _ in range(ROUNDS):
        for n in range(len(kinds)):
            fill(n, sharp, _STEP if len(kinds) == 1 else 1.0)
        sharp, noise = _solve(images, kinds, transfers, spectra, padded, frequency)
    if before is not None:
        known = np.where(before.covered[..., None], before.image, sharp[:height, :width])
        padded_known = continued(known, padded)
        for n in range(len(kinds)):
            fill(n, padded_known, 1.0)
        own = motion_transfer(before.motion, padded)
        sharp, noise = _solve(
            images, kinds, transfers, spectra, padded, frequency, (padded_known, own, before)
        )
        transfers = [*transfers, own]
    unseen = np.all([np.abs(transfer) < ZERO for transfer in transfers], axis=0)[frequency <= 0.25]
    return Estimate(np.ascontiguousarray(sharp[:height, :width]), noise, float(unseen.mean()))


def gain_of(
    transfers: Sequence[NDArray[np.complexfloating]],
    variances: Sequence[float],
    frequency: Floats,
    spectrum: Spectrum,
    sigmas_px: Sequence[float],
    views: Sequence[int],
    known: Floats | None = None,
) -> tuple[list[NDArray[np.complexfloating]], Floats]:
    """The filter of each kind, and the power of the estimate's error at each frequency, light squared per pixel.

    transfers: of each kind, on the grid of `frequency` (cycles per pixel). variances, sigmas_px, views: as in `Kind`. known: 1 / the power
    of the error of what is known before; that the specimen has its spectrum, if None.
    """
    power = spectrum.power(frequency)
    inverse = spectrum.inverse(frequency) if known is None else known
    off = power * (2 * math.pi * frequency) ** 2
    filters, total = [], inverse.copy()
    for transfer, variance, sigma_px, n in zip(transfers, variances, sigmas_px, views, strict=True):
        seen = transfer.real**2 + transfer.imag**2
        trusted = 1 / (variance + off * seen * (sigma_px**2 / n))
        filters.append(np.conj(transfer) * trusted)
        total += seen * trusted
    error = 1 / total
    return [each * error for each in filters], error


def frequencies(shape: Sequence[int]) -> Floats:
    """Cycles per pixel, on the grid of `rfft2`."""
    return np.hypot(scipy.fft.fftfreq(shape[0])[:, None], scipy.fft.rfftfreq(shape[1])[None, :])


def transfer_of(kernel: NDArray[np.floating], shape: Sequence[int]) -> NDArray[np.complexfloating]:
    """The transfer function of a kernel about its centre, on the grid of `rfft2`."""
    out = np.zeros(shape)
    out[tuple(slice(n) for n in kernel.shape)] = kernel
    centred = np.roll(out, [-(n // 2) for n in kernel.shape], axis=(0, 1))
    return scipy.fft.rfft2(centred)


def transfer(kind: Kind, shape: Sequence[int]) -> NDArray[np.complexfloating]:
    """That of a kind's blur, on the grid of `rfft2`."""
    return transfer_of(kind.kernel, shape) if kind.motion is None else motion_transfer(kind.motion, shape)


def _transfer(kind: Kind, shape: Sequence[int], frequency: Floats) -> NDArray[np.complexfloating]:
    # the mean of views that scatter is blurred by their scatter
    scatter = (
        1.0
        if kind.views == 1
        else np.exp(-2 * (math.pi * frequency * kind.sigma_px) ** 2 * (1 - 1 / kind.views))
    )
    return np.asarray(transfer(kind, shape) * scatter)


def _seen(kind: Kind, shape: Sequence[int]) -> NDArray[np.bool_]:
    """Where on the padded grid a kind has data, (rows, columns, 1)."""
    out = np.zeros((*shape, 1), bool)
    height, width = kind.image.shape[:2]
    out[:height, :width, 0] = True if kind.covered is None else kind.covered
    return out


def _is_pierced(kind: Kind) -> bool:
    """Whether there is a hole within what a kind covers, where something was left out, and not only at its border."""
    if kind.covered is None:
        return False
    rows, columns = np.flatnonzero(kind.covered.any(axis=1)), np.flatnonzero(kind.covered.any(axis=0))
    if not len(rows):
        return False
    inner = kind.covered[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return 1 - float(inner.mean()) > _HOLES


def _filled(kind: Kind, kinds: Sequence[Kind]) -> Image:
    """The image of a kind, with the mean of the others in its holes, or its own; where there are no others, its own mirror image beyond its border."""
    if kind.covered is None or kind.covered.all():
        return kind.image
    rows, columns = np.flatnonzero(kind.covered.any(axis=1)), np.flatnonzero(kind.covered.any(axis=0))
    if len(kinds) == 1 and len(rows):
        inner = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        around = [
            (int(at[0]), side - int(at[-1]) - 1)
            for at, side in zip((rows, columns), kind.image.shape[:2], strict=True)
        ]
        own = kind.image[kind.covered].mean(axis=0)
        whole = np.where(kind.covered[..., None], kind.image, own)[inner]
        return np.pad(whole, (*around, (0, 0)), mode="symmetric").astype(np.float32, copy=False)
    total, weight = np.zeros_like(kind.image), np.zeros((*kind.image.shape[:2], 1), np.float32)
    for other in kinds:
        covered = np.ones(kind.image.shape[:2], bool) if other.covered is None else other.covered
        total += other.image * covered[..., None]
        weight += covered[..., None]
    own = kind.image[kind.covered].mean(axis=0) if kind.covered.any() else 0.0
    others = np.where(weight > 0, total / np.maximum(weight, 1), own)
    return np.asarray(np.where(kind.covered[..., None], kind.image, others), np.float32)


def _solve(
    images: Sequence[Image],
    kinds: Sequence[Kind],
    transfers: Sequence[NDArray[np.complexfloating]],
    spectra: Sequence[Spectrum],
    shape: Sequence[int],
    frequency: Floats,
    before: tuple[Image, NDArray[np.complexfloating], Before] | None = None,
) -> tuple[Image, Floats]:
    """The estimate on the padded grid (rows, columns, C), on which the images are too, and the standard deviation of its error."""
    planes, noise = [], []
    for channel, spectrum in enumerate(spectra):
        trust: Floats | None = None
        if before is not None:
            _, own, one = before
            # that of the filter of one frame, or less
            trust = spectrum.inverse(frequency) + np.abs(own) ** 2 / float(one.variance[channel])
            trust /= one.share
        filters, error = gain_of(
            transfers,
            [float(kind.variance[channel]) for kind in kinds],
            frequency,
            spectrum,
            [kind.sigma_px for kind in kinds],
            [kind.views for kind in kinds],
            trust,
        )
        total = np.zeros(frequency.shape, np.complex64)
        for image, filter_ in zip(images, filters, strict=True):
            total += scipy.fft.rfft2(image[..., channel]) * filter_.astype(np.complex64)
        if before is not None and trust is not None:
            total += scipy.fft.rfft2(before[0][..., channel]) * (trust * error).astype(np.float32)
        planes.append(np.asarray(scipy.fft.irfft2(total, s=tuple(shape), overwrite_x=True), np.float32))
        noise.append(math.sqrt(mean_over(error, frequency)))
    return np.stack(planes, axis=-1), np.array(noise)


def mean_over(power: Floats, frequency: Floats) -> float:
    """Mean of a power over all frequencies of the plane but 0, from the half that `rfft2` keeps."""
    weight = np.full(power.shape[1], 2.0)
    weight[0] = 1.0
    weight = np.where(frequency > 0, weight, 0.0)
    return float((power * weight).sum() / weight.sum())


def continued(plane: NDArray[np.float32], shape: Sequence[int]) -> NDArray[np.float32]:
    """(H, W[, C]) in a larger (rows, columns): its mirror image beyond each end fades into that beyond the other, so that nothing jumps at the wrap."""
    for axis, size in enumerate(shape):
        length = plane.shape[axis]
        extra = size - length
        if extra <= 0:
            continue
        ahead = np.arange(extra)
        fade = (0.5 - 0.5 * np.cos(np.pi * (ahead + 0.5) / extra)).astype(np.float32)
        fade = fade.reshape([-1 if at == axis else 1 for at in range(plane.ndim)])
        after = np.take(plane, _mirror(length + ahead, length), axis=axis)
        before = np.take(plane, _mirror(ahead - extra, length), axis=axis)
        plane = np.concatenate([plane, after + fade * (before - after)], axis=axis)
    return plane


def _mirror(index: NDArray[np.intp], size: int) -> NDArray[np.intp]:
    folded = index % (2 * size)
    return np.minimum(folded, 2 * size - 1 - folded)


def _blurred(sharp: Image, transfer: NDArray[np.complexfloating]) -> Image:
    """The padded estimate as a kind would show it."""
    spectrum = scipy.fft.rfft2(sharp, axes=(0, 1)) * transfer[..., None].astype(np.complex64)
    return np.asarray(scipy.fft.irfft2(spectrum, s=sharp.shape[:2], axes=(0, 1)), np.float32)
