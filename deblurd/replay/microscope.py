"""A microscope that shows again what was recorded."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NoReturn

from deblurd import health
from deblurd.acquire.losses import Losses
from deblurd.acquire.microscope import MicroscopeInfo
from deblurd.errors import ConfigError, MicroscopeError
from deblurd.frames import Frame
from deblurd.replay.readers import read_recording
from deblurd.replay.recording import Recording
from deblurd.settings import Settings

_LOOK_S = 0.2


def open_replay(settings: Settings) -> ReplayMicroscope:
    """The recording of the configuration. Raises NoInputError, DataError, ConfigError."""
    assert settings.replay is not None  # the configuration sees to it
    if settings.scan.mode != "watch":
        raise ConfigError('a recording cannot be driven: set scan.mode = "watch"')
    recording = read_recording(settings.replay.path, settings)
    if settings.replay.pace == "recorded" and not recording.timed:
        recording.close()
        raise ConfigError(
            f'{settings.replay.path} does not say when each frame was taken: set replay.pace = "fast"'
        )
    if (told_ms := settings.microscope.rolling_ms) is not None:
        recording = replace(recording, rolling_ms=told_ms)
    return ReplayMicroscope(recording, at_pace=settings.replay.pace == "recorded")


class ReplayMicroscope:
    """A `Microscope` whose frames bring their pose and motion along; its stage stands where it stood for the newest one.

    at_pace: with the pauses of the recording; else as fast as frames are taken. Frames come once: a second call of `frames` goes on where the
    first one stopped.
    """

    simulation: Any = None
    is_acquiring: bool | None = None
    trouble: str | None = None

    def __init__(self, recording: Recording, *, at_pace: bool) -> None:
        first = recording.frames[0]
        self.losses = Losses()
        self.info = MicroscopeInfo(
            camera=recording.camera,
            stage="recording",
            shape=recording.shape,
            dtype=recording.dtype,
            encoding=recording.encoding,
            exposure_ms=first.exposure_ms,
            latency_ms=0.0,
            affine=recording.affine,
            objective=recording.objective,
            versions="",
            rolling_ms=recording.rolling_ms,
        )
        self._recording, self._at_pace = recording, at_pace
        self._pose = first.pose
        self._next = 0
        self._stopped = False

    @property
    def name(self) -> str:
        return self.info.camera

    def start(self) -> None:
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        self.start()
        frames = self._recording.frames
        if self._next >= len(frames):
            return
        offset_s = time.perf_counter() - frames[self._next].pose.t_s
        for number in range(self._next, len(frames)):
            recorded = frames[number]
            if self._at_pace:
                _wait_until(offset_s + recorded.pose.t_s, stop)
            if stop.is_set() or self._stopped:
                return
            health.beat()
            self._next = number + 1
            pixels = recorded.read()
            if (pixels.shape, pixels.dtype.name) != (self.info.shape, self.info.dtype):
                self.losses.add("shape", 1, f"frame {number} is {pixels.shape} {pixels.dtype.name}")
                continue
            now_s = time.perf_counter()
            self._pose = replace(recorded.pose, t_s=now_s)
            yield Frame(pixels, number, now_s, recorded.exposure_ms, known=(self._pose, recorded.motion))

    def position_um(self) -> tuple[float, float]:
        return self._pose.y_um, self._pose.x_um

    def z_um(self) -> float | None:
        return self._pose.z_um

    def is_moving(self) -> bool:
        return False

    def halt(self) -> None:
        """It stands where it stood."""

    def close(self) -> None:
        self.stop()
        self._recording.close()

    # --- what cannot be done again ---

    def focus_to_um(self, z_um: float) -> None:
        self._refuse()

    def move_to_um(self, y_um: float, x_um: float) -> None:
        self._refuse()

    def set_speed_um_s(self, speed_um_s: float) -> None:
        self._refuse()

    def set_exposure_ms(self, exposure_ms: float) -> None:
        self._refuse()

    @staticmethod
    def _refuse() -> NoReturn:
        raise MicroscopeError("a recording cannot be driven: choose a microscope with microscope.backend")


def _wait_until(t_s: float, stop: threading.Event) -> None:
    while (left_s := t_s - time.perf_counter()) > 0 and not stop.is_set():
        health.beat()
        stop.wait(min(left_s, _LOOK_S))
