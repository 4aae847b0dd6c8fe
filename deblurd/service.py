"""A daemon as a service: its manager is told how it goes, its watchdog is fed while nothing is stuck, a new configuration is looked at."""

from __future__ import annotations

import faulthandler
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol

from deblurd import config, health
from deblurd.errors import DeblurdError
from deblurd.host.notify import Notifier
from deblurd.host.signals import Stop
from deblurd.settings import Settings

log = logging.getLogger(__name__)

LOOK_S = 0.5

LEAVE_S = 15.0
"""After painting was left off, what does not end by then hangs, and nothing that can be lost waits for it."""

HUNG = 70
"""The exit code of a process that was left with something hanging in it."""


class Served(Protocol):
    """What a service asks of a daemon; from any thread."""

    @property
    def settings(self) -> Settings: ...

    def reload(self, fresh: Settings) -> str:
        """Takes what can be taken now; returns a sentence. Raises DeblurdError where that is impossible, and changes nothing."""

    def abandon(self) -> None:
        """Leaves off finishing slides: they are finished at the next start."""


class Service:
    """Looks after `daemon` from `with` to the end of it, on a thread of its own; in a terminal too, where no manager listens.

    path: of the configuration, read again when an item comes into `hangups`. sentence: the daemon's state, for people.
    stop: after it was set in haste, painting has `service.drain_s` seconds, and whatever hangs LEAVE_S more: then the process ends as it is.
    """

    def __init__(
        self,
        daemon: Served,
        path: Path,
        sentence: Callable[[], str],
        stop: Stop,
        hangups: queue.SimpleQueue[int],
        notifier: Notifier | None = None,
    ) -> None:
        self._daemon, self._path, self._sentence = daemon, path, sentence
        self._stop, self._hangups = stop, hangups
        self._notifier = Notifier() if notifier is None else notifier
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_after, name="deblurd-service", daemon=True)
        self._told = ""
        self._refused = ""
        self._stuck: set[str] = set()
        self._stopped_s: float | None = None
        self._abandoned = False

    def __enter__(self) -> Service:
        if self._notifier.watchdog_s is not None and sys.__stderr__ is not None:
            # the watchdog's SIGABRT leaves a word of where every thread stood
            faulthandler.enable(sys.__stderr__)
        self._tell(self._sentence())
        self._notifier.ready()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        if isinstance(err, DeblurdError):
            self._tell(str(err))

    def _look_after(self) -> None:
        while not self._ended.wait(LOOK_S):
            if not self._hangups.empty():
                self._hangups.get()
                self._reload()
            self._drain()
            if sentence := self._look_for_stuck():
                self._tell(sentence)
            else:
                self._notifier.alive()
                self._tell(" ".join(filter(None, (self._sentence(), self._refused))))

    def _reload(self) -> None:
        self._notifier.reloading()
        try:
            said = self._daemon.reload(config.load(self._path))
            self._refused = ""
            log.info("%s", said)
        except DeblurdError as err:
            self._refused = f"The new configuration is refused, and the one before stays: {err}"
            log.error("%s", self._refused)
        self._notifier.ready()

    def _drain(self) -> None:
        if not self._stop.is_set():
            return
        now_s, drain_s = time.perf_counter(), self._daemon.settings.service.drain_s
        if self._stopped_s is None:
            self._stopped_s = now_s
            self._notifier.stopping()
        if self._stop.in_haste and not self._abandoned and now_s > self._stopped_s + drain_s:
            self._abandoned = True
            log.warning(
                "after %g s (service.drain_s) the mosaic is left as it is: it is finished at the next start",
                drain_s,
            )
            self._daemon.abandon()
        if self._abandoned and now_s > self._stopped_s + drain_s + LEAVE_S:
            log.error(
                "something hangs, and the process ends all the same: what was recorded is on the disk, and finished at the next start"
            )
            os._exit(HUNG)

    def _look_for_stuck(self) -> str:
        """What is stuck, in a sentence; "": nothing is."""
        found = health.stuck(self._daemon.settings.service.stuck_s)
        for each in found:
            if each.name not in self._stuck:
                log.error(
                    "%s is stuck: it has not moved on for %.0f s%s",
                    each.name,
                    each.for_s,
                    "; deblurd will be started again" if self._notifier.watchdog_s is not None else "",
                )
        self._stuck = {each.name for each in found}
        names = " and ".join(dict.fromkeys(each.name for each in found))
        return f"Stuck for {found[0].for_s:.0f} s: {names}." if found else ""

    def _tell(self, sentence: str) -> None:
        if sentence != self._told:
            self._told = sentence
            self._notifier.status(sentence)
