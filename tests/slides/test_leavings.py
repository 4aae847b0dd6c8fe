"""What kills, full disks and people leave of a slide, and what resuming makes of it."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deblurd.cli import main
from deblurd.errors import DataError, ModelError, NoInputError, OutputError
from deblurd.record.journal import Journal
from deblurd.record.recorder import Recorder
from deblurd.resume import resume, resume_all
from deblurd.slides.catalog import entry
from deblurd.slides.folder import SlideFolder
from deblurd.slides.painter import Painter
from deblurd.slides.verify import verify
from tests.soak.kill_nine import differences, leavings, undisturbed


def interrupted(slide: SlideFolder, **changes: Any) -> SlideFolder:
    """`slide` as if it had never been ended; changes: of what its manifest says."""
    content = {key: value for key, value in slide.read_manifest().items() if key != "schema"}
    for key in ("reason", "ended", "tiles", "acknowledged", "mosaic"):
        content.pop(key)
    slide.write_manifest(content | {"state": "growing"} | changes)
    return slide


def files(folder: Path) -> dict[str, bytes]:
    """All but the journal of a slide: opening it after a kill may change its header."""
    found = (p for p in folder.rglob("*") if p.is_file() and p.name != "journal.sqlite")
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


def test_a_scan_with_all_its_threads_gives_what_resuming_gives(slide: SlideFolder, tmp_path: Path) -> None:
    live = undisturbed(slide, tmp_path / "live")
    assert differences(slide.mosaic, live.mosaic) == []
    resume(interrupted(slide))
    assert differences(slide.mosaic, live.mosaic) == []
    assert leavings(slide) == []


def test_nothing_on_disk_is_needed_but_tiles_journal_and_manifest(slide: SlideFolder, finished: Path) -> None:
    interrupted(slide)
    shutil.rmtree(slide.mosaic)
    slide.thumbnail.unlink()
    resume(slide)
    assert differences(slide.mosaic, SlideFolder(finished).mosaic) == []
    assert slide.thumbnail.is_file()
    assert verify(slide)[2] == []


def test_stray_files_are_swept(slide: SlideFolder) -> None:
    interrupted(slide)
    (slide.path / "mosaic.ome.zarr.part" / "0").mkdir(parents=True)
    (slide.path / "positions.csv.part").write_text("half a li")
    (slide.raw / "c.99.0.0.0.part").write_bytes(b"half a ti")
    (slide.raw / "zarr.0a1b.partial").write_bytes(b"{")
    (slide.scratch / "c").mkdir(parents=True)
    slide.mosaic_before.mkdir()
    resume(slide)
    assert leavings(slide) == []
    assert verify(slide)[2] == []


def test_rows_that_were_never_acknowledged_are_no_tiles(slide: SlideFolder) -> None:
    tiles = entry(slide).tiles
    (slide.raw / f"c.{tiles}.0.0.0").write_bytes((slide.raw / "c.0.0.0.0").read_bytes())
    assert resume(interrupted(slide))[0].tiles == tiles
    assert verify(slide)[2] == []


@pytest.mark.parametrize("harm", ["altered", "torn", "missing"])
def test_a_raw_tile_that_is_not_what_was_recorded_is_named_and_left_out(
    slide: SlideFolder, harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    chunk = slide.raw / "c.2.0.0.0"
    data = chunk.read_bytes()
    chunk.unlink()
    if harm != "missing":
        chunk.write_bytes(data[:5000] if harm == "torn" else data[:5000] + b"!" + data[5001:])
    interrupted(slide)
    assert main(["slides", "resume", str(slide.path)]) == 0
    assert "raw pixels are damaged: tiles 2\n" in capsys.readouterr().out
    manifest = slide.read_manifest()
    assert (manifest["state"], manifest["damaged"]) == ("done", [2])
    assert manifest["tiles"] == manifest["acknowledged"] - 1
    journal = Journal(slide.journal, read_only=True)
    assert 2 not in journal.places()
    assert [text for *_, kind, text in journal.events() if kind == "damaged"] == [
        "the raw pixels of tile 2 are not what was recorded; left out"
    ]
    journal.close()
    assert verify(slide)[2] == [
        "the raw pixels of tile 2 are not what was recorded; the tile is left out of the mosaic"
    ]


def test_without_any_raw_tile_nothing_is_touched(slide: SlideFolder) -> None:
    for chunk in slide.raw.glob("c.*"):
        chunk.unlink()
    before = files(slide.path)
    with pytest.raises(DataError, match="nothing was changed"):
        resume(slide, model="raw")
    shutil.rmtree(slide.raw)
    with pytest.raises(NoInputError, match="holds no tiles"):
        resume(slide, model="raw")
    assert files(slide.path) == {
        name: data for name, data in before.items() if not name.startswith("raw.zarr")
    }


def test_a_model_that_is_gone_is_named_and_the_slide_stays_to_be_resumed(slide: SlideFolder) -> None:
    config = slide.read_manifest()["config"]
    interrupted(slide, config=config | {"deblur": config["deblur"] | {"model": "gone"}})
    before = files(slide.path)
    with pytest.raises(ModelError, match=r"no model 'gone'.*left as it is.*repaint"):
        resume(slide)
    assert files(slide.path) == before
    assert resume(slide, model="raw")[0].gates.get("deblur", 0) == 0


def test_a_configuration_may_stand_in_for_the_slides_own(
    slide: SlideFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "other.toml"
    file.write_text('[microscope]\nbackend = "simulator"\n[deblur]\nmodel = "wiener"\n')
    assert main(["slides", "resume", str(slide.path), "--config", str(file)]) == 0
    manifest = slide.read_manifest()
    assert (manifest["model"]["name"], manifest["config"]["deblur"]["model"]) == ("wiener", "wiener")
    assert manifest["config"]["slide"]["name"] == "demo"
    assert "deblurred" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"schema": 99, "state": "growing"}', "has schema 99, this deblurd reads 1"),
        ('{"state": "growing"}', "has schema None"),
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
    ],
)
def test_a_manifest_of_an_unknown_kind_is_left_alone(slide: SlideFolder, text: str, sentence: str) -> None:
    slide.manifest.write_text(text)
    before = files(slide.path)
    with pytest.raises(DataError, match=sentence):
        resume(slide)
    assert files(slide.path) == before
    found = entry(slide)
    assert found.state == "unreadable"
    assert sentence in found.note


def test_settings_that_this_version_does_not_know_are_named(slide: SlideFolder) -> None:
    interrupted(slide, config={"deblur": {"model": "raw", "magic": True}})
    with pytest.raises(DataError, match="configuration that this deblurd does not know"):
        resume(slide)


def no_room(*_: object) -> None:
    raise OutputError("the mosaic cannot be written (no space): make room")


def test_a_repaint_that_fails_gives_the_mosaic_back(
    slide: SlideFolder, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Painter, "finish", no_room)
        with pytest.raises(OutputError, match="make room"):
            resume(slide, model="raw")
    assert slide.read_manifest()["state"] == "done"
    assert differences(slide.mosaic, SlideFolder(finished).mosaic) == []
    assert leavings(slide) == []


def test_a_disk_that_is_full_leaves_a_slide_that_can_be_resumed(
    slide: SlideFolder, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(slide)
    with monkeypatch.context() as patch:
        patch.setattr(Painter, "finish", no_room)
        told: list[str] = []
        resume_all(slide.path.parent.parent, told.append, threading.Event())
        assert ["make room" in sentence for sentence in told] == [True]
    assert entry(slide).state == "incomplete"
    resume(slide)
    assert differences(slide.mosaic, SlideFolder(finished).mosaic) == []


def test_stopping_leaves_the_slide_as_it_was(slide: SlideFolder, finished: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(KeyboardInterrupt):
        resume(slide, model="raw", stop=stop)
    assert slide.read_manifest()["state"] == "done"
    assert differences(slide.mosaic, SlideFolder(finished).mosaic) == []
    with pytest.raises(KeyboardInterrupt):
        resume(interrupted(slide), stop=stop)
    assert entry(slide).state == "interrupted"
    resume(slide)
    assert differences(slide.mosaic, SlideFolder(finished).mosaic) == []


@pytest.mark.parametrize(
    "parts", [("raw.zarr",), ("raw.zarr", "journal.sqlite"), ("raw.zarr", "journal.sqlite-journal")]
)
def test_a_slide_without_a_tile_is_ended(tmp_path: Path, parts: Sequence[str]) -> None:
    slide = SlideFolder.create(tmp_path, "S-1")
    for part in parts:
        path = slide.path / part
        path.mkdir() if path.suffix == ".zarr" else path.write_bytes(b"")
    assert entry(slide).state == "interrupted"
    told: list[str] = []
    resume_all(tmp_path, told.append, threading.Event())
    assert told == [f"the slide {slide.name} was interrupted: finished with 0 tiles"]
    found = entry(slide)
    assert (found.state, found.tiles) == ("done", 0)
    assert found.manifest["reason"] == "interrupted before the first tile"
    resume_all(tmp_path, told.append, threading.Event())
    assert len(told) == 1


def test_half_a_first_tile_goes_with_its_slide(tmp_path: Path) -> None:
    slide = SlideFolder.create(tmp_path, "S-1")
    recorder = Recorder(slide.path, (8, 8), np.uint8)
    (slide.raw / "c.0.0.0.0.part").write_bytes(b"half")
    recorder.journal.close()
    assert resume(slide)[0].tiles == 0
    assert [path.name for path in slide.raw.iterdir()] == ["zarr.json"]


def test_a_run_ends_what_was_left_while_it_scans(
    slide: SlideFolder, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(slide)
    output = slide.path.parent.parent
    file = output / "run.toml"
    file.write_text(
        '[microscope]\nbackend = "simulator"\nexposure_ms = 5.0\n[simulator]\nslide_size_mm = [0.3, 0.2]\nfov_px = [128, 128]\n'
        '[scan]\nmode = "serpentine"\narea_mm = [0.15, 0.1]\nspeed_um_s = 500.0\nstart_um = [32.0, 32.0]\n'
        f'[deblur]\nmodel = "raw"\n[mosaic]\noutput = {json.dumps(str(output))}\n'
    )
    assert main(["run", "--config", str(file)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [
        each for each in said if each.startswith(f"the slide {slide.name} was interrupted: finished with ")
    ]
    assert differences(slide.mosaic, SlideFolder(finished).mosaic) == []
    assert [each.read_manifest()["state"] for each in map(SlideFolder, (output / "slide").iterdir())] == [
        "done"
    ]
