"""What exposure is best at the speed at which the stage is being driven: for a technician who moves it by hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deblurd.scan.plan import Conditions, Way, expected_db

LEAST_GAIN_DB = 0.5
"""For less nobody should have to touch anything."""

_STEPS = 15


@dataclass(frozen=True, slots=True)
class Advice:
    """exposure_ms: the best at `speed_um_s`. gain_db: how much better the mosaic becomes by it."""

    exposure_ms: float
    speed_um_s: float
    gain_db: float


def advise(c: Conditions, speed_um_s: float, exposure_ms: float, *, fuses: bool) -> Advice | None:
    """c: camera, light and model. fuses: whether all frames that see a place become one. None where the present `exposure_ms` is as good as any."""
    if not speed_um_s > 0:
        return None
    step_px = speed_um_s / c.frames_per_s / c.pixel_size_um
    along = max(min(c.fov_px) / step_px, 1.0) if fuses else 1.0
    way: Way = "burst" if fuses else "single"
    best = max(
        c.exposures_at(speed_um_s, _STEPS), key=lambda ms: expected_db(c, way, speed_um_s, (ms,), along)
    )
    most, now = (expected_db(c, way, speed_um_s, (ms,), along) for ms in (best, exposure_ms))
    return Advice(_round(best), speed_um_s, most - now) if most - now >= LEAST_GAIN_DB else None


def _round(ms: float) -> float:
    """To two digits: nobody sets more."""
    digits = 1 - int(np.floor(np.log10(ms)))
    return round(ms, digits)
