"""Looking at a live view that somebody else has switched on, without taking a frame from it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Protocol

from numpy.typing import NDArray

from deblurd import health
from deblurd.acquire.arrival import received_s
from deblurd.acquire.coretalk import ask
from deblurd.acquire.losses import Losses
from deblurd.acquire.shape import ShapeGuard
from deblurd.acquire.stream import check_pixels, to_pixels
from deblurd.errors import MicroscopeError
from deblurd.frames import Frame

_LOOK_S = 0.001
_OFF_LOOK_S = 0.1
_ACQUISITION_S = 0.5
_REPORT_S = 10.0


class Looked(Protocol):
    """The core behind the live view."""

    def isSequenceRunning(self) -> bool: ...
    def lastImageAndMD(self) -> tuple[NDArray[Any], dict[str, str]]: ...
    def getImage(self, fix: bool = ...) -> NDArray[Any]: ...
    def getExposure(self) -> float: ...
    def getCameraDevice(self) -> str: ...
    def getNumberOfComponents(self) -> int: ...
    def isAcquisitionRunning(self) -> bool: ...


class LiveView:
    """The frames of a live view, each once: the newest is looked at, again and again, and told apart by its number.

    trouble: why no frames come, where it is known. is_acquiring: whether the other program runs an acquisition, None before it was asked. hang_s: a live view without a new frame for longer hangs. Frames that came and went
    between two looks are counted as lost to "live". Raises MicroscopeError, ConfigError as `CameraStream` does.
    """

    def __init__(self, core: Looked, losses: Losses, hang_s: float) -> None:
        self._core, self._losses, self._hang_s = core, losses, hang_s
        self.camera = core.getCameraDevice()
        self.exposure_ms = float(ask(core.getExposure))
        self._components = int(ask(core.getNumberOfComponents))
        sample = to_pixels(ask(core.getImage, fix=False), self._components)
        check_pixels(sample, self.camera)
        self.shape, self.dtype = sample.shape, sample.dtype.name
        self.trouble: str | None = None
        self.is_acquiring: bool | None = None
        self._asked_s = -math.inf
        self._wanted = False
        self._sequence = -1
        self._unseen = 0
        self._told_s = time.perf_counter()

    def start(self) -> None:
        """From now on `frames` looks."""
        self._wanted = True

    def stop(self) -> None:
        """`frames` ends; the live view goes on."""
        self._wanted = False

    def set_exposure_ms(self, exposure_ms: float) -> None:
        raise MicroscopeError(
            "the exposure was not changed, because deblurd only looks at Micro-Manager's live view: change it there, or let deblurd drive"
        )

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """Every new frame that the live view shows, until `stop`; while it is off it is waited for."""
        self.start()
        newest: tuple[int, str] | None = None
        heard_s = looked_s = time.perf_counter()
        shapes = ShapeGuard(self.camera, self.shape, self.dtype, self._losses)
        while self._wanted and not stop.is_set():
            health.beat()
            self._look_for_acquisition()
            if not ask(self._core.isSequenceRunning):
                self.trouble = (
                    "Micro-Manager's acquisition takes its pictures one by one, and deblurd sees only a camera that streams"
                    if self.is_acquiring
                    else "Micro-Manager's live view is off: switch Live on, and deblurd looks on"
                )
                newest = None
                heard_s = looked_s = time.perf_counter()
                stop.wait(_OFF_LOOK_S)
                continue
            before_s, looked_s = looked_s, time.perf_counter()
            found = self._look()
            now_s = time.perf_counter()
            if found is None or (found[1], found[2]) == newest:
                self._mind_hang(now_s - heard_s)
                # no camera is faster than its exposures
                stop.wait(max(_LOOK_S, min(heard_s + self.exposure_ms / 1000 - now_s, _OFF_LOOK_S)))
                continue
            image, number, stamp = found
            if newest is None or number <= newest[0]:
                # the live view was switched off and on again
                self._sequence += 1
            else:
                self._unseen += number - newest[0] - 1
            self.trouble, newest, heard_s = None, (number, stamp), now_s
            self._tell_unseen(now_s)
            pixels = to_pixels(image, self._components)
            if shapes.passes(pixels):
                yield Frame(
                    pixels, number, received_s(stamp, now_s, before_s), self.exposure_ms, self._sequence
                )
        self._tell_unseen(self._told_s + 2 * _REPORT_S)
        self._wanted = False

    def _look_for_acquisition(self) -> None:
        now_s = time.perf_counter()
        if now_s - self._asked_s > _ACQUISITION_S:
            self._asked_s = now_s
            with suppress(RuntimeError):
                # what cannot be known now has not changed
                self.is_acquiring = self._core.isAcquisitionRunning()

    def _look(self) -> tuple[NDArray[Any], int, str] | None:
        """Image, number and time of the newest frame; None before the first one."""
        try:
            image, tags = self._core.lastImageAndMD()
        except RuntimeError:
            return None  # the buffer is empty
        if "ImageNumber" not in tags:
            raise MicroscopeError(
                f"the frames of {self.camera} have no numbers, so one cannot be told from the next: let deblurd drive"
            )
        return image, int(tags["ImageNumber"]), tags.get("TimeReceivedByCore", "")

    def _mind_hang(self, silent_s: float) -> None:
        if silent_s > self._hang_s + self.exposure_ms / 1000:
            if self.trouble is None:
                self._losses.add("hang", 1, f"the live view shows nothing new for {silent_s:.1f} s")
            self.trouble = f"Micro-Manager's live view shows nothing new for {silent_s:.0f} s: switch Live off and on again"

    def _tell_unseen(self, now_s: float) -> None:
        """Counts what was not seen, now and then: it happens all the time."""
        if self._unseen and now_s - self._told_s > _REPORT_S:
            self._losses.add("live", self._unseen, "looked at as fast as it goes")
            self._unseen, self._told_s = 0, now_s
