"""A camera over a virtual slide, as a device of Micro-Manager's core.

Exposures follow one another on a fixed beat, whatever else happens: their times are scheduled, not measured. A frame
reaches the core `latency` after its exposure ended, give or take the jitter; with a rolling shutter that of its middle row is meant. Where the computer is too slow, whole beats
are left out and counted in the frames' metadata, as an overloaded driver does.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike, NDArray
from pymmcore_plus import Keyword
from pymmcore_plus.experimental.unicore import CameraDevice

from deblurd.errors import DataError
from deblurd.frames import MotionVector, Pixels
from deblurd.geometry import PixelToStage
from deblurd.simulator.faults import Faults
from deblurd.simulator.motion import Motion
from deblurd.simulator.optics import Optics
from deblurd.simulator.sensor import Sensor
from deblurd.simulator.stage import VirtualFocus

MISSED = "MissedTriggers"
"""Key in the frames' metadata: beats left out since the sequence started."""

_PATH_STEPS = 256
_TICK_S = 0.02
_LOOK_AHEAD_S = 0.25
_UM_OF_DEFOCUS_PER_UM_OF_Z = 0.2
"""Standard deviation of the blur disc of a 20x/0.4 objective, in the slide's plane."""

_SNAP = -1
_AT_REST_UM = 1e-4

MOST_TURNS = 64
"""Exposures that can take turns."""


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """What really happened while a frame was exposed.

    start_um, mid_um, end_um, mean_um: true stage positions (2,), (y, x), at the start, middle and end of the exposure, and their mean
    over time. motion: the image's, px. missed: beats left out before this frame since the sequence started. arrived_s: when the
    frame was put into the core.
    """

    sequence: int
    number: int
    exposure_start_s: float
    exposure_end_s: float
    arrived_s: float
    missed: int
    start_um: NDArray[np.float64]
    mid_um: NDArray[np.float64]
    end_um: NDArray[np.float64]
    mean_um: NDArray[np.float64]
    motion: MotionVector


@dataclass(frozen=True, slots=True)
class _Exposed:
    start_s: float
    end_s: float
    path_um: NDArray[np.float64]
    missed: int
    pixels: Pixels


class VirtualCamera(CameraDevice):
    """Camera that looks through `optics` at whatever lies under `motion`; `on_frame` gets each frame's truth."""

    def __init__(
        self,
        optics: Optics,
        sensor: Sensor,
        motion: Motion,
        focus: VirtualFocus,
        affine: PixelToStage,
        *,
        frames_per_s: float,
        exposure_ms: float,
        latency_s: float,
        jitter_s: float,
        rolling_s: float,
        defocus_px: float,
        full_scale_ms: float | None,
        seed: int,
        faults: Faults,
        on_frame: Callable[[Truth], None],
    ) -> None:
        """rolling_s: from the exposure of the first row to that of the last. full_scale_ms: exposure in which white reaches full scale, and others in proportion; None where it does so in any."""
        super().__init__()
        self.set_property_sequence_max_length(Keyword.Exposure, MOST_TURNS)
        self._turns_ms: tuple[float, ...] = ()
        self._takes_turns = False
        self._full_scale_ms = full_scale_ms
        self._optics, self._sensor, self._motion, self._focus = optics, sensor, motion, focus
        self._affine = affine
        self._frames_per_s = frames_per_s
        self._exposure_ms = exposure_ms
        self._latency_s, self._jitter_s, self._rolling_s = latency_s, jitter_s, rolling_s
        self._defocus_px = defocus_px
        self._jitter = np.random.default_rng([seed, 0x717])
        self._faults = faults
        self._on_frame = on_frame
        self._sequence = -1
        self._running: threading.Event = threading.Event()
        self._worker: threading.Thread | None = None

    def get_exposure(self) -> float:
        return self._exposure_ms

    def set_exposure(self, exposure: float) -> None:
        """Counts from the next beat on; a beat lasts at least as long as the exposure."""
        self._exposure_ms = _possible_ms(exposure)

    def load_exposure_sequence(self, sequence: Sequence[float]) -> None:
        """Exposures that take turns, frame by frame, in sequences that begin between `start_exposure_sequence` and `stop_exposure_sequence`."""
        self._turns_ms = tuple(_possible_ms(exposure) for exposure in sequence)

    def start_exposure_sequence(self) -> None:
        self._takes_turns = True

    def stop_exposure_sequence(self) -> None:
        self._takes_turns = False

    def shape(self) -> tuple[int, int] | tuple[int, int, int]:
        shape = self._sensor.shape
        return (shape[0], shape[1]) if len(shape) == 2 else (shape[0], shape[1], shape[2])

    def dtype(self) -> DTypeLike:
        return self._sensor.dtype

    def start_sequence(
        self, n: int | None, get_buffer: Callable[[Sequence[int], DTypeLike], Pixels]
    ) -> Iterator[Mapping[str, str]]:
        """Frames until stopped. The core runs a snap in the thread that asked for it, a sequence in one of its own."""
        self._running.clear()  # whatever still hangs from an earlier sequence must not write into this one
        self._running = threading.Event()
        self._running.set()
        return self._frames(n, get_buffer, self._running, threading.get_ident())

    def shutdown(self) -> None:
        """Returns when nothing renders any more: a thread that is still in OpenCV when Python ends brings it down."""
        self._running.clear()
        if self._worker is not None:
            self._worker.join()

    def _frames(
        self,
        n: int | None,
        get_buffer: Callable[[Sequence[int], DTypeLike], Pixels],
        running: threading.Event,
        asked_by: int,
    ) -> Iterator[Mapping[str, str]]:
        sequence = _SNAP
        if threading.get_ident() != asked_by:
            self._sequence += 1
            sequence = self._sequence
        beats = math.ceil((self._latency_s + 5 * self._jitter_s) * self._frames_per_s)
        exposed: queue.Queue[_Exposed | Exception] = queue.Queue(beats + 1)
        worker = self._worker = threading.Thread(
            target=self._expose, args=(sequence, exposed, running), name="virtual sensor", daemon=True
        )
        worker.start()
        number = 0
        try:
            while n is None or number < n:
                item = _next(exposed, running)
                if item is None:
                    return
                if isinstance(item, Exception):
                    raise item
                delay_s = self._latency_s + self._jitter_s * float(self._jitter.normal())
                _sleep_until(item.end_s + max(delay_s, 0.0))
                while self._faults.camera_hangs and running.is_set():
                    time.sleep(_TICK_S)
                if not running.is_set():
                    return
                if self._faults.camera_raises:
                    self._faults.camera_raises = False
                    raise RuntimeError("the virtual camera lost its connection")
                buffer = get_buffer(self._faults.frame_shape or self._sensor.shape, self._sensor.dtype)
                buffer[...] = item.pixels if buffer.shape == item.pixels.shape else 0
                if sequence != _SNAP:
                    self._on_frame(self._truth(item, sequence, number))
                yield {MISSED: str(item.missed)}
                number += 1
        finally:
            running.clear()
            worker.join()

    def _expose(
        self, sequence: int, exposed: queue.Queue[_Exposed | Exception], running: threading.Event
    ) -> None:
        """Renders one exposure after the other, at most a beat ahead: where the stage will be is known unless it is told otherwise."""
        now_s = time.perf_counter()
        try:
            self._optics.light(
                self._path(now_s, now_s)
            )  # the first beat waits until what lies under it has been made
        except DataError as err:
            _hand_over(exposed, err, running)
            return
        start_s = time.perf_counter() + 0.005
        missed = number = 0
        turns_ms = self._turns_ms if self._takes_turns and sequence != _SNAP else ()
        while running.is_set():
            exposure_s = (turns_ms[number % len(turns_ms)] if turns_ms else self._exposure_ms) / 1000
            beat_s = max(1 / self._frames_per_s, max(turns_ms, default=0.0) / 1000, exposure_s)
            late = math.ceil((time.perf_counter() - start_s) / beat_s)
            if self._faults.skip_frames > 0:
                late = max(late, 0) + self._faults.skip_frames
                self._faults.skip_frames = 0
            if late > 0:
                missed += late
                start_s += late * beat_s
            if not _sleep_until(start_s - beat_s, running):
                return
            end_s = start_s + exposure_s
            try:
                path, rows = self._path(start_s, end_s), self._rows(start_s, end_s)
                pixels = self._render(path, rows, exposure_s, sequence, number)
                self._optics.look_ahead(self._motion.commanded([end_s + _LOOK_AHEAD_S])[0])
                if not _sleep_until(end_s + abs(self._rolling_s) / 2, running):
                    return
                true_path, true_rows = self._path(start_s, end_s), self._rows(start_s, end_s)
                if not (np.array_equal(path, true_path) and np.array_equal(rows, true_rows)):
                    path, pixels = true_path, self._render(true_path, true_rows, exposure_s, sequence, number)
                item: _Exposed | Exception = _Exposed(start_s, end_s, path, missed, pixels)
            except Exception as err:  # noqa: BLE001 - raised again where the core can see it
                item = err
            if not _hand_over(exposed, item, running) or isinstance(item, Exception):
                return
            number += 1
            start_s += beat_s

    def _path(self, start_s: float, end_s: float) -> NDArray[np.float64]:
        return self._motion.true(np.linspace(start_s, end_s, _PATH_STEPS + 1))

    def _rows(self, start_s: float, end_s: float) -> NDArray[np.float64]:
        """(H, 2): mean place of the stage while each row was exposed, against that of the middle one; (0, 2) with a global shutter."""
        if self._rolling_s == 0:
            return np.empty((0, 2))
        reach_s = abs(self._rolling_s) / 2
        t = np.linspace(start_s - reach_s, end_s + reach_s, 2 * _PATH_STEPS + 1)
        at = self._motion.true(t)
        summed = np.vstack([np.zeros(2), np.cumsum((at[1:] + at[:-1]) / 2 * np.diff(t)[:, None], axis=0)])
        later_s = np.append(np.linspace(-0.5, 0.5, self._sensor.shape[0]), 0.0) * self._rolling_s
        until_end, until_start = (
            np.stack([np.interp(at_s + later_s, t, axis) for axis in summed.T], axis=1)
            for at_s in (end_s, start_s)
        )
        mean = (until_end - until_start) / (end_s - start_s)
        return np.asarray(mean[:-1] - mean[-1])

    def _render(
        self,
        path_um: NDArray[np.float64],
        rows_um: NDArray[np.float64],
        exposure_s: float,
        sequence: int,
        number: int,
    ) -> Pixels:
        z_px = abs(self._focus.z_um) * _UM_OF_DEFOCUS_PER_UM_OF_Z / self._affine.pixel_size_um
        steps = (path_um[1:] + path_um[:-1]) / 2
        defocus_px = math.hypot(self._defocus_px, z_px)
        light = (
            self._optics.rolled_light(steps, rows_um, defocus_px)
            if np.abs(rows_um).max(initial=0.0) > _AT_REST_UM
            else self._optics.light(steps, defocus_px)
        )
        if self._full_scale_ms is not None:
            light = light * np.float32(1000 * exposure_s / self._full_scale_ms)
        return self._sensor.expose(light, sequence, number)

    def _truth(self, item: _Exposed, sequence: int, number: int) -> Truth:
        path = item.path_um
        start, mid, end = path[0].copy(), path[_PATH_STEPS // 2].copy(), path[-1].copy()
        seen = -self._affine.to_pixels(np.stack([start, mid, end]))  # the image runs against the stage
        mean = (path[1:] + path[:-1]).mean(axis=0) / 2
        motion = MotionVector.from_path(seen[0], seen[1], seen[2])
        return Truth(
            sequence, number, item.start_s, item.end_s, time.perf_counter(), item.missed,
            start, mid, end, mean, motion,
        )  # fmt: skip


def _possible_ms(exposure: float) -> float:
    value = float(exposure)
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"An exposure of {exposure} ms is not possible: give more than 0.")
    return value


def _sleep_until(t_s: float, running: threading.Event | None = None) -> bool:
    """False where `running` was cleared meanwhile."""
    while (left := t_s - time.perf_counter()) > 0:
        if running is not None and not running.is_set():
            return False
        time.sleep(left if running is None else min(left, _TICK_S))
    return running is None or running.is_set()


def _next(
    exposed: queue.Queue[_Exposed | Exception], running: threading.Event
) -> _Exposed | Exception | None:
    while running.is_set():
        try:
            return exposed.get(timeout=_TICK_S)
        except queue.Empty:
            continue
    return None


def _hand_over(
    exposed: queue.Queue[_Exposed | Exception], item: _Exposed | Exception, running: threading.Event
) -> bool:
    while running.is_set():
        try:
            exposed.put(item, timeout=_TICK_S)
        except queue.Full:
            continue
        return True
    return False
