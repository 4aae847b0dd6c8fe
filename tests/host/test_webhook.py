"""Another program hears that a slide is done, or that something stopped; and nobody, unless that is configured."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import SimpleQueue
from typing import Any

import pytest
from pydantic import ValidationError

from deblurd.host import webhook
from deblurd.host.webhook import Webhook
from deblurd.settings import NotifySettings


class Receiver(ThreadingHTTPServer):
    """Keeps what it is sent; refuses the first `refusals`."""

    def __init__(self) -> None:
        self.got: SimpleQueue[Any] = SimpleQueue()
        self.refusals = self.asked = 0
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.asked += 1
        self.send_response(503 if self.server.asked <= self.server.refusals else 204)
        self.end_headers()
        if self.server.asked > self.server.refusals:
            self.server.got.put(json.loads(body))

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_news_arrive_in_order(receiver: Receiver) -> None:
    with Webhook(receiver.url) as hook:
        hook.tell("done", "S-001 is done: 412 fields")
        hook.tell("stopped", "the disk is full")
        first, second = receiver.got.get(timeout=10), receiver.got.get(timeout=10)
    assert (first["event"], first["text"]) == ("done", "S-001 is done: 412 fields")
    assert second["event"] == "stopped"
    assert set(first) == {"event", "text", "utc"}


def test_a_receiver_that_refuses_is_tried_again(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "PAUSE_S", 0.01)
    receiver.refusals = 2
    with Webhook(receiver.url) as hook:
        hook.tell("done", "x")
        assert receiver.got.get(timeout=10)["text"] == "x"
    assert receiver.asked == 3


def test_a_receiver_that_is_not_there_is_said_and_keeps_nobody(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "PAUSE_S", 0.01)
    with Webhook("http://127.0.0.1:9/") as hook:
        hook.tell("done", "x")
    assert "the webhook http://127.0.0.1:9/ was not told" in caplog.text


def test_without_an_address_nothing_is_sent() -> None:
    with Webhook(None) as hook:
        hook.tell("done", "x")
        assert not any(thread.name == "deblurd-webhook" for thread in threading.enumerate())


@pytest.mark.parametrize("url", ["ftp://a/", "file:///etc/passwd", "somewhere", "http://"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="http"):
        NotifySettings(webhook=url)
