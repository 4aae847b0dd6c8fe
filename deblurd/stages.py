"""A stage: one thread, one queue, work done in order. The pipeline is a row of them."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Final, Generic, TypeVar

from deblurd import health

T = TypeVar("T")


class _End:
    """Closes a stage's queue: nothing comes after it."""


_END: Final = _End()


class Stage(Generic[T]):
    """Calls `work` with the items that wait, in order, on a thread of its own.

    most: how many items one call gets. room: how many may wait before `put` blocks; 0: any number.
    when_idle: called between items and at least every `idle_s` seconds, for work that has no item.
    It is watched (see `health`), but while it waits for items. Its thread has the context of whoever makes the stage.
    A stage that fails keeps its error in `failure`, does no more work, and still takes items, so that nobody upstream
    is held up by it; whoever must know asks `failure`.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[list[T]], None],
        *,
        most: int = 1,
        room: int = 0,
        when_idle: Callable[[], None] | None = None,
        idle_s: float = 0.2,
    ) -> None:
        self.name = name
        self.failure: Exception | None = None
        self.done = 0
        self.busy_s = 0.0
        self._work, self._most, self._when_idle, self._idle_s = work, most, when_idle, idle_s
        self._queue: queue.Queue[T | _End] = queue.Queue(room)
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._run,), name=f"deblurd-{name}", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def put(self, item: T) -> None:
        """Blocks while the queue is full; never after a failure."""
        while self.failure is None:
            try:
                self._queue.put(item, timeout=0.5)
            except queue.Full:
                health.beat()
                continue
            return

    @property
    def backlog(self) -> int:
        """Items that wait, without those being worked on."""
        return self._queue.qsize()

    def close(self) -> None:
        """Nothing more will be put; returns when all that waited is done, or the stage has failed."""
        while self._thread.is_alive():
            try:
                self._queue.put(_END, timeout=0.5)
                break
            except queue.Full:
                health.beat()
                continue
        health.rest()
        self._thread.join()
        health.beat()

    def abandon(self, why: Exception) -> None:
        """Ends the work after the items at hand; what waits is dropped."""
        self.failure = self.failure or why

    def _run(self) -> None:
        try:
            with health.watched(self.name):
                while self._turn():
                    pass
        except Exception as err:  # noqa: BLE001 - kept for whoever asks: a thread has nobody to raise to
            self.failure = err
        self._discard()
        # whoever made the stage holds it, and shall not be held by it: the two would wait for a collector that hardly ever comes by
        self._work, self._when_idle = _no_work, None

    def _turn(self) -> bool:
        items, ended = self._take()
        if items:
            began_s = time.perf_counter()
            self._work(items)
            self.done += len(items)
            self.busy_s += time.perf_counter() - began_s
        health.beat()
        if self._when_idle is not None and not ended:
            self._when_idle()
        return not ended and self.failure is None

    def _take(self) -> tuple[list[T], bool]:
        items: list[T] = []
        wait_s: float | None = None if self._when_idle is None else self._idle_s
        while len(items) < self._most:
            try:
                if items:
                    item = self._queue.get_nowait()
                else:
                    health.rest()
                    item = self._queue.get(timeout=wait_s)
            except queue.Empty:
                break
            finally:
                health.beat()
            if isinstance(item, _End):
                return items, True
            items.append(item)
        return items, False

    def _discard(self) -> None:
        while True:
            try:
                self._queue.get_nowait()
            except queue.Empty:
                return


def _no_work(items: list[Any]) -> None:
    """Of a stage that has ended."""
