"""A slide worked through again: the same pixels, whatever happened in between."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from deblurd.cli import main
from deblurd.errors import DataError
from deblurd.record.journal import Journal
from deblurd.resume import resume, resume_all
from deblurd.slides.folder import SlideFolder
from deblurd.slides.verify import verify
from tests.soak.kill_nine import arrays, differences, faults_of, killed_after, scan, wait_for


def interrupt(slide: SlideFolder) -> None:
    """As a kill leaves it: half a mosaic, a scratch folder, a manifest that says growing."""
    content = slide.read_manifest()
    slide.manifest.write_text(json.dumps(content | {"state": "growing"}))
    shutil.rmtree(slide.mosaic / "0" / "c")
    slide.scratch.mkdir()
    (slide.path / "slide.json.part").write_text("{")


def test_an_interrupted_slide_gets_the_mosaic_that_it_would_have_had(
    finished: Path, slide: SlideFolder
) -> None:
    interrupt(slide)
    done, damaged = resume(slide)
    assert damaged == []
    with closing(Journal(slide.journal)) as journal:
        assert done.tiles == journal.count()
    assert differences(slide.mosaic, SlideFolder(finished).mosaic) == []
    assert slide.read_manifest()["state"] == "done"
    assert {p.name for p in slide.path.iterdir()} == {p.name for p in finished.iterdir()}
    assert verify(slide)[2] == []


def test_a_slide_is_painted_anew_of_its_raw_tiles_and_back(finished: Path, slide: SlideFolder) -> None:
    assert main(["slides", "repaint", str(slide.path), "--model", "raw"]) == 0
    assert set(np.unique(arrays(slide.mosaic)["labels/source/0"])) <= {0, 1}
    assert slide.read_manifest()["model"]["name"] == "raw"
    assert main(["slides", "repaint", str(slide.path), "--model", "fast"]) == 0
    assert differences(slide.mosaic, SlideFolder(finished).mosaic) == []


def test_what_cannot_be_resumed_says_why(slide: SlideFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["slides", "repaint", str(slide.path), "--model", "nope"]) == 66
    assert "there is no model" in capsys.readouterr().err
    assert slide.mosaic.is_dir()
    assert main(["slides", "resume", str(slide.path)]) == 0
    assert "is done already" in capsys.readouterr().out
    whole = slide.journal.read_bytes()
    slide.journal.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="restore it from a backup"):
        resume(slide)
    slide.journal.unlink()
    assert main(["slides", "repaint", str(slide.path), "--model", "raw"]) == 66


def test_all_unfinished_slides_of_a_folder_are_ended(slide: SlideFolder) -> None:
    output = slide.path.parent.parent
    hopeless = slide.path.with_name("demo_hopeless")
    shutil.copytree(slide.path, hopeless)
    (hopeless / "slide.json").unlink()
    (hopeless / "journal.sqlite").write_bytes(b"")
    interrupt(slide)
    told: list[str] = []
    resume_all(output, told.append, threading.Event())
    assert len(told) == 2
    assert any("was interrupted: finished with" in sentence for sentence in told)
    assert any("demo_hopeless is interrupted and could not be finished" in sentence for sentence in told)
    assert (hopeless / "raw.zarr").is_dir()
    resume_all(output, told.append, threading.Event())
    assert len(told) == 3


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no kill -9 here")
@pytest.mark.parametrize("tiles", [1, 4, 9])
def test_kill_nine_loses_no_acknowledged_tile_and_changes_no_pixel(tmp_path: Path, tiles: int) -> None:
    words = ("--area-mm", "0.6", "0.5", "--fov-px", "256", "--blur-px", "8")
    process = scan(tmp_path, "wiener", words)
    wait_for(process, lambda: len(list(tmp_path.glob("demo/*/raw.zarr/c.*"))) >= tiles)
    assert killed_after(process, 0.0)
    [path] = tmp_path.glob("demo/*")
    slide = SlideFolder(path)
    journal = Journal(slide.journal, read_only=True)
    acknowledged = journal.count()
    journal.close()
    assert main(["slides", "resume", str(path)]) == 0
    assert faults_of(slide, acknowledged, tmp_path) == []
