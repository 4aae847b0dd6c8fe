"""Where a stage is that tells nothing, one that is moved by hand: by the shifts from frame to frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deblurd.frames import MotionVector, Pixels
from deblurd.geometry import PixelToStage
from deblurd.track.path import StagePath
from deblurd.track.witness import Registrar

_STILL = MotionVector(0.0, 0.0)
_FARTHEST = 0.6
"""Of a frame's side: where two frames show less than the rest in common, no match is looked for."""

_NEAR_PX = 16.0
_CHANGE = 0.5
"""From frame to frame a hand changes the way by about so much of it."""

Floats = NDArray[np.float64]


class Odometer:
    """Adds a reading to `path` for each frame, in the middle of its exposure; the first frame lies at (0, 0).

    A frame that matches nothing (glass, a jump) adds none; the next one is believed to lie where the motion before would have led. Errors add up,
    a tenth of a pixel from frame to frame: neighbours in a mosaic are registered anyway. affine: camera pixels to um. shape: of every frame.
    """

    def __init__(
        self, registrar: Registrar, path: StagePath, affine: PixelToStage, shape: tuple[int, ...]
    ) -> None:
        self._registrar, self._path, self._affine = registrar, path, affine
        self._most_px = _FARTHEST * float(min(shape[:2]))
        self._before: tuple[float, Any] | None = None
        self._at_um: Floats = np.zeros(2)
        self._speed_px_s: Floats = np.zeros(2)
        self.unmatched = 0

    def see(self, pixels: Pixels, times_s: Floats) -> None:
        """The next frame, with start, middle and end (3,) of its exposure."""
        now_s = float(times_s[1])
        prepared = self._registrar.prepare(pixels, _STILL)
        before, self._before = self._before, (now_s, prepared)
        if before is None:
            self._path.add(now_s, 0.0, 0.0)
            return
        passed_s = now_s - before[0]
        expected_px = self._speed_px_s * passed_s
        length_px = float(np.linalg.norm(expected_px))
        radius_px = min(_NEAR_PX + _CHANGE * length_px, self._most_px)
        match = self._registrar.shift(before[1], prepared, expected_px, radius_px)
        if match is None:
            # it may have been set in motion, or stopped, in between
            match = self._registrar.shift(before[1], prepared, np.zeros(2), self._most_px)
        if match is None:
            self.unmatched += 1
            self._at_um = self._at_um + self._affine.to_stage(expected_px)
            return
        self._at_um = self._at_um + self._affine.to_stage(match[0])
        self._speed_px_s = match[0] / max(passed_s, 1e-6)
        self._path.add(now_s, float(self._at_um[0]), float(self._at_um[1]))
