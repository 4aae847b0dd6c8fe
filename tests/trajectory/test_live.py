"""While the stage rests, frames are kept as a series, followed, and shown."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from deblurd.daemon import Daemon
from deblurd.errors import OutputError, UsageError
from deblurd.frames import Frame, Pose
from deblurd.geometry import PixelToStage
from deblurd.page.series_shelf import SeriesShelf
from deblurd.serve.app import create_app
from deblurd.serve.guard import Access
from deblurd.serve.server import Server
from deblurd.settings import (
    DeblurSettings,
    MicroscopeSettings,
    MosaicSettings,
    ServeSettings,
    Settings,
    SimulatorSettings,
    TrajectorySettings,
)
from deblurd.slides.camera import Camera
from deblurd.trajectory.live import RestingSeries
from tests.serve.conftest import FakeView
from tests.trajectory.conftest import read_csv
from tests.trajectory.simulated import Simulated, simulate

CAMERA = Camera((160, 160), "uint16", "linear", PixelToStage.from_scale(0.5, 90.0), 5.0)
SETTINGS = TrajectorySettings(enabled=True, frames_per_s=100.0, least_frames=5, size_um=(2.0, 5.0))


@pytest.fixture(scope="module")
def sim() -> Simulated:
    return simulate("directed", 8, frames=20, side_px=160, snr=10, step_px=3, seed=3)


def feed(
    resting: RestingSeries, sim: Simulated, begin_s: float, at_um: tuple[float, float], count: int = 20
) -> float:
    """`count` frames while the stage stands there; when the last one came."""
    for number in range(count):
        t_s = begin_s + number / 10
        frame = Frame(sim.frames[number % 20], number, t_s, 5.0)
        while resting.waiting > 8:
            # frames come faster here than from any camera
            time.sleep(0.001)
        # readings scatter
        resting.feed(frame, Pose(t_s, at_um[0] + 0.05 * (number % 2), at_um[1], sigma_um=0.05))
    return begin_s + count / 10


def end(resting: RestingSeries) -> None:
    resting.end()
    assert resting.wait(60)


def kept(output: Path) -> list[Path]:
    return sorted((output / "series").glob("*"))


def test_a_rest_is_a_series_and_a_move_ends_it(sim: Simulated, tmp_path: Path) -> None:
    resting = RestingSeries(SETTINGS, CAMERA, tmp_path)
    t_s = feed(resting, sim, 100.0, (1000.0, 2000.0))
    feed(resting, sim, t_s, (1500.0, 2000.0))
    end(resting)
    first, second = kept(tmp_path)
    # the first frame after a move, and the last one before the next, may have been taken while the stage moved
    assert len(read_csv(first / "tiles.csv")) == len(read_csv(second / "tiles.csv")) == 18
    rows = read_csv(first / "trajectories" / "tracks.csv")
    assert len(rows) > 50
    # pixel (y, x) of a camera turned by 90 degrees lies at (x, -y) on the stage, or at (-x, y)
    assert all(abs(float(row["y_um"]) - 1000) <= 41 and abs(float(row["x_um"]) - 2000) <= 41 for row in rows)
    about = json.loads((first / "trajectories" / "trajectories.json").read_text("utf-8"))
    assert about["exposure_ms"] == 5
    assert np.allclose(about["affine_um"], CAMERA.affine.matrix)


def test_a_short_pause_leaves_nothing(sim: Simulated, tmp_path: Path) -> None:
    resting = RestingSeries(SETTINGS, CAMERA, tmp_path)
    t_s = feed(resting, sim, 0.0, (0.0, 0.0), 4)
    for number in range(30):
        t_s = feed(resting, sim, t_s, (0.0, 20.0 * number), 1)
    end(resting)
    assert kept(tmp_path) == []


def test_a_long_rest_is_one_series_of_the_longest(sim: Simulated, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"longest_s": 2.0, "frames_per_s": 5.0})
    resting = RestingSeries(settings, CAMERA, tmp_path)
    feed(resting, sim, 0.0, (0.0, 0.0), 200)
    end(resting)
    (only,) = kept(tmp_path)
    assert len(read_csv(only / "tiles.csv")) == 11


def test_a_full_disk_does_not_stop_the_scan(
    sim: Simulated, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def full() -> None:
        raise OutputError("the disk is full")

    resting = RestingSeries(SETTINGS, CAMERA, tmp_path, full)
    feed(resting, sim, 0.0, (0.0, 0.0))
    end(resting)
    assert kept(tmp_path) == []
    assert caplog.text.count("the frames at rest are not kept: the disk is full") == 1


def test_it_says_what_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install 'deblurd\\[trajectories\\]'"):
        RestingSeries(SETTINGS, CAMERA, tmp_path)


def settings_at_rest(output: Path) -> Settings:
    return Settings(
        microscope=MicroscopeSettings(backend="simulator", exposure_ms=5.0, encoding="srgb", latency_ms=15.0),
        simulator=SimulatorSettings(slide_size_mm=(0.6, 0.5), fov_px=(128, 128), frames_per_s=30.0),
        deblur=DeblurSettings(model="wiener"),
        mosaic=MosaicSettings(output=output, shard_px=512),
        serve=ServeSettings(enabled=False),
        trajectories=TrajectorySettings(enabled=True, least_frames=5, size_um=(3.0, 12.0)),
    )


@pytest.mark.slow
def test_a_daemon_whose_stage_rests(tmp_path: Path) -> None:
    daemon, stop = Daemon(settings_at_rest(tmp_path)), threading.Event()

    def look(_: object) -> None:
        if any(len(list(path.glob("*.tif"))) >= 8 for path in kept(tmp_path)):
            stop.set()

    try:
        daemon.run(look, stop)
    finally:
        daemon.close()
    (series,) = kept(tmp_path)
    assert len(read_csv(series / "tiles.csv")) >= 8
    about = json.loads((series / "trajectories" / "trajectories.json").read_text("utf-8"))
    assert about["frames"] == len(read_csv(series / "tiles.csv"))
    # nothing moves on this slide
    assert {row["active"] for row in read_csv(series / "trajectories" / "summary.csv")} <= {"still"}


@pytest.mark.slow
def test_who_is_in_haste_does_not_wait_for_the_following(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, told = threading.Event(), threading.Event()

    def follow(*_: object, stop: threading.Event) -> Any:
        begun.set()
        if stop.wait(30):
            told.set()
        return SimpleNamespace(tracks=0)

    monkeypatch.setattr("deblurd.trajectory.follow.follow", follow)
    daemon, stop = Daemon(settings_at_rest(tmp_path)), threading.Event()

    def look(_: object) -> None:
        if begun.is_set():
            daemon.abandon()
        elif any(len(list(path.glob("*.tif"))) >= 8 for path in kept(tmp_path)):
            stop.set()

    try:
        daemon.run(look, stop)
    finally:
        daemon.close()
    assert told.is_set()


# --- the page ---


@pytest.fixture(scope="module")
def output(sim: Simulated, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shelf")
    resting = RestingSeries(SETTINGS, CAMERA, path)
    feed(resting, sim, 0.0, (100.0, 200.0))
    end(resting)
    return path


@pytest.fixture
def app(output: Path, tmp_path: Path) -> Any:
    return create_app(FakeView(tmp_path), Access(), SeriesShelf(output))


def test_the_tracks_lie_on_the_frames(sim: Simulated, output: Path, app: Any) -> None:
    with TestClient(app, "http://127.0.0.1:8765") as client:
        (entry,) = client.get("/api/series").json()
        found = client.get(f"/api/series/{entry['name']}").json()
        assert found["shape_px"] == [160, 160]
        assert len(found["tracks"]) == entry["tracks"] > 0
        truth = sim.truth
        for track in found["tracks"]:
            for number, y, x, _ in track["points"]:
                # the first frame was left out
                there = truth[truth[:, 1] == number + 1][:, 2:]
                assert np.linalg.norm(there - [y, x], axis=1).min() < 3
        assert client.get(f"/api/series/{entry['name']}/0.jpg").content[:2] == b"\xff\xd8"
        assert client.get(f"/api/series/{entry['name']}/999.jpg").status_code == 404
        assert client.get("/api/series/none").status_code == 404
        assert client.get("/api/series/..%2f..").status_code in (404, 422)


def test_a_damaged_series_hides_no_other(output: Path, app: Any, tmp_path: Path) -> None:
    (good,) = kept(output)
    bad = good.with_name("series_bad")
    shutil.copytree(good, bad)
    try:
        (bad / "trajectories" / "trajectories.json").write_text("{")
        with TestClient(app, "http://127.0.0.1:8765") as client:
            names = [each["name"] for each in client.get("/api/series").json()]
            assert names == ["series_bad", good.name]
            assert client.get("/api/series/series_bad").status_code == 409
    finally:
        shutil.rmtree(bad)


@pytest.fixture
def page(app: Any) -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("there is no Chromium: install Debian's package chromium")
    said: list[str] = []
    with Server(app, "127.0.0.1", 0) as server, playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1100, "height": 760})
        opened.on("console", lambda message: said.append(message.text))
        opened.on("pageerror", lambda error: said.append(str(error)))
        opened.goto(f"{server.url}trajectories")
        yield opened
        browser.close()
    assert said == []


def test_a_slider_goes_through_time(page: Any) -> None:
    from playwright.sync_api import expect

    expect(page.locator("#sentence")).to_have_text(
        re.compile(r"series_\S+: \d+ tracks, \d+ of them active, in 18 frames")
    )
    expect(page.locator("#when")).to_have_text("0.00 s (1 / 18)")
    page.wait_for_function("() => document.getElementById('frame').naturalWidth === 160")
    assert page.evaluate(_COLOURED) > 100
    assert int(page.locator("#tracks").get_attribute("data-objects")) > 2
    page.locator("#moment").focus()
    page.keyboard.press("End")
    expect(page.locator("#when")).to_have_text("1.70 s (18 / 18)")
    tails = page.evaluate(_COLOURED)
    page.check("#whole")
    assert page.evaluate(_COLOURED) > tails
    page.get_by_role("button", name="Play").click()
    expect(page.locator("#when")).not_to_have_text("1.70 s (18 / 18)")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Play")).to_be_visible()
    for width, height in ((1100, 760), (820, 1180), (390, 844)):
        page.set_viewport_size({"width": width, "height": height})
        box = page.locator("#frame").bounding_box()
        assert min(box["width"], box["height"]) > 300
        assert page.evaluate("document.documentElement.scrollWidth") <= width


_COLOURED = """() => {
  const canvas = document.getElementById('tracks');
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', { willReadFrequently: true });
  copy.drawImage(canvas, 0, 0);
  const pixels = copy.getImageData(0, 0, canvas.width, canvas.height).data;
  let count = 0;
  for (let i = 3; i < pixels.length; i += 4) count += pixels[i] > 0;
  return count;
}"""
