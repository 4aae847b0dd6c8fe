"""The process that holds a microscope for another one: what it is asked, it asks the microscope, and it sends the frames on.

A device adapter may bring its process down, and a Micro-Manager that has died leaves its client waiting for ever: both can only be
mended from outside. So this process says again and again that all its threads move on, and whoever started it kills it where it does not.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import cv2

from deblurd import health
from deblurd.acquire.losses import Cause, Losses
from deblurd.acquire.microscope import Microscope
from deblurd.acquire.ring import Ring
from deblurd.errors import DeblurdError, MicroscopeError
from deblurd.host import memory
from deblurd.settings import Settings

Link = Connection
"""Messages are tuples; the first item says what they are."""

Opener = Callable[[Settings, Losses, bool], Microscope]
"""Opens the microscope of a configuration, counting what is lost. The last argument: whether it is opened again, after it was left in
the middle of its work. Must be found by its name in a new process."""

PULSE_S = 0.2
"""So often the child says that it is alive."""

_CALLS_AT_ONCE = 3
"""A stage that is slow to move or to focus can still be asked where it is."""

_CLOSE_S = 3.0
_FULL_S = 0.0005


def hold(
    calls: Link, frames: Link, opener: Opener, settings: Settings, again: bool, patience_s: float
) -> None:
    """The life of the child. calls, frames: its ends. patience_s: a thread that does not move on for longer is stuck.

    Ends when its parent says so, or is gone.
    """
    # Ctrl-C and a service manager's SIGTERM reach all processes of a service: the parent ends this one, in order
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    memory.keep_one_heap()
    # OpenCV wakes a thread on each core to turn one frame's colours, and on one of them the camera's driver is at work
    cv2.setNumThreads(1)
    out = _Out(calls)
    _send_log(out)
    try:
        microscope = opener(settings, _SentLosses(out), again)
    except DeblurdError as err:
        out.send("refused", err)
        # at the usual end pycromanager would say good-bye, to somebody who may be dead
        os._exit(0)
    _Child(out, calls, frames, microscope, patience_s).run()


class _Out:
    """The way to the parent, for several threads. That it is gone shows where the child reads."""

    def __init__(self, link: Link) -> None:
        self._link, self._lock = link, threading.Lock()

    def send(self, *message: Any) -> None:
        with self._lock, suppress(OSError):
            self._link.send(message)


class _SentLosses(Losses):
    """Losses that the parent counts and logs."""

    def __init__(self, out: _Out) -> None:
        super().__init__()
        self._out = out

    def add(self, cause: Cause, n: int, detail: str) -> None:
        self._out.send("loss", cause, n, detail)


class _SentLog(logging.Handler):
    def __init__(self, out: _Out) -> None:
        super().__init__()
        self._out = out

    def emit(self, record: logging.LogRecord) -> None:
        self._out.send("log", record.name, record.levelno, record.getMessage())


def _send_log(out: _Out) -> None:
    """What deblurd logs here, the parent logs; other libraries have their say on stderr, if it is a warning."""
    log = logging.getLogger("deblurd")
    log.setLevel(logging.INFO)
    log.addHandler(_SentLog(out))
    log.propagate = False


class _Child:
    def __init__(
        self, out: _Out, calls: Link, frames: Link, microscope: Microscope, patience_s: float
    ) -> None:
        self._out, self._calls, self._frames = out, calls, frames
        self._microscope, self._patience_s = microscope, patience_s
        self._stop = threading.Event()
        self._leave_frames = False
        self._streaming: threading.Thread | None = None

    def run(self) -> None:
        self._out.send("opened", self._microscope.info)
        threading.Thread(target=self._pulse, name="deblurd-pulse", daemon=True).start()
        with ThreadPoolExecutor(_CALLS_AT_ONCE, thread_name_prefix="deblurd-call") as pool:
            while True:
                try:
                    kind, *rest = self._calls.recv()
                except (EOFError, OSError):
                    self._leave()
                if kind == "call":
                    pool.submit(self._answer, *rest)
                elif kind == "frames":
                    self._stop.clear()
                    self._leave_frames = False
                    self._streaming = threading.Thread(target=self._stream, args=rest, daemon=True)
                    self._streaming.start()
                elif kind in ("stop", "leave"):
                    self._leave_frames = kind == "leave"
                    self._stop.set()
                else:
                    self._leave()

    def _leave(self) -> None:
        """Stops the camera, if it can be stopped; what hangs in an adapter is not waited for."""
        self._stop.set()
        closing = threading.Thread(target=self._microscope.close, daemon=True)
        closing.start()
        closing.join(_CLOSE_S)
        os._exit(0)

    def _pulse(self) -> None:
        while True:
            stuck = health.stuck(self._patience_s)
            if not stuck:
                self._out.send("pulse", self._microscope.trouble, self._microscope.is_acquiring)
            else:
                self._out.send("stuck", stuck[0].name)
            time.sleep(PULSE_S)

    def _answer(self, number: int, name: str, args: tuple[Any, ...]) -> None:
        with health.watched(name):
            began_s = time.perf_counter()
            try:
                value: Any = getattr(self._microscope, name)(*args)
            except DeblurdError as err:
                value = err
            ended_s = time.perf_counter()
        self._out.send("reply", number, value, began_s, ended_s)

    def _stream(self, ring_name: str, shape: tuple[int, ...], dtype: str) -> None:
        ring = Ring(shape, dtype, ring_name)
        failure: DeblurdError | None = None
        try:
            with health.watched("the camera"):
                for frame in self._microscope.frames(self._stop):
                    health.beat()
                    if self._leave_frames:
                        break
                    slot = ring.put(frame.pixels, self._wait)
                    self._frames.send(
                        ("frame", slot, frame.number, frame.arrived_s, frame.exposure_ms, frame.sequence)
                    )
        except DeblurdError as err:
            failure = err
        except OSError:
            return  # nobody takes them any more
        except Exception as err:  # noqa: BLE001 - a thread has nobody to raise to: the parent tells it on
            failure = MicroscopeError(
                f"the microscope failed in an unforeseen way ({type(err).__name__}: {err}): please report it, then start again"
            )
        with suppress(OSError):
            self._frames.send(("end", failure))
        ring.close()

    def _wait(self) -> None:
        """For the parent to take frames; the core's buffer holds those that come meanwhile."""
        health.beat()
        time.sleep(_FULL_S)
