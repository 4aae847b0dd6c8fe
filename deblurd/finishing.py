"""Slides that have ended: painted one after the other; for whose mosaics there was no room, when there is some."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from deblurd.errors import OutputError
from deblurd.host.disk import DiskGuard
from deblurd.pipeline import Finished, SlidePipeline
from deblurd.session import Session

News = Callable[[Literal["done", "stopped"], str], None]


class Finishing:
    """Closes slides, and remembers what they came to. on_news: told ("done" or "stopped", a sentence).

    finished: what is known of those that are finished; of all but the last one without places. failure: the first error that closing one raised.
    `add`, `take_back` and `close` come from one thread at a time; all else from any.
    """

    def __init__(self, disk: DiskGuard, on_news: News) -> None:
        self.finished: list[Finished] = []
        self.failure: BaseException | None = None
        self._disk, self._on_news = disk, on_news
        self._closing: list[Session] = []
        self._closer: threading.Thread | None = None
        """Of the slide that was closed last; it ends after those before it."""
        self._left: deque[Session] = deque()
        """Ended, but without room for their mosaics: finished when there is some."""
        self._abandoned = threading.Event()

    @property
    def closing(self) -> tuple[SlidePipeline, ...]:
        """Slides that ended and are still being painted, or may go on, oldest first."""
        return tuple(session.slide for session in self._closing)

    @property
    def left(self) -> tuple[str, ...]:
        """Slides for whose mosaics there was no room."""
        return tuple(session.name for session in self._left)

    @property
    def abandoned(self) -> bool:
        return self._abandoned.is_set()

    def abandon(self) -> None:
        """Leaves off finishing slides, also those that end from now on: they are to be resumed."""
        self._abandoned.set()
        for slide in self.closing:
            slide.abandon()

    def wait(self, timeout_s: float) -> bool:
        """Waits for the mosaics that are being finished; whether all are."""
        if self._closer is not None:
            self._closer.join(timeout_s)
            if self._closer.is_alive():
                return False
        if not self._left or self.abandoned or self._disk.trouble is not None:
            return True
        self.finish_left()
        return False

    def add(self, session: Session) -> None:
        """It has ended; whether it goes on is not decided yet."""
        self._closing.append(session)

    def take_back(self, session: Session) -> None:
        """It goes on."""
        self._closing.remove(session)

    def close(self, session: Session) -> None:
        """It goes on no more: its mosaic is finished, when its turn has come."""
        if self.abandoned:
            session.slide.abandon()
        self._closer = session.close(self._closer)

    def lack_room(self) -> None:
        """The disk is full: what those that are being finished complain of may come of that."""
        for session in self._closing:
            session.lacked_room = True

    def finish_left(self) -> None:
        """There is room on the disk."""
        while self._left:
            self._closer = self._left.popleft().resume(self._closer, self._abandoned)

    def ended(self, session: Session, finished: Finished | None, failure: BaseException | None) -> None:
        """On the thread that closed it."""
        if session in self._closing:
            self._closing.remove(session)
        why = failure or (finished and finished.failure)
        if isinstance(why, KeyboardInterrupt):
            # abandoned: the next start finishes it
            return
        if why:
            self._on_news("stopped", f"{session.name} is incomplete: {why}")
        elif not session.is_discarded and finished is not None:
            self._on_news("done", f"{session.name} is done: {finished.tiles} fields")
        if isinstance(why, OutputError) and (session.lacked_room or self._disk.trouble is not None):
            self._left.append(session)
            return
        if finished is not None:
            # of those before it only what people are told: a service goes on for months
            self.finished[-1:] = [replace(each, places={}) for each in self.finished[-1:]]
            self.finished.append(finished)
        self.failure = self.failure or failure
