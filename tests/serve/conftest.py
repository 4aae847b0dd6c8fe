"""A view that needs no microscope, and clients that ask as a browser of our own page would."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from deblurd.errors import NoInputError, UsageError
from deblurd.serve.app import create_app
from deblurd.serve.guard import Access
from deblurd.serve.view import Action, Alert, Event, Mosaic, Picture, Slide, SlideField, State, Status

TOKEN = "correct horse battery staple"
FOLDER = "S-001_20261123T101500Z"


class FakeView:
    """One finished slide on the disk below `root`, one at work."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[tuple[Action, str]] = []
        self.why_not: str | None = None
        self.state: State = "scanning"
        slide = root / "S-001" / FOLDER
        zarr = slide / "mosaic.ome.zarr"
        (zarr / "0" / "c" / "0" / "0").mkdir(parents=True)
        (zarr / "zarr.json").write_text(json.dumps({"zarr_format": 3}), encoding="utf-8")
        (zarr / "0" / "c" / "0" / "0" / "0").write_bytes(bytes(range(256)) * 4)
        (slide / "thumbnail.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        (slide / "journal.sqlite").write_bytes(b"secret of the slide")
        (root / "secret.txt").write_text("secret of the folder", encoding="utf-8")

    def status(self) -> Status:
        return Status(
            sentence="Scanning S-001: 412 fields, 3 gaps.", state=self.state, slide=FOLDER, label="S-001",
            actions=["finish", "pause", "discard", "label"], frames=900, frames_per_s=29.9, lost={"buffer": 2},
            fields=412, placed=410, deblurred=400, painted=398, backlog={"record": 0, "deblur": 10}, gaps=3,
            stage_um=[100.0, 200.0], speed_um_s=5000.0, speed_limit_um_s=4100.0, engine="CPU", model="fast",
            free_bytes=10**12, disk_hours=7.5, newest_field=411, newest_frame=899, mosaic_revision=17, alerts=1,
        )  # fmt: skip

    def unready(self) -> str | None:
        return self.why_not

    def act(self, action: Action, text: str = "") -> str:
        if action == "resume" and self.state != "paused":
            raise UsageError("the slide is not paused: there is nothing to resume")
        self.asked.append((action, text))
        return f"{action}: done"

    def picture(self, kind: Picture) -> bytes | None:
        return None if kind == "after" else b"\xff\xd8jpeg"

    def alerts(self) -> list[Alert]:
        return [Alert(number=1, utc="2026-11-23T10:15:00.000Z", level="warning", text="2 frames lost")]

    def slides(self) -> list[Slide]:
        return [
            Slide(
                folder=FOLDER,
                slide_id="S-001",
                state="done",
                verdict="done",
                begun=None,
                fields=412,
                has_thumbnail=True,
                has_mosaic=True,
            )
        ]

    def folder(self, folder: str) -> Path:
        path = self.root / "S-001" / folder
        if not path.is_dir():
            raise NoInputError(f"there is no slide {folder}: look at the list of slides")
        return path

    def events(self, folder: str) -> list[Event]:
        self.folder(folder)
        return [Event(utc="2026-11-23T10:15:00.000Z", kind="begin", text="first tile")]

    def mosaic(self, folder: str) -> Mosaic:
        self.folder(folder)
        return Mosaic(
            size_px=[1024, 2048], used_px=[0, 0, 1024, 2048], levels=2, shard_px=1024, pixel_size_um=0.5,
            origin_um=[0.0, 0.0], revision=17, shards={"0,0": 17}, field_px=[512, 512],
        )  # fmt: skip

    def mosaic_tile(self, folder: str, level: int, row: int, column: int) -> bytes | None:
        self.folder(folder)
        return b"\xff\xd8jpeg" if (level, row, column) == (0, 0, 0) else None

    def fields(self, folder: str) -> list[SlideField]:
        self.folder(folder)
        return [SlideField(y_um=0.0, x_um=0.0, gate="deblur", sharpness=0.7)]


@pytest.fixture
def view(tmp_path: Path) -> FakeView:
    root = tmp_path / "output"
    root.mkdir()
    return FakeView(root)


@pytest.fixture
def client(view: FakeView) -> Iterator[TestClient]:
    app = create_app(view, Access(["scope.example"]))
    with TestClient(app, "http://127.0.0.1:8765", follow_redirects=False) as client:
        yield client


@pytest.fixture
def locked(view: FakeView) -> Iterator[TestClient]:
    """Where a token is asked for."""
    app = create_app(view, Access(token=TOKEN))
    with TestClient(app, "http://127.0.0.1:8765", follow_redirects=False) as client:
        yield client
