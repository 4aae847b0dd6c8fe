"""No frame disappears silently: every loss is counted under its cause."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import Final, Literal

log = logging.getLogger(__name__)

Cause = Literal[
    "camera",
    "hang",
    "buffer",
    "shape",
    "suspected",
    "process",
    "live",
    "objective",
    "queue",
    "disk",
    "surplus",
]

EXPLANATIONS: Final[dict[Cause, str]] = {
    "camera": "the camera stopped by itself and was started again",
    "hang": "the camera sent nothing for too long and was started again",
    "buffer": "Micro-Manager's image buffer lost frames before they were taken out; raise microscope.buffer_mb",
    "shape": "frames had another shape or pixel type than at the start",
    "suspected": "the pause before a frame was longer than 1.5 frame periods though no number is missing; "
    "the camera's driver may have left exposures out",
    "process": "the process that holds the microscope was gone, and was started again",
    "live": "Micro-Manager's live view showed frames for too short a time to see them",
    "objective": "another objective was in place than at the start",
    "queue": "frames could not be handed on in time",
    "disk": "frames could not be written",
    "surplus": "the camera sends more frames than microscope.most_frames_per_s",
}

_EVENTS_KEPT = 100


@dataclass(frozen=True, slots=True)
class Loss:
    """One event: `n` frames were lost at `t_s`; `detail` says more than the cause's explanation does."""

    t_s: float
    cause: Cause
    n: int
    detail: str


class Losses:
    """Counts lost frames by cause and remembers the last hundred events. Safe to use from several threads."""

    def __init__(self) -> None:
        self._counts: Counter[Cause] = Counter()
        self._recent: deque[Loss] = deque(maxlen=_EVENTS_KEPT)
        self._lock = threading.Lock()

    def add(self, cause: Cause, n: int, detail: str) -> None:
        """`n` frames were lost, or about as many where nobody can know."""
        with self._lock:
            self._counts[cause] += n
            if cause == "surplus":
                return  # as it was asked for
            self._recent.append(Loss(time.perf_counter(), cause, n, detail))
        log.warning("%d frame(s) lost: %s (%s)", n, EXPLANATIONS[cause], detail)

    def counts(self) -> dict[str, int]:
        """Lost frames by cause; causes that never came up are left out."""
        with self._lock:
            return {str(cause): n for cause, n in self._counts.items()}

    def recent(self) -> tuple[Loss, ...]:
        """The last events, oldest first."""
        with self._lock:
            return tuple(self._recent)
