"""A microscope in a process of its own, which is started again where it dies or hangs."""

from __future__ import annotations

import atexit
import logging
import math
import multiprocessing
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from dataclasses import replace
from itertools import chain, repeat
from typing import Any

from deblurd import health
from deblurd.acquire import child
from deblurd.acquire.child import Opener
from deblurd.acquire.losses import Losses
from deblurd.acquire.microscope import MicroscopeInfo
from deblurd.acquire.ring import Ring
from deblurd.errors import DeblurdError, MicroscopeError
from deblurd.frames import Frame
from deblurd.settings import Settings

log = logging.getLogger(__name__)

OPEN_S = 120.0
"""The longest that opening may take: some stages look for their home first."""

_LOOK_S = 0.2
_CLOSE_S = 6.0
_FRUITLESS_STARTS = 3
_GIVE_UP_S = 30.0
_READS = ("position_um", "z_um", "is_moving")
"""Asked again where it died or hung over them; what moves something is not: it may be what brought it down."""

_ASTRAY_UM = 100.0
_PAUSES_S = (0.2, 1.0, 2.0, 5.0)
"""Between one attempt to open it again and the next."""


class _GoneError(Exception):
    """The child is dead, or as good as dead; the text says how that showed."""


class IsolatedMicroscope:
    """A `Microscope` whose devices live in another process: an adapter that crashes or hangs there takes nothing along.

    opener: opens it there. patience_s: how long a call, or a look for frames, may take. waits: where it is gone, it is waited for until it is
    back, however long; else half a minute, and three times in a row without a frame are the end. While `frames` brings it back, questions and
    moves wait; then it has the speed and exposure that it had, and goes where it was going. A stage that is then somewhere else has lost its
    origin: the tiles before and after would not fit together, and `frames` raises MicroscopeError. Times are those of
    `time.perf_counter`, which counts alike in all processes of a machine. Raises what `opener` raises, and MicroscopeError where the
    process ends or hangs instead.
    """

    simulation: Any = None

    def __init__(self, opener: Opener, settings: Settings, *, patience_s: float, waits: bool = False) -> None:
        self._opener, self._settings, self._patience_s, self._waits = opener, settings, patience_s, waits
        self.losses = Losses()
        self._trouble: str | None = None
        self._sequence = -1
        self._fruitless = 0
        self._exposure_ms: float | None = None
        self._speed_um_s: float | None = None
        self._target_um: tuple[float, float] | None = None
        self._last_um: tuple[float, float] | None = None
        self._is_streaming = False
        self._child = self._open(again=False)
        self.info: MicroscopeInfo = self._child.info
        atexit.register(self.close)

    @property
    def name(self) -> str:
        return f"{self.info.camera} and {self.info.stage}"

    @property
    def trouble(self) -> str | None:
        return self._trouble or self._child.trouble

    @property
    def is_acquiring(self) -> bool | None:
        return self._child.is_acquiring

    @property
    def pid(self) -> int | None:
        """Of the process that holds the devices."""
        return self._child.process.pid

    def close(self) -> None:
        atexit.unregister(self.close)
        self._child.close()

    # --- the camera ---

    def start(self) -> None:
        self._child.start_frames()

    def stop(self) -> None:
        self._child.stop_frames()

    def set_exposure_ms(self, exposure_ms: float) -> None:
        self._ask("set_exposure_ms", exposure_ms)
        self._exposure_ms = exposure_ms

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        self._is_streaming = True
        try:
            yield from self._frames(stop)
        finally:
            self._is_streaming = False

    def _frames(self, stop: threading.Event) -> Iterator[Frame]:
        last_s = time.perf_counter()
        while True:
            theirs: int | None = None
            try:
                self._child.start_frames()
                for frame in self._child.frames(stop):
                    self._fruitless, last_s = 0, frame.arrived_s
                    if frame.sequence != theirs:
                        theirs = frame.sequence
                        self._sequence += 1
                    yield replace(frame, sequence=self._sequence)
                return
            except _GoneError as err:
                why = str(err)
            if not self._bring_back(why, stop):
                return
            self.losses.add("process", 1, f"{why}; back after {time.perf_counter() - last_s:.1f} s")

    def _bring_back(self, why: str, stop: threading.Event) -> bool:
        """Opens the microscope again; False where it is stopped meanwhile. Raises MicroscopeError where there is no hope."""
        gone_s = time.perf_counter()
        self._fruitless += 1
        if self._fruitless >= _FRUITLESS_STARTS and not self._waits:
            raise MicroscopeError(
                f"{why}, and so it was {self._fruitless} times in a row: check the devices one by one in Micro-Manager, "
                "then start again"
            )
        for pause_s in chain(_PAUSES_S, repeat(_PAUSES_S[-1])):
            self._child.kill()
            self._say(f"{why}: {'waiting until it is back' if self._waits else 'it is opened again'}")
            if _wait(stop, pause_s):
                return False
            try:
                self._child = self._open(again=True)
            except MicroscopeError as err:
                if not self._waits and time.perf_counter() - gone_s > _GIVE_UP_S:
                    raise
                why = str(err)
                continue
            break
        self._check_alike(self._child.info)
        try:
            self._go_on()
        except _GoneError:
            return self._bring_back("the microscope was gone again as soon as it was back", stop)
        self._trouble = None
        log.warning("%s are there again", self.name)
        return True

    def _go_on(self) -> None:
        """Has the stage do what it was doing. Raises MicroscopeError where it is astray."""
        ask = self._child.ask
        at_um = ask("position_um")
        if (last_um := self._last_um) is not None:
            target_um = self._target_um or last_um
            # it may have moved on by itself
            detour_um = (
                math.dist(last_um, at_um) + math.dist(at_um, target_um) - math.dist(last_um, target_um)
            )
            if detour_um > _ASTRAY_UM:
                raise MicroscopeError(
                    f"the stage was at x {round(last_um[1])}, y {round(last_um[0])} um and says x {round(at_um[1])}, y {round(at_um[0])} um since the "
                    "microscope was opened again, so further tiles would lie in the wrong place: home the stage and start again"
                )
        if self._exposure_ms is not None:
            ask("set_exposure_ms", self._exposure_ms)
        if self._speed_um_s is not None:
            ask("set_speed_um_s", self._speed_um_s)
        if self._target_um is not None:
            ask("move_to_um", *self._target_um)

    def _say(self, text: str) -> None:
        if text != self._trouble:
            log.error("%s", text)
        self._trouble = text

    def _check_alike(self, info: MicroscopeInfo) -> None:
        for field in ("camera", "stage", "shape", "dtype", "exposure_ms", "objective"):
            before, now = getattr(self.info, field), getattr(info, field)
            if before != now:
                raise MicroscopeError(
                    f"the microscope came back with {field} {now} in place of {before}: undo the change, or start again"
                )

    def _open(self, *, again: bool) -> _Held:
        return _Held(self._opener, self._settings, again, self._patience_s, self.losses)

    # --- the stage ---

    def position_um(self) -> tuple[float, float]:
        y_um, x_um = self._ask("position_um")
        self._last_um = y_um, x_um
        return y_um, x_um

    def z_um(self) -> float | None:
        z_um: float | None = self._ask("z_um")
        return z_um

    def focus_to_um(self, z_um: float) -> None:
        self._ask("focus_to_um", z_um)

    def autofocus_um(self) -> float:
        return float(self._ask("autofocus_um"))

    def move_to_um(self, y_um: float, x_um: float) -> None:
        self._ask("move_to_um", y_um, x_um)
        self._target_um = y_um, x_um

    def set_speed_um_s(self, speed_um_s: float) -> None:
        self._ask("set_speed_um_s", speed_um_s)
        self._speed_um_s = speed_um_s

    def is_moving(self) -> bool:
        return bool(self._ask("is_moving"))

    def halt(self) -> None:
        self._target_um = None
        self._ask("halt")

    def _ask(self, name: str, *args: float) -> Any:
        """Asks the child, the next one where this one is gone. Raises what it raises, and MicroscopeError where it does not answer."""
        while True:
            held = self._child
            if self._trouble is None:
                try:
                    return held.ask(name, *args)
                except _GoneError as err:
                    if name not in _READS or not self._is_streaming:
                        raise MicroscopeError(f"{err}: wait until it is back, or check the devices") from err
            while self._is_streaming and (self._trouble is not None or self._child is held):
                health.beat()
                time.sleep(_LOOK_S / 10)
            if not self._is_streaming:
                raise MicroscopeError(self._trouble or "the microscope is gone: start again")


class _Held:
    """One child process, from opening to its end."""

    def __init__(
        self, opener: Opener, settings: Settings, again: bool, patience_s: float, losses: Losses
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._calls, calls = context.Pipe()
        self._frames, frames = context.Pipe()
        self.process = context.Process(
            target=child.hold,
            args=(calls, frames, opener, settings, again, patience_s),
            name="deblurd-microscope",
        )
        self.trouble: str | None = None
        self.is_acquiring: bool | None = None
        self._losses, self._patience_s = losses, patience_s
        self._waiting: dict[int, Future[Any]] = {}
        self._number = 0
        self._lock = threading.Lock()
        self._gone: str | None = None
        self._heard_s = time.perf_counter()
        self._opened: Future[MicroscopeInfo] = Future()
        self._ring: Ring | None = None
        self._streams = False
        self.process.start()
        # the child's ends live in the child alone, so that its death shows here
        calls.close()
        frames.close()
        self._listener = threading.Thread(target=self._listen, name="deblurd-child", daemon=True)
        self._listener.start()
        self.info = self._wait_until_open()
        self._ring = Ring(self.info.shape, self.info.dtype)

    def _wait_until_open(self) -> MicroscopeInfo:
        until_s = time.perf_counter() + OPEN_S
        while time.perf_counter() < until_s:
            health.beat()
            try:
                return self._opened.result(_LOOK_S)
            except FutureTimeoutError:
                continue
            except DeblurdError:
                self.kill()
                raise
            except _GoneError as err:
                self.kill()
                raise MicroscopeError(
                    f"{err} while it was opened: look at what the log says before, and check the devices one by one in Micro-Manager"
                ) from err
        self.kill()
        raise MicroscopeError(
            f"the microscope was not open after {OPEN_S:g} s: check that its devices are switched on, then start again"
        )

    # --- talking ---

    def ask(self, name: str, *args: Any) -> Any:
        future: Future[Any] = Future()
        with self._lock:
            if self._gone is not None:
                raise _GoneError(self._gone)
            self._number += 1
            number = self._number
            self._waiting[number] = future
        self._send("call", number, name, args)
        try:
            return future.result(self._patience_s + 2 * _LOOK_S)
        except FutureTimeoutError:
            self._lose(f"the microscope did not answer for {self._patience_s:g} s ({name})")
            raise _GoneError(self._gone) from None

    def _send(self, *message: Any) -> None:
        # that nobody is there shows where the answer is waited for
        with self._lock, suppress(OSError):
            self._calls.send(message)

    def _listen(self) -> None:
        """Takes what the child says, until it says nothing more."""
        while True:
            try:
                message = self._calls.recv() if self._calls.poll(_LOOK_S) else None
            except (EOFError, OSError):
                self.process.join(_CLOSE_S)
                self._lose(f"the process that holds the microscope ended ({_end(self.process.exitcode)})")
                return
            if message is not None:
                self._heard_s = time.perf_counter()
                self._take(*message)
            elif self._opened.done() and time.perf_counter() - self._heard_s > self._patience_s:
                self._lose(f"the process that holds the microscope said nothing for {self._patience_s:g} s")
                return

    def _take(self, kind: str, *rest: Any) -> None:
        if kind == "reply":
            number, value, _, _ = rest
            with self._lock:
                future = self._waiting.pop(number, None)
            if future is not None and isinstance(value, BaseException):
                future.set_exception(value)
            elif future is not None:
                future.set_result(value)
        elif kind == "pulse":
            self.trouble, self.is_acquiring = rest
        elif kind == "loss":
            self._losses.add(*rest)
        elif kind == "log":
            name, level, text = rest
            logging.getLogger(name).log(level, "%s", text)
        elif kind == "opened":
            self._opened.set_result(rest[0])
        elif kind == "refused":
            self._opened.set_exception(rest[0])
        elif kind == "stuck":
            self._lose(f"the microscope hangs ({rest[0]} did not come back within {self._patience_s:g} s)")

    def _lose(self, why: str) -> None:
        """It is gone: whoever waits for an answer is told."""
        with self._lock:
            self._gone = self._gone or why
            waiting, self._waiting = self._waiting, {}
        self.process.kill()
        err = _GoneError(self._gone)
        for future in waiting.values():
            future.set_exception(err)
        if not self._opened.done():
            self._opened.set_exception(err)

    # --- frames ---

    def start_frames(self) -> None:
        if not self._streams:
            assert self._ring is not None
            self._streams = True
            self._send("frames", self._ring.name, self.info.shape, self.info.dtype)

    def stop_frames(self) -> None:
        self._send("stop")

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        try:
            yield from self._until_end(stop)
        finally:
            # whoever takes no more frames leaves the camera at rest, and what it has sent behind
            if self._streams:
                self._send("leave")
                with suppress(_GoneError, DeblurdError):
                    for _ in self._until_end(threading.Event()):
                        pass

    def _until_end(self, stop: threading.Event) -> Iterator[Frame]:
        assert self._ring is not None
        told = False
        while self._streams:
            health.beat()
            if stop.is_set() and not told:
                self.stop_frames()
                told = True
            try:
                if not self._frames.poll(_LOOK_S if not told else _LOOK_S / 10):
                    if self._gone is not None:
                        raise _GoneError(self._gone)
                    continue
                kind, *rest = self._frames.recv()
            except (EOFError, OSError):
                # the listener knows why
                self._listener.join()
                raise _GoneError(self._gone) from None
            if kind == "end":
                self._streams = False
                if rest[0] is not None:
                    raise rest[0]
                return
            slot, number, arrived_s, exposure_ms, sequence = rest
            yield Frame(self._ring.take(slot), number, arrived_s, exposure_ms, sequence)

    # --- the end ---

    def close(self) -> None:
        self._send("close")
        self.process.join(_CLOSE_S)
        self.kill()

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self._listener.join()
        # whoever still holds the iterator of frames finds that it has ended
        self._streams = False
        if self._ring is not None:
            self._ring.close()


def _wait(stop: threading.Event, seconds: float) -> bool:
    """Waits; whether `stop` was set."""
    until_s = time.perf_counter() + seconds
    while (left_s := until_s - time.perf_counter()) > 0:
        health.beat()
        if stop.wait(min(left_s, _LOOK_S)):
            return True
    return stop.is_set()


def _end(code: int | None) -> str:
    """How a process ended, for people."""
    if code is None:
        return "it still lives"
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"
