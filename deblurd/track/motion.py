"""From the stage's path during an exposure to the image's."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from deblurd.frames import MotionVector
from deblurd.geometry import PixelToStage
from deblurd.track.path import Stretch

UNKNOWN = MotionVector(math.nan, math.nan, sigma_px=math.inf)


def motion_vector(stretch: Stretch, affine: PixelToStage) -> MotionVector:
    """The image's path over the sensor; `stretch` holds the start, middle and end of the exposure.

    A specimen point S is seen at the pixel ``inv(M) @ (S - s)``, so the image runs against the stage.
    """
    start, middle, end = -affine.to_pixels(stretch.yx_um - stretch.yx_um[1])
    return MotionVector.from_path(start, middle, end, stretch.travel_sigma_um / affine.pixel_size_um)


def stretch_later(
    where: Callable[[NDArray[np.float64]], Stretch | None],
    times_s: NDArray[np.float64],
    lag_s: NDArray[np.float64],
) -> Stretch | None:
    """The stretch at `times_s` (n,) of a stage whose axes (y, x) are read `lag_s` (2,) too early or late; None where `where` has none.

    where: as `StagePath.stretch`.
    """
    return where(times_s[:, None] + lag_s)


def mean_um(stretch: Stretch) -> NDArray[np.float64]:
    """Mean position (2,), (y, x) um, over the exposure, by Simpson's rule: exact for a parabola."""
    start, middle, end = stretch.yx_um
    return np.asarray((start + 4 * middle + end) / 6)
