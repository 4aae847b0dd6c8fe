"""No frame disappears silently: every loss is counted under its cause."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from typing import Final, Literal

log = logging.getLogger(__name__)

Cause = Literal["camera", "buffer", "shape", "driver", "hang"]

EXPLANATIONS: Final[dict[Cause, str]] = {
    "camera": "the camera stopped by itself; it was started again",
    "buffer": "Micro-Manager's image buffer was full, because frames were not taken out in time; raise buffer_mb",
    "shape": "the frame had another shape or pixel type than at the start",
    "driver": "the camera or its driver left out exposures (seen by numbers or times that jump)",
    "hang": "the camera sent nothing for too long; it was started again",
}


class Losses:
    """Counts lost frames by cause. Safe to use from several threads."""

    def __init__(self) -> None:
        self._counts: Counter[Cause] = Counter()
        self._lock = threading.Lock()

    def add(self, cause: Cause, n: int, detail: str) -> None:
        """n frames (for an unknown number: 1) were lost; `detail` goes to the log behind the explanation."""
        with self._lock:
            self._counts[cause] += n
        log.warning("%d frame(s) lost: %s (%s)", n, EXPLANATIONS[cause], detail)

    def counts(self) -> dict[str, int]:
        """Lost frames by cause; causes that never came up are left out."""
        with self._lock:
            return {str(cause): n for cause, n in self._counts.items()}
