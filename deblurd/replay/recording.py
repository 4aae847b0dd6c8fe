"""What was recorded once: frames, where the stage stood for each, and how the image moved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deblurd.errors import DataError
from deblurd.frames import Encoding, MotionVector, Pixels, Pose
from deblurd.geometry import PixelToStage


@dataclass(frozen=True, slots=True)
class Recorded:
    """One frame. read: its pixels, (H, W) or (H, W, 3), read when they are wanted; raises DataError. pose.t_s: in seconds from any moment."""

    read: Callable[[], Pixels]
    pose: Pose
    motion: MotionVector
    exposure_ms: float


@dataclass(frozen=True, slots=True)
class Recording:
    """Frames in their order. timed: whether their times were recorded, and not merely counted. camera, objective: for people.
    rolling_ms: as of `MicroscopeInfo`.

    close: lets go of its files; nothing is read afterwards.
    """

    camera: str
    shape: tuple[int, ...]
    dtype: str
    encoding: Encoding
    affine: PixelToStage
    frames: Sequence[Recorded]
    timed: bool
    objective: str = ""
    close: Callable[[], None] = lambda: None
    rolling_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Plane:
    """What a file says of one frame; None where it does not."""

    read: Callable[[], Pixels]
    y_um: float | None
    x_um: float | None
    z_um: float | None
    t_s: float | None
    exposure_ms: float | None


def recording_of(
    planes: Sequence[Plane], name: str, encoding: Encoding, affine: PixelToStage, *, moving: bool
) -> Recording:
    """A recording of planes that know their positions, in the order of their times where all are known.

    moving: whether the stage moved during exposures; then motion follows from positions, times and exposures, else there is none. Raises DataError
    where a position is missing, or what motion takes.
    """
    if not planes:
        raise DataError(f"{name} holds no frames: name another recording")
    timed = all(plane.t_s is not None for plane in planes)
    if timed:
        planes = sorted(planes, key=lambda plane: plane.t_s or 0.0)
    places: list[tuple[float, float]] = []
    for n, plane in enumerate(planes):
        if plane.y_um is None or plane.x_um is None or not np.isfinite([plane.y_um, plane.x_um]).all():
            raise DataError(
                f"{name} does not say where the stage stood for frame {n}: record it with stage positions, or write a tiles.csv"
            )
        places.append((plane.y_um, plane.x_um))
    t_s = np.array([float(n) if plane.t_s is None else plane.t_s for n, plane in enumerate(planes)])
    exposures = [plane.exposure_ms for plane in planes]
    motions = [MotionVector(0.0, 0.0)] * len(planes)
    if moving:
        known = [exposure for exposure in exposures if exposure is not None]
        if not timed or len(known) < len(planes) or len(planes) < 2 or (np.diff(t_s) <= 0).any():
            raise DataError(
                f"{name} does not say when and how long each frame was exposed, so the motion is not known: set replay.moving = false "
                "if the stage stood still"
            )
        motions = _motions(t_s, np.array(places), np.array(known), affine)
    first = planes[0].read()
    frames = [
        Recorded(plane.read, Pose(float(t), y, x, plane.z_um), motion, exposure or 0.0)
        for plane, t, (y, x), motion, exposure in zip(planes, t_s, places, motions, exposures, strict=True)
    ]
    return Recording(name, first.shape, first.dtype.name, encoding, affine, frames, timed)


def _motions(
    t_s: NDArray[np.float64],
    places: NDArray[np.float64],
    exposures_ms: NDArray[np.float64],
    affine: PixelToStage,
) -> list[MotionVector]:
    """The image runs against the stage, for as long as the exposure lasts."""
    speed_um_s = np.gradient(places, t_s, axis=0)
    travel_px = affine.to_pixels(-speed_um_s * exposures_ms[:, None] / 1000)
    return [MotionVector(float(dy), float(dx)) for dy, dx in travel_px]
