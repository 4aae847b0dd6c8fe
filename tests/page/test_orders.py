"""What the page's buttons, and `deblurd slides`, do to a scan."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from deblurd import cli
from deblurd.host import logs
from deblurd.record.journal import Journal
from tests.page.scans import Scan
from tests.page.test_daemon_view import wait_for


class Page:
    """A scan, asked as its page asks."""

    def __init__(self, scan: Scan) -> None:
        self.scan = scan
        self.client = httpx.Client(base_url=scan.url)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get("/api/status").json()
        return found

    def until(self, state: str, least_fields: int = 0) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            status = self.status()
            return status if status["state"] == state and status["fields"] >= least_fields else None

        found: dict[str, Any] = wait_for(look, f"{state} with {least_fields} fields")
        return found

    def press(self, action: str, text: str = "") -> httpx.Response:
        return self.client.post(f"/api/actions/{action}", json={"text": text})


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with Scan(tmp_path / "slides") as scan:
        page = Page(scan)
        yield page
        page.client.close()


def events_of(folder: Path) -> list[tuple[str, str]]:
    journal = Journal(folder / "journal.sqlite", read_only=True)
    try:
        return [(kind, text) for _, _, kind, text in journal.events() if kind != "warning"]
    finally:
        journal.close()


def test_a_slide_is_labelled_paused_and_finished(page: Page, tmp_path: Path) -> None:
    first = page.until("scanning", 3)
    assert first["actions"] == ["finish", "pause", "discard", "label", "home"]
    assert page.press("start").status_code == 409
    assert page.press("label", "..").status_code == 409
    assert page.press("label", "A-17").json()["detail"] == "The slide at work is A-17."
    assert page.press("pause").json()["detail"].endswith("is paused: nothing is recorded until you resume.")
    paused = page.until("paused")
    assert paused["actions"] == ["finish", "resume", "discard", "label", "home"]
    assert paused["sentence"].startswith("Paused A-17:")
    assert page.scan.daemon.scan is not None
    assert page.scan.daemon.scan.is_paused
    # it needs some way to stop on
    wait_for(lambda: page.status()["frames"] > paused["frames"] + 30, "frames")
    at_um, fields, frames = page.status()["stage_um"], page.status()["fields"], page.status()["frames"]
    # until so many frames later, nothing has been recorded and the stage has not moved
    wait_for(lambda: page.status()["frames"] > frames + 30, "frames")
    assert page.status()["fields"] == fields
    assert page.status()["stage_um"] == pytest.approx(at_um, abs=2.0)
    page.press("resume")
    page.until("scanning", fields + 3)
    assert page.press("finish").json()["detail"] == "Finishing A-17."
    wait_for(lambda: page.client.get("/api/slides").json()[0]["state"] == "done", "finished slide")
    [slide] = page.client.get("/api/slides").json()
    assert slide["slide_id"] == "A-17"
    story = events_of(tmp_path / "slides" / "S-001" / first["slide"])
    assert [kind for kind, _ in story] == ["scanning", "label", "paused", "scanning", "closing", "done"]
    assert [text for _, text in story[:5]] == [
        "scan of an area",
        "A-17",
        "paused by hand",
        "resumed by hand",
        "finished by hand",
    ]


def test_the_next_label_ends_a_slide_and_a_discarded_one_stays_unpainted(page: Page, tmp_path: Path) -> None:
    page.until("scanning", 1)
    page.press("label", "A-1")
    wait_for(lambda: page.status()["label"] == "A-1", "label")
    answer = page.press("label", "A-2").json()["detail"]
    assert answer.startswith("A-1 is finished. The next slide is A-2")
    status = wait_for(lambda: (s := page.status())["label"] == "A-2" and s, "next label")
    assert status["state"] == "armed"
    assert status["sentence"].startswith("Ready for A-2")
    assert page.press("discard").status_code == 409
    assert page.press("start").is_success


def test_a_discarded_slide_is_left_alone(page: Page, tmp_path: Path) -> None:
    first = page.until("scanning", 3)
    assert "What was recorded stays" in page.press("discard").json()["detail"]
    [slide] = wait_for(
        lambda: (s := page.client.get("/api/slides").json())[0]["state"] == "incomplete" and s, "end"
    )
    assert slide["verdict"].startswith("discarded")
    folder = tmp_path / "slides" / "S-001" / first["slide"]
    assert ("closing", "discarded by hand") in events_of(folder)
    assert not (folder / "thumbnail.png").exists()
    assert (folder / "raw.zarr").is_dir()
    page.scan.stop.set()


def test_the_command_line_says_and_does_the_same(
    page: Page, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "configure", lambda verbose: None)
    page.until("scanning", 2)
    url = page.scan.url

    def said(*words: str) -> tuple[int, str]:
        code = cli.main([*words, "--url", url])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    assert said("slides", "pause") == (0, "S-001 is paused: nothing is recorded until you resume.\n")
    page.until("paused")
    assert said("status")[1].startswith("Paused S-001:")
    code, text = said("slides", "pause")
    assert code == 64
    assert "That makes no sense now. Paused S-001:" in text
    assert said("slides", "start") == (0, "S-001 goes on.\n")
    page.until("scanning")
    assert said("slides", "finish") == (0, "Finishing S-001.\n")


def test_orders_are_carried_out_while_the_camera_is_silent(page: Page) -> None:
    page.until("scanning", 2)
    simulation: Any = page.scan.daemon.microscope.simulation
    simulation.faults.camera_hangs = True
    frames = -1
    while frames != (frames := page.status()["frames"]):
        time.sleep(0.3)
    page.press("finish")
    assert page.until("closing")["frames"] == frames
    simulation.faults.camera_hangs = False


def test_a_scan_is_sent_home(page: Page, capsys: pytest.CaptureFixture[str]) -> None:
    """Also while it is paused; what was recorded until then is a slide."""
    page.until("scanning", 3)
    microscope = page.scan.daemon.microscope
    assert page.press("pause").is_success
    page.until("paused")
    wait_for(lambda: not microscope.is_moving(), "the stage at rest")
    assert cli.main(["scan", "home", "--url", page.scan.url]) == 0
    assert "the stage drives home" in capsys.readouterr().out
    scan = page.scan.daemon.scan
    assert scan is not None
    wait_for(lambda: scan.done_s is not None, "the stage at home")
    at_um = microscope.position_um()
    assert max(map(abs, at_um)) < 100, "where it began"
    wait_for(lambda: page.scan.daemon.report.slides, "the slide")
    (slide,) = page.scan.daemon.report.slides
    assert slide.tiles >= 3
    assert ("closing", "sent home by hand") in events_of(slide.folder.path)
