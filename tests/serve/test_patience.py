"""Clients that hang: the others are answered, and the hanging ones are let go."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import httpx2 as httpx
import pytest

from deblurd.serve import server as server_module
from deblurd.serve.app import create_app
from deblurd.serve.guard import Access
from deblurd.serve.server import MOST_REQUESTS, Server
from tests.serve.conftest import FOLDER, FakeView


@pytest.fixture
def url(view: FakeView, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.URL]:
    monkeypatch.setattr(server_module, "PATIENCE_S", 0.3)
    with Server(create_app(view, Access()), "127.0.0.1", 0) as server:
        yield httpx.URL(server.url)


def connect(url: httpx.URL) -> socket.socket:
    return socket.create_connection((url.host, url.port or 0), timeout=20)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET /api/st",
        b"GET /api/status HTTP/1.1\r\nHost: localhost\r\nX: ",
        b"POST /api/actions/start HTTP/1.1\r\n",
    ],
)
def test_half_a_request_is_hung_up_on(url: httpx.URL, said: bytes) -> None:
    with connect(url) as wire:
        wire.sendall(said)
        with suppress(ConnectionResetError):
            assert wire.recv(100) == b""


def test_a_second_request_must_be_whole_too(url: httpx.URL) -> None:
    with connect(url) as wire:
        wire.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200" in wire.recv(10_000)
        wire.sendall(b"GET /healthz HTT")
        with suppress(ConnectionResetError):
            while wire.recv(10_000):
                pass


def test_who_does_not_take_the_answer_is_let_go(view: FakeView, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "PATIENCE_S", 0.3)
    large = view.root / "S-001" / FOLDER / "mosaic.ome.zarr" / "large"
    large.write_bytes(bytes(50_000_000))
    with Server(create_app(view, Access()), "127.0.0.1", 0) as server:
        held = server._server.server_state.connections
        with connect(httpx.URL(server.url)) as wire:
            asked = f"GET /slides/{FOLDER}/mosaic.ome.zarr/large HTTP/1.1\r\nHost: localhost\r\n\r\n"
            wire.sendall(asked.encode())
            assert wire.recv(15).startswith(b"HTTP/1.1 200")
            assert len(held) == 1
            # each turn is an answer to somebody else
            for _ in range(2000):
                assert httpx.get(f"{server.url}healthz", headers={"connection": "close"}).is_success
                if not held:
                    return
        pytest.fail("the server held on to a client that does not read")


def test_a_crowd_that_says_nothing_does_not_keep_the_page_for_ever(url: httpx.URL) -> None:
    with ExitStack() as crowd:
        for _ in range(MOST_REQUESTS + 20):
            crowd.enter_context(connect(url))
        # refused or not at first; answered when the crowd has been let go
        for _ in range(100):
            if httpx.get(url.join("/healthz"), timeout=20).is_success:
                return
        pytest.fail("the page stayed closed")


def test_an_idle_page_is_not_hung_up_on(url: httpx.URL) -> None:
    with connect(url) as wire:
        for _ in range(3):
            wire.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while b'"ok"}' not in answer:
                answer += wire.recv(10_000)
            wire.settimeout(1.0)
            with pytest.raises(TimeoutError):
                wire.recv(1)
            wire.settimeout(20)
