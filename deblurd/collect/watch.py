"""Frames as they come from a microscope, each with where the stage stood and how the image moved."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from deblurd.acquire.microscope import Microscope
from deblurd.errors import MicroscopeError
from deblurd.frames import Frame, MotionVector, Pixels, Pose
from deblurd.track.tracker import Tracker

PATIENCE_S = 30.0
"""How long the stage may take from one place to another."""

BEAT_FRAMES = 48
"""So many frames, and the camera's clock stands: before that, frames are dated too badly to know which of them were taken at rest."""

AT_REST_PX = 0.7
_NEAR_UM = 20.0


class StoppedError(Exception):
    """Somebody wants the end."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """One frame. pose: in the middle of its exposure. earliest_s: when that may have been at the earliest."""

    pixels: Pixels
    pose: Pose
    motion: MotionVector
    earliest_s: float

    @property
    def is_timed(self) -> bool:
        """Whether it is known when it was exposed."""
        return self.earliest_s == self.pose.t_s

    def rests_at(self, y_um: float, x_um: float) -> bool:
        near = math.hypot(self.pose.y_um - y_um, self.pose.x_um - x_um) < _NEAR_UM
        return self.motion.is_known and self.motion.length_px < AT_REST_PX and near


class Watch:
    """The frames of a microscope through the daemon's own tracker, while it is used as a context. poll_s: between readings of the stage."""

    def __init__(self, microscope: Microscope, stop: threading.Event, poll_s: float) -> None:
        info = microscope.info
        self._microscope, self._stop = microscope, stop
        self._waiting: dict[tuple[int, int], Frame] = {}
        self._known: list[Seen] = []
        self._sequence = 0
        self._tracker = Tracker(
            microscope.position_um,
            info.affine,
            info.shape,
            info.exposure_ms,
            overlap=0.5,
            latency_ms=info.latency_ms or 0.0,
            poll_s=poll_s,
            on_frame=self._place,
        )
        self._frames: Iterator[Frame] = iter(())

    def __enter__(self) -> Watch:
        self._tracker.start()
        self._frames = self._microscope.frames(self._stop)
        for _ in range(BEAT_FRAMES):
            self._next()
        return self

    def __exit__(self, *_: object) -> None:
        self._tracker.stop()
        self._microscope.stop()

    def until_rest(self, y_um: float, x_um: float, frames: int = 1) -> Iterator[Seen]:
        """Every frame exposed from now on, up to the one that is the last of `frames` at rest at a place.

        Raises MicroscopeError where the stage does not come to rest there, StoppedError.
        """
        began_s, resting = time.perf_counter(), 0
        while resting < frames:
            for seen in self._next():
                if seen.earliest_s >= began_s and resting < frames:
                    resting += seen.rests_at(y_um, x_um)
                    yield seen
            if time.perf_counter() - began_s > PATIENCE_S:
                raise MicroscopeError(
                    f"the stage was not seen at rest at x {x_um:.0f}, y {y_um:.0f} um within {PATIENCE_S:g} s: check that the place lies within "
                    "its travel and that nothing else moves it, then start again"
                )

    def _next(self) -> list[Seen]:
        """Takes one frame in; gives those, mostly earlier ones, of which now all is known."""
        frame = next(self._frames, None)
        if frame is None or self._stop.is_set():
            raise StoppedError
        if frame.sequence != self._sequence:
            self._sequence = frame.sequence
            self._waiting.clear()
        self._waiting[frame.sequence, frame.number] = frame
        for _ in self._tracker.feed(frame):
            pass  # which frames would become tiles is of no interest here
        known, self._known = self._known, []
        return known

    def _place(self, number: int, pose: Pose, motion: MotionVector) -> None:
        key = (self._sequence, number)
        frame = self._waiting.pop(key, None)
        self._waiting = {later: waiting for later, waiting in self._waiting.items() if later > key}
        if frame is not None:
            self._known.append(Seen(frame.pixels, pose, motion, pose.t_s - self._tracker.doubt_s))
