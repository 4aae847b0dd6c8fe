"""While the stage rests, the camera's frames are kept as a series, and followed once it moves on.

A series is a folder like one that a person would make: TIFFs and ``tiles.csv``; `sources` reads it again at any time.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import logging
import math
import queue
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import tifffile

from deblurd.errors import DeblurdError, OutputError, UsageError
from deblurd.frames import Frame, Pose
from deblurd.geometry import PixelToStage
from deblurd.settings import TrajectorySettings
from deblurd.slides.camera import Camera
from deblurd.slides.folder import SlideFolder
from deblurd.tileset import TABLE
from deblurd.trajectory.sources import SERIES_NOTE, Told, open_series

log = logging.getLogger(__name__)

SHELF = "series"
"""Folder below the output folder that gets a folder for each series."""

TRACKS_FOLDER = "trajectories"
"""In a series' folder: what came of following it."""

STILL_PX = 0.5
"""A stage that stands within this, and within what its readings scatter, rests."""

_SIGMAS = 4.0
_MOST_WAITING = 16
"""Frames that may wait for the disk; of more, the newest are left out, and counted."""


class RestingSeries:
    """Fed with every frame and the newest reading of the stage, from the thread of the camera; the disk and the following have their own.

    check: raises OutputError where the disk has no room left. Raises UsageError where what follows objects is not installed.
    """

    def __init__(
        self,
        settings: TrajectorySettings,
        camera: Camera,
        output: Path,
        check: Callable[[], object] = lambda: None,
    ) -> None:
        if importlib.util.find_spec("trackpy") is None:
            raise UsageError(
                "trajectories.enabled needs trackpy: pip install 'deblurd[trajectories]', or set it to false"
            )
        self._settings, self._camera, self._output, self._check = settings, camera, output, check
        self._at: Pose | None = None
        self._waiting: Frame | None = None
        self._recording: _Recording | None = None
        self._last_s = -math.inf
        self._is_over = False
        self._follower = ThreadPoolExecutor(1, thread_name_prefix="deblurd-follow")
        self._following: list[Future[None]] = []
        self._stop = threading.Event()

    def feed(self, frame: Frame, pose: Pose | None) -> None:
        """A frame is kept when the stage rested when it came, and still does when the next one has come."""
        if pose is None:
            return
        if self._at is None or self._has_moved(pose):
            self._end()
            self._at, self._waiting, self._is_over = pose, None, False
            return
        before, self._waiting = self._waiting, frame
        if (
            before is None
            or self._is_over
            or before.arrived_s - self._last_s < 0.95 / self._settings.frames_per_s
        ):
            return
        try:
            if self._recording is None:
                self._check()
                self._recording = _Recording(self._output, self._camera, self._at)
            self._recording.add(before)
        except OutputError as err:
            # the scan goes on without it, and says itself what is wrong with its disk
            log.warning("the frames at rest are not kept: %s", err)
            self._is_over = True
            return
        self._last_s = before.arrived_s
        if before.arrived_s - self._recording.begun_s >= self._settings.longest_s:
            # a stage at rest over night is one series, and not a full disk
            self._end()
            self._is_over = True

    @property
    def waiting(self) -> int:
        """Frames that wait for the disk."""
        return 0 if self._recording is None else self._recording.waiting

    def end(self, stop: bool = False) -> None:
        """No frame follows. stop: what is being followed leaves off early, with what was seen until then."""
        self._end()
        if stop:
            self._stop.set()

    def wait(self, timeout_s: float) -> bool:
        """Whether every series was followed, at most `timeout_s` after being asked."""
        return not wait(self._following, timeout_s).not_done

    def _has_moved(self, pose: Pose) -> bool:
        assert self._at is not None
        still_um = max(
            STILL_PX * self._camera.affine.pixel_size_um,
            _SIGMAS * (self._at.sigma_um if math.isfinite(self._at.sigma_um) else 0.0),
        )
        return math.hypot(pose.y_um - self._at.y_um, pose.x_um - self._at.x_um) > still_um

    def _end(self) -> None:
        recording, self._recording = self._recording, None
        if recording is not None:
            self._following = [each for each in self._following if not each.done()]
            self._following.append(self._follower.submit(self._follow, recording))

    def _follow(self, recording: _Recording) -> None:
        from deblurd.trajectory.follow import FollowOptions, follow

        try:
            frames, left_out = recording.close()
            if frames < self._settings.least_frames:
                # the stage only paused: nothing to follow
                shutil.rmtree(recording.path, ignore_errors=True)
                return
            if left_out:
                log.warning(
                    "%s: %d frames were left out, because the disk was too slow",
                    recording.path.name,
                    left_out,
                )
            options = FollowOptions(size_um=self._settings.size_um)
            with open_series(recording.path, Told()) as series:
                followed = follow(series, options, recording.path / TRACKS_FOLDER, stop=self._stop)
            log.info("%s: %d tracks in %d frames", recording.path.name, followed.tracks, frames)
        except (DeblurdError, OSError) as err:
            # its frames are kept: `deblurd trajectories` follows them again
            log.warning("%s was not followed: %s", recording.path, err)
        except Exception:  # nobody waits for what this thread has to say
            log.exception(
                "%s was not followed, because of a bug in deblurd: please report it", recording.path
            )


class _Recording:
    """One series that grows; its frames are written by a thread of their own. Raises OutputError."""

    def __init__(self, output: Path, camera: Camera, pose: Pose) -> None:
        self.path = SlideFolder.create(output, SHELF).path
        self.begun_s = math.inf
        self._pose, self._left_out, self._count = pose, 0, 0
        self._failure: OSError | None = None
        self._queue: queue.Queue[Frame | None] = queue.Queue(_MOST_WAITING)
        self._pixel_um = camera.affine.pixel_size_um
        (self.path / SERIES_NOTE).write_text(_note(camera.affine, camera.encoding), encoding="utf-8")
        self._thread = threading.Thread(target=self._write_all, name="deblurd-series", daemon=True)
        self._thread.start()

    def add(self, frame: Frame) -> None:
        self.begun_s = min(self.begun_s, frame.arrived_s)
        if self._failure is not None:
            raise OutputError(
                f"{self.path} cannot be written ({self._failure.strerror}): make room"
            ) from self._failure
        try:
            self._queue.put_nowait(frame)
        except queue.Full:
            self._left_out += 1

    @property
    def waiting(self) -> int:
        return self._queue.qsize()

    def close(self) -> tuple[int, int]:
        """How many frames are on the disk, and how many the disk was too slow for."""
        self._queue.put(None)
        self._thread.join()
        return self._count, self._left_out

    def _write_all(self) -> None:
        try:
            with (self.path / TABLE).open("w", encoding="utf-8", newline="") as file:
                table = csv.writer(file, lineterminator="\n")
                table.writerow(("file", "x_um", "y_um", "t_s", "exposure_ms"))
                while (frame := self._queue.get()) is not None:
                    name = f"{self._count:06d}.tif"
                    per_cm = 1e4 / self._pixel_um
                    tifffile.imwrite(
                        self.path / name,
                        frame.pixels,
                        resolution=(per_cm, per_cm),
                        resolutionunit="CENTIMETER",
                        metadata=None,
                    )
                    t_s = frame.arrived_s - self.begun_s
                    table.writerow((name, self._pose.x_um, self._pose.y_um, f"{t_s:.6f}", frame.exposure_ms))
                    file.flush()
                    self._count += 1
        except OSError as err:
            self._failure = err
            while self._queue.get() is not None:
                self._left_out += 1


def _note(affine: PixelToStage, encoding: str) -> str:
    return json.dumps({"affine_um": affine.matrix.tolist(), "encoding": encoding}, indent=2) + "\n"
