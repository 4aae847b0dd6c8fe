"""When a slide is over."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from deblurd.frames import Pose
from deblurd.settings import SlideSettings


class Ending:
    """Says why a slide is over, or None: at the home position, or after a time without new ground.

    After an end, `may_start` holds a new slide back until the stage has left the place where the last one ended,
    so that a stage at rest does not begin slide after slide.
    """

    def __init__(self, settings: SlideSettings, leave_um: float) -> None:
        self._settings = settings
        self._leave_um = leave_um
        self._ended_at_um: NDArray[np.float64] | None = None

    def reason(self, pose: Pose | None, now_s: float, last_tile_s: float) -> str | None:
        """pose: newest of the stage, None if not known; last_tile_s: when the newest tile was taken."""
        if pose is not None and self._at_home(pose):
            return "home position"
        if now_s - last_tile_s > self._settings.idle_end_s:
            return f"no new ground for {self._settings.idle_end_s:g} s"
        return None

    def ended(self, pose: Pose | None) -> None:
        self._ended_at_um = None if pose is None else pose.yx_um

    def may_start(self, pose: Pose) -> bool:
        if self._at_home(pose):
            return False
        if self._ended_at_um is None:
            return True
        return float(np.linalg.norm(pose.yx_um - self._ended_at_um)) > self._leave_um

    def _at_home(self, pose: Pose) -> bool:
        home = self._settings.home_um
        return (
            home is not None
            and math.hypot(pose.x_um - home[0], pose.y_um - home[1]) <= self._settings.home_radius_um
        )
