"""What went wrong while a slide grew stands in its journal, not only in the log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from logging.handlers import QueueHandler, QueueListener
from queue import SimpleQueue
from typing import Any

from deblurd.errors import DeblurdError


class NotedWarnings:
    """Hands every warning and error that deblurd logs to `event`, from `start` until `stop`, as (level, text).

    On a thread of its own: whoever logs does not wait for the disk.
    """

    def __init__(self, event: Callable[[str, str], None]) -> None:
        waiting: SimpleQueue[Any] = SimpleQueue()
        self._tap = QueueHandler(waiting)
        self._tap.setLevel(logging.WARNING)
        self._listener = QueueListener(waiting, _ToJournal(event))

    def start(self) -> None:
        self._listener.start()
        logging.getLogger("deblurd").addHandler(self._tap)

    def stop(self) -> None:
        """Returns when everything that was logged has been handed on."""
        logging.getLogger("deblurd").removeHandler(self._tap)
        self._listener.stop()


class _ToJournal(logging.Handler):
    def __init__(self, event: Callable[[str, str], None]) -> None:
        super().__init__()
        self._event = event

    def emit(self, record: logging.LogRecord) -> None:
        # the log has it in any case; that the disk refuses is said by those who write tiles
        with suppress(DeblurdError):
            self._event(record.levelname.lower(), record.getMessage())
