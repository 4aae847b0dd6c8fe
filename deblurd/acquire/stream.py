"""Frames out of Micro-Manager's core, without losing one unnoticed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pymmcore_plus import CMMCorePlus

from deblurd.acquire.arrival import Watch, received_s
from deblurd.acquire.coretalk import ask, first_line
from deblurd.acquire.losses import Cause, Losses
from deblurd.errors import ConfigError, MicroscopeError
from deblurd.frames import Frame, Pixels

log = logging.getLogger(__name__)

_ENDLESS = 2**31 - 1
_LOOK_S = 0.0005
_WRONG_SHAPES_IN_A_ROW = 10
_FRUITLESS_STARTS = 3
_BGRA_WORDS = {"uint32": np.uint8, "uint64": np.uint16}


def to_pixels(image: NDArray[Any], components: int) -> Pixels:
    """What the core popped with ``fix=False`` as (H, W) or (H, W, 3), RGB, contiguous.

    Colour comes as one block of BGRA words, which is three times as fast to turn as the core's own planes; a
    Python camera hands its array on as it is.
    """
    if components == 4 and image.ndim == 2 and (channel := _BGRA_WORDS.get(image.dtype.name)):
        return np.asarray(cv2.cvtColor(image.view(channel).reshape(*image.shape, 4), cv2.COLOR_BGRA2RGB))
    return np.ascontiguousarray(image)


class CameraStream:
    """The frames of the core's camera.

    hang_s: a camera that is silent for longer (on top of an exposure) is started again. Raises MicroscopeError where the camera gives
    no frame, ConfigError where its pixels are not uint8 or uint16, mono or RGB.
    """

    def __init__(self, core: CMMCorePlus, losses: Losses, hang_s: float) -> None:
        self._core, self._losses, self._hang_s = core, losses, hang_s
        self.camera = core.getCameraDevice()
        self.exposure_ms = float(ask(core.getExposure))
        self._components = int(ask(core.getNumberOfComponents))
        sample = self._sample()
        self.shape, self.dtype = sample.shape, sample.dtype.name
        if self.dtype not in ("uint8", "uint16") or not (sample.ndim == 2 or self.shape[2:] == (3,)):
            raise ConfigError(
                f"{self.camera} gives {_words(sample)}, which deblurd cannot use: set its pixel type to 8 or 16 bits, "
                "mono or RGB, in the .cfg"
            )
        self._sequence = -1
        self._wanted = False

    def start(self) -> None:
        """Starts a sequence, unless one is wanted already. Frames that were not taken out before are gone."""
        if not self._wanted:
            self._begin()
            self._wanted = True

    def stop(self) -> None:
        """Stops the camera; `frames` yields what is in the buffer, and ends."""
        self._wanted = False
        self._halt()

    def _begin(self) -> None:
        # the camera stops when the buffer is full, and what is in it stays: a continuous sequence would clear it
        ask(self._core.startSequenceAcquisition, _ENDLESS, 0, True)
        self._sequence += 1

    def _halt(self) -> None:
        if self._core.isSequenceRunning():
            try:
                self._core.stopSequenceAcquisition()
            except RuntimeError as err:
                log.warning("%s could not be stopped: %s", self.camera, first_line(err))

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """Every frame until `stop`, across restarts; see `Microscope.frames`."""
        fruitless = wrong = 0
        self.start()
        while True:
            came = False
            for frame in self._one_sequence(stop):
                came = True
                if frame.pixels.shape == self.shape and frame.pixels.dtype.name == self.dtype:
                    wrong = 0
                    yield frame
                    continue
                wrong += 1
                what = f"{_words(frame.pixels)} in place of {self.shape} {self.dtype}"
                self._losses.add("shape", 1, what)
                if wrong >= _WRONG_SHAPES_IN_A_ROW:
                    raise MicroscopeError(
                        f"{self.camera} now sends {what}, because somebody changed it: undo the change of binning, region or "
                        "pixel type, or start again"
                    )
            if stop.is_set() or not self._wanted:
                self._wanted = False
                return
            fruitless = 0 if came else fruitless + 1
            if fruitless >= _FRUITLESS_STARTS:
                raise MicroscopeError(
                    f"{self.camera} was started {fruitless} times and sent no frame: check its cable and power, then start again"
                )
            self._begin()

    def _one_sequence(self, stop: threading.Event) -> Iterator[Frame]:
        """One run of the camera, until it is stopped, or stops, or hangs; ends with the buffer empty."""
        core = self._core
        watch = Watch(self._losses)
        patience_s = self._hang_s + self.exposure_ms / 1000
        heard_s = empty_s = time.perf_counter()
        try:
            while True:
                # asked before the buffer is looked at: what is sent between the two is still taken out
                running = core.isSequenceRunning()
                if core.getRemainingImageCount():
                    image, tags = ask(core.popNextImageAndMD, fix=False)
                    heard_s = time.perf_counter()
                    number = int(tags.get("ImageNumber", watch.expected))
                    if watch.went_back(number):
                        self._losses.add(
                            "buffer", 1, f"numbers went back from {watch.expected - 1} to {number}"
                        )
                        watch = Watch(self._losses)
                        watch.expected = number
                        self._sequence += 1
                    arrived_s = received_s(tags.get("TimeReceivedByCore"), heard_s, empty_s)
                    watch.see(number, arrived_s)
                    pixels = to_pixels(image, self._components)
                    yield Frame(pixels, number, arrived_s, self.exposure_ms, self._sequence)
                    continue
                now_s = empty_s = time.perf_counter()
                if not running:
                    if self._wanted and not stop.is_set():
                        self._report_end(watch, now_s)
                    return
                if stop.is_set() or not self._wanted:
                    self._halt()
                elif now_s - heard_s > patience_s:
                    self._lose("hang", watch, now_s, f"nothing for {now_s - heard_s:.1f} s")
                    return
                else:
                    stop.wait(_LOOK_S)
        finally:
            self._halt()

    def _report_end(self, watch: Watch, now_s: float) -> None:
        if self._core.isBufferOverflowed():
            size_mb = self._core.getCircularBufferMemoryFootprint()
            self._lose("buffer", watch, now_s, f"{size_mb} MB were full after number {watch.expected - 1}")
        else:
            self._lose("camera", watch, now_s, f"the sequence ended after number {watch.expected - 1}")

    def _lose(self, cause: Cause, watch: Watch, now_s: float, detail: str) -> None:
        self._losses.add(cause, watch.missed_since(now_s), detail)

    def _sample(self) -> Pixels:
        """One snap, to learn the true shape: what the core says of it is wrong for Python cameras.

        In a thread of its own, because a camera that hangs does not come back from it.
        """
        got: list[Pixels] = []
        failed: list[MicroscopeError] = []

        def snap() -> None:
            try:
                ask(self._core.snapImage)
                got.append(to_pixels(ask(self._core.getImage, fix=False), self._components))
            except MicroscopeError as err:
                failed.append(err)

        thread = threading.Thread(target=snap, name="deblurd-snap", daemon=True)
        thread.start()
        thread.join(self._hang_s + self.exposure_ms / 1000)
        if failed:
            raise failed[0]
        if not got:
            raise MicroscopeError(
                f"{self.camera} sent no frame within {self._hang_s:g} s: check its cable and power, then start again"
            )
        return got[0]


def _words(pixels: Pixels) -> str:
    return f"{pixels.shape} {pixels.dtype.name}"
