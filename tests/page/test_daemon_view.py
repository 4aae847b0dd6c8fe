"""What the page is told is what the daemon, its slide and the disk say."""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest
import zarr
from PIL import Image

from deblurd.serve.view import TILE_PX
from tests.page.scans import Scan


def wait_for(ask: Callable[[], Any], what: str) -> Any:
    """What `ask` gives once it is true."""
    for _ in range(400):
        if found := ask():
            return found
        time.sleep(0.1)
    pytest.fail(f"after 40 s still no {what}")


def image_of(answer: httpx.Response) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(Image.open(io.BytesIO(answer.content)))


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scan]:
    with Scan(tmp_path_factory.mktemp("scan") / "slides", speed_um_s=500.0, area_mm=(0.9, 0.6)) as scan:
        yield scan


@pytest.fixture(scope="module")
def client(scan: Scan) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=scan.url) as client:
        yield client


@pytest.fixture(scope="module")
def growing(client: httpx.Client) -> dict[str, Any]:
    """The status and the mosaic of a slide in mid-scan, with tiles of it."""

    def ask() -> dict[str, Any] | None:
        status = client.get("/api/status").json()
        if status["slide"] is None or not status["mosaic_revision"] or status["newest_field"] is None:
            return None
        mosaic = client.get(f"/api/slides/{status['slide']}/mosaic").json()
        if mosaic is None or mosaic["shards"] is None:
            return None
        base = f"/api/slides/{status['slide']}/mosaic"
        tiles = {}
        for level in range(mosaic["levels"]):
            # the middle of the first shard: its corner may lie before the first field
            y, x = ((mosaic["used_px"][n] + mosaic["shard_px"] // 2 >> level) // TILE_PX for n in (0, 1))
            tiles[level] = client.get(f"{base}/{level}/{y}/{x}.jpg")
        pictures = [client.get(f"/api/live/{kind}.jpg") for kind in ("camera", "before", "after")]
        fields = client.get(f"/api/slides/{status['slide']}/fields").json()
        slides = client.get("/api/slides").json()
        return {
            "status": status,
            "mosaic": mosaic,
            "tiles": tiles,
            "pictures": pictures,
            "fields": fields,
            "slides": slides,
        }

    found: dict[str, Any] = wait_for(ask, "growing mosaic")
    return found


@pytest.fixture(scope="module")
def finished(client: httpx.Client, growing: dict[str, Any]) -> dict[str, Any]:
    """The slide in the list, when it is done."""

    def ask() -> Any:
        return next((slide for slide in client.get("/api/slides").json() if slide["state"] == "done"), None)

    found: dict[str, Any] = wait_for(ask, "finished slide")
    return found


def test_a_growing_slide_is_shown(growing: dict[str, Any]) -> None:
    status, mosaic = growing["status"], growing["mosaic"]
    assert status["state"] in ("scanning", "closing")
    assert status["slide"].startswith("S-001_")
    assert status["fields"] >= status["placed"] >= status["painted"] > 0
    assert status["frames"] > 0
    assert set(status["backlog"]) == {"record", "place", "deblur", "fuse", "mosaic"}
    y0, x0, y1, x1 = mosaic["used_px"]
    assert 0 < y0 < y1 < mosaic["size_px"][0]
    assert 0 < x0 < x1 < mosaic["size_px"][1]
    assert max(mosaic["shards"].values()) == mosaic["revision"]
    [slide] = growing["slides"]
    assert (slide["state"], slide["verdict"]) == ("growing", "being scanned or painted")


def test_pictures_of_every_level_come_while_it_grows(growing: dict[str, Any]) -> None:
    levels = [image_of(tile) for tile in growing["tiles"].values()]
    assert len(levels) == growing["mosaic"]["levels"]
    for image in levels:
        assert image.shape[:2] == (TILE_PX, TILE_PX)
        assert image.max() > 100  # tissue or glass, not the dark ground


def test_before_and_after_are_of_the_camera_s_shape(growing: dict[str, Any], scan: Scan) -> None:
    for picture in growing["pictures"]:
        assert image_of(picture).shape == scan.daemon.camera.shape


def test_fields_lie_in_the_mosaic(growing: dict[str, Any]) -> None:
    mosaic, fields = growing["mosaic"], growing["fields"]
    assert fields
    at_px = np.array(
        [[(f[k] - o) / mosaic["pixel_size_um"] for k, o in zip(("y_um", "x_um"), mosaic["origin_um"], strict=True)] for f in fields]
    )  # fmt: skip
    y0, x0, y1, x1 = mosaic["used_px"]
    # what is painted is painted of fields; not every field need be painted yet
    reach_px = np.array(mosaic["field_px"]) / 2
    touches = (at_px + reach_px > [y0, x0]) & (at_px - reach_px < [y1, x1])
    assert touches.all(axis=1).any()
    span_px = np.array([0.6, 0.9]) * 1000 / mosaic["pixel_size_um"] + mosaic["field_px"]
    assert (np.ptp(at_px, axis=0) < span_px).all()


def test_a_finished_slide_is_listed_with_its_verdict(finished: dict[str, Any], client: httpx.Client) -> None:
    assert "% covered" in finished["verdict"]
    assert finished["fields"] > 5
    assert finished["has_thumbnail"]
    assert finished["has_mosaic"]
    thumbnail = client.get(f"/api/slides/{finished['folder']}/thumbnail.png")
    assert image_of(thumbnail).ndim == 3
    kinds = [event["kind"] for event in client.get(f"/api/slides/{finished['folder']}/events").json()]
    assert [kind for kind in kinds if kind != "warning"] == ["scanning", "closing", "done"]


def test_the_pictures_of_a_finished_mosaic_are_its_pixels(
    finished: dict[str, Any], client: httpx.Client, scan: Scan
) -> None:
    folder = finished["folder"]
    mosaic = client.get(f"/api/slides/{folder}/mosaic").json()
    assert mosaic["shards"] is None
    path = scan.daemon.settings.mosaic.output / "S-001" / folder / "mosaic.ome.zarr"
    for level in range(mosaic["levels"]):
        array: Any = zarr.open_array(path / str(level), mode="r")
        wanted = np.moveaxis(np.asarray(array[:, TILE_PX : 2 * TILE_PX, :TILE_PX]), 0, 2)
        got = image_of(client.get(f"/api/slides/{folder}/mosaic/{level}/1/0.jpg"))
        if not wanted.size:
            continue
        assert got.shape == wanted.shape
        painted = wanted.max(axis=2) > 0
        # JPEG's own error
        assert np.abs(got.astype(int) - wanted)[painted].mean() < 6
    assert len(client.get(f"/api/slides/{folder}/fields").json()) == finished["fields"]


def test_a_zarr_reader_sees_the_right_pixels_through_ranges(finished: dict[str, Any], scan: Scan) -> None:
    tensorstore = pytest.importorskip("tensorstore")
    folder = finished["folder"]
    url = f"{scan.url}slides/{folder}/mosaic.ome.zarr/0/"
    remote = tensorstore.open({"driver": "zarr3", "kvstore": url}, open=True, read=True).result()
    path = scan.daemon.settings.mosaic.output / "S-001" / folder / "mosaic.ome.zarr"
    local: Any = zarr.open_array(path / "0", mode="r")
    window = (slice(None), slice(300, 700), slice(200, 600))
    np.testing.assert_array_equal(remote[window].read().result(), np.asarray(local[window]))


def test_when_the_camera_has_ended_nothing_is_ready(finished: dict[str, Any], client: httpx.Client) -> None:
    answer = wait_for(lambda: (a := client.get("/readyz")).status_code == 503 and a, "silence of the camera")
    assert "the camera sends no frames" in answer.json()["detail"]
    status = client.get("/api/status").json()
    assert status["state"] == "armed"
    # that nobody asks stage and camera any more is no trouble
    assert "look at its cable" not in status["sentence"]


def test_alerts_say_what_the_log_says(finished: dict[str, Any], client: httpx.Client) -> None:
    texts = [alert["text"] for alert in client.get("/api/alerts").json()]
    assert any("done" in text and finished["folder"] in text for text in texts) or texts == []


def test_strange_folders_do_no_harm(finished: dict[str, Any], client: httpx.Client, scan: Scan) -> None:
    """Broken, foreign and badly named folders: listed as unreadable, or not at all."""
    root: Path = scan.daemon.settings.mosaic.output
    whole = root / "S-001" / finished["folder"]
    broken = root / "S-009" / "S-009_20261123T000000Z"
    shutil.copytree(whole, broken)
    (broken / "slide.json").write_text("{", encoding="utf-8")
    (broken / "mosaic.ome.zarr" / "zarr.json").write_text(json.dumps({"attributes": {}}), encoding="utf-8")
    odd = root / "S-009" / "with blank"
    shutil.copytree(whole, odd)
    outside = root.parent / "elsewhere" / "S-010_20261123T000000Z"
    shutil.copytree(whole, outside)
    (root / "S-010").symlink_to(outside.parent, target_is_directory=True)
    wait_for(lambda: len(client.get("/api/slides").json()) >= 2, "list made anew")
    slides = {slide["folder"]: slide for slide in client.get("/api/slides").json()}
    assert slides[broken.name]["state"] == "unreadable"
    assert "with blank" not in slides
    assert client.get(f"/api/slides/{broken.name}/mosaic").status_code == 409
    assert client.get(f"/slides/{outside.name}/mosaic.ome.zarr/zarr.json").status_code == 404
    assert client.get("/api/slides/nobody/mosaic").status_code == 404
