"""Attacks on the page: each must be refused, and nothing must have been done."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from deblurd.errors import ConfigError
from deblurd.serve.app import create_app
from deblurd.serve.guard import MOST_BODY_BYTES, Access, read_token
from deblurd.serve.server import Server
from tests.serve.conftest import FOLDER, TOKEN, FakeView

START = "/api/actions/start"
OURS = "http://127.0.0.1:8765"


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8765", "localhost.evil.example", "127.0.0.1.evil.example", "", "127.0.0.1:port",
        "user@127.0.0.1", "127.0.0.1/", "[::1", "2130706433", "127.1", "127.0.0.1 evil.example",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/api/status", "/healthz", "/static/main.js"])
def test_a_name_that_somebody_elses_dns_bends_to_this_machine_gets_nothing(
    client: TestClient, host: str, path: str
) -> None:
    assert client.get(path, headers={"host": host}).status_code == 421


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8765",
        "localhost",
        "LOCALHOST:1",
        "[::1]:8765",
        "192.168.1.7",
        "scope.example",
        "scope.example.:80",
    ],
)
def test_our_own_names_are_known(client: TestClient, host: str) -> None:
    assert client.get("/api/status", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://127.0.0.1:8766"},
        {"origin": "http://127.0.0.1"},
        {"origin": "http://localhost:8765"},
        {"origin": "file://127.0.0.1:8765"},
        {"origin": "http://127.0.0.1:8765.evil.example"},
        {"origin": "http://evil.example/http://127.0.0.1:8765"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "origin": OURS},
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_another_page_cannot_act(
    client: TestClient, view: FakeView, headers: dict[str, str], method: str
) -> None:
    answer = client.request(method, START, headers=headers, json={})
    assert answer.status_code == 403
    assert view.asked == []
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_two_origins_or_two_hosts_are_refused(client: TestClient, view: FakeView) -> None:
    two = [("origin", OURS), ("origin", OURS)]
    assert client.post(START, headers=two, json={}).status_code == 403
    assert client.get("/", headers=[("host", "localhost"), ("host", "localhost")]).status_code == 421
    assert view.asked == []


def test_a_form_of_another_page_is_no_order(client: TestClient, view: FakeView) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        answer = client.post(START, content=b'{"text": ""}', headers={"content-type": kind})
        assert answer.status_code == 422
    assert view.asked == []


def test_our_own_page_and_the_command_line_can_act(client: TestClient, view: FakeView) -> None:
    assert client.post(START, json={}, headers={"origin": OURS, "sec-fetch-site": "same-origin"}).is_success
    assert client.post(START, json={}).is_success
    assert view.asked == [("start", ""), ("start", "")]


@pytest.mark.parametrize("headers", [{}, {"origin": OURS}, {"origin": "http://evil.example"}])
@pytest.mark.parametrize("path", ["/", "/api/status", "/ws", "/openapi.json"])
def test_every_websocket_is_refused(client: TestClient, path: str, headers: dict[str, str]) -> None:
    with pytest.raises(WebSocketDisconnect), client.websocket_connect(path, headers=headers):
        pass


def test_bodies_have_an_end(client: TestClient, view: FakeView) -> None:
    large = b'{"text": "' + b"a" * MOST_BODY_BYTES + b'"}'
    kind = {"content-type": "application/json"}
    assert client.post(START, content=large, headers=kind).status_code == 413

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(large), 1000):
            yield large[start : start + 1000]

    assert client.post(START, content=pieces(), headers=kind).status_code == 413
    assert client.post(START, content=b"{}", headers=kind | {"content-length": "-1"}).status_code == 413
    assert view.asked == []


def test_a_body_without_end_over_a_real_socket_is_refused(view: FakeView) -> None:
    """The length is announced, the bytes never come: the answer does."""
    with Server(create_app(view, Access()), "127.0.0.1", 0) as server:
        url = httpx.URL(server.url)
        with socket.create_connection((url.host, url.port or 0), timeout=10) as wire:
            wire.sendall(
                f"POST {START} HTTP/1.1\r\nHost: {url.host}:{url.port}\r\nContent-Type: application/json\r\n"
                "Content-Length: 99999999\r\n\r\n".encode()
            )
            assert b" 413 " in wire.recv(100)
    assert view.asked == []


@pytest.mark.parametrize(
    "headers", [{}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {TOKEN}"}]
)
@pytest.mark.parametrize(
    "path",
    [
        "/api/status",
        "/metrics",
        "/openapi.json",
        "/readyz",
        "/api/slides",
        f"/slides/{FOLDER}/mosaic.ome.zarr/zarr.json",
    ],
)
def test_without_the_token_nothing_is_told(locked: TestClient, path: str, headers: dict[str, str]) -> None:
    assert locked.get(path, headers=headers).status_code == 401


def test_without_the_token_nothing_is_done(locked: TestClient, view: FakeView) -> None:
    for cookie in (
        b"",
        b"deblurd=",
        b"deblurd=wrong",
        b"deblurd=" + TOKEN.encode(),
        b"deblurd=\xff",
        b";;=",
        b"\x80=\x80",
    ):
        assert locked.post(START, json={}, headers={b"cookie": cookie}).status_code == 401
    assert view.asked == []


def test_the_token_opens(locked: TestClient, view: FakeView) -> None:
    assert locked.get("/api/status", headers={"authorization": f"Bearer {TOKEN}"}).is_success
    assert locked.get("/healthz").is_success
    assert locked.get("/").is_success
    assert locked.post("/api/login", json={"token": "wrong"}).status_code == 401
    assert locked.get("/api/status").status_code == 401
    answer = locked.post("/api/login", json={"token": TOKEN})
    kept = answer.headers["set-cookie"]
    assert "HttpOnly" in kept
    assert "SameSite=strict" in kept
    assert TOKEN not in kept
    assert locked.post(START, json={}).is_success
    assert view.asked == [("start", "")]


def test_a_token_that_could_be_guessed_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("secret\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="16 characters"):
        read_token(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_token(tmp_path / "missing")
    file.write_text(f" {TOKEN}\n", encoding="utf-8")
    assert read_token(file) == TOKEN
    assert read_token(None) is None


@pytest.mark.parametrize(
    "path",
    [
        "../journal.sqlite", "../../../secret.txt", "0/../../journal.sqlite", "%2e%2e/journal.sqlite", "..%2fjournal.sqlite",
        "..%5cjournal.sqlite", "%2e%2e%2f%2e%2e%2f%2e%2e%2fsecret.txt", "/etc/passwd", "%2fetc%2fpasswd", "zarr.json%00",
        "zarr.json%00.png", "", ".", "..", "0", "C:/Windows/win.ini", "zarr.json/../../journal.sqlite", "a" * 5000,
        "~root", "%c0%ae%c0%ae/journal.sqlite", "....//journal.sqlite", "zarr.json::$DATA",
    ],
)  # fmt: skip
def test_no_path_leads_out_of_the_mosaic(client: TestClient, path: str) -> None:
    # httpx would fold the dots away
    url = httpx.URL(f"{OURS}/slides/{FOLDER}/mosaic.ome.zarr/").copy_with(
        raw_path=f"/slides/{FOLDER}/mosaic.ome.zarr/{path}".encode()
    )
    answer = client.get(url)
    assert answer.status_code == 404
    assert b"secret of" not in answer.content


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_no_link_leads_out_of_the_mosaic(client: TestClient, view: FakeView) -> None:
    mosaic = view.root / "S-001" / FOLDER / "mosaic.ome.zarr"
    (mosaic / "link").symlink_to(view.root / "secret.txt")
    (mosaic / "folder").symlink_to(view.root)
    (mosaic.parent / "thumbnail.png").unlink()
    (mosaic.parent / "thumbnail.png").symlink_to(view.root / "secret.txt")
    for path in ("mosaic.ome.zarr/link", "mosaic.ome.zarr/folder/secret.txt"):
        assert client.get(f"/slides/{FOLDER}/{path}").status_code == 404
    assert client.get(f"/api/slides/{FOLDER}/thumbnail.png").status_code == 404


@pytest.mark.parametrize(
    "name", ["..", ".", "...", "%2e%2e", "a%2fb", "a%5cb", "a b", "%c3%a9", "a" * 129, "%00", "a;b", "-$(id)"]
)
@pytest.mark.parametrize("what", ["mosaic", "events", "fields", "thumbnail.png", "mosaic/0/0/0.jpg"])
def test_names_are_names(client: TestClient, name: str, what: str) -> None:
    url = httpx.URL(OURS).copy_with(raw_path=f"/api/slides/{name}/{what}".encode())
    assert client.get(url).status_code in (404, 422)


@given(text=st.text(max_size=80))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_labels_are_names_too(client: TestClient, view: FakeView, text: str) -> None:
    view.asked.clear()
    answer = client.post("/api/actions/label", json={"text": text})
    allowed = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
    if 0 < len(text) <= 64 and set(text) <= allowed:
        assert answer.is_success
        assert view.asked == [("label", text)]
    else:
        assert answer.status_code in (409, 422)
        assert view.asked == []


def test_every_answer_carries_the_shields(client: TestClient) -> None:
    for path in ("/", "/api/status", "/static/main.js", "/nowhere", "/metrics"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers
    assert client.get("/api/status", headers={"host": "evil.example"}).headers["content-security-policy"]


def test_the_servers_own_socket_stays_on_this_machine(view: FakeView) -> None:
    with Server(create_app(view, Access()), "127.0.0.1", 0) as server:
        assert server.url.startswith("http://127.0.0.1:")
        assert httpx.get(f"{server.url}api/status").json()["frames"] == 900
        assert httpx.get(f"{server.url}healthz", headers={"host": "evil.example"}).status_code == 421
