"""From frames to tiles: each frame gets its exposure time, its pose and its motion vector; some are chosen."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from time import perf_counter

import numpy as np

from deblurd.frames import Frame, MotionVector, Pose, Tile
from deblurd.geometry import PixelToStage
from deblurd.track.choose import TileChooser
from deblurd.track.clock import FrameClock
from deblurd.track.motion import UNKNOWN, mean_um, motion_vector
from deblurd.track.poller import StagePoller

log = logging.getLogger(__name__)

MOST_HELD = 60
"""Frames that may wait until the stage's readings reach past their exposure."""

_PATIENCE_S = 1.0
"""How long a frame may wait for them."""


class Tracker:
    """Takes frames in order, gives back those that become tiles.

    read_position: the stage's (y, x) in um. affine: camera pixels to stage. shape, exposure_ms: of every frame. overlap: share of a tile that
    it has in common with another. latency_ms: mean time from the end of an exposure to the frame's arrival. poll_s, hang_s, on_event: as of
    `StagePoller`. on_frame: told each frame's number, pose and motion, chosen or not. start() before the first frame, stop() after the last.

    Where the stage's readings do not tell in time where a frame was, it becomes no tile, and is counted in `unplaced`; `on_frame` hears of
    it with the last known pose and `sigma` inf.
    """

    def __init__(
        self,
        read_position: Callable[[], tuple[float, float]],
        affine: PixelToStage,
        shape: tuple[int, ...],
        exposure_ms: float,
        *,
        overlap: float,
        latency_ms: float,
        poll_s: float,
        hang_s: float = 5.0,
        on_event: Callable[[str], None] = log.warning,
        on_frame: Callable[[int, Pose, MotionVector], None] | None = None,
    ) -> None:
        self.poller = StagePoller(read_position, poll_s, hang_s=hang_s, on_event=on_event)
        self.unplaced = 0
        self._affine, self._shape, self._overlap = affine, shape, overlap
        self._exposure_ms, self._latency_ms = exposure_ms, latency_ms
        self._on_event, self._on_frame = on_event, on_frame
        self._held: deque[Frame] = deque()
        self._newest_arrival_s = 0.0
        self._before: tuple[Frame, Tile] | None = None
        self.forget_tiles()
        self._new_sequence(0)

    def start(self) -> None:
        self.poller.start()

    def stop(self) -> None:
        self.poller.stop()

    @property
    def newest_pose(self) -> Pose | None:
        """Where the stage was last read; None before that."""
        return self.poller.path.newest

    def forget_tiles(self) -> None:
        """A new slide: all ground is new again."""
        self._chooser = TileChooser(self._affine, self._shape, self._overlap)
        self._before = None

    def feed(self, frame: Frame) -> Iterator[tuple[Frame, Tile]]:
        """The next frame; yields those frames, mostly earlier ones, that become tiles. Tile.index is -1."""
        if frame.sequence != self._sequence:
            yield from self._release(everything=True)
            self._new_sequence(frame.sequence)
        self._clock.see(frame.number, frame.arrived_s)
        self._newest_arrival_s = frame.arrived_s
        self._held.append(frame)
        yield from self._release()

    def drain(self) -> Iterator[tuple[Frame, Tile]]:
        """No frame follows: yields what is still held and worth a tile."""
        yield from self._release(everything=True)
        if self._chooser.last() and self._before is not None:
            yield self._before
        self._before = None

    def _new_sequence(self, sequence: int) -> None:
        self._sequence = sequence
        self._clock = FrameClock(self._exposure_ms, self._latency_ms)

    def _release(self, *, everything: bool = False) -> Iterator[tuple[Frame, Tile]]:
        while self._held and (everything or self._is_ready(self._held[0])):
            frame = self._held.popleft()
            tile = self._tile(frame)
            if tile is not None and self._on_frame is not None:
                self._on_frame(frame.number, tile.pose, tile.motion)
            if tile is None or not math.isfinite(tile.pose.sigma_um):
                # taken for ground that it does not show, it would leave a hole there, and its pixels in the wrong place
                self._skip(frame)
                continue
            before, self._before = self._before, (frame, tile)
            choice = self._chooser.see(tile.pose)
            if choice == "before" and before is not None:
                yield before
            elif choice == "this":
                yield frame, tile

    def _is_ready(self, frame: Frame) -> bool:
        """Whether all is known of `frame` that will be, or it cannot wait any longer."""
        if len(self._held) > MOST_HELD or self._newest_arrival_s - frame.arrived_s > _PATIENCE_S:
            return True
        exposure = self._clock.exposure(frame.number)
        return (
            exposure is not None
            and self._clock.is_settled(frame.number)
            and self.poller.path.covers(exposure[2])
        )

    def _tile(self, frame: Frame) -> Tile | None:
        """The frame as a tile, with unknown motion where the stage's path does not tell; None where the stage was never read."""
        exposure = self._clock.exposure(frame.number)
        stretch = None if exposure is None else self.poller.path.stretch(np.array(exposure))
        if exposure is None or stretch is None:
            newest = self.newest_pose
            if newest is None:
                return None
            middle_s = frame.arrived_s - (self._latency_ms + 0.5 * frame.exposure_ms) / 1000
            pose, motion = Pose(middle_s, newest.y_um, newest.x_um, sigma_um=math.inf), UNKNOWN
        else:
            middle_s = exposure[1]
            y_um, x_um = mean_um(stretch)
            speed_um_s = float(np.linalg.norm(stretch.yx_um[2] - stretch.yx_um[0])) / (
                exposure[2] - exposure[0]
            )
            sigma_um = math.hypot(stretch.sigma_um, speed_um_s * self._clock.sigma_s)
            pose = Pose(middle_s, float(y_um), float(x_um), sigma_um=sigma_um)
            motion = motion_vector(stretch, self._affine)
        utc = datetime.now(UTC) - timedelta(seconds=perf_counter() - middle_s)
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

    def _skip(self, frame: Frame) -> None:
        if self.unplaced == 0:
            self._on_event(
                f"frame {frame.number} and its like have no place, because the stage was not read in time: they become no tiles"
            )
        self.unplaced += 1
