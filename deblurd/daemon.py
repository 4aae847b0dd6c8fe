"""The life of deblurd: open the microscope, watch the stage, make a mosaic of every slide, end in order."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deblurd.acquire import open_microscope
from deblurd.acquire.drive import Driver, serpentine
from deblurd.acquire.microscope import Microscope
from deblurd.deblur.model import find_model
from deblurd.frames import Frame, Tile
from deblurd.host.disk import DiskGuard
from deblurd.host.lock import output_lock
from deblurd.pipeline import Finished, Progress, SlidePipeline, make_deblurrer
from deblurd.settings import Settings
from deblurd.slides.ending import Ending
from deblurd.slides.folder import SlideFolder
from deblurd.slides.painter import Camera
from deblurd.track.tracker import Tracker

log = logging.getLogger(__name__)

STEADY_FRAMES = 24
"""So many frames at an even pace, and the camera's beat is known."""

READY_S = 10.0
"""The longest wait for the camera's beat before the stage sets out."""

SETTLE_S = 1.0
"""After the last lane: time for the frames that are still on their way."""


@dataclass(frozen=True, slots=True)
class Status:
    """What a technician wants to see several times a second."""

    slide: str | None
    frames: int
    frames_per_s: float
    lost: dict[str, int]
    progress: Progress | None


@dataclass(slots=True)
class Report:
    """What one run came to. seconds: from the first frame to the last finished mosaic; finish_s: from the last frame on."""

    slides: list[Finished] = field(default_factory=list)
    frames: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    finish_s: float = 0.0
    scan_s: float = 0.0


class Daemon:
    """One microscope and its slides. Use once: `run`, on the main thread; `microscope` and `deblurrer` stay for whoever
    wants to ask them something afterwards, until `close`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        output = settings.mosaic.output
        self._lock = output_lock(output)
        self._lock.acquire()
        try:
            self._disk = DiskGuard(output)
            self._disk.check()
            model = find_model(settings.deblur.model)
            self.microscope: Microscope = open_microscope(settings)
        except BaseException:
            self._lock.release()
            raise
        info = self.microscope.info
        self.camera = Camera(
            info.shape,
            np.dtype(info.dtype).name,
            info.encoding,
            info.affine,
            info.exposure_ms,
            info.camera,
        )
        self.deblurrer = make_deblurrer(model, self.camera, settings.deblur)
        self.report = Report()
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._slide: SlidePipeline | None = None
        self._last_tile_s = 0.0
        self._first_frame_s = self._last_frame_s = 0.0
        self._tracker = self._make_tracker()
        self._ending = Ending(settings.slide, leave_um=0.5 * min(self._fov_um()))
        self._closing: list[threading.Thread] = []

    def close(self) -> None:
        self.microscope.close()
        self._lock.release()

    def stop(self) -> None:
        """Ends the scan; what was recorded is painted before `run` returns."""
        self._stop.set()

    def run(self, on_status: Callable[[Status], None], stop: threading.Event) -> Report:
        """Scans until `stop`, or until the area of a serpentine is done; returns when every mosaic is finished.

        on_status is called about five times a second from this thread. Raises what ended the scan, after all that was
        recorded has been kept.
        """
        driver = self._driver()
        worker = threading.Thread(target=self._acquire, args=(driver,), name="deblurd-acquire", daemon=True)
        worker.start()
        while worker.is_alive():
            if stop.wait(0.2):
                self._stop.set()
            on_status(self.status)
        self._end_slide("stopped" if stop.is_set() else "area done" if driver else "camera ended")
        while any(thread.is_alive() for thread in self._closing):
            self._closing[-1].join(0.2)
            on_status(self.status)
        finished_s = time.perf_counter()
        self.report.seconds = finished_s - self._first_frame_s
        self.report.finish_s = finished_s - self._last_frame_s
        self.report.lost = self.microscope.losses.counts()
        if self._failure is not None:
            raise self._failure
        for slide in self.report.slides:
            if slide.failure is not None:
                raise slide.failure
        return self.report

    @property
    def status(self) -> Status:
        slide = self._slide
        elapsed_s = self._last_frame_s - self._first_frame_s
        return Status(
            slide.folder.name if slide else None,
            self.report.frames,
            self.report.frames / elapsed_s if elapsed_s > 0 else 0.0,
            self.microscope.losses.counts(),
            slide.progress if slide else None,
        )

    # --- the acquire thread ---

    def _acquire(self, driver: Driver | None) -> None:
        try:
            self._tracker.start()
            waiting = driver
            arrivals: deque[float] = deque(maxlen=STEADY_FRAMES)
            for frame in self._counted(driver):
                chosen_tiles = self._tracker.feed(frame)
                if waiting is not None:
                    # nothing is kept while the stage waits at the start for the camera's beat to be known
                    for _ in chosen_tiles:
                        pass
                    arrivals.append(frame.arrived_s)
                    if _is_steady(arrivals) or time.perf_counter() - self._first_frame_s > READY_S:
                        self._tracker.forget_tiles()
                        # two frames at rest: that it rests shows in the second one
                        period_s = float(np.median(np.diff(np.array(arrivals)))) if len(arrivals) > 1 else 0.0
                        waiting.rest_s = 2 * period_s + self.camera.exposure_ms / 1000
                        waiting.start()
                        waiting = None
                    continue
                for chosen, tile in chosen_tiles:
                    self._take(chosen, tile)
                self._end_if_over()
            for chosen, tile in self._tracker.drain():
                self._take(chosen, tile)
        except BaseException as err:  # noqa: BLE001 - raised again by `run`, on the main thread
            self._failure = err
        finally:
            if driver is not None:
                driver.stop()
            self._tracker.stop()

    def _counted(self, driver: Driver | None) -> Any:
        for frame in self.microscope.frames(self._stop):
            self.report.frames += 1
            self._last_frame_s = time.perf_counter()
            if self.report.frames == 1:
                self._first_frame_s = self._last_frame_s
            yield frame
            if driver is not None and driver.done_s is not None:
                self.report.scan_s = driver.done_s - self._first_frame_s
                if frame.arrived_s > driver.done_s + SETTLE_S:
                    self._stop.set()

    def _take(self, frame: Frame, tile: Tile) -> None:
        if self._slide is None:
            if not self._ending.may_start(tile.pose):
                return
            self._slide = self._begin_slide()
        self._slide.intake(frame, tile)
        self._last_tile_s = time.perf_counter()

    def _begin_slide(self) -> SlidePipeline:
        self._disk.check()
        folder = SlideFolder.create(self.settings.mosaic.output, self.settings.slide.name)
        slide = SlidePipeline(folder, self.camera, self.deblurrer, self.settings)
        slide.event("begin", "first tile")
        folder.write_manifest(self._manifest(slide) | {"state": "growing"})
        log.info("slide %s begins", folder.name)
        return slide

    def _end_if_over(self) -> None:
        if self._slide is None:
            return
        pose = self._tracker.newest_pose
        reason = self._ending.reason(pose, time.perf_counter(), self._last_tile_s)
        if reason is not None:
            self._ending.ended(pose)
            self._end_slide(reason)
            self._tracker.forget_tiles()

    def _end_slide(self, reason: str) -> None:
        slide, self._slide = self._slide, None
        if slide is None:
            return
        thread = threading.Thread(
            target=self._finish, args=(slide, reason), name="deblurd-finish", daemon=True
        )
        self._closing.append(thread)
        thread.start()

    def _finish(self, slide: SlidePipeline, reason: str) -> None:
        try:
            self._close_slide(slide, reason)
        except BaseException as err:  # noqa: BLE001 - raised again by `run`, on the main thread
            self._failure = self._failure or err

    def _close_slide(self, slide: SlidePipeline, reason: str) -> None:
        slide.event("end", reason)
        finished = slide.finish()
        content = self._manifest(slide) | finished.to_manifest(reason)
        slide.folder.write_manifest(content)
        self.report.slides.append(finished)
        log.info("slide %s: %s, %d tiles", slide.folder.name, content["state"], finished.tiles)

    # --- what things are ---

    def _manifest(self, slide: SlidePipeline) -> dict[str, Any]:
        info = self.microscope.info
        return {
            "slide_id": self.settings.slide.name,
            "research_use_only": True,
            "begun": slide.began_utc,
            "microscope": info.to_dict(),
            "config": self.settings.model_dump(mode="json"),
            "model": self.deblurrer.model_id,
            "engine": self.deblurrer.engine_name,
            "frames": self.report.frames,
            "dropped": self.microscope.losses.counts(),
        }

    def _make_tracker(self) -> Tracker:
        m = self.settings.microscope
        return Tracker(
            self.microscope.position_um,
            self.camera.affine,
            self.camera.shape,
            self.camera.exposure_ms,
            overlap=self.settings.scan.overlap,
            latency_ms=self.microscope.info.latency_ms or 0.0,
            poll_s=m.stage_poll_ms / 1000,
        )

    def _fov_um(self) -> tuple[float, float]:
        h, w = self.camera.shape[:2]
        y, x = np.abs(self.camera.affine.matrix @ np.diag([h, w])).sum(axis=1)
        return float(y), float(x)

    def _driver(self) -> Driver | None:
        scan = self.settings.scan
        if scan.mode == "watch" or scan.area_mm is None or scan.speed_um_s is None:
            return None
        start_um = (
            self.microscope.position_um() if scan.start_um is None else (scan.start_um[1], scan.start_um[0])
        )
        lanes = serpentine(scan.area_mm, self._fov_um(), scan.overlap, start_um)
        driver = Driver(self.microscope, lanes, scan.speed_um_s)
        driver.go_to_start()
        return driver


def _is_steady(arrivals: Sequence[float]) -> bool:
    """Whether the last frames came at an even pace, so that their clock can be trusted."""
    if len(arrivals) < STEADY_FRAMES:
        return False
    waits = np.diff(np.array(arrivals))
    return float(waits.max()) < 1.5 * float(np.median(waits))
