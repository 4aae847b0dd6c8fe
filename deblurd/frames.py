"""What travels through the rooms: frames, poses, motion vectors, tiles. All frozen.

Stage coordinates are micrometres (``_um``), times are seconds on the monotonic clock of
`time.perf_counter` (``_s``), exposures are milliseconds (``_ms``), vectors are (y, x).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[Any]
"""(H, W) or (H, W, 3), uint8 or uint16, C-contiguous; colour is RGB."""

Encoding = Literal["linear", "srgb"]
"""What a pixel value means: proportional to light, or sRGB-encoded light."""

Gate = Literal["deblur", "sharp", "blank", "out_of_range", "unknown_motion", "inconsistent"]
"""Why a tile was deblurred, or why its raw pixels stand."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One camera exposure, as it arrived.

    pixels: what the camera gave. number: its place in the camera's sequence, from 0; a gap is a loss.
    sequence: counts the camera's restarts, from 0. arrived_s: when it was popped or received by the
    core, the earlier one known. exposure_ms: how long the shutter was open. known: where it was taken and how the image moved,
    where the frame brings that along: a recorded one does.
    """

    pixels: Pixels
    number: int
    arrived_s: float
    exposure_ms: float
    sequence: int = 0
    known: tuple[Pose, MotionVector] | None = None


@dataclass(frozen=True, slots=True)
class Pose:
    """Where the stage was at `t_s`, with the uncertainty (one standard deviation) of each axis."""

    t_s: float
    y_um: float
    x_um: float
    z_um: float | None = None
    sigma_um: float = 0.0

    @property
    def yx_um(self) -> NDArray[np.float64]:
        return np.array([self.y_um, self.x_um])


@dataclass(frozen=True, slots=True)
class MotionVector:
    """The path of the image over the sensor during one exposure, in camera pixels.

    At the fraction u in [-1/2, 1/2] of the exposure the image stands at
    ``(dy, dx) * u + (bend_dy, bend_dx) * (4 u**2 - 1/3)`` from its mean place: (dy, dx) is the travel from
    start to end, the bend is how far the middle of its ends lies from its middle (0 at constant velocity).
    Its mean over the exposure is zero, so deblurring with it does not shift the image away from the
    mean place. sigma_px: uncertainty of the travel's end points; inf where the motion is not known.
    """

    dy: float
    dx: float
    bend_dy: float = 0.0
    bend_dx: float = 0.0
    sigma_px: float = 0.0

    @property
    def length_px(self) -> float:
        """The blur level: length of the travel from start to end."""
        return math.hypot(self.dy, self.dx)

    @property
    def is_known(self) -> bool:
        return math.isfinite(self.sigma_px) and math.isfinite(self.length_px)

    def at(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """Offsets (n, 2), (y, x) px, at the exposure fractions `u` (n,) in [-1/2, 1/2]."""
        d, b = np.array([self.dy, self.dx]), np.array([self.bend_dy, self.bend_dx])
        return np.asarray(u[:, None] * d + (4.0 * u**2 - 1.0 / 3.0)[:, None] * b, dtype=np.float64)

    def later(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean places (n, 2), (y, x) px, against this one's, in exposures as long that begin `u` (n,) exposures later, by the same acceleration."""
        d, b = np.array([self.dy, self.dx]), np.array([self.bend_dy, self.bend_dx])
        return np.asarray(u[:, None] * d + (4.0 * u**2)[:, None] * b, dtype=np.float64)

    @classmethod
    def from_path(
        cls,
        start_px: NDArray[np.float64],
        mid_px: NDArray[np.float64],
        end_px: NDArray[np.float64],
        sigma_px: float = 0.0,
    ) -> MotionVector:
        """From image positions (2,), (y, x) px, at the start, middle and end of the exposure."""
        d = end_px - start_px
        b = 0.5 * (start_px + end_px) - mid_px
        return cls(float(d[0]), float(d[1]), float(b[0]), float(b[1]), sigma_px)


@dataclass(frozen=True, slots=True)
class Tile:
    """A frame that was chosen for the mosaic. Its pixels live in ``raw.zarr[index]``, not here.

    index: row in raw.zarr and the journal (-1 until recorded). sequence, number: the frame's. pose: the mean
    over the exposure (mid-exposure at constant velocity). shape: of the raw pixels. utc: ISO 8601 wall-clock time of the exposure, for people.
    """

    index: int
    sequence: int
    number: int
    pose: Pose
    motion: MotionVector
    exposure_ms: float
    shape: tuple[int, ...]
    utc: str

    def with_index(self, index: int) -> Tile:
        return replace(self, index=index)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tile's centre lies, in camera pixels of the solved plane, (y, x), with its uncertainty."""

    y_px: float
    x_px: float
    sigma_px: float

    @property
    def yx_px(self) -> NDArray[np.float64]:
        return np.array([self.y_px, self.x_px])


@dataclass(frozen=True, slots=True, eq=False)
class DeblurredTile:
    """What deblurring made of a tile.

    pixels: same shape and dtype as the raw tile, and the raw pixels themselves unless `gate` is "deblur".
    source: 1 where the pixels are raw, n >= 2 for the n-th model of the slide. residual: share of what the blur
    does that the result leaves unexplained (of a fused one: root mean square of (pixels blurred again - raw) over the noise floor); nan where not measured. sharpness: for choosing between overlapping tiles.
    sources: (H, W) uint8, in place of `source` where pixels of one tile come from different ones.
    """

    index: int
    pixels: Pixels
    source: int
    gate: Gate
    residual: float
    sharpness: float = 1.0
    sources: NDArray[np.uint8] | None = None
