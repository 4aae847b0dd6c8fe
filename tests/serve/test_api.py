"""What the API answers."""

from __future__ import annotations

import json

import pytest
from starlette.testclient import TestClient

from deblurd.errors import OutputError
from deblurd.serve.app import create_app
from deblurd.serve.guard import Access
from deblurd.serve.server import Server
from tests.serve.conftest import FOLDER, FakeView

ZARR = f"/slides/{FOLDER}/mosaic.ome.zarr"


def test_health_is_not_readiness(client: TestClient, view: FakeView) -> None:
    assert client.get("/healthz").json() == {"detail": "ok"}
    assert client.get("/readyz").status_code == 200
    view.why_not = "the camera sends nothing: look at its cable"
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["detail"]) == (503, view.why_not)
    assert client.get("/healthz").status_code == 200


def test_status_is_all_of_it(client: TestClient, view: FakeView) -> None:
    assert client.get("/api/status").json() == json.loads(view.status().model_dump_json())


def test_metrics_are_prometheus_text(client: TestClient) -> None:
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    for line in (
        "deblurd_frames_total 900.0",
        'deblurd_frames_lost_total{cause="buffer"} 2.0',
        'deblurd_state{state="scanning"} 1.0',
        'deblurd_state{state="idle"} 0.0',
        'deblurd_backlog{stage="deblur"} 10.0',
        "deblurd_ready 1.0",
        "deblurd_slide_gaps 3.0",
    ):
        assert line in lines


def test_actions_say_what_they_did_or_why_not(client: TestClient, view: FakeView) -> None:
    assert client.post("/api/actions/finish", json={}).json() == {"detail": "finish: done"}
    assert client.post("/api/actions/label", json={"text": "S-002"}).is_success
    assert view.asked == [("finish", ""), ("label", "S-002")]
    answer = client.post("/api/actions/resume", json={})
    assert (answer.status_code, answer.json()["detail"][:23]) == (409, "the slide is not paused")
    assert client.post("/api/actions/label", json={}).status_code == 409
    assert client.post("/api/actions/explode", json={}).status_code == 422
    assert client.get("/api/actions/finish").status_code == 405


@pytest.mark.parametrize(
    "body", [b"\xff", b"{", b"[" * 60_000, b"[]", b'{"text": 1}', b'{"text": "a b"}', b"NaN", b""]
)
def test_a_body_that_is_no_order_is_pointed_out_in_a_sentence(
    client: TestClient, view: FakeView, body: bytes
) -> None:
    answer = client.post("/api/actions/label", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert set(answer.json()) == {"detail"}
    assert str(answer.json()["detail"]).endswith("see /openapi.json")
    assert view.asked == []


def test_pictures_that_are_not_there_yet_are_not_found(client: TestClient) -> None:
    assert client.get("/api/live/before.jpg").headers["content-type"] == "image/jpeg"
    assert client.get("/api/live/after.jpg").status_code == 204
    assert client.get("/api/live/other.jpg").status_code == 422


def test_a_tile_may_be_kept_forever_under_its_revision(client: TestClient) -> None:
    answer = client.get(f"/api/slides/{FOLDER}/mosaic/0/0/0.jpg?revision=17")
    assert "immutable" in answer.headers["cache-control"]
    missing = client.get(f"/api/slides/{FOLDER}/mosaic/0/0/1.jpg?revision=17")
    assert missing.headers["content-type"] == "image/jpeg"
    assert missing.headers["cache-control"] == "no-store"
    assert client.get(f"/api/slides/{FOLDER}/mosaic/-1/0/0.jpg").status_code == 422


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ("bytes=0-0", bytes([0])),
        ("bytes=10-19", bytes(range(10, 20))),
        ("bytes=-4", bytes([252, 253, 254, 255])),
        ("bytes=1020-", bytes([252, 253, 254, 255])),
        ("bytes=1000-99999", (bytes(range(256)) * 4)[1000:]),
    ],
)
def test_ranges_of_zarr_files(client: TestClient, asked: str, wanted: bytes) -> None:
    answer = client.get(f"{ZARR}/0/c/0/0/0", headers={"range": asked})
    assert answer.status_code == 206
    assert answer.content == wanted
    assert answer.headers["content-range"].endswith("/1024")


def test_zarr_files_whole(client: TestClient) -> None:
    answer = client.get(f"{ZARR}/0/c/0/0/0")
    assert (answer.status_code, len(answer.content)) == (200, 1024)
    assert answer.headers["accept-ranges"] == "bytes"
    head = client.head(f"{ZARR}/0/c/0/0/0")
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "1024", b"")
    assert client.get(f"{ZARR}/0/c/0/0/0", headers={"range": "bytes=5000-6000"}).status_code == 416
    assert client.get(f"{ZARR}/zarr.json").json() == {"zarr_format": 3}
    assert client.get(f"{ZARR}/5/zarr.json").status_code == 404
    assert client.get("/slides/nobody/mosaic.ome.zarr/zarr.json").status_code == 404


def test_slides_and_what_happened_to_them(client: TestClient) -> None:
    assert client.get("/api/slides").json()[0]["folder"] == FOLDER
    assert client.get(f"/api/slides/{FOLDER}/events").json()[0]["kind"] == "begin"
    assert client.get(f"/api/slides/{FOLDER}/fields").json()[0]["gate"] == "deblur"
    assert client.get(f"/api/slides/{FOLDER}/mosaic").json()["shards"] == {"0,0": 17}
    assert client.get(f"/api/slides/{FOLDER}/thumbnail.png").headers["content-type"] == "image/png"
    assert client.get("/api/slides/nobody/mosaic").status_code == 404
    assert client.get("/api/alerts").json()[0]["text"] == "2 frames lost"


def test_a_port_that_is_taken_is_said_in_a_sentence(view: FakeView) -> None:
    with Server(create_app(view, Access()), "127.0.0.1", 0) as server:
        port = int(server.url.rstrip("/").rpartition(":")[2])
        with pytest.raises(OutputError, match=r"is another deblurd running\?.*serve\.port"):
            Server(create_app(view, Access()), "127.0.0.1", port)


def test_the_servers_thread_ends_with_it(view: FakeView) -> None:
    server = Server(create_app(view, Access()), "127.0.0.1", 0)
    with server:
        thread = server._thread
        assert thread.is_alive()
    assert not thread.is_alive()
