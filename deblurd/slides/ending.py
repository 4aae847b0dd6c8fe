"""When a slide is over."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from deblurd.frames import Pose
from deblurd.settings import SlideSettings


class Ending:
    """Says why a slide is over, or None: after a time at the load position, after a time without new ground, or far from all its tissue over
    a blank field. A blank field alone ends nothing, and neither does passing the load position. `settings` may be replaced.
    """

    def __init__(self, settings: SlideSettings) -> None:
        self.settings = settings
        self.began(0.0)

    def began(self, now_s: float) -> None:
        """Another slide is at work."""
        self._tissue_um: list[NDArray[np.float64]] = []
        self._is_blank = False
        self._home_since_s: float | None = None
        self.went_on(now_s)

    def went_on(self, now_s: float) -> None:
        """After a pause, or a gap that was none: time begins anew."""
        self._newest_s = now_s
        self._home_since_s = None

    def waits(self, now_s: float) -> None:
        """The slide can have no new ground for now: the time does not count."""
        self._newest_s = now_s

    def field(self, pose: Pose, shows_tissue: bool, now_s: float) -> None:
        """The slide has a tile more."""
        self._newest_s, self._is_blank = now_s, not shows_tissue
        if shows_tissue:
            self._tissue_um.append(pose.yx_um)

    def reason(self, pose: Pose | None, now_s: float) -> str | None:
        """pose: newest of the stage, None if not known."""
        settings = self.settings
        if pose is None or not is_at_home(pose, settings):
            self._home_since_s = None
        elif self._home_since_s is None:
            self._home_since_s = now_s
        if self._home_since_s is not None and now_s - self._home_since_s >= settings.home_s:
            return "load position"
        if now_s - self._newest_s > settings.idle_end_s:
            return f"no new ground for {settings.idle_end_s:g} s"
        if self._is_blank and pose is not None and self._is_far(pose):
            return f"a blank field, and no tissue of this slide within {settings.far_um / 1000:g} mm"
        return None

    def _is_far(self, pose: Pose) -> bool:
        if not self._tissue_um:
            return False
        away_um = np.linalg.norm(np.array(self._tissue_um) - pose.yx_um, axis=1)
        return float(away_um.min()) > self.settings.far_um


def is_at_home(pose: Pose, settings: SlideSettings) -> bool:
    """Whether the stage is at the load position."""
    home = settings.home_um
    return (
        home is not None and math.hypot(pose.x_um - home[0], pose.y_um - home[1]) <= settings.home_radius_um
    )
