"""The life of deblurd: open the microscope, watch the stage, make a mosaic of every slide, end in order."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from deblurd import health
from deblurd.acquire import open_microscope
from deblurd.acquire.microscope import Microscope, MicroscopeInfo, OtherObjective
from deblurd.calibrate.kept import KeptCalibrations
from deblurd.calibrate.run import make_tracker
from deblurd.deblur.deblurrer import Deblurrer
from deblurd.deblur.model import find_model
from deblurd.errors import OutputError
from deblurd.frames import Frame, Pose
from deblurd.host.disk import DiskGuard
from deblurd.host.lock import output_lock
from deblurd.host.webhook import Webhook
from deblurd.photon.kept import KeptTransfers
from deblurd.photon.transfer import PhotonTransfer
from deblurd.photon.unasked import WhileResting, measure_before_scan
from deblurd.pipeline import Finished, Progress, make_deblurrer
from deblurd.reload import reload
from deblurd.rolling import margin_px, speed_within
from deblurd.scan.scan import AreaScan
from deblurd.sessions import Sessions
from deblurd.settings import Settings
from deblurd.slides.camera import Camera
from deblurd.slides.label import LabelReader
from deblurd.trajectory.live import RestingSeries

log = logging.getLogger(__name__)

WORTH_ANOTHER = ("unknown_motion", "inconsistent")
"""Tiles of which more may come from a frame at rest."""

SILENT_S = 1.0
"""A camera without a frame for longer: orders are carried out without one."""

HANGING_S = 3.0
"""A camera without a frame for longer, beside its exposure: people are told."""

RATE_FRAMES = 60
"""So many frames, the newest, tell the camera's rate: one that was silent for an hour is as fast as before."""

SETTLE_S = 1.0
"""After the last lane: time for the frames that are still on their way."""


@dataclass(frozen=True, slots=True)
class Status:
    """What a technician wants to see several times a second. trouble: why no frames come, in a sentence."""

    slide: str | None
    frames: int
    frames_per_s: float
    lost: dict[str, int]
    progress: Progress | None
    trouble: str | None = None


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
        output = settings.mosaic.output
        self._lock = output_lock(output)
        self._lock.acquire()
        try:
            self._disk = DiskGuard(output, settings.mosaic.least_free_mb)
            model = find_model(settings.deblur.model)
            self.microscope: Microscope = open_microscope(settings)
        except BaseException:
            self._lock.release()
            raise
        info = self.microscope.info
        self._transfers = KeptTransfers(output)
        transfer = self._transfers.get(info)
        self._calibrations = KeptCalibrations(output)
        rolling_ms = self._calibrations.rolling_ms(info)
        self.camera = Camera(
            info.shape,
            np.dtype(info.dtype).name,
            info.encoding,
            info.affine,
            info.exposure_ms,
            info.camera,
            None if transfer is None else transfer.full_scale_e,
            0.0 if transfer is None else transfer.read_e,
        ).rolling(rolling_ms, _margin_px(settings, info, model.blur_range_px[1], rolling_ms))
        deblurrer = make_deblurrer(model, self.camera, settings.deblur)
        self.report = Report()
        self._webhook = Webhook(settings.notify.webhook)
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self.newest_frame: Frame | None = None
        self._is_acquiring = False
        self._rows_are_said = False
        self._first_frame_s = self._last_frame_s = 0.0
        self._arrived_s: deque[float] = deque(maxlen=RATE_FRAMES)
        self._tracker = make_tracker(
            settings,
            self.microscope,
            self._calibrations.get(info),
            learn=settings.learns_calibration,
            shape=self.camera.shape,
        )
        self.scan = (
            None
            if settings.scan.mode == "watch"
            else AreaScan(
                settings,
                self.microscope,
                self._tracker,
                max(deblurrer.blur_range_px[1], settings.deblur.sharp_below_px),
                self._failed_tiles,
                self.camera.shape,
                self.camera.most_um_s,
            )
        )
        self.sessions = Sessions(
            settings,
            self._disk,
            self.camera,
            deblurrer,
            self._tracker,
            fov_um=info.affine.field_um(self.camera.shape),
            facts=self._facts,
            on_pause=self._pause,
            on_stop=self._stop_driving,
            on_home=None if self.scan is None else self.scan.home,
            on_news=self._webhook.tell,
        )
        self.report.slides = self.sessions.finishing.finished
        self._resting = (
            RestingSeries(settings.trajectories, self.camera, output, self._disk.check)
            if settings.trajectories.enabled
            else None
        )

    def close(self) -> None:
        self.microscope.close()
        self._lock.release()

    @property
    def settings(self) -> Settings:
        """Those that the slide at work began with; where none is, those of the next."""
        return self.sessions.settings

    @property
    def deblurrer(self) -> Deblurrer:
        return self.sessions.deblurrer

    def reload(self, fresh: Settings) -> str:
        """Has the next slide take of `fresh` what can be taken without a restart; returns a sentence that says so.

        Raises ModelError where its model cannot be used; then nothing changes.
        """
        settings, deblurrer = self.sessions.coming
        found = reload(settings, fresh)
        if found.settings.deblur != settings.deblur:
            deblurrer = make_deblurrer(find_model(fresh.deblur.model), self.camera, fresh.deblur)
        self.sessions.renew(found.settings, deblurrer)
        return found.sentence

    def abandon(self) -> None:
        """Has `run` return soon: slides that are not finished are left to be resumed. From any thread."""
        self._stop.set()
        self.sessions.finishing.abandon()

    def stop(self) -> None:
        """Ends the scan; what was recorded is painted before `run` returns."""
        self._stop.set()

    def run(self, on_status: Callable[[Status], None], stop: threading.Event) -> Report:
        """Scans until `stop`, or until the area of a serpentine is done; returns when every mosaic is finished.

        on_status is called about five times a second from this thread. Raises what ended the scan, after all that was
        recorded has been kept.
        """
        slide = self.settings.slide
        labels = LabelReader(
            slide.label_image, slide.label_camera, lambda label: self.sessions.order("label", label)
        )
        with self._webhook, labels:
            try:
                return self._run(on_status, stop)
            except BaseException as err:
                self._webhook.tell("stopped", f"deblurd stopped: {err or type(err).__name__}")
                raise

    def _run(self, on_status: Callable[[Status], None], stop: threading.Event) -> Report:
        if self.scan is not None:
            self.scan.check()
        worker = threading.Thread(target=self._acquire, name="deblurd-acquire", daemon=True)
        worker.start()
        while worker.is_alive() and not self.sessions.finishing.abandoned:
            health.beat()
            if stop.wait(0.2):
                self._stop.set()
            if time.perf_counter() - self._last_frame_s > SILENT_S:
                # a camera that is silent keeps nobody from ending the slide
                self.sessions.look(self._tracker.newest_pose)
            if isinstance(self.microscope.trouble, OtherObjective):
                self.sessions.close_level()
            self._follow_acquisition()
            on_status(self.status)
        self.sessions.end(self._why_over(stop))
        while not self.sessions.finishing.wait(0.2):
            health.beat()
            on_status(self.status)
        if self._resting is not None:
            self._resting.end()
            while not self._resting.wait(0.2):
                if self.sessions.finishing.abandoned:
                    self._resting.end(stop=True)
                health.beat()
                on_status(self.status)
        finished_s = time.perf_counter()
        self.report.seconds = finished_s - self._first_frame_s
        self.report.finish_s = finished_s - self._last_frame_s
        self.report.lost = self.lost
        if self.failure is not None:
            raise self.failure
        if left := self.sessions.finishing.left:
            raise OutputError(
                f"{' and '.join(left)} could not be finished on a full disk: make room, and the next start finishes what is left"
            )
        for slide in self.report.slides:
            if slide.failure is not None and not self.sessions.finishing.abandoned:
                raise slide.failure
        return self.report

    def _follow_acquisition(self) -> None:
        is_acquiring = self.microscope.is_acquiring
        if is_acquiring is not None and is_acquiring != self._is_acquiring:
            self._is_acquiring = is_acquiring
            self.sessions.acquisition(is_acquiring)

    def _why_over(self, stop: threading.Event) -> str:
        failure = self._failure or (self.scan and self.scan.failure)
        if failure:
            return str(failure)
        return "stopped" if stop.is_set() else "area done" if self.scan else "camera ended"

    @property
    def lost(self) -> dict[str, int]:
        """Lost frames by cause, those that came but have no time or no place among them; causes that never came up are left out."""
        no_tiles = {"untimed": self._tracker.doubtful, "unread": self._tracker.unplaced}
        return self.microscope.losses.counts() | {cause: n for cause, n in no_tiles.items() if n}

    @property
    def status(self) -> Status:
        slide = self.sessions.slide
        return Status(
            slide.folder.name if slide else None,
            self.report.frames,
            self._frames_per_s(),
            self.lost,
            slide.progress if slide else None,
            self._trouble,
        )

    def _frames_per_s(self) -> float:
        arrived_s = tuple(self._arrived_s)
        if len(arrived_s) < 2 or self._is_silent():
            return 0.0
        return (len(arrived_s) - 1) / (arrived_s[-1] - arrived_s[0])

    def _is_silent(self) -> bool:
        """Whether the camera has sent frames and sends none now."""
        silent_s = time.perf_counter() - self._last_frame_s
        return self.report.frames > 0 and silent_s > HANGING_S + self.camera.exposure_ms / 1000

    @property
    def _trouble(self) -> str | None:
        if self._stop.is_set():
            # nobody asks camera or stage any more
            return None
        if self.microscope.trouble is not None:
            return self.microscope.trouble
        if self._is_silent():
            return "the camera sends nothing: look at its cable and its power"
        if self._tracker.poller.state == "stage silent":
            return "the stage does not say where it is, so nothing is kept: look at its cable and its power"
        return self._tracker.trouble

    # --- for those who look on, and ask, from other threads ---

    @property
    def stage_pose(self) -> Pose | None:
        """Where the stage was read last."""
        return self._tracker.newest_pose

    @property
    def failure(self) -> BaseException | None:
        """What ended the scan, or a slide."""
        return (
            self._failure
            or self.sessions.finishing.failure
            or (None if self.scan is None else self.scan.failure)
        )

    def _pause(self, paused: bool) -> None:
        if self.scan is None:
            return
        if paused:
            self.scan.pause()
        else:
            self.scan.go_on()

    def _stop_driving(self) -> None:
        if self.scan is not None:
            self.scan.stop()

    # --- the acquire thread ---

    def _acquire(self) -> None:
        with health.watched("acquire"):
            self._work_through()

    def _work_through(self) -> None:
        try:
            resting = self._measure_camera()
            self._tracker.start()
            if self.scan is not None:
                self.sessions.order("start", "scan of an area")
            elif self.settings.microscope.backend == "replay":
                self.sessions.order("start", "recorded data")
            for frame in self._counted():
                for chosen, tile in self._tracker.feed(frame):
                    self.sessions.take(chosen, tile)
                self.sessions.look(self._tracker.newest_pose)
                if resting is not None:
                    self._know_camera(resting.see(frame, self._tracker.newest_pose))
                self._mind_rows()
                if self._resting is not None:
                    self._resting.feed(frame, self._tracker.newest_pose)
            for chosen, tile in self._tracker.drain():
                self.sessions.take(chosen, tile)
        except BaseException as err:  # noqa: BLE001 - raised again by `run`, on the main thread
            self._failure = err
        finally:
            if self.scan is not None:
                self.scan.stop()
            self._tracker.stop()
            self._keep_calibration()

    def _measure_camera(self) -> WhileResting | None:
        """Where nothing is known of its noise: now, if deblurd drives; else by frames that come, with what is returned."""
        scan = self.settings.scan
        # recorded frames at one place may show different ones: nobody reads the stage between them
        if scan.calibrate == "never" or scan.exposures_ms or self.settings.microscope.backend == "replay":
            return None
        if self.scan is None:
            return WhileResting(self.microscope.info, self._transfers)
        self._know_camera(measure_before_scan(self.microscope, self._transfers))
        return None

    def _know_camera(self, transfer: PhotonTransfer | None) -> None:
        """From the next slide on."""
        if transfer is not None:
            self.camera = replace(self.camera, full_scale_e=transfer.full_scale_e, read_e=transfer.read_e)
            self.sessions.camera = self.camera

    def _mind_rows(self) -> None:
        """Says once that frames are skewed, as soon as they show it; the next slide's are straightened, unless the configuration knows better."""
        calibration, info, settings = self._tracker.calibration, self.microscope.info, self.settings
        if settings.scan.mode == "stop_and_stare":
            return
        is_told = info.rolling_ms is not None
        sentence = calibration.other_rolling(info.shape[0], self.camera.rolling_ms, is_told)
        if sentence is None:
            return
        if not self._rows_are_said:
            log.warning("%s", sentence)
        self._rows_are_said = True
        if is_told:
            return
        rolling_ms = calibration.rolling_ms(info.shape[0])
        margin = _margin_px(settings, info, self.deblurrer.blur_range_px[1], rolling_ms)
        self.camera = self.sessions.camera = self.camera.rolling(rolling_ms, margin)
        self._tracker.narrow(self.camera.shape)
        if self.scan is not None:
            self.scan.narrow(self.camera.shape, self.camera.most_um_s)

    def _keep_calibration(self) -> None:
        if self._tracker.has_calibrated:
            try:
                self._calibrations.keep(self.microscope.info, self._tracker.calibration)
            except OutputError as err:
                # the next scan measures it again
                log.warning("%s", err)

    def _counted(self) -> Any:
        for frame in self.microscope.frames(self._stop):
            self.report.frames += 1
            self.newest_frame = frame
            self._last_frame_s = time.perf_counter()
            self._arrived_s.append(self._last_frame_s)
            if self.report.frames == 1:
                self._first_frame_s = self._last_frame_s
            yield frame
            if self.scan is None:
                continue
            self.scan.see(frame)
            if self.scan.done_s is not None:
                self.report.scan_s = self.scan.seconds
                if frame.arrived_s > self.scan.done_s + SETTLE_S:
                    self._stop.set()

    def _failed_tiles(self) -> tuple[list[tuple[float, float]], int] | None:
        slide = self.sessions.slide
        if slide is None:
            return [], 0
        if slide.progress.deblurred < slide.progress.recorded:
            return None
        rows = slide.journal_rows()
        return [(row["y_um"], row["x_um"]) for row in rows if row["gate"] in WORTH_ANOTHER], len(rows)

    # --- what things are ---

    def _facts(self) -> dict[str, Any]:
        """What a slide's manifest says of the microscope."""
        return {
            "microscope": self.microscope.info.to_dict(),
            "frames": self.report.frames,
            "dropped": self.lost,
        }


def _margin_px(settings: Settings, info: MicroscopeInfo, blur_px: float, rolling_ms: float) -> int:
    """What is cut off on each side of frames so that their rows can be put right at the speeds that are to be expected. blur_px: the longest motion that the
    model takes out."""
    scan, size_um = settings.scan, info.affine.pixel_size_um
    # where nobody said how long frames were exposed, as in some recordings, they count as sharp
    if rolling_ms == 0 or scan.mode == "stop_and_stare" or info.exposure_ms == 0:
        return 0
    if scan.mode == "watch" or scan.speed_um_s is None:
        # nobody drives so fast because a model could
        fastest_px_ms = max(blur_px, settings.deblur.sharp_below_px) / info.exposure_ms
        return margin_px(info.shape, fastest_px_ms, rolling_ms)
    speed_px_ms = scan.speed_um_s / 1000 / size_um
    margin = margin_px(info.shape, speed_px_ms, rolling_ms)
    if (most := speed_within(margin, rolling_ms)) < speed_px_ms:
        log.warning(
            "the rows of a frame are exposed %g ms apart from first to last: frames that move faster than %.0f um/s are taken again at rest, or lie under all others",
            rolling_ms,
            1000 * most * size_um,
        )
    return margin
