"""Any Micro-Manager microscope through its core, without losing a frame unnoticed."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pymmcore_plus import CMMCorePlus, find_micromanager

from deblurd.acquire.losses import Losses
from deblurd.acquire.microscope import MicroscopeInfo
from deblurd.errors import ConfigError, MicroscopeError, NoInputError
from deblurd.frames import Frame, Pixels
from deblurd.geometry import PixelToStage
from deblurd.settings import MicroscopeSettings

log = logging.getLogger(__name__)

_ENDLESS = 2**31 - 1
_POLL_S = 0.0005
_SCALE_TOLERANCE = 0.02
_WRONG_SHAPES_IN_A_ROW = 10
_RESTARTS_IN_A_ROW = 3
_LATE_PERIODS = 1.5
_SPEED_PROPERTIES = {
    # name of the property, and what one um/s is in its unit
    "Speed_um_s": 1.0,
    "Velocity": 1e-3,
    "Speed-S": 1e-3,
    "MotorSpeed": 1.0,
    "Speed [mm/s]": 1e-3,
    "SpeedX [um/s]": 1.0,
}


class MMCoreMicroscope:
    """A `Microscope` on a Micro-Manager core that is loaded and configured already.

    settings: of the microscope; what they leave open comes from the core. simulation: kept for scoring.
    Raises ConfigError where the pixel size is unknown or contradicts itself, MicroscopeError where a device is missing.
    """

    def __init__(self, core: CMMCorePlus, settings: MicroscopeSettings, simulation: Any = None) -> None:
        self._core, self._settings, self.simulation = core, settings, simulation
        self.losses = Losses()
        self._starts = 0
        if not core.getCameraDevice():
            raise MicroscopeError(
                "the configuration has no camera: set one as the default camera in its .cfg file"
            )
        if not core.getXYStageDevice():
            raise MicroscopeError(
                "the configuration has no XY stage: set one as the default XY stage in its .cfg file, "
                "since without positions there is no mosaic"
            )
        if settings.exposure_ms is not None:
            self._call(core.setExposure, settings.exposure_ms)
        sample = self._sample()
        self.info = MicroscopeInfo(
            camera=core.getCameraDevice(),
            stage=core.getXYStageDevice(),
            shape=sample.shape,
            dtype=sample.dtype.name,
            exposure_ms=float(core.getExposure()),
            affine=self._affine(),
            objective=core.getCurrentPixelSizeConfig(),
            versions=f"{core.getVersionInfo()}; {core.getAPIVersionInfo()}",
        )
        self.position_um()

    @classmethod
    def from_config(cls, settings: MicroscopeSettings) -> MMCoreMicroscope:
        """Loads the .cfg of `settings`.

        Raises NoInputError where it is missing, MicroscopeError where the core refuses it.
        """
        assert settings.config_file is not None
        core = CMMCorePlus()
        adapters = settings.adapter_path or find_micromanager()
        if adapters is not None:
            core.setDeviceAdapterSearchPaths([str(adapters)])
        path = _find_cfg(settings.config_file, Path(adapters) if adapters else None)
        try:
            core.loadSystemConfiguration(str(path))
        except (RuntimeError, OSError, ValueError) as err:
            raise MicroscopeError(
                f"{path} could not be loaded ({_first_line(err)}): check that every device in it is switched on and that "
                f"its adapter lies in {adapters or 'a folder named by microscope.adapter_path'}"
            ) from err
        core.setCircularBufferMemoryFootprint(settings.buffer_mb)
        return cls(core, settings)

    # --- the stage ---

    def position_um(self) -> tuple[float, float]:
        x, y = self._call(self._core.getXYPosition)
        return float(y), float(x)

    def move_to_um(self, y_um: float, x_um: float) -> None:
        self._call(self._core.setXYPosition, x_um, y_um)

    def set_speed_um_s(self, speed_um_s: float) -> None:
        stage = self.info.stage
        names = set(self._call(self._core.getDevicePropertyNames, stage))
        for name, unit in _SPEED_PROPERTIES.items():
            if name in names:
                self._call(self._core.setProperty, stage, name, str(speed_um_s * unit))
                return
        raise MicroscopeError(
            f"the speed of {stage} cannot be set, because it has none of the properties "
            f'{", ".join(_SPEED_PROPERTIES)}: drive it yourself with scan.mode = "watch"'
        )

    def is_moving(self) -> bool:
        return bool(self._call(self._core.deviceBusy, self.info.stage))

    def halt(self) -> None:
        self._call(self._core.stop, self.info.stage)

    def close(self) -> None:
        if self._core.isSequenceRunning():
            self._core.stopSequenceAcquisition()
        self._core.unloadAllDevices()

    # --- the camera ---

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        restarts = wrong = 0
        while True:
            got, sequence = 0, self._starts
            for pixels, number, arrived_s in self._sequence(stop):
                got += 1
                if pixels.shape != self.info.shape or pixels.dtype.name != self.info.dtype:
                    wrong += 1
                    self.losses.add(
                        "shape",
                        1,
                        f"{pixels.shape} {pixels.dtype} in place of {self.info.shape} {self.info.dtype}",
                    )
                    if wrong >= _WRONG_SHAPES_IN_A_ROW:
                        raise MicroscopeError(
                            f"the camera now sends {pixels.shape} {pixels.dtype} in place of {self.info.shape} "
                            f"{self.info.dtype}: undo the change of binning, region or pixel type, or start again"
                        )
                    continue
                wrong = 0
                yield Frame(pixels, number, arrived_s, self.info.exposure_ms, sequence)
            if stop.is_set():
                return
            restarts = 0 if got else restarts + 1
            if restarts >= _RESTARTS_IN_A_ROW:
                raise MicroscopeError(
                    f"{self.info.camera} stopped {restarts} times without sending a frame: check its cable and power, "
                    "then start again; the slide so far is kept"
                )

    def _sequence(self, stop: threading.Event) -> Iterator[tuple[Pixels, int, float]]:
        """One run of the camera, until it is stopped or stops: pixels, number, arrival of each frame."""
        core = self._core
        self._start_camera(_ENDLESS)
        gaps = _Gaps(self.losses)
        heard_s = empty_s = time.perf_counter()
        stopping = False
        try:
            while True:
                if core.getRemainingImageCount() == 0:
                    now_s = empty_s = time.perf_counter()
                    if stopping:
                        return
                    if stop.is_set():
                        stopping = self._stop_camera()
                    elif not core.isSequenceRunning():
                        if core.getRemainingImageCount() == 0:
                            self._report_end(core.isBufferOverflowed())
                            return
                    elif now_s - heard_s > self._settings.hang_s:
                        self.losses.add("hang", 1, f"nothing for {self._settings.hang_s:g} s")
                        return
                    else:
                        stop.wait(_POLL_S)
                    continue
                pixels, tags = self._pop()
                heard_s = time.perf_counter()
                number = int(tags.get("ImageNumber", gaps.expected))
                arrived_s = _arrival(tags, heard_s, empty_s)
                gaps.see(number, arrived_s, int(tags.get("MissedTriggers", 0)))
                yield pixels, number, arrived_s
        finally:
            self._stop_camera()

    def _pop(self) -> tuple[Pixels, Mapping[str, Any]]:
        # without `fix` a colour frame stays one block of BGRA words: three times as fast to turn into RGB
        image, tags = self._call(self._core.popNextImageAndMD, fix=False)
        if image.dtype == np.uint32:
            bgra = image.view(np.uint8).reshape(*image.shape, 4)
            return np.asarray(cv2.cvtColor(bgra, cv2.COLOR_BGRA2RGB)), tags
        return np.ascontiguousarray(image), tags

    def _start_camera(self, frames: int) -> None:
        self._call(self._core.startSequenceAcquisition, frames, 0, True)
        self._starts += 1
        log.info("camera started for the %d. time", self._starts)

    def _stop_camera(self) -> bool:
        if self._core.isSequenceRunning():
            try:
                self._core.stopSequenceAcquisition()
            except RuntimeError as err:
                log.warning("the camera could not be stopped: %s", _first_line(err))
        return True

    def _report_end(self, overflowed: bool) -> None:
        if overflowed:
            self.losses.add(
                "buffer", 1, f"{self._settings.buffer_mb} MB were full; the camera is started again"
            )
        else:
            self.losses.add("camera", 1, "it ended its sequence; it is started again")

    def _sample(self) -> Pixels:
        """One frame, to learn the true shape: what the core says of it is wrong for some cameras."""
        for _ in self._sequence_once():
            return _
        raise MicroscopeError(
            f"{self._core.getCameraDevice()} sent no frame within {self._settings.hang_s:g} s: check its cable and power"
        )

    def _sequence_once(self) -> Iterator[Pixels]:
        core = self._core
        self._start_camera(1)
        until_s = time.perf_counter() + self._settings.hang_s + core.getExposure() / 1000
        try:
            while core.getRemainingImageCount() == 0:
                if time.perf_counter() > until_s:
                    return
                time.sleep(_POLL_S)
            yield self._pop()[0]
        finally:
            self._stop_camera()

    # --- pixel size ---

    def _affine(self) -> PixelToStage:
        s, core = self._settings, self._core
        if s.pixel_size_um is not None:
            return PixelToStage.from_scale(s.pixel_size_um, s.rotation_deg or 0.0, bool(s.mirrored))
        size_um = float(core.getPixelSizeUm())
        if not (math.isfinite(size_um) and size_um > 0):
            raise ConfigError(
                "the pixel size is not known, because no pixel-size preset of the .cfg fits the objective in place: "
                "add one in Micro-Manager's Pixel Size Calibration, or set microscope.pixel_size_um"
            )
        if s.rotation_deg is not None or s.mirrored is not None:
            return PixelToStage.from_scale(size_um, s.rotation_deg or 0.0, bool(s.mirrored))
        affine = tuple(float(v) for v in core.getPixelSizeAffine())
        if affine == (1.0, 0.0, 0.0, 0.0, 1.0, 0.0) and size_um != 1.0:
            raise ConfigError(
                f"the .cfg has a pixel size of {size_um:g} um and no affine transform, so the camera's turn is not known: run "
                "Micro-Manager's Pixel Calibrator, or set microscope.rotation_deg (0 if the camera is straight)"
            )
        if not all(map(math.isfinite, affine)) or abs(affine[0] * affine[4] - affine[1] * affine[3]) < 1e-12:
            raise ConfigError(
                f"the affine transform of the .cfg {affine} is not usable, because it is singular: run Micro-Manager's "
                "Pixel Calibrator again, or set microscope.pixel_size_um"
            )
        found = PixelToStage.from_micromanager(affine)
        if abs(found.pixel_size_um / size_um - 1) > _SCALE_TOLERANCE:
            raise ConfigError(
                f"the .cfg contradicts itself: pixel size {size_um:g} um, but its affine transform has "
                f"{found.pixel_size_um:g} um per pixel; run Micro-Manager's Pixel Calibrator again"
            )
        return found

    def _call(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls the core; its errors are plain RuntimeErrors with text."""
        try:
            return function(*args, **kwargs)
        except (RuntimeError, OSError) as err:
            raise MicroscopeError(
                f"the microscope refused {function.__name__} ({_first_line(err)}): check the device, then start again"
            ) from err


class _Gaps:
    """Watches numbers and times of one sequence for frames that never came."""

    def __init__(self, losses: Losses) -> None:
        self.expected = 0
        self._losses = losses
        self._missed = 0

    def see(self, number: int, arrived_s: float, missed_triggers: int) -> None:
        """missed_triggers: the camera's own running count of exposures that it left out, where it keeps one."""
        if number > self.expected:
            self._losses.add(
                "driver", number - self.expected, f"number {number} came after {self.expected - 1}"
            )
        elif number < self.expected:
            self._losses.add("buffer", 1, f"numbers went back from {self.expected - 1} to {number}")
        if missed_triggers > self._missed:
            self._losses.add(
                "driver", missed_triggers - self._missed, "the camera says that it left exposures out"
            )
            self._missed = missed_triggers
        self.expected = number + 1


def _arrival(tags: Mapping[str, Any], popped_s: float, empty_s: float) -> float:
    """When the core received a frame, on the monotonic clock.

    The core says it in naive local time; its age against the wall clock is believed only as far as the frame can have waited
    (the buffer was seen empty at `empty_s`), so that a clock that is set back or an hour of daylight saving does no harm.
    """
    try:
        received = datetime.fromisoformat(tags["TimeReceivedByCore"])
    except (KeyError, ValueError):
        return popped_s
    waited_s = (datetime.now() - received).total_seconds()
    return popped_s - waited_s if 0 <= waited_s <= popped_s - empty_s + 0.05 else popped_s


def _find_cfg(path: Path, adapters: Path | None) -> Path:
    for candidate in (path, *([adapters / path.name] if adapters else [])):
        if candidate.is_file():
            return candidate
    raise NoInputError(
        f"the Micro-Manager configuration {path} is not there: write its full path into microscope.config_file"
    )


def _first_line(err: BaseException) -> str:
    lines = str(err).strip().splitlines()
    return lines[0].rstrip(". ") if lines else type(err).__name__
