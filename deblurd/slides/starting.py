"""When a slide begins."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deblurd.frames import Pose
from deblurd.settings import SlideSettings
from deblurd.slides.ending import is_at_home

REST_S = 1.0
"""A stage that has not left its place for so long has come to rest."""

_STILL = 0.1
"""Of `leave_um`: what a resting stage moves by at most."""

BY_ITSELF = "slides begin by themselves"


class Starting:
    """Says why a slide begins, or None.

    Armed, by itself or for a label, it waits for tissue under a stage that moves: half a field away from where it stood when it was armed, and
    not at the load position. Asked (a button, Studio's acquisition), it takes the next field whatever it shows. After an end by hand nothing
    begins by itself until the stage has come to rest: it may still be moving over the slide that was ended. `settings` may be replaced.

    leave_um: half a field.
    """

    def __init__(self, settings: SlideSettings, leave_um: float) -> None:
        self.settings, self._leave_um = settings, leave_um
        self._asked: str | None = None
        self._expected: str | None = None
        self._from_um: NDArray[np.float64] | None = None
        self._must_rest = False
        self._still: tuple[NDArray[np.float64], float] | None = None

    @property
    def armed(self) -> str | None:
        """Why a slide may begin; None: it may not."""
        if self._asked is not None:
            return self._asked
        if self._must_rest:
            return None
        return self._expected or (None if self.settings.start == "asked" else BY_ITSELF)

    @property
    def is_idle(self) -> bool:
        """Whether no slide begins until somebody asks for one, or says what it is called."""
        return self._asked is None and self._expected is None and self.settings.start == "asked"

    @property
    def is_asked(self) -> bool:
        """Whether somebody wants a slide now."""
        return self._asked is not None

    @property
    def wants_tissue(self) -> bool:
        """Whether it matters what a field shows."""
        return self._asked is None and self.settings.start != "field"

    def ask(self, reason: str) -> None:
        """The next field begins a slide."""
        self._asked = reason

    def ask_no_more(self, reason: str) -> None:
        """Whoever asked for that reason wants no slide any more."""
        if self._asked == reason:
            self._asked = None

    def expect(self, reason: str) -> None:
        """A slide is to come, also where none begins by itself: tissue under a moving stage begins it."""
        self._expected, self._from_um = reason, None

    def reason(self, pose: Pose, shows_tissue: bool) -> str | None:
        """pose: of a field that is worth a tile. shows_tissue: matters only if `wants_tissue`."""
        if self._asked is not None:
            return self._asked
        if self.armed is None or is_at_home(pose, self.settings):
            return None
        if self.settings.start == "field":
            return None if self._from_um is not None and not self._has_left(pose) else "new ground"
        if self._from_um is None:
            self._from_um = pose.yx_um
        if not (shows_tissue and self._has_left(pose)):
            return None
        return ", ".join(filter(None, ("tissue under a moving stage", self._expected)))

    def began(self) -> None:
        """A slide is at work."""
        self._asked = self._expected = None

    def ended(self, pose: Pose | None, by_hand: bool) -> None:
        """It is not any more. pose: where the stage is, None if not known."""
        self._from_um = None if pose is None else pose.yx_um
        self._must_rest, self._still = by_hand, None

    def look(self, pose: Pose | None, now_s: float) -> None:
        """Where the stage is while no slide is at work."""
        if not self._must_rest or pose is None:
            return
        here = pose.yx_um
        if self._still is None or float(np.linalg.norm(here - self._still[0])) > _STILL * self._leave_um:
            self._still = here, now_s
        if now_s - self._still[1] >= REST_S:
            self._must_rest, self._from_um = False, here

    def _has_left(self, pose: Pose) -> bool:
        return (
            self._from_um is not None and float(np.linalg.norm(pose.yx_um - self._from_um)) > self._leave_um
        )
