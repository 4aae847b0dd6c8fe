"""One tile, estimated from all frames that see it.

The frames come one after the other and are added up by kinds of blur (a digital TDI: memory goes with the kinds, not with the frames); the sums
are deconvolved together. What disagrees with the rest stays out, there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from deblurd.frames import Encoding, MotionVector, Pixels
from deblurd.fuse.joint import Before, Kind, frequencies, gain_of, joint_wiener, mean_over, transfer
from deblurd.fuse.spectrum import Floats, Spectrum, fit_spectrum
from deblurd.fuse.views import Compared, View, block_grid, compare, is_alike, shifted, wrongly_moved
from deblurd.kernel import motion_kernel, motion_transfer
from deblurd.light import Image, luminance_of, to_linear

MARGIN_PX = 24
"""So far beyond the tile its neighbours are taken in: what blurs over the border."""

MOST_KINDS = 6
"""Kinds of blur that are told apart; views of further ones are left out, those with the longest motion first."""

_SATURATED, _SATURATED_WEIGHT = 0.995, 1e-3
_EDGE_PX = 12
"""A view fades in over so many pixels: no seam where one begins."""

_LEAST_SHARE = 0.02

_UNLIKE = 0.2
"""Kernels of which one differs from the other by a larger share of its motion have other zeros."""

_CONTRADICTED = 3.0
"""What was measured of a camera is not believed where a frame has so many times less noise: somebody changed its gain since."""

Worth = Callable[[float], float]
"""From an exposure to what it is worth, both in units of the key frame's: by how much its noise is less, once it is as bright."""

ALIKE = "all frames of some fields are blurred alike: they were averaged, and what their common kernel took stays away"

WRONG_MOTION = "it is blurred otherwise than its motion says"

_ALONE_SHARE, _ALONE_PX = 0.8, 6.0
"""Of the square error of the filter, that what a network makes of one frame has: 1 dB less where the blur is long, and more the shorter it is; both are as good at so many pixels."""

_ALONE_NOISE = 2e-4
"""Variance of the noise, for each pixel of blur, above which more raw frames are worth more than what a network makes of one: measured on held-out slides, 200 to 30,000 electrons, 2 to 32 px."""

_BORDER, _BORDER_FILLED = 1.0, 0.5
"""What nobody saw beyond a border is noise too: so many times the variance of the image, times the blur squared over the area; and where other kinds fill a kernel's zeros."""


@dataclass(frozen=True, slots=True)
class Noise:
    """What is known of the camera's noise, by a photon transfer. full_scale_e: electrons at full scale. read_e: read noise, electrons, standard deviation."""

    full_scale_e: float
    read_e: float

    def variance(self, level: Floats) -> Floats:
        """Of the noise where the light is `level`, both as shares of full scale."""
        return np.asarray(
            (np.maximum(level, 1e-3) * self.full_scale_e + self.read_e**2) / self.full_scale_e**2
        )


@dataclass(frozen=True, slots=True, eq=False)
class Fused:
    """light: (H, W[, C]) float32 linear light as the key frame would show it at rest, not clipped. observations: (H, W) uint8, how many frames went into
    each pixel. noise: standard deviation of the error expected. single_noise: that of the key frame alone. unseen: share of frequencies that no
    frame saw. left_out: why, and notes: what else was odd, by the number of the frame. kinds: of blur."""

    light: Image
    observations: NDArray[np.uint8]
    noise: float
    single_noise: float
    unseen: float
    kinds: int
    left_out: dict[int, str] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Sum:
    """Views of one kind, added up."""

    motion: MotionVector
    total: Image
    weight: Image
    views: int = 0
    lengths: list[MotionVector] = field(default_factory=list)
    sigmas: list[float] = field(default_factory=list)


class Fuser:
    """Fuses tiles of one camera. read: gives the raw pixels of a frame by its number. encoding: what they mean. gain: (h, w) factors that even linear light
    out over the frame, any size, or None. noise: of the camera, or None to estimate it from the frames, as is done where they contradict it."""

    def __init__(
        self,
        read: Callable[[int], Pixels],
        encoding: Encoding,
        gain: Image | None = None,
        noise: Noise | None = None,
    ) -> None:
        self._read, self._encoding, self._gain, self._noise = read, encoding, gain, noise

    def fuse(self, key: View, others: Sequence[View], alone: Pixels | None = None) -> Fused | None:
        """The tile `key` from itself and all `others` that see some of it; None where there is nothing to fuse it with.

        alone: what a network made of the key frame: the other frames then make that better, in place of a filter's estimate.
        Each other frame is read twice, one at a time: memory does not grow with them.
        """
        if not key.motion.is_known:
            return None
        key_light = self._light(key.index)
        key_grey = luminance_of(key_light)
        unit, worth = self._unit_noise(key, key_light, others)
        compared = self._compare(key, key_grey, others, unit, worth)
        left_out = {each.view.index: each.why_not for each in compared if each.why_not}
        good = [each for each in compared if not each.why_not]
        wrong, key_is_wrong = wrongly_moved(key, good)
        left_out |= {
            each.view.index: WRONG_MOTION for each, is_wrong in zip(good, wrong, strict=True) if is_wrong
        }
        good = [each for each, is_wrong in zip(good, wrong, strict=True) if not is_wrong]
        if not good:
            return None
        doubted = _doubted(good, block_grid(key_grey.shape))
        if float(unit.mean()) > _ALONE_NOISE * key.motion.length_px:
            # raw, it says more
            alone = None
        if key_is_wrong:
            # what a network made of it by that motion is no better
            doubted, alone = np.ones_like(doubted), None
        sums, used = self._add_up(
            key, key_light, good, doubted, left_out, worth, alone is None and not key_is_wrong
        )
        if not sums:
            return None
        shape = key_light.shape
        inner = slice(MARGIN_PX, MARGIN_PX + shape[0]), slice(MARGIN_PX, MARGIN_PX + shape[1])
        fill = _fill_each_other([each.motion for each in sums])
        kinds = [_kind(each, unit, fill) for each in sums]
        spectra = _spectra(kinds)
        before = None
        if alone is not None:
            before = _before(key, np.atleast_3d(self._evened(alone)), doubted, unit, used.shape)
        estimate = joint_wiener(kinds, spectra, before)
        light = estimate.image[inner]
        single = _alone(key, key_light, unit, spectra)
        if before is not None:
            single *= math.sqrt(before.share)
        notes = {each.view.index: each.note for each in good if each.note}
        if estimate.unseen > 0 and len(kinds) == 1 and is_alike(key.motion, sums[0].motion):
            notes[key.index] = ALIKE
        return Fused(
            np.ascontiguousarray(light if len(shape) == 3 else light[..., 0]),
            used[inner],
            float(np.sqrt(np.mean(estimate.noise**2))),
            single,
            estimate.unseen,
            len(kinds),
            left_out,
            notes,
        )

    def _light(self, index: int) -> Image:
        """(H, W[, C]) linear, evened out."""
        return self._evened(self._read(index))

    def _evened(self, pixels: Pixels) -> Image:
        linear = to_linear(pixels, self._encoding)
        if self._gain is None:
            return linear
        gain = cv2.resize(self._gain, linear.shape[1::-1], interpolation=cv2.INTER_CUBIC)
        return np.asarray(linear * (gain[..., None] if linear.ndim == 3 else gain), np.float32)

    def _unit_noise(self, key: View, key_light: Image, others: Sequence[View]) -> tuple[Floats, Worth]:
        """Variance of the noise in each channel of a frame with the key's exposure, (C,); and what a frame with another exposure is worth."""
        planes = np.atleast_3d(key_light)
        if (noise := self._noise) is not None:
            level = planes.mean(axis=(0, 1), dtype=np.float64)
            known = noise.variance(level)
            seen = np.array([noise_variance(planes[..., c]) for c in range(planes.shape[2])])
            # what is in a frame besides makes its noise seem more, and nothing makes it less
            if not (known > _CONTRADICTED * seen).all():
                mean = np.array(level.mean())

                def worth(exposure: float) -> float:
                    return float(exposure**2 * noise.variance(mean) / noise.variance(exposure * mean))

                return known, worth
        # the frame with the longest blur shows its noise best: fine detail is not taken for noise there
        longest = max((key, *others), key=lambda view: view.motion.length_px if view.motion.is_known else 0.0)
        light = planes if longest is key else np.atleast_3d(self._light(longest.index))
        measured = np.array([noise_variance(light[..., c]) for c in range(light.shape[2])])
        # that of photons, which go with the exposure whatever the camera's gain
        return np.maximum(measured * (longest.exposure_ms / key.exposure_ms), 1e-9), float

    def _compare(
        self, key: View, key_grey: Image, others: Sequence[View], unit: Floats, worth: Worth
    ) -> list[Compared]:
        mix = np.array([0.0625, 0.25, 0.0625]) if len(unit) == 3 else np.ones(1)
        variance = float(mix @ unit)
        out = []
        for view in others:
            light = luminance_of(self._light(view.index)) if view.motion.is_known else key_grey
            exposure = view.exposure_ms / key.exposure_ms
            theirs = variance * exposure**2 / worth(exposure)
            out.append(compare(key, key_grey, view, light, (variance, theirs)))
        return out

    def _add_up(
        self,
        key: View,
        key_light: Image,
        good: Sequence[Compared],
        doubted: NDArray[np.bool_],
        left_out: dict[int, str],
        worth: Worth,
        with_key: bool,
    ) -> tuple[list[_Sum], NDArray[np.uint8]]:
        """The sums of each kind, on the tile's grid with a margin around; and how many frames each pixel has. with_key: whether the key frame is in them."""
        height, width, channels = np.atleast_3d(key_light).shape
        canvas = (height + 2 * MARGIN_PX, width + 2 * MARGIN_PX)
        used = np.zeros(canvas, np.uint8)
        itself = Compared(key, 1.0, doubted, np.ones_like(doubted))
        sums: list[_Sum] = []
        by_length = sorted(good, key=lambda each: each.view.motion.length_px)
        if not with_key:
            used += _covered(doubted, (height, width), canvas)
        for each in (itself, *by_length) if with_key else by_length:
            view = each.view
            total = next((one for one in sums if is_alike(one.motion, view.motion)), None)
            if total is None:
                if len(sums) == MOST_KINDS:
                    left_out[view.index] = "it is blurred in yet another way"
                    continue
                total = _Sum(
                    view.motion, np.zeros((*canvas, channels), np.float32), np.zeros(canvas, np.float32)
                )
                sums.append(total)
            light = np.atleast_3d(key_light if view is key else self._light(view.index))
            # where most others disagree with the key, they are right; elsewhere it is
            wrong = doubted if view is key else _grown(each.disagrees) & ~doubted
            strength = worth(view.exposure_ms / key.exposure_ms)
            self._add(total, used, view, light, each.brightness, strength, wrong, view is key)
        return [one for one in sums if one.views], used

    def _add(
        self,
        total: _Sum,
        used: NDArray[np.uint8],
        view: View,
        light: Image,
        brightness: float,
        strength: float,
        wrong: NDArray[np.bool_],
        is_key: bool,
    ) -> None:
        height, width = light.shape[:2]
        at = (view.offset_px[0] + MARGIN_PX, view.offset_px[1] + MARGIN_PX)
        whole = [math.ceil(v - 1e-9) for v in at]
        part = (whole[0] - at[0], whole[1] - at[1])
        weight = _edge(height, width).copy()
        weight[light.max(axis=2) >= _SATURATED] *= _SATURATED_WEIGHT
        rows = slice(max(whole[0], 0), min(whole[0] + height - 1, used.shape[0]))
        columns = slice(max(whole[1], 0), min(whole[1] + width - 1, used.shape[1]))
        if rows.stop <= rows.start or columns.stop <= columns.start:
            return
        its = (
            slice(rows.start - whole[0], rows.stop - whole[0]),
            slice(columns.start - whole[1], columns.stop - whole[1]),
        )
        moved = shifted(light, part)[its]
        # light of one unit of exposure
        bright = np.float32(max(brightness, 1e-3))
        local = weight[its] * np.float32(strength)
        if wrong.any():
            mask = cv2.resize(wrong.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
            inner = _paste(np.asarray(1 - mask, np.float32), used.shape, MARGIN_PX)
            local = local * inner[rows, columns]
        box = (rows, columns)
        total.total[box] += moved * (local / bright)[..., None]
        total.weight[box] += local
        used[box] += local > 0.5 * strength * _SATURATED_WEIGHT
        total.views += 1
        total.lengths.append(_like(view.motion, total.motion))
        total.sigmas.append(0.0 if is_key else view.sigma_px)


def _before(
    key: View, alone: Image, doubted: NDArray[np.bool_], unit: Floats, canvas: tuple[int, ...]
) -> Before:
    """alone: (H, W, C) linear light, evened out."""
    height, width, channels = alone.shape
    image = np.zeros((*canvas[:2], channels), np.float32)
    image[MARGIN_PX : MARGIN_PX + height, MARGIN_PX : MARGIN_PX + width] = alone
    covered = _covered(doubted, (height, width), canvas[:2])
    share = max(_ALONE_SHARE, _ALONE_PX / max(key.motion.length_px, 1.0))
    return Before(image, covered, key.motion, unit, share)


def _covered(doubted: NDArray[np.bool_], size: tuple[int, int], canvas: tuple[int, ...]) -> NDArray[np.bool_]:
    """Where on the canvas the key frame is, and is believed."""
    mask = cv2.resize(doubted.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST)
    out = np.zeros(canvas, bool)
    out[MARGIN_PX : MARGIN_PX + size[0], MARGIN_PX : MARGIN_PX + size[1]] = mask == 0
    return out


def noise_variance(plane: Image) -> float:
    """Variance of white noise in (H, W), by Immerkaer 1996; see `deblur.noise`."""
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    answer = cv2.filter2D(plane, cv2.CV_32F, mask)[1:-1, 1:-1]
    return float((np.median(np.abs(answer)) / 0.6745 / 6.0) ** 2)


def _doubted(good: Sequence[Compared], blocks: tuple[int, int]) -> NDArray[np.bool_]:
    """Blocks in which most others, and at least two, disagree with the key frame: then it is the key that is wrong."""
    against = np.zeros(blocks, int)
    asked = np.zeros(blocks, int)
    for each in good:
        against += each.disagrees
        asked += each.seen
    return _grown((against >= 2) & (2 * against > asked))


def _grown(blocks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """With the blocks around: what begins in one reaches into the next."""
    return np.asarray(cv2.dilate(blocks.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)


def _fill_each_other(motions: Sequence[MotionVector]) -> bool:
    """Whether some kernels differ so much that each has its zeros where another sees."""
    return any(
        min(math.hypot(a.dy - b.dy, a.dx - b.dx), math.hypot(a.dy + b.dy, a.dx + b.dx))
        > _UNLIKE * max(a.length_px, b.length_px)
        for n, a in enumerate(motions)
        for b in motions[:n]
    )


def _kind(total: _Sum, unit: Floats, others_fill: bool) -> Kind:
    """The mean of a sum. The weight of a pixel is the number of key exposures that its light is worth.

    Its noise is that of most pixels where other kinds fill the zeros of its kernel. Where none does, what is wrong at the borders of the views rings far
    through the tile, and so the mean of the noise counts, to which the borders add most, and what lies beyond them.
    """
    weight = total.weight
    covered = weight > _LEAST_SHARE * max(float(weight.max()), 1e-9)
    image = total.total / np.maximum(weight, 1e-6)[..., None]
    worth = 1e-3
    if covered.any():
        worth = float(np.median(weight[covered]) if others_fill else 1 / np.mean(1 / weight[covered]))
    motion = _mean_motion(total.lengths)
    variance = unit / max(worth, 1e-3)
    if covered.any():
        beyond = (_BORDER_FILLED if others_fill else _BORDER) * motion.length_px**2 / covered.sum()
        variance = variance + beyond * image[covered].var(axis=0)
    sigma_px = float(np.sqrt(np.mean(np.square(total.sigmas)))) if total.sigmas else 0.0
    return Kind(
        image.astype(np.float32, copy=False),
        motion_kernel(motion),
        variance,
        None if covered.all() else covered,
        total.views,
        sigma_px,
        motion,
    )


def _spectra(kinds: Sequence[Kind]) -> list[Spectrum]:
    """Of the specimen in each channel, as the view that shows it best tells: one shape, and each channel's own contrast."""
    best = min(kinds, key=lambda kind: float(np.hypot(*kind.kernel.shape)) - 1e3 * (kind.covered is None))
    image = best.image
    if best.covered is not None:
        rows, columns = np.flatnonzero(best.covered.any(axis=1)), np.flatnonzero(best.covered.any(axis=0))
        image = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    planes = [np.ascontiguousarray(image[..., c]) for c in range(image.shape[2])]
    left = transfer(best, planes[0].shape)
    return [fit_spectrum([plane], float(best.variance[c]), left) for c, plane in enumerate(planes)]


def _alone(key: View, light: Image, unit: Floats, spectra: Sequence[Spectrum]) -> float:
    """Standard deviation of the error that the key frame by itself would leave."""
    shape = (128, 128)
    frequency = frequencies(shape)
    left = motion_transfer(key.motion, shape)
    errors = [
        mean_over(gain_of([left], [float(variance)], frequency, spectrum, [0.0], [1])[1], frequency)
        for variance, spectrum in zip(unit, spectra, strict=True)
    ]
    return math.sqrt(float(np.mean(errors)))


def _like(motion: MotionVector, other: MotionVector) -> MotionVector:
    """A motion, or the same one back, whichever runs as `other` does."""
    if motion.dy * other.dy + motion.dx * other.dx >= 0:
        return motion
    return MotionVector(-motion.dy, -motion.dx, motion.bend_dy, motion.bend_dx, motion.sigma_px)


def _mean_motion(motions: Sequence[MotionVector]) -> MotionVector:
    dy, dx, by, bx = np.mean([(m.dy, m.dx, m.bend_dy, m.bend_dx) for m in motions], axis=0)
    return MotionVector(float(dy), float(dx), float(by), float(bx))


def _edge(height: int, width: int) -> Image:
    """Weights that fade in from the border."""
    ramps = []
    for n in (height, width):
        distance = np.minimum(np.arange(n) + 0.5, n - np.arange(n) - 0.5) / _EDGE_PX
        ramps.append(np.clip(distance, 1e-3, 1.0).astype(np.float32))
    return np.outer(*ramps)


def _paste(inner: Image, canvas: tuple[int, ...], margin: int) -> Image:
    """`inner` in the middle of ones."""
    out = np.ones(canvas, np.float32)
    out[margin : margin + inner.shape[0], margin : margin + inner.shape[1]] = inner
    return out
