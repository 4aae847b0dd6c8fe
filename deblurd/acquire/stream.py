"""Frames out of Micro-Manager's core, without losing one unnoticed."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pymmcore_plus import CMMCorePlus

from deblurd import health
from deblurd.acquire.arrival import Watch, received_s
from deblurd.acquire.coretalk import ask, first_line
from deblurd.acquire.losses import Cause, Losses
from deblurd.acquire.shape import ShapeGuard, words
from deblurd.errors import ConfigError, MicroscopeError
from deblurd.frames import Frame, Pixels

log = logging.getLogger(__name__)

_ENDLESS = 2**31 - 1
_LOOK_S = 0.0005
_FRUITLESS_STARTS = 3
_RATE_FRAMES, _RATE_LOOKS = 16, 8
"""So often it is looked at how fast the camera is, and over so many looks: one after the other frames may come in bursts."""

_HARDLY = 0.1
"""A camera that is faster by so small a share is not too fast: it would lose half of its frames."""

_BGRA_WORDS = {"uint32": np.uint8, "uint64": np.uint16}


def to_pixels(image: NDArray[Any], components: int) -> Pixels:
    """What the core popped with ``fix=False`` as (H, W) or (H, W, 3), RGB, contiguous.

    Colour comes as one block of BGRA words, which is three times as fast to turn as the core's own planes; a
    Python camera hands its array on as it is.
    """
    if components == 4 and image.ndim == 2 and (channel := _BGRA_WORDS.get(image.dtype.name)):
        return np.asarray(cv2.cvtColor(image.view(channel).reshape(*image.shape, 4), cv2.COLOR_BGRA2RGB))
    return np.ascontiguousarray(image)


def check_pixels(sample: Pixels, camera: str) -> None:
    """Raises ConfigError unless they are uint8 or uint16, mono or RGB."""
    if sample.dtype.name not in ("uint8", "uint16") or not (sample.ndim == 2 or sample.shape[2:] == (3,)):
        raise ConfigError(
            f"{camera} gives {words(sample)}, which deblurd cannot use: set its pixel type to 8 or 16 bits, "
            "mono or RGB, in the .cfg"
        )


def most_turns(core: CMMCorePlus) -> int:
    """How many exposures the core's camera can take in turn, frame by frame; 0 where it cannot."""
    camera = core.getCameraDevice()
    if not ask(core.isExposureSequenceable, camera):
        return 0
    return int(ask(core.getExposureSequenceMaxLength, camera))


class CameraStream:
    """The frames of the core's camera.

    turns_ms: exposures that take turns, frame by frame, from the first frame of each sequence on; `exposure_ms` is the longest then. hang_s: a camera that is silent for longer (on top of an exposure) is started again. most_frames_per_s: of a faster one only every second,
    third ... frame is handed on, and the others are counted as "surplus". Raises MicroscopeError where the camera gives
    no frame or cannot take turns, ConfigError where its pixels are not uint8 or uint16, mono or RGB.
    """

    def __init__(
        self,
        core: CMMCorePlus,
        losses: Losses,
        hang_s: float,
        most_frames_per_s: float = math.inf,
        turns_ms: Sequence[float] = (),
    ) -> None:
        self._core, self._losses, self._hang_s = core, losses, hang_s
        self._least_s, self._every = 1 / most_frames_per_s, 1
        self.camera = core.getCameraDevice()
        self._turns_ms = tuple(turns_ms)
        if self._turns_ms:
            self._load_turns()
        self.exposure_ms = float(ask(core.getExposure))
        self._components = int(ask(core.getNumberOfComponents))
        sample = self._sample()
        check_pixels(sample, self.camera)
        self.shape, self.dtype = sample.shape, sample.dtype.name
        self._sequence = -1
        self._wanted = False
        self._asked_ms: float | None = None
        self._exposure_is_set = threading.Event()

    def start(self) -> None:
        """Starts a sequence, unless one is wanted already. Frames that were not taken out before are gone."""
        if not self._wanted:
            self._begin()
            self._wanted = True

    def stop(self) -> None:
        """Stops the camera; `frames` yields what is in the buffer, and ends."""
        self._wanted = False
        self._halt()

    def set_exposure_ms(self, exposure_ms: float) -> None:
        """Exposure of the frames that follow; while `frames` runs the camera is stopped for it and started again, since many can do it only at rest.

        Raises MicroscopeError where the camera refuses it.
        """
        if not self._wanted:
            self._set_exposure(exposure_ms)
            return
        self._exposure_is_set.clear()
        self._asked_ms = exposure_ms
        if not self._exposure_is_set.wait(self._hang_s + 2 * self.exposure_ms / 1000):
            raise MicroscopeError(
                f"{self.camera} did not take an exposure of {exposure_ms:g} ms in time: check that it answers, then start again"
            )

    def _set_exposure(self, exposure_ms: float) -> None:
        ask(self._core.setExposure, exposure_ms)
        self.exposure_ms = float(ask(self._core.getExposure))

    def _load_turns(self) -> None:
        most = most_turns(self._core)
        if most < len(self._turns_ms):
            can = f"can take {most} in turn" if most else "cannot change its exposure from frame to frame"
            raise MicroscopeError(
                f"{self.camera} was given {len(self._turns_ms)} exposures in turn, and {can}: leave scan.exposures_ms empty, or let lanes take turns "
                "(scan.lane_exposures_ms)"
            )
        ask(self._core.setExposure, max(self._turns_ms))
        ask(self._core.loadExposureSequence, self.camera, self._turns_ms)

    def _exposure_of(self, number: int) -> float:
        """A camera steps from exposure to exposure with each frame that it sends, beginning anew with each sequence."""
        return self._turns_ms[number % len(self._turns_ms)] if self._turns_ms else self.exposure_ms

    def _begin(self) -> None:
        if self._turns_ms:
            ask(self._core.startExposureSequence, self.camera)
        # the camera stops when the buffer is full, and what is in it stays: a continuous sequence would clear it
        ask(self._core.startSequenceAcquisition, _ENDLESS, 0, True)
        self._sequence += 1

    def _halt(self) -> None:
        try:
            if self._core.isSequenceRunning():
                self._core.stopSequenceAcquisition()
            if self._turns_ms:
                self._core.stopExposureSequence(self.camera)
        except RuntimeError as err:
            log.warning("%s could not be stopped: %s", self.camera, first_line(err))

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """Every frame until `stop`, across restarts; see `Microscope.frames`."""
        self.start()
        try:
            yield from self._frames(stop)
        finally:
            # also where nobody takes the rest: what is left in the buffer belongs to no later sequence
            self._wanted = False

    def _frames(self, stop: threading.Event) -> Iterator[Frame]:
        fruitless = 0
        shapes = ShapeGuard(self.camera, self.shape, self.dtype, self._losses)
        while True:
            came = False
            for frame in self._one_sequence(stop):
                came = True
                if shapes.passes(frame.pixels):
                    yield frame
            if stop.is_set() or not self._wanted:
                return
            if self._asked_ms is not None:
                self._set_exposure(self._asked_ms)
                self._asked_ms = None
                came = True
            fruitless = 0 if came else fruitless + 1
            if fruitless >= _FRUITLESS_STARTS:
                raise MicroscopeError(
                    f"{self.camera} was started {fruitless} times and sent no frame: check its cable and power, then start again"
                )
            self._begin()
            self._exposure_is_set.set()

    def _one_sequence(self, stop: threading.Event) -> Iterator[Frame]:
        """One run of the camera, until it is stopped, or stops, or hangs; ends with the buffer empty."""
        core = self._core
        watch = Watch(self._losses)
        patience_s = self._hang_s + self.exposure_ms / 1000
        heard_s = empty_s = time.perf_counter()
        halted = False
        due = surplus = 0
        looks: deque[tuple[int, float]] = deque(maxlen=_RATE_LOOKS)
        try:
            while True:
                health.beat()
                if not halted and (stop.is_set() or not self._wanted or self._asked_ms is not None):
                    # at once, not when the buffer is empty: who takes frames out more slowly than they come would never end
                    self._halt()
                    halted = True
                # asked before the buffer is looked at: what is sent between the two is still taken out
                running = not halted and core.isSequenceRunning()
                if core.getRemainingImageCount():
                    image, tags = ask(core.popNextImageAndMD, fix=False)
                    heard_s = time.perf_counter()
                    number = int(tags.get("ImageNumber", watch.expected))
                    if watch.went_back(number):
                        self._losses.add(
                            "buffer", 1, f"numbers went back from {watch.expected - 1} to {number}"
                        )
                        watch = Watch(self._losses)
                        watch.expected = due = number
                        looks.clear()
                        self._sequence += 1
                    arrived_s = received_s(tags.get("TimeReceivedByCore"), heard_s, empty_s)
                    exposure_ms = self._exposure_of(number)
                    # a beat is one of beginnings: a short exposure is there sooner
                    watch.see(number, arrived_s + (self.exposure_ms - exposure_ms) / 1000)
                    if number % _RATE_FRAMES == 0:
                        looks.append((number, arrived_s))
                        self._every = self._share(looks)
                        surplus = self._count_surplus(surplus)
                    if number < due:
                        surplus += 1
                        continue
                    due = number + self._every
                    pixels = to_pixels(image, self._components)
                    yield Frame(pixels, number, arrived_s, exposure_ms, self._sequence)
                    continue
                now_s = empty_s = time.perf_counter()
                if not running:
                    if self._wanted and self._asked_ms is None and not stop.is_set():
                        self._report_end(watch, now_s)
                    return
                if now_s - heard_s > patience_s:
                    self._lose("hang", watch, now_s, f"nothing for {now_s - heard_s:.1f} s")
                    return
                stop.wait(_LOOK_S)
        finally:
            self._count_surplus(surplus)
            self._halt()

    def _share(self, looks: Sequence[tuple[int, float]]) -> int:
        """Of how many frames one is handed on. looks: numbers and times of arrival; one does not tell, and it stays as it was."""
        (first, first_s), (last, last_s) = looks[0], looks[-1]
        if last_s <= first_s:
            return self._every
        return max(1, math.ceil(self._least_s * (last - first) / (last_s - first_s) - _HARDLY))

    def _count_surplus(self, surplus: int) -> int:
        """Counts so many frames that were not handed on; returns 0."""
        if surplus:
            self._losses.add("surplus", surplus, "")
        return 0

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
