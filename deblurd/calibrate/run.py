"""``deblurd calibrate``: moves the stage there and back under the camera, and measures how they go together."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deblurd.acquire import open_microscope
from deblurd.acquire.microscope import Microscope, MicroscopeInfo
from deblurd.calibrate.kept import KeptCalibrations
from deblurd.calibrate.registrar import FrameRegistrar
from deblurd.errors import DataError, MicroscopeError
from deblurd.host.lock import output_lock
from deblurd.scan.cross import cross
from deblurd.scan.driver import Driver
from deblurd.settings import Settings
from deblurd.track.calibration import Calibration, turn_between_deg
from deblurd.track.tracker import Tracker

log = logging.getLogger(__name__)

_BEAT_FRAMES = 40
_PATIENCE_S = 30.0
_SETTLE_S = 1.0


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What a run came to."""

    info: MicroscopeInfo
    calibration: Calibration
    frames: int
    path: Path

    def lines(self) -> list[str]:
        """For people."""
        found, configured, latency_ms = self.calibration, self.info.affine, self.info.latency_ms or 0.0
        ways = " as in a mirror" if found.affine.is_mirrored else ""
        turn_deg = turn_between_deg(configured, found.affine)
        scale = 100 * (found.affine.pixel_size_um / configured.pixel_size_um - 1)
        lag_ms, sigma_ms = 1000 * found.lag_s, 1000 * found.lag_sigma_s
        height, told_ms = self.info.shape[0], self.info.rolling_ms
        other = found.other_rolling(height, told_ms or 0.0, True) if told_ms is not None else None
        rows_ms, rows_sigma_ms = (1000 * v * (height - 1) for v in (found.row_s, found.row_sigma_s))
        return [
            f"pixel size: {found.affine.pixel_size_um:.5f} um ({scale:+.2f} % of the configured one){ways}",
            f"turn against the configuration: {turn_deg:+.2f} degrees",
            f"latency beside the stage's x: {latency_ms - lag_ms[1]:.2f} ms +- {sigma_ms[1]:.2f}, beside its y: "
            f"{latency_ms - lag_ms[0]:.2f} ms +- {sigma_ms[0]:.2f} (configured: {latency_ms:g} ms)",
            f"backlash: x {found.play_um[1]:+.2f} um +- {found.play_sigma_um[1]:.2f}, y {found.play_um[0]:+.2f} um +- "
            f"{found.play_sigma_um[0]:.2f}",
            f"rolling shutter: {rows_ms:.2f} ms +- {rows_sigma_ms:.2f} from a frame's first row to its last"
            f"{'' if found.rolling_ms(height) else ', and so none'}",
            *([] if other is None else [other]),
            f"by {found.sightings} pairs of {self.frames} frames, which agree to {found.rms_px:.2f} px",
        ]


def make_tracker(
    settings: Settings,
    microscope: Microscope,
    calibration: Calibration,
    *,
    learn: bool = True,
    shape: tuple[int, ...] | None = None,
) -> Tracker:
    """The tracker for a microscope of these settings. learn: whether it refines `calibration` while it runs. shape: of what a frame is good for, if that is
    not all of it."""
    info, by_readings = microscope.info, settings.microscope.stage_readings
    return Tracker(
        microscope.position_um,
        info.affine,
        shape or info.shape,
        info.exposure_ms,
        overlap=settings.scan.overlap,
        observations=settings.scan.observations,
        latency_ms=info.latency_ms or 0.0,
        poll_s=settings.microscope.stage_poll_ms / 1000,
        calibration=calibration if by_readings else Calibration.configured(info.affine),
        registrar=FrameRegistrar(info.encoding) if learn or not by_readings else None,
        by_frames=not by_readings,
        only_at_rest=settings.scan.mode == "stop_and_stare",
    )


def calibrate(
    settings: Settings,
    on_frame: Callable[[int, int], None] = lambda *_: None,
    stop: threading.Event | None = None,
) -> Calibrated:
    """Moves the stage around where it stands, or scan.start_um, and back; keeps what was found beside the slides.

    on_frame: told frames taken, and 0. stop: ends it early. Raises MicroscopeError where the camera is not as configured, DataError where
    the frames do not tell, and what the microscope raises.
    """
    lock = output_lock(settings.mosaic.output)
    lock.acquire()
    try:
        microscope = open_microscope(settings.at_one_exposure)
        try:
            return _measure(settings, microscope, on_frame, stop or threading.Event())
        finally:
            microscope.close()
    finally:
        lock.release()


def _measure(
    settings: Settings, microscope: Microscope, on_frame: Callable[[int, int], None], stop: threading.Event
) -> Calibrated:
    info = microscope.info
    tracker = make_tracker(settings, microscope, Calibration.configured(info.affine))
    ended, frames = threading.Event(), 0
    start_um = settings.scan.start_um
    middle_um = microscope.position_um() if start_um is None else (start_um[1], start_um[0])
    mover = Driver(microscope, cross(middle_um, min(info.affine.field_um(info.shape))))
    tracker.start()
    began_s = time.perf_counter()
    try:
        for frame in microscope.frames(ended):
            for _ in tracker.feed(frame):
                pass
            frames += 1
            on_frame(frames, 0)
            if frames == _BEAT_FRAMES and mover.ident is None:
                mover.start()
            over = mover.done_s is not None and frame.arrived_s > mover.done_s + _SETTLE_S
            if over or stop.is_set() or time.perf_counter() - began_s > _PATIENCE_S:
                ended.set()
    finally:
        mover.stop()
        tracker.stop()
    if mover.failure is not None:
        raise mover.failure
    witness, found = tracker.witness, tracker.calibration
    if witness is not None and witness.failure is not None:
        raise MicroscopeError(witness.failure)
    if not found.is_known:
        raise DataError(
            f"{frames} frames do not tell how the camera sees the stage ({found.sightings} pairs of them matched): see to it that "
            "there is tissue in focus under the objective, that the camera is fast, and that the stage may move by half a field"
        )
    kept = KeptCalibrations(settings.mosaic.output)
    kept.keep(info, found)
    return Calibrated(info, found, frames, kept.path)
