"""The newest things that deblurd said in its log, for the page."""

from __future__ import annotations

import logging
import re
from collections import deque
from datetime import UTC, datetime
from typing import Literal

from deblurd.serve.view import Alert
from deblurd.serve.words import say

MOST_KEPT = 200


class AlertLog(logging.Handler):
    """Keeps what the program's loggers say. Attach it with `logging.getLogger("deblurd").addHandler`."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._kept: deque[Alert] = deque(maxlen=MOST_KEPT)
        self._count = 0
        self._last: tuple[str, str] = "", ""
        self._times = 0

    @property
    def count(self) -> int:
        """Of all that was ever said."""
        return self._count

    def newest(self) -> list[Alert]:
        """Oldest first."""
        self.acquire()
        try:
            return list(self._kept)
        finally:
            self.release()

    def emit(self, record: logging.LogRecord) -> None:
        # under the handler's own lock
        self._count += 1
        level: Literal["info", "warning", "error"] = (
            "error"
            if record.levelno >= logging.ERROR
            else "warning"
            if record.levelno >= logging.WARNING
            else "info"
        )
        utc = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        text = " ".join(record.getMessage().split())
        # of a warning that comes again and again with other numbers only the newest, and how often: else it hides all that was said before
        kind = level, re.sub(r"\d+", "", text)
        again = level != "info" and kind == self._last
        self._times, self._last = self._times + 1 if again else 1, kind
        if again:
            self._kept.pop()
            text = say("log.again", text=text, n=self._times)
        self._kept.append(Alert(number=self._count, utc=utc.replace("+00:00", "Z"), level=level, text=text))
