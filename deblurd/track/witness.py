"""Looks at frames while a scan runs, and learns from their shifts how the camera sees the stage."""

from __future__ import annotations

import logging
import math
import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deblurd.frames import MotionVector, Pixels
from deblurd.geometry import PixelToStage
from deblurd.track.calibrate import Places, Sighting, as_then, fit
from deblurd.track.calibration import KNOWN_LAG_S, Calibration
from deblurd.track.motion import mean_um, motion_vector, stretch_later
from deblurd.track.path import StagePath, Stretch
from deblurd.track.way import Ways

log = logging.getLogger(__name__)

MOST_SIGHTINGS = 160
_FIRST_FIT = 10
_GROWTH = 1.4
_STEADY_FIT = 64
"""A fit follows after so many new sightings; in the beginning sooner."""

_WANDER = 2e-4
_WANDER_S = 1e-4
_WANDER_UM = 0.05
"""How much each may change from batch to batch."""

_NEAR_SIGMAS = 4.0
_MOST_CONTRADICTIONS = 3

_EACH = 10
_OF_EACH = 2
_ROOM = 8
"""Frames come in bursts, as the stage's readings that they wait for do."""

_ENOUGH = 240
"""Of so many frames so many, one after the other, are looked at once there are enough sightings, or so many frames in motion were looked at."""

_LEAST_S = 0.02
"""Between one frame that is looked at and the next, which costs a third of it: a fast camera leaves the computer time for its frames."""

_PATIENCE = 60
"""If so many frames in motion did not tell an axis's lag, no frame waits for it any more."""

_MOST_SHIFT = 0.5
"""Of a frame's side: further from the anchor, the frame becomes the next one."""

_MISSES = 3
_FIXED_PX = 2.0
_MOVED_PX = 20.0
_NEAR_PX = 24.0
_UNKNOWN_LAG_S = 0.05
_FASTER_UM_S = 20.0
_RESTS_UM = 0.5
_JOIN_S = 5.0

Floats = NDArray[np.float64]


class Registrar(Protocol):
    """Measures shifts between pictures. Used from one thread."""

    def prepare(self, pixels: Pixels, motion: MotionVector) -> Any:
        """Whatever `shift` wants to know of a frame, which was taken in `motion`."""

    def shift(self, a: Any, b: Any, expected_px: Floats, radius_px: float) -> tuple[Floats, float] | None:
        """Where b lies from a, (2,) px, and its standard deviation along an axis; None where no match can be trusted.

        What b shows at pixel p, a shows at p + shift. expected_px: where to look; radius_px: how far around.
        """

    def skew(self, a: Any, b: Any, shift_px: Floats) -> tuple[Floats, float] | None:
        """By how much that shift grows from one row to the next, (2,), and its standard deviation along an axis; None where they do not tell."""


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """A frame that was looked at."""

    prepared: Any
    times_s: Floats
    yx_um: Floats
    speed_um_s: Floats
    way: Floats
    later: Callable[[], float]


class Witness(threading.Thread):
    """Takes frames by `offer`, as many as it has time for, and keeps `calibration` at what they tell.

    Each is compared with an earlier one, the anchor, that shows half of the same: so noise does not add up, and a frame at rest
    is compared with frames that pass by. path: the stage's readings, shared with whoever adds to it. start: what is expected.
    failure: a sentence, once the camera is seen not to be as `configured`.
    """

    def __init__(
        self,
        registrar: Registrar,
        path: StagePath,
        shape: tuple[int, ...],
        configured: PixelToStage,
        start: Calibration,
    ) -> None:
        super().__init__(name="deblurd-witness", daemon=True)
        self._known = start
        self._later, self._fitted_at_s = as_then, 0.0
        self.failure: str | None = None
        self.seen = 0
        self._registrar, self._path, self._configured = registrar, path, configured
        self._most_px = _MOST_SHIFT * np.array(shape[:2], dtype=np.float64)
        self._frames: queue.Queue[tuple[Pixels, Floats, Callable[[], float]] | None] = queue.Queue(_ROOM)
        self._places = Places(path.stretch)
        self._sightings: deque[Sighting] = deque(maxlen=MOST_SIGHTINGS)
        self._ways = Ways()
        self._anchor: _Look | None = None
        self._offered = self._misses = 0
        self._offered_s = -math.inf
        self._looked = np.zeros(2)
        self._last_um = np.full(2, np.inf)
        self._fit_at = _FIRST_FIT
        self._prior = start
        self._contradictions = 0
        self._suspected = False

    @property
    def calibration(self) -> Calibration:
        """What is known by now, for the frames' clock as it is now: where that has moved since the last fit, lags have moved against it."""
        moved_s = self._later() - self._fitted_at_s
        return self._known.with_lag(self._known.lag_s - moved_s) if moved_s else self._known

    def offer(self, pixels: Pixels, times_s: Floats, later: Callable[[], float] = as_then) -> None:
        """A frame in order, with start, middle and end (3,) of its exposure, as believed; never waits. Any frame may be passed over.

        later: how much later (s) the frame is believed to have been exposed whenever it is asked.
        """
        if times_s[1] < self._offered_s + _LEAST_S:
            return
        self._offered, self._offered_s = self._offered + 1, float(times_s[1])
        steady = self.seen >= MOST_SIGHTINGS or self._looked.max() >= _ENOUGH
        if steady and self._offered % _EACH >= _OF_EACH:
            return
        try:
            self._frames.put_nowait((pixels, times_s, later))
        except queue.Full:
            return

    def wants_more(self, times_s: Floats) -> bool:
        """Whether the stage drove, around `times_s`, along an axis whose lag is not known: a little patience makes its pose better."""
        unknown = (self.calibration.lag_sigma_s > KNOWN_LAG_S) & (self._looked < _PATIENCE)
        if not unknown.any() or not self.is_alive() or self.failure is not None:
            return False
        stretch = self._path.stretch(times_s)
        if stretch is None:
            return False
        return bool((unknown & _drives(stretch, times_s)).any())

    def run(self) -> None:
        while (item := self._frames.get()) is not None:
            self._look(*item)

    def stop(self) -> None:
        """Ends the thread, after a last fit of all that was seen."""
        if not self.is_alive():
            return
        self._frames.put(None)
        self.join(_JOIN_S)
        self._fit()

    def _look(self, pixels: Pixels, times_s: Floats, later: Callable[[], float]) -> None:
        known = self.calibration
        stretch = stretch_later(self._path.stretch, times_s, known.lag_s)
        if stretch is None:
            return
        drives = _drives(stretch, times_s)
        at_um, before_um = mean_um(stretch), self._last_um
        self._last_um = at_um
        if not drives.any() and np.linalg.norm(at_um - before_um) < _RESTS_UM:
            return  # as good as the last one
        self._looked += drives
        way = self._ways.see(at_um)
        prepared = self._registrar.prepare(pixels, motion_vector(stretch, known.affine))
        speed_um_s = (stretch.yx_um[-1] - stretch.yx_um[0]) / (times_s[-1] - times_s[0])
        look = _Look(prepared, times_s, at_um, speed_um_s, way, later)
        anchor = self._anchor
        expected_px = np.zeros(2) if anchor is None else known.inverse @ (look.yx_um - anchor.yx_um)
        if anchor is None or (np.abs(expected_px) > self._most_px).any():
            self._anchor, self._misses = look, 0
            return
        match = self._registrar.shift(
            anchor.prepared, prepared, expected_px, self._radius_px(expected_px, stretch.yx_um, times_s)
        )
        if match is None:
            self._misses += 1
            if self._misses >= _MISSES:
                self._anchor, self._misses = look, 0
            return
        self._misses = 0
        if _is_fixed(match[0], expected_px):
            return
        # rows of frames that move alike are skewed alike
        differ = bool(np.linalg.norm(speed_um_s - anchor.speed_um_s) > _FASTER_UM_S)
        skew = self._registrar.skew(anchor.prepared, prepared, match[0]) if differ else None
        self._sightings.append(
            Sighting(anchor.times_s, times_s, *match, anchor.way, way, anchor.later, later, skew)
        )
        self.seen += 1
        if self.seen >= self._fit_at:
            self._fit()
            self._fit_at = self.seen + min(int((_GROWTH - 1) * self.seen) + 1, _STEADY_FIT)
            if not self._sightings:
                self._fit_at = self.seen + _STEADY_FIT

    def _radius_px(self, expected_px: Floats, yx_um: Floats, times_s: Floats) -> float:
        """How far from where it is expected a match may be."""
        if self.calibration.is_known:
            return _NEAR_PX
        speed_um_s = float(np.linalg.norm(yx_um[-1] - yx_um[0])) / (times_s[-1] - times_s[0])
        late_px = float(_UNKNOWN_LAG_S * speed_um_s / self._configured.pixel_size_um)
        # a camera that is turned or mirrored shows the way backwards
        return _NEAR_PX + late_px + 2 * float(np.linalg.norm(expected_px))

    def _follow_clock(self) -> None:
        """Puts what is known in terms of the clock as it is now."""
        later = self._sightings[-1].second_later if self._sightings else self._later
        moved_s, at_s = self._later() - self._fitted_at_s, later()
        self._known, self._prior = (
            each.with_lag(each.lag_s - moved_s) if moved_s else each for each in (self._known, self._prior)
        )
        self._later, self._fitted_at_s = later, at_s

    def _fit(self) -> None:
        self._follow_clock()
        found = fit(list(self._sightings), self._places, self._prior)
        if found is None:
            return
        log.debug("calibration by %d sightings: %s", found.sightings, found.to_dict())
        self._mind_disagreement(found)
        if self.failure is not None or not math.isfinite(found.rms_px):
            return
        if not self._prior.is_good:
            self._known = found
            if found.is_good:
                self._prior = _loosened(found)
                self._sightings.clear()
        elif len(self._sightings) >= _STEADY_FIT // 2:
            self._refine(found)

    def _refine(self, found: Calibration) -> None:
        """What each sighting said counts once; a batch that contradicts all that was known counts only once others have said the same."""
        # by itself: beside what was known, all that contradicts looks like wrong matches
        alone = fit(list(self._sightings), self._places, Calibration.configured(self._prior.affine))
        self._sightings.clear()
        if alone is None or _is_near(alone, self._prior):
            self._contradictions = 0
            self._known, self._prior = found, _loosened(found)
            return
        self._contradictions += 1
        if self._contradictions >= _MOST_CONTRADICTIONS:
            self._contradictions = 0
            self._prior = Calibration.configured(self._prior.affine)

    def _mind_disagreement(self, found: Calibration) -> None:
        """The camera is not what it is configured as where two fits in a row say so."""
        sentence = found.disagreement(self._configured)
        if sentence is not None and self._suspected:
            self.failure = self.failure or sentence
        self._suspected = sentence is not None


def _loosened(known: Calibration) -> Calibration:
    """The same, a little less sure: clocks wander, and stages warm up."""
    return replace(
        known,
        affine_sigma=np.hypot(known.affine_sigma, _WANDER),
        lag_sigma_s=np.hypot(known.lag_sigma_s, _WANDER_S),
        play_sigma_um=np.hypot(known.play_sigma_um, _WANDER_UM),
    )


def _is_near(found: Calibration, known: Calibration) -> bool:
    """Whether lag, play and the time from row to row are what was known, as far as that was sure."""
    lag_s = np.hypot(found.lag_sigma_s, known.lag_sigma_s)
    play_um = np.hypot(found.play_sigma_um, known.play_sigma_um)
    lag = np.abs(found.lag_s - known.lag_s) <= _NEAR_SIGMAS * lag_s
    play = np.abs(found.play_um - known.play_um) <= _NEAR_SIGMAS * play_um
    rows = abs(found.row_s - known.row_s) <= _NEAR_SIGMAS * math.hypot(found.row_sigma_s, known.row_sigma_s)
    return bool((lag & play).all()) and rows


def _drives(stretch: Stretch, times_s: Floats) -> NDArray[np.bool_]:
    """(2,): whether each axis drives fast enough to tell of its lag."""
    travel_um = np.abs(stretch.yx_um[-1] - stretch.yx_um[0])
    return np.asarray(travel_um > _FASTER_UM_S * (times_s[-1] - times_s[0]))


def _is_fixed(shift_px: Floats, expected_px: Floats) -> bool:
    """Whether what matched is dust on the camera, or a test picture, which does not move with the stage."""
    return bool(np.linalg.norm(shift_px) < _FIXED_PX and np.linalg.norm(expected_px) > _MOVED_PX)
