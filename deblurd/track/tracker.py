"""From frames to tiles: each frame gets its exposure time, its pose and its motion vector; some are chosen."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from deblurd.errors import MicroscopeError
from deblurd.frames import Frame, MotionVector, Pose, Tile
from deblurd.geometry import PixelToStage
from deblurd.track.calibration import Calibration
from deblurd.track.choose import EachFrame, TileChooser, grade
from deblurd.track.motion import UNKNOWN, mean_um, motion_vector, stretch_later
from deblurd.track.odometer import Odometer
from deblurd.track.poller import StagePoller
from deblurd.track.turns import TurnClock
from deblurd.track.way import Ways
from deblurd.track.witness import Registrar, Witness

log = logging.getLogger(__name__)

MOST_HELD = 60
"""Frames that may wait until the stage's readings reach past their exposure."""

_PATIENCE_S = 1.0
"""How long a frame may wait for them."""

_TELL_S = 2.0
"""So long without a frame that has a place, people are told."""

_SAY_AGAIN_S = 60.0

_MOST_DOUBT_PX = 10.0
"""What the pose of a tile may be wrong by because of its time: the pictures tell the rest."""


class Tracker:
    """Takes frames in order, gives back those that become tiles.

    read_position: the stage's (y, x) in um. affine: camera pixels to stage. shape: of every frame; exposure_ms: of most. overlap: share of a tile that
    it has in common with another. latency_ms: mean time from the end of an exposure to the frame's arrival. poll_s, hang_s, on_event: as of
    `StagePoller`. on_frame: told each frame's number, pose and motion, chosen or not. calibration: what is known from earlier scans.
    registrar: measures shifts between frames, by which the calibration is refined while scanning; not done if absent. by_frames: the stage
    is not read; where it is tell the shifts between frames, which `registrar` must measure. start() before the
    first frame, stop() after the last. choose_from_s: frames exposed earlier become no tiles; set it to inf while the stage drives to its start.

    Where the stage's readings do not tell in time where a frame was, it becomes no tile, and is counted in `unplaced`; `on_frame` hears of
    it with the last known pose and `sigma` inf. Nor does a frame of which the clock does not know when it was exposed, while the stage moves; those are counted in `doubtful`. doubt_s: how much earlier than it seems the last frame may have been
    exposed; 0 while the camera's beat is plain.
    """

    def __init__(
        self,
        read_position: Callable[[], tuple[float, float]],
        affine: PixelToStage,
        shape: tuple[int, ...],
        exposure_ms: float,
        *,
        overlap: float,
        observations: int = 1,
        latency_ms: float,
        poll_s: float,
        hang_s: float = 5.0,
        on_event: Callable[[str], None] = log.warning,
        on_frame: Callable[[int, Pose, MotionVector], None] | None = None,
        calibration: Calibration | None = None,
        registrar: Registrar | None = None,
        only_at_rest: bool = False,
        by_frames: bool = False,
    ) -> None:
        self.poller = StagePoller(read_position, poll_s, hang_s=hang_s, on_event=on_event)
        self.unplaced = self.doubtful = 0
        self.doubt_s = 0.0
        self._said_s: dict[str, float] = {}
        self._unplaced_since_s: float | None = None
        self._why = ""
        self.seen_until_s = -math.inf
        self._only_at_rest = only_at_rest
        self.choose_from_s = -math.inf
        self._known = calibration or Calibration.configured(affine)
        self.witness = (
            None
            if registrar is None or by_frames
            else Witness(registrar, self.poller.path, shape, affine, self._known)
        )
        self._odometer = (
            Odometer(registrar, self.poller.path, affine, shape) if by_frames and registrar else None
        )
        self._unmeasured: deque[Frame] = deque(maxlen=MOST_HELD)
        self._ways = Ways()
        self._unwitnessed: deque[Frame] = deque(maxlen=MOST_HELD)
        self._affine, self._shape, self._overlap, self._observations = affine, shape, overlap, observations
        self._exposure_ms, self._latency_ms = exposure_ms, latency_ms
        self._on_event, self._on_frame = on_event, on_frame
        self._held: deque[Frame] = deque()
        self._newest_arrival_s = 0.0
        self._before: tuple[Frame, Tile] | None = None
        self._before_is_taken = False
        self._each = EachFrame(affine, shape, observations)
        self._chooser = self._new_chooser()
        self._new_sequence(0)

    def start(self) -> None:
        if self._odometer is None:
            self.poller.start()
        if self.witness is not None:
            self.witness.start()

    def stop(self) -> None:
        if self.witness is not None:
            self.witness.stop()
        self.poller.stop()

    @property
    def calibration(self) -> Calibration:
        """What is known of camera and stage by now."""
        return self._known if self.witness is None else self.witness.calibration

    def grades_at(self, yx_um: NDArray[np.float64]) -> NDArray[np.uint8]:
        """How sharp tiles show the places (n, 2), (y, x) um: see `choose.grade`. From any thread."""
        return self._chooser.grades_at(yx_um)

    def doubt(self, yx_um: NDArray[np.float64]) -> None:
        """The tile at (y, x) came to nothing: what it shows is wanted again."""
        self._chooser.doubt(yx_um)

    @property
    def newest_pose(self) -> Pose | None:
        """Where the stage was last read; None before that."""
        return self.poller.path.newest

    @property
    def trouble(self) -> str | None:
        """Why no frame becomes a tile at the moment, in a sentence; None where frames have their places. From any thread."""
        since_s = self._unplaced_since_s
        if since_s is None or self._newest_arrival_s - since_s < _TELL_S:
            return None
        return f"nothing is kept, because {self._why}: close other programs, or drive more slowly"

    @property
    def is_calibrated(self) -> bool:
        """Whether what is known is good enough for a scan, or frames are not asked."""
        return self.witness is None or self.calibration.is_good

    @property
    def has_calibrated(self) -> bool:
        """Whether its frames have told all that a calibration holds."""
        witness = self.witness
        return (
            witness is not None
            and witness.failure is None
            and witness.calibration.is_known
            and witness.seen > 0
        )

    def forget_tiles(self) -> TileChooser:
        """A new slide: all ground is new again. Returns what was known of the ground, for `remember_tiles`."""
        known, self._chooser = self._chooser, self._new_chooser()
        self._before = None
        return known

    def _new_chooser(self) -> TileChooser:
        return TileChooser(self._affine, self._shape, self._overlap, only_at_rest=self._only_at_rest)

    def narrow(self, shape: tuple[int, ...]) -> None:
        """Frames are good for so much of them only: from the next slide on, or at once where nothing was chosen yet."""
        self._shape = shape
        self._each = EachFrame(self._affine, shape, self._observations)
        if self.choose_from_s == math.inf:
            self._chooser = self._new_chooser()

    def remember_tiles(self, known: TileChooser) -> None:
        """The slide goes on, of which `forget_tiles` returned what was `known`."""
        self._chooser, self._before = known, None

    def feed(self, frame: Frame) -> Iterator[tuple[Frame, Tile]]:
        """The next frame; yields those frames, mostly earlier ones, that become tiles. Tile.index is -1.

        Raises MicroscopeError when the frames show that the camera is not what it is configured as.
        """
        if frame.known is not None:
            yield from self._choose(frame, self._as_tile(frame, *frame.known))
            return
        if self.witness is not None and self.witness.failure is not None:
            raise MicroscopeError(self.witness.failure)
        if frame.sequence != self._sequence:
            yield from self._release(everything=True)
            self._exposure_ms = frame.exposure_ms
            self._new_sequence(frame.sequence)
        self._clock.see(frame.number, frame.arrived_s, frame.exposure_ms)
        self._newest_arrival_s = frame.arrived_s
        self._held.append(frame)
        if self._odometer is not None:
            self._unmeasured.append(frame)
            self._measure(self._odometer)
        if self.witness is not None:
            self._unwitnessed.append(frame)
            self._show(self.witness)
        yield from self._release()

    def drain(self) -> Iterator[tuple[Frame, Tile]]:
        """No frame follows: yields what is still held and worth a tile."""
        yield from self._release(everything=True)
        if self._chooser.last() and self._before is not None and not self._before_is_taken:
            yield self._before
        self._before = None

    def _new_sequence(self, sequence: int) -> None:
        self._sequence = sequence
        self._unwitnessed.clear()
        self._unmeasured.clear()
        self._clock = TurnClock(self._exposure_ms, self._latency_ms)

    def _measure(self, odometer: Odometer) -> None:
        """Has the frames measured whose times are known by now."""
        while self._unmeasured and self._clock.is_settled(self._unmeasured[0].number):
            frame = self._unmeasured.popleft()
            exposure = self._clock.exposure(frame.number, frame.exposure_ms)
            if exposure is not None:
                odometer.see(frame.pixels, np.array(exposure))

    def _show(self, witness: Witness) -> None:
        """Shows the witness the frames of which all is known by now."""
        while self._unwitnessed:
            frame = self._unwitnessed[0]
            exposure = self._clock.exposure(frame.number, frame.exposure_ms)
            if exposure is None or not self._is_covered(frame.number, exposure[2]):
                return
            self._unwitnessed.popleft()
            if self._doubt_um(frame) < self._affine.pixel_size_um:
                witness.offer(frame.pixels, np.array(exposure), self._clock.revision(frame.number))

    def _release(self, *, everything: bool = False) -> Iterator[tuple[Frame, Tile]]:
        while self._held and (everything or self._is_ready(self._held[0])):
            frame = self._held.popleft()
            doubt_um = self._doubt_um(frame)
            tile = self._tile(frame, doubt_um)
            if tile is not None and self._on_frame is not None:
                self._on_frame(frame.number, tile.pose, tile.motion)
            if tile is not None and doubt_um > _MOST_DOUBT_PX * self._affine.pixel_size_um:
                # it may show the ground of another beat; the frames around it show the same ground
                self.doubtful += 1
                self._skip(frame, "the computer was too busy to tell when they were exposed")
                continue
            if tile is None or not math.isfinite(tile.pose.sigma_um):
                # taken for ground that it does not show, it would leave a hole there, and its pixels in the wrong place
                self.unplaced += 1
                self._skip(frame, "the stage was not read in time")
                continue
            self.seen_until_s = tile.pose.t_s
            self._unplaced_since_s = None
            if tile.pose.t_s < self.choose_from_s:
                continue
            yield from self._choose(frame, tile)

    def _choose(self, frame: Frame, tile: Tile) -> Iterator[tuple[Frame, Tile]]:
        before, self._before = self._before, (frame, tile)
        was_taken, self._before_is_taken = self._before_is_taken, False
        choice = self._chooser.see(tile.pose, grade(tile.motion))
        if choice == "before" and before is not None and not was_taken:
            yield before
        if choice == "this" or (self._observations > 1 and self._each.see(tile.pose) == "this"):
            self._before_is_taken = True
            yield frame, tile

    def _is_ready(self, frame: Frame) -> bool:
        """Whether all is known of `frame` that will be, or it cannot wait any longer."""
        if len(self._held) > MOST_HELD or self._newest_arrival_s - frame.arrived_s > _PATIENCE_S:
            return True
        exposure = self._clock.exposure(frame.number, frame.exposure_ms)
        if exposure is None or not self._is_covered(frame.number, exposure[2]):
            return False
        return self.witness is None or not self.witness.wants_more(np.array(exposure))

    def _is_covered(self, number: int, end_s: float) -> bool:
        """Whether no later frame or reading will tell more of the time and place of an exposure that ended at `end_s`."""
        later_s = max(float(self.calibration.lag_s.max()), 0.0)
        return self._clock.is_settled(number) and self.poller.path.covers(end_s + later_s)

    def _doubt_um(self, frame: Frame) -> float:
        """How far the stage moved between the moments at which `frame` may have been exposed; inf where that is not known."""
        exposure = self._clock.exposure(frame.number, frame.exposure_ms)
        self.doubt_s = doubt_s = self._clock.doubt_s(frame.number)
        if doubt_s == 0.0 or exposure is None:
            return 0.0
        told_s = exposure[1], self._arrival_tells_s(frame)
        return self.poller.path.extent_um(min(told_s) - doubt_s, max(told_s))

    def _arrival_tells_s(self, frame: Frame) -> float:
        """The middle of its exposure, if `frame` was not late."""
        return frame.arrived_s - (self._latency_ms + 0.5 * frame.exposure_ms) / 1000

    def _tile(self, frame: Frame, doubt_um: float) -> Tile | None:
        """The frame as a tile, whose time may put it `doubt_um` off, with unknown motion where the stage's path does not tell; None where the stage was never read."""
        known = self.calibration
        exposure = self._clock.exposure(frame.number, frame.exposure_ms)
        stretch = (
            None
            if exposure is None
            else stretch_later(self.poller.path.stretch, np.array(exposure), known.lag_s)
        )
        if exposure is None or stretch is None:
            newest = self.newest_pose
            if newest is None:
                return None
            middle_s = self._arrival_tells_s(frame)
            pose, motion = Pose(middle_s, newest.y_um, newest.x_um, sigma_um=math.inf), UNKNOWN
        else:
            middle_s = exposure[1]
            at_um = mean_um(stretch)
            # the screw's play lies behind an axis that drives forwards, and before one that drives backwards
            y_um, x_um = at_um + known.play_um * (self._ways.see(at_um) < 0)
            speed_um_s = (stretch.yx_um[2] - stretch.yx_um[0]) / (exposure[2] - exposure[0])
            late_um = float(np.linalg.norm(speed_um_s)) * self._clock.sigma_s
            lag_um = (
                float((np.abs(speed_um_s) * known.lag_sigma_s).max())
                if np.isfinite(known.lag_sigma_s).all()
                else stretch.call_um
            )
            sigma_um = math.hypot(stretch.sigma_um, late_um, lag_um, doubt_um)
            pose = Pose(middle_s, float(y_um), float(x_um), sigma_um=sigma_um)
            motion = motion_vector(stretch, known.affine)
        return self._as_tile(frame, pose, motion)

    @staticmethod
    def _as_tile(frame: Frame, pose: Pose, motion: MotionVector) -> Tile:
        utc = datetime.now(UTC) - timedelta(seconds=perf_counter() - pose.t_s)
        return Tile(
            -1,
            frame.sequence,
            frame.number,
            pose,
            motion,
            frame.exposure_ms,
            frame.pixels.shape,
            utc.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        )

    def _skip(self, frame: Frame, why: str) -> None:
        """Says that a frame becomes no tile; of those like it within a minute only the first is named."""
        self._why = why
        if self._unplaced_since_s is None:
            self._unplaced_since_s = frame.arrived_s
        if frame.arrived_s - self._said_s.get(why, -math.inf) > _SAY_AGAIN_S:
            self._said_s[why] = frame.arrived_s
            self._on_event(
                f"frame {frame.number} and its like have no place, because {why}: they become no tiles"
            )
