"""News for another program: a slide is done, or something stopped. Nothing is sent anywhere unless an address is configured."""

from __future__ import annotations

import json
import logging
import queue
import threading
import urllib.error
import urllib.request
from datetime import UTC, datetime
from typing import Literal

log = logging.getLogger(__name__)

News = Literal["done", "stopped"]

TRIES = 3
PAUSE_S = 2.0
TIMEOUT_S = 5.0
_MOST_WAITING = 100


class Webhook:
    """Posts each piece of news as JSON to `url`, from `with` to the end of it, on a thread of its own: {"event", "text", "utc"}.

    Whoever tells never waits. A receiver that does not answer is tried three times and then said in the log; the scan goes on. url: None to send nothing.
    """

    def __init__(self, url: str | None) -> None:
        self._url = url
        self._waiting: queue.Queue[bytes | None] = queue.Queue(_MOST_WAITING)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._send_all, name="deblurd-webhook", daemon=True)

    def __enter__(self) -> Webhook:
        if self._url is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Sends what waits, once each."""
        if self._thread.is_alive():
            self._ended.set()
            try:
                self._waiting.put(None, timeout=TIMEOUT_S)
            except queue.Full:
                return
            self._thread.join(2 * TIMEOUT_S)

    def tell(self, event: News, text: str) -> None:
        """From any thread."""
        if self._url is None:
            return
        utc = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        try:
            self._waiting.put_nowait(json.dumps({"event": event, "text": text, "utc": utc}).encode())
        except queue.Full:
            log.warning("the webhook does not keep up: %r was not sent", text)

    def _send_all(self) -> None:
        while (body := self._waiting.get()) is not None:
            self._send(body)

    def _send(self, body: bytes) -> None:
        assert self._url is not None
        request = urllib.request.Request(self._url, body, {"content-type": "application/json"})
        for left in reversed(range(TRIES)):
            try:
                with urllib.request.urlopen(request, timeout=TIMEOUT_S):
                    return
            except (OSError, ValueError) as err:
                # urllib's own errors are OSErrors too
                if left == 0 or self._ended.is_set():
                    log.warning("the webhook %s was not told (%s): check notify.webhook", self._url, err)
                    return
            self._ended.wait(PAUSE_S)
