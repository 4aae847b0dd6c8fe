"""A disk that is really full: the daemon stays up and paused, deletes nothing, and goes on when there is room."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from deblurd.host.disk import free_bytes
from deblurd.page.daemon_view import DaemonView
from deblurd.resume import resume_all
from deblurd.serve.alerts import AlertLog
from deblurd.slides.catalog import slides
from deblurd.slides.verify import verify
from tests.soak.full_disk import fill, small_disk
from tests.test_faults import Watched, kept, simulated

pytestmark = pytest.mark.long

FLOOR_MB = 8


@pytest.fixture
def disk() -> Iterator[Path]:
    if sys.platform != "linux":
        pytest.skip("a small disk in memory is Linux's")
    try:
        with small_disk("96m") as folder:
            yield folder
    except (subprocess.CalledProcessError, OSError) as err:
        pytest.skip(f"no disk can be mounted here: {err}")


def on(disk: Path) -> Watched:
    settings = simulated(disk / "slides")
    return Watched(
        settings.model_copy(
            update={"mosaic": settings.mosaic.model_copy(update={"least_free_mb": FLOOR_MB, "shard_px": 512})}
        )
    )


def test_a_daemon_that_starts_on_a_full_disk_waits_for_room(disk: Path) -> None:
    filler = fill(disk)
    assert free_bytes(disk) == 0
    scan = on(disk)
    try:
        view = DaemonView(scan.daemon, AlertLog())
        scan.until(lambda: view.status().state == "paused")
        assert "delete or move old slides" in view.status().sentence
        assert "larger disk." in view.status().sentence
        assert "delete or move old slides" in str(view.unready())
        assert scan.daemon.sessions.slide is None
        filler.unlink()
        scan.until(lambda: scan.tiles >= 3)
    finally:
        scan.end()
    assert scan.failure is None
    kept(scan)


def test_a_disk_that_fills_up_in_mid_scan_pauses_the_slide_until_there_is_room(disk: Path) -> None:
    scan = on(disk)
    try:
        scan.until(lambda: scan.tiles >= 3)
        filler = fill(disk)
        scan.until(lambda: scan.daemon.sessions.held is not None)
        assert free_bytes(disk) < 1_000_000 * FLOOR_MB
        before = {slide.folder.name: slide.tiles or 0 for slide in slides(disk / "slides", in_use=True)}
        filler.unlink()
        scan.until(lambda: scan.daemon.sessions.held is None and scan.tiles >= 3)
    finally:
        scan.end()
    assert scan.failure is None
    # it went on, or, where the disk refused a tile before anybody looked, another one did and it was finished
    after = {slide.folder.name: slide for slide in slides(disk / "slides", in_use=False)}
    for name, tiles in before.items():
        assert (after[name].tiles or 0) >= tiles
    for slide in after.values():
        assert slide.state == "done", slide.note
        assert verify(slide.folder)[2] == []


def test_on_a_disk_that_stays_full_the_slide_is_left_for_the_next_start(disk: Path) -> None:
    scan = on(disk)
    try:
        scan.until(lambda: scan.tiles >= 3)
        filler = fill(disk)
        scan.until(lambda: scan.daemon.sessions.held is not None)
    finally:
        scan.end()
    [slide] = slides(disk / "slides", in_use=False)
    if scan.failure is None:
        # there was just room enough
        assert slide.state == "done"
        return
    assert "make room, and the next start finishes what is left" in str(scan.failure)
    assert slide.state in ("incomplete", "interrupted")
    filler.unlink()
    told: list[str] = []
    resume_all(disk / "slides", told.append, threading.Event())
    [slide] = slides(disk / "slides", in_use=False)
    assert slide.state == "done", told
    assert verify(slide.folder)[2] == []
