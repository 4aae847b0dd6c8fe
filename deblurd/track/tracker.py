"""From frames to tiles: each frame gets its exposure time, its pose and its motion vector; some are chosen."""

from __future__ import annotations

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
from deblurd.track.poller import StagePoller

MOST_HELD = 60
"""Frames that may wait until the stage's readings reach past their exposure."""

UNKNOWN = MotionVector(math.nan, math.nan, sigma_px=math.inf)


class Tracker:
    """Takes frames in order, gives back those that become tiles.

    read_position: the stage's (y, x) in um. affine: camera pixels to stage. shape, exposure_ms: of every frame. overlap: share of a tile. latency_ms: from the end of
    an exposure to its arrival. start() before the first frame, stop() after the last.
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
    ) -> None:
        self.poller = StagePoller(read_position, poll_s)
        self._affine, self._shape, self._overlap = affine, shape, overlap
        self._exposure_ms, self._latency_ms = exposure_ms, latency_ms
        self._held: deque[Frame] = deque()
        self._candidate: tuple[Frame, Tile] | None = None
        self.forget_tiles()
        self._new_sequence(0)

    def start(self) -> None:
        self.poller.start()

    def stop(self) -> None:
        self.poller.stop()

    @property
    def newest_pose(self) -> Pose | None:
        return self.poller.track.newest

    def forget_tiles(self) -> None:
        """A new slide: all ground is new again."""
        self._chooser = TileChooser(self._affine, self._shape, self._overlap)

    def feed(self, frame: Frame) -> Iterator[tuple[Frame, Tile]]:
        """The next frame; yields those frames, mostly earlier ones, that become tiles. Tile.index is -1."""
        if frame.sequence != self._sequence:
            yield from self._release(everything=True)
            self._new_sequence(frame.sequence)
        self._clock.see(frame.number, frame.arrived_s)
        self._held.append(frame)
        yield from self._release()

    def drain(self) -> Iterator[tuple[Frame, Tile]]:
        """No frame follows: yields what is still held and worth a tile."""
        yield from self._release(everything=True)
        if self._chooser.last() and self._candidate is not None:
            yield self._candidate

    def _new_sequence(self, sequence: int) -> None:
        self._sequence = sequence
        self._clock = FrameClock(self._exposure_ms, self._latency_ms)

    def _release(self, *, everything: bool = False) -> Iterator[tuple[Frame, Tile]]:
        while self._held:
            exposure = self._clock.exposure(self._held[0].number)
            ready = exposure is not None and self._clock.is_settled and self.poller.track.covers(exposure[2])
            if not (ready or everything or len(self._held) > MOST_HELD):
                return
            frame = self._held.popleft()
            tile = self._tile(frame, exposure)
            if tile is None:
                continue
            if self._chooser.see(tile.pose) and self._candidate is not None:
                yield self._candidate
            self._candidate = frame, tile

    def _tile(self, frame: Frame, exposure: tuple[float, float, float] | None) -> Tile | None:
        """The frame as a tile; with unknown motion where the stage's track does not tell; None where nothing does."""
        track = self.poller.track
        middle_s = frame.arrived_s - 0.5 * frame.exposure_ms / 1000 if exposure is None else exposure[1]
        path = None if exposure is None else track.path(np.array(exposure))
        if path is None:
            newest = track.newest
            if newest is None:
                return None
            pose, motion = Pose(middle_s, newest.y_um, newest.x_um, sigma_um=math.inf), UNKNOWN
        else:
            stage_um, sigma_um = path
            # Simpson's rule: exact for the mean over a parabola
            mean_um = (stage_um[0] + 4 * stage_um[1] + stage_um[2]) / 6
            pose = Pose(middle_s, float(mean_um[0]), float(mean_um[1]), sigma_um=sigma_um)
            # the image moves against the stage
            image_px = -self._affine.to_pixels(stage_um - stage_um[1])
            motion = MotionVector.from_path(
                image_px[0], image_px[1], image_px[2], sigma_um / self._affine.pixel_size_um
            )
        age = timedelta(seconds=perf_counter() - middle_s)
        utc = (datetime.now(UTC) - age).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return Tile(
            -1, frame.sequence, frame.number, pose, motion, frame.exposure_ms, frame.pixels.shape, utc
        )
