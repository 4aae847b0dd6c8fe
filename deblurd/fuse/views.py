"""Frames that see the same place, compared: how far they really lie apart, how bright they are, and where they disagree.

Frames blurred by different motions are made alike first, each by the other's kernel: ``K_b * y_a`` and ``K_a * y_b`` show the same, whatever the
kernels are, and nothing has to be deconvolved to tell. What then still differs by more than noise and interpolation explain is dirt on one
of them, something that moved, or a wrong place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from deblurd.frames import MotionVector
from deblurd.kernel import CROSS_PX, motion_kernel, reblur
from deblurd.light import Image

Floats = NDArray[np.float64]

BLOCK_PX = 32
_LEAST_BLOCKS = 4
_STEPS = 2
_FURTHEST_PX = 1.0
"""A place that this much more is off than was thought is not believed: neither the old one nor the new."""

_SIGMAS = 3.0
_OFF_PX = 0.35
"""Blocks may differ by this many standard deviations of the noise, or by what lying so far off does to them."""

_TOO_MANY = 0.4
"""A view of which a larger share of blocks disagrees is left out altogether."""

_EXPOSURE_OFF = 0.1
"""A brightness that differs by more from what the exposures say is worth a word."""

_SMOOTH_PX = 1.0
_SPREAD = 0.3
_LEAST_SPREAD_PX2 = 0.5
_SPREAD_SIGMAS = 4.0
"""A motion is not believed where the picture is spread by so much more or less than it says: as a share of what it says, in px^2, and in standard deviations."""

NO_AREA = "it has no area in common with the others"
LIGHT_CHANGED = "frames are not as bright as their exposures say, so the lamp or the camera's gain changed: they were evened out"

_TAPS = np.arange(-3, 5)


@dataclass(frozen=True, slots=True)
class View:
    """One frame that sees the place. offset_px: its centre, from that of the key frame, (y, x). sigma_px: how far off that may be, each axis."""

    index: int
    motion: MotionVector
    offset_px: tuple[float, float]
    exposure_ms: float
    sigma_px: float = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """A view held against the key frame. view: with its offset refined. brightness: of the view over the key's. disagrees: (rows, columns) bool, blocks of
    the key frame in which they differ; seen: those that could be compared. spread_px2: (3,), by how much wider than its motion says the view is blurred, beyond the key, as
    variances yy, yx, xx; spread_sigma_px2: of each, standard deviation. why_not: why it cannot be used, or "". note: what is odd about it, or ""."""

    view: View
    brightness: float
    disagrees: NDArray[np.bool_]
    seen: NDArray[np.bool_]
    why_not: str = ""
    note: str = ""
    spread_px2: Floats = field(default_factory=lambda: np.zeros(3))
    spread_sigma_px2: float = math.inf


def compare(
    key: View, key_light: Image, view: View, light: Image, variances: tuple[float, float]
) -> Compared:
    """Holds a view against the key frame. key_light, light: (H, W) luminance, linear. variances: of their noise."""
    blocks = block_grid(key_light.shape)
    nothing = np.zeros(blocks, bool)
    left_out = Compared(view, 1.0, nothing, nothing)
    if not view.motion.is_known:
        return replace(left_out, why_not="its motion is not known")
    first = _Overlap.of(key, key_light, view, light)
    if first is None:
        return replace(left_out, why_not=NO_AREA)
    found = view
    overlap: _Overlap = first
    for step in range(_STEPS + 1):
        if step:
            again = _Overlap.of(key, key_light, found, light)
            if again is None:
                break
            overlap = again
        if step < _STEPS:
            dy, dx = overlap.misplaced()
            found = replace(found, offset_px=(found.offset_px[0] + dy, found.offset_px[1] + dx))
    moved = math.dist(found.offset_px, view.offset_px)
    if moved > _FURTHEST_PX + 3 * view.sigma_px:
        return replace(
            left_out, why_not="it lies elsewhere than where it was placed, or shows something else"
        )
    brightness = overlap.brightness()
    told = view.exposure_ms / key.exposure_ms
    note = ""
    if not 1 / (1 + _EXPOSURE_OFF) < brightness / told < 1 + _EXPOSURE_OFF:
        note = LIGHT_CHANGED
    seen, disagrees = overlap.disagreement(brightness, variances, blocks)
    if seen.sum() >= _LEAST_BLOCKS and disagrees.sum() > _TOO_MANY * seen.sum():
        return replace(left_out, why_not="it disagrees with the others")
    return Compared(found, brightness, disagrees, seen, "", note, *overlap.spread())


def wrongly_moved(key: View, compared: Sequence[Compared]) -> tuple[list[bool], bool]:
    """Whose motion is not what the picture shows: of each view, and of the key. What most of them say, the key among them, is right; of two nobody knows."""
    spreads = np.array([np.zeros(3), *(each.spread_px2 for each in compared)])
    if len(spreads) < 3:
        return [False] * len(compared), False
    off = np.abs(spreads - np.median(spreads, axis=0)).max(axis=1)
    known = np.array([each.spread_sigma_px2 for each in compared])
    least = [
        max(_LEAST_SPREAD_PX2, _SPREAD * motion.length_px**2 / 12)
        for motion in (key.motion, *(each.view.motion for each in compared))
    ]
    wrong = off > np.maximum(least, _SPREAD_SIGMAS * np.array([np.median(known), *known]))
    return [bool(each) for each in wrong[1:]], bool(wrong[0])


def block_grid(shape: tuple[int, ...]) -> tuple[int, int]:
    """How many blocks, down and across, a frame is compared in."""
    return max(1, round(shape[0] / BLOCK_PX)), max(1, round(shape[1] / BLOCK_PX))


def is_alike(a: MotionVector, b: MotionVector) -> bool:
    """Whether two motions leave kernels that are as good as the same: a straight one is the same there and back."""
    there = max(abs(a.dy - b.dy), abs(a.dx - b.dx), abs(a.bend_dy - b.bend_dy), abs(a.bend_dx - b.bend_dx))
    back = max(abs(a.dy + b.dy), abs(a.dx + b.dx), abs(a.bend_dy - b.bend_dy), abs(a.bend_dx - b.bend_dx))
    return min(there, back) < CROSS_PX


def shifted(image: Image, part: tuple[float, float]) -> Image:
    """(H, W[, C]) float32 read at a fraction `part` of a pixel, (y, x) in [0, 1), below and right of each pixel (Lanczos, 8 taps)."""
    if max(part) < 1e-3:
        return image
    along_x, along_y = lanczos(part[1]), lanczos(part[0])
    return np.asarray(
        cv2.sepFilter2D(image, cv2.CV_32F, along_x, along_y, anchor=(3, 3), borderType=cv2.BORDER_REPLICATE),
        np.float32,
    ).reshape(image.shape)


def lanczos(part: float) -> Floats:
    """Eight taps that read a line of pixels at `part` of a pixel after tap 3."""
    t = _TAPS - part
    taps = np.sinc(t) * np.sinc(t / 4)
    return np.asarray(taps / taps.sum(), dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class _Overlap:
    """What two frames have in common, both blurred by both motions; corner: of it in the key frame. powers: of what the blurs leave of white noise."""

    a: Image
    b: Image
    corner: tuple[int, int]
    powers: tuple[float, float]

    @classmethod
    def of(cls, key: View, key_light: Image, view: View, light: Image) -> _Overlap | None:
        """None where they have hardly anything in common."""
        height, width = key_light.shape
        whole = [math.floor(v + 1e-9) for v in view.offset_px]
        # pixel p of the key is pixel p - offset of the view
        part = (view.offset_px[0] - whole[0], view.offset_px[1] - whole[1])
        border = math.ceil(max(key.motion.length_px, view.motion.length_px) / 2) + 5
        top, left = max(0, whole[0] + 1), max(0, whole[1] + 1)
        bottom, right = min(height, height + whole[0]), min(width, width + whole[1])
        if bottom - top < 2 * border + BLOCK_PX or right - left < 2 * border + BLOCK_PX:
            return None
        a = np.ascontiguousarray(key_light[top:bottom, left:right])
        # read at p - whole - part: one pixel further back, and 1 - part ahead of that
        back = [1 if p > 1e-9 else 0 for p in part]
        y, x = top - whole[0] - back[0], left - whole[1] - back[1]
        piece = light[y : y + bottom - top, x : x + right - left]
        ahead = (1 - part[0] if back[0] else 0.0, 1 - part[1] if back[1] else 0.0)
        b = shifted(np.ascontiguousarray(piece), ahead)
        powers = (1.0, 1.0)
        if not is_alike(key.motion, view.motion):
            a, b = reblur(a, view.motion), reblur(b, key.motion)
            powers = tuple(  # type: ignore[assignment]
                float((motion_kernel(motion) ** 2).sum()) for motion in (view.motion, key.motion)
            )
        inner = slice(border, -border), slice(border, -border)
        return cls(a[inner], b[inner], (top + border, left + border), powers)

    def brightness(self) -> float:
        """Light of the view over the key's, by what most pixels say."""
        ratio = self._means(self.b) / np.maximum(self._means(self.a), 1e-4)
        return float(np.median(ratio))

    def misplaced(self) -> tuple[float, float]:
        """How much further, (y, x) px, the view lies than was thought: one step of Lucas & Kanade 1981, pixels that differ much counting less."""
        b = self.b / np.float32(max(self.brightness(), 1e-3))
        mean = (self.a + b) / 2
        gy = cv2.sepFilter2D(mean, cv2.CV_32F, np.array([1.0]), np.array([-0.5, 0, 0.5]))
        gx = cv2.sepFilter2D(mean, cv2.CV_32F, np.array([-0.5, 0, 0.5]), np.array([1.0]))
        difference = b - self.a
        scale = 3 * float(np.median(np.abs(difference))) + 1e-6
        weight = 1 / (1 + (difference / scale) ** 2)
        gyw, gxw = gy * weight, gx * weight
        normal = np.array(
            [[(gyw * gy).sum(), (gyw * gx).sum()], [(gyw * gx).sum(), (gxw * gx).sum()]], np.float64
        )
        right = np.array([(gyw * difference).sum(), (gxw * difference).sum()], np.float64)
        normal += np.eye(2) * (1e-4 * np.trace(normal) + 1e-9)
        # b(p) = scene(p + d) where the view lies d further on than thought is scene at a place d nearer
        dy, dx = np.clip(np.linalg.solve(normal, right), -1.0, 1.0)
        return float(dy), float(dx)

    def spread(self) -> tuple[Floats, float]:
        """By how much more b is blurred than a, as variances yy, yx, xx, px^2; and their standard deviation. To second order a blur adds half its
        variance times the second derivative."""
        a, b = (
            np.asarray(cv2.GaussianBlur(each, (0, 0), _SMOOTH_PX), np.float32)
            for each in (self.a, self.b / np.float32(max(self.brightness(), 1e-3)))
        )
        mean, difference = (a + b) / 2, b - a
        bent = [
            cv2.Sobel(mean, cv2.CV_32F, dx, dy, ksize=3, scale=1 / 4) for dy, dx in ((2, 0), (1, 1), (0, 2))
        ]
        bent[1] = 2 * bent[1]
        weight = 1 / (1 + (difference / (3 * float(np.median(np.abs(difference))) + 1e-6)) ** 2)
        normal = np.array([[float((weight * u * v).sum()) for v in bent] for u in bent]) / 2
        normal += np.eye(3) * (1e-6 * np.trace(normal) + 1e-12)
        right = np.array([float((weight * u * difference).sum()) for u in bent])
        # neighbours are alike by the smoothing, so they count as one
        sigma = 2 * float(np.sqrt((weight * difference**2).mean())) * math.sqrt(4 * math.pi) * _SMOOTH_PX
        found = np.linalg.solve(normal, right)
        return found, sigma * math.sqrt(float(np.linalg.inv(2 * normal).diagonal().max()))

    def disagreement(
        self, brightness: float, variances: tuple[float, float], blocks: tuple[int, int]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which blocks of the key frame are seen, and in which of those the two differ."""
        b = self.b / np.float32(max(brightness, 1e-3))
        noise = variances[0] * self.powers[0] + variances[1] * self.powers[1] / max(brightness, 1e-3) ** 2
        gy, gx = np.diff(self.a, axis=0, append=self.a[-1:]), np.diff(self.a, axis=1, append=self.a[:, -1:])
        slope = self._means(np.asarray(gy * gy + gx * gx, np.float32))
        square = self._means(np.asarray(cv2.blur(b - self.a, (3, 3)) ** 2, np.float32))
        limit = _SIGMAS**2 * noise + _OFF_PX**2 * slope
        differs = square > limit
        seen, disagrees = np.zeros(blocks, bool), np.zeros(blocks, bool)
        rows, columns = self._at(blocks, differs.shape)
        for row, y in enumerate(rows):
            for column, x in enumerate(columns):
                if 0 <= y < blocks[0] and 0 <= x < blocks[1]:
                    seen[y, x] = True
                    disagrees[y, x] |= differs[row, column]
        return seen, disagrees

    def _at(self, blocks: tuple[int, int], shape: tuple[int, ...]) -> tuple[list[int], list[int]]:
        """The key frame's rows and columns of blocks in which those of this overlap have their middles."""
        middles = []
        for axis in (0, 1):
            step = self.a.shape[axis] / shape[axis]
            middles.append(
                [int((self.corner[axis] + (n + 0.5) * step) // BLOCK_PX) for n in range(shape[axis])]
            )
        return middles[0], middles[1]

    def _means(self, image: Image) -> Floats:
        """Of blocks of about `BLOCK_PX`."""
        rows, columns = (max(1, side // BLOCK_PX) for side in image.shape[:2])
        return np.asarray(cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA), np.float64)
