"""Any Micro-Manager microscope through its core."""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from pymmcore_plus import CMMCorePlus, DeviceType, find_micromanager

from deblurd.acquire.adapters import find_adapters
from deblurd.acquire.coretalk import ask, first_line
from deblurd.acquire.live import LiveView
from deblurd.acquire.losses import Losses
from deblurd.acquire.microscope import MicroscopeInfo, OtherObjective
from deblurd.acquire.pixelsize import pixel_to_stage
from deblurd.acquire.stream import CameraStream, most_turns
from deblurd.errors import ConfigError, MicroscopeError, NoInputError
from deblurd.frames import Encoding, Frame

_OBJECTIVE_S = 0.25
OBJECTIVE_PATIENCE_S = 60.0
"""So long another objective may be in place before the scan ends."""

_SPEEDS: Final[dict[str, float]] = {"Speed_um_s": 1.0, "Velocity": 1e-3, "Speed-S": 1e-3}
"""Names of speed properties that do not tell their unit, and what 1 um/s is in it. Velocity: DemoCamera's um/ms."""

_SPEED_WITH_UNIT = re.compile(r"(speed|velocity).*[\[( ](mm|um|µm)/s(ec)?\b", re.IGNORECASE)

_ADAPTER_MISSING = re.compile(r'Failed to load device adapter "([^"]+)"')


class MMCoreMicroscope:
    """A `Microscope` on a core whose devices are loaded and have their roles.

    exposure_ms: set on the camera; the core's own if None. pixel_size_um, rotation_deg, mirrored: in place of what the core says.
    latency_ms, rolling_ms: see `MicroscopeInfo`. hang_s, most_frames_per_s, turns_ms: see `CameraStream`. simulation: kept for scoring. losses: counts
    what is lost.
    Raises ConfigError where the pixel size is unknown or contradicts itself, MicroscopeError where a device is missing or does not answer.
    """

    def __init__(
        self,
        core: CMMCorePlus,
        *,
        exposure_ms: float | None = None,
        pixel_size_um: float | None = None,
        rotation_deg: float | None = None,
        mirrored: bool | None = None,
        encoding: Encoding = "linear",
        latency_ms: float | None = None,
        rolling_ms: float | None = None,
        hang_s: float = 5.0,
        most_frames_per_s: float = math.inf,
        turns_ms: Sequence[float] = (),
        simulation: Any = None,
        losses: Losses | None = None,
    ) -> None:
        self._core, self.simulation = core, simulation
        self.losses = losses or Losses()
        self._objective_trouble: OtherObjective | None = None
        stage = core.getXYStageDevice()
        if not core.getCameraDevice():
            raise MicroscopeError(
                "the microscope has no camera, because the .cfg gives no device that role: choose a default camera in "
                "Micro-Manager's Hardware Configuration Wizard"
            )
        if not stage:
            raise MicroscopeError(
                "the microscope has no XY stage, because the .cfg gives no device that role, and without positions there is no "
                "mosaic: choose a default XY stage in Micro-Manager's Hardware Configuration Wizard"
            )
        if exposure_ms is not None:
            ask(core.setExposure, exposure_ms)
        affine = pixel_to_stage(core, pixel_size_um, rotation_deg, mirrored)
        self._stream = self._make_stream(hang_s, most_frames_per_s, turns_ms)
        self.info = MicroscopeInfo(
            camera=self._stream.camera,
            stage=stage,
            shape=self._stream.shape,
            dtype=self._stream.dtype,
            encoding=encoding,
            exposure_ms=self._stream.exposure_ms,
            latency_ms=latency_ms,
            rolling_ms=rolling_ms,
            affine=affine,
            objective=core.getCurrentPixelSizeConfig(),
            versions=f"{core.getVersionInfo()}; {core.getAPIVersionInfo()}",
            devices=self._devices(),
            most_turns=self._most_turns(),
        )
        self.position_um()

    @classmethod
    def from_config(
        cls, path: Path, adapter_path: Path | None = None, *, buffer_mb: int = 512, **options: Any
    ) -> MMCoreMicroscope:
        """Loads a .cfg. adapter_path: folder of the device adapters. options: as of the constructor.

        Raises also NoInputError where the file is missing, ConfigError where it is broken, and MicroscopeError where an adapter
        or a device that it names is not there.
        """
        file = _find(path, adapter_path or find_micromanager())
        adapters = find_adapters(adapter_path)
        core = CMMCorePlus()
        core.setDeviceAdapterSearchPaths([str(adapters)])
        _load(core, file, adapters)
        core.setCircularBufferMemoryFootprint(buffer_mb)
        try:
            return cls(core, **options)
        except BaseException:
            core.unloadAllDevices()
            raise

    @property
    def name(self) -> str:
        return f"{self.info.camera} and {self.info.stage}"

    @property
    def trouble(self) -> str | None:
        return self._objective_trouble

    @property
    def is_acquiring(self) -> bool | None:
        return None

    def _devices(self) -> tuple[str, ...]:
        kinds = {
            "camera": DeviceType.CameraDevice,
            "XY stage": DeviceType.XYStageDevice,
            "focus drive": DeviceType.StageDevice,
        }
        return tuple(
            f"{kind} {label}"
            for kind, number in kinds.items()
            for label in self._core.getLoadedDevicesOfType(number)
        )

    def _most_turns(self) -> int:
        return most_turns(self._core)

    def _make_stream(
        self, hang_s: float, most_frames_per_s: float, turns_ms: Sequence[float]
    ) -> CameraStream | LiveView:
        return CameraStream(self._core, self.losses, hang_s, most_frames_per_s, turns_ms)

    # --- the camera ---

    def start(self) -> None:
        self._stream.start()

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """As the protocol says; frames through another objective than at the start are left out, and a minute of them raises MicroscopeError."""
        looked_s, left_out, since_s = time.perf_counter(), 0, math.inf
        for frame in self._stream.frames(stop):
            now_s = time.perf_counter()
            if now_s - looked_s > _OBJECTIVE_S:
                looked_s = now_s
                self._objective_trouble = self._other_objective()
            if self._objective_trouble is not None:
                left_out, since_s = left_out + 1, min(since_s, now_s)
                if now_s - since_s > OBJECTIVE_PATIENCE_S:
                    raise MicroscopeError(self._objective_trouble)
                continue
            if left_out:
                self.losses.add("objective", left_out, f"for {now_s - since_s:.1f} s")
                left_out, since_s = 0, math.inf
            yield frame

    def _other_objective(self) -> OtherObjective | None:
        """A sentence where another pixel size is in place than at the start."""
        now = str(ask(self._core.getCurrentPixelSizeConfig))
        if now == self.info.objective:
            return None
        return OtherObjective(
            f"the objective was {self.info.objective or 'one without a name'} and is {now or 'another one'} now, and tiles of two scales make "
            "no mosaic: put the first one back to go on, or start again"
        )

    def stop(self) -> None:
        self._stream.stop()

    def set_exposure_ms(self, exposure_ms: float) -> None:
        self._stream.set_exposure_ms(exposure_ms)

    def close(self) -> None:
        self._stream.stop()
        self._core.unloadAllDevices()

    # --- the stage ---

    def position_um(self) -> tuple[float, float]:
        x, y = ask(self._core.getXYPosition)
        if not (math.isfinite(x) and math.isfinite(y)):
            raise MicroscopeError(
                f"{self._core.getXYStageDevice()} reports the position x {x}, y {y}, which is no place: check the stage's "
                "cable and home it, then start again"
            )
        return float(y), float(x)

    def z_um(self) -> float | None:
        return float(ask(self._core.getPosition)) if self._core.getFocusDevice() else None

    def focus_to_um(self, z_um: float) -> None:
        focus = self._core.getFocusDevice()
        if not focus:
            raise MicroscopeError(
                "the focus was not moved, because the .cfg gives no device that role: choose a default focus stage in "
                "Micro-Manager's Hardware Configuration Wizard"
            )
        ask(self._core.setPosition, z_um)
        ask(self._core.waitForDevice, focus)

    def autofocus_um(self) -> float:
        if not self._core.getAutoFocusDevice():
            raise MicroscopeError(
                "the slide was not focused, because the .cfg gives no device the role of autofocus: choose one in Micro-Manager, or give "
                "scan.focus_points_um"
            )
        ask(self._core.fullFocus)
        z_um = self.z_um()
        return 0.0 if z_um is None else z_um

    def move_to_um(self, y_um: float, x_um: float) -> None:
        if not (math.isfinite(y_um) and math.isfinite(x_um)):
            raise MicroscopeError(
                f"{self.info.stage} was not moved, because x {x_um}, y {y_um} is no place: give finite micrometres"
            )
        ask(self._core.setXYPosition, x_um, y_um)

    def set_speed_um_s(self, speed_um_s: float) -> None:
        stage, core = self.info.stage, self._core
        found = False
        for name in ask(core.getDevicePropertyNames, stage):
            unit = _speed_unit(name)
            if unit is not None and not core.isPropertyReadOnly(stage, name):
                ask(core.setProperty, stage, name, f"{speed_um_s * unit:g}")
                found = True
        if not found:
            raise MicroscopeError(
                f"the speed of {stage} cannot be set, because none of its properties is a speed with a known unit: set the speed in the "
                '.cfg and move the stage yourself with scan.mode = "watch"'
            )

    def is_moving(self) -> bool:
        return bool(ask(self._core.deviceBusy, self.info.stage))

    def halt(self) -> None:
        ask(self._core.stop, self.info.stage)


def _speed_unit(name: str) -> float | None:
    """What 1 um/s is in the unit of the property `name`; None where it is not a speed."""
    if name in _SPEEDS:
        return _SPEEDS[name]
    match = _SPEED_WITH_UNIT.search(name)
    if match is None:
        return None
    return 1e-3 if match[2].lower() == "mm" else 1.0


def _find(path: Path, adapters: Path | str | None) -> Path:
    """The .cfg as it stands, or beside the adapters, where Micro-Manager keeps its own."""
    beside = [Path(adapters) / path] if adapters else []
    for candidate in (path.expanduser(), *beside):
        if candidate.is_file():
            return candidate
    raise NoInputError(
        f"the Micro-Manager configuration {path} cannot be loaded, because there is no such file: write its full path into "
        "microscope.config_file"
    )


def _load(core: CMMCorePlus, path: Path, adapters: Path) -> None:
    try:
        core.loadSystemConfiguration(str(path))
    except (RuntimeError, OSError, ValueError) as err:
        missing = _ADAPTER_MISSING.search(str(err))
        if missing is not None:
            raise MicroscopeError(
                f"{path} cannot be loaded, because the device adapter {missing[1]} does not load from {adapters}: install it there, or set microscope.adapter_path to the folder "
                "that has it"
            ) from err
        line, _, reason = str(err).strip().partition("\n")
        if "Error in device" in reason or "instantiate" in reason:
            raise MicroscopeError(
                f"{path} cannot be loaded, because a device does not answer as its {_said(line, reason)}: check that it "
                "is switched on and connected, and that this line of the .cfg is right"
            ) from err
        raise ConfigError(
            f"{path} cannot be loaded, because it is broken at {_said(line, reason or first_line(err))}: correct this line, or "
            "write the file anew with Micro-Manager's Hardware Configuration Wizard"
        ) from err


def _said(line: str, reason: str) -> str:
    """The core's two lines as part of a sentence."""
    return f"{line[:1].lower()}{line[1:]} says ({reason.splitlines()[0].rstrip('. ')})"
