"""A slide worked through again: the same pixels, whatever happened in between."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from deblurd.cli import main
from deblurd.errors import DataError
from deblurd.record.journal import Journal
from deblurd.resume import resume, resume_all
from deblurd.slides.catalog import slides
from deblurd.slides.folder import SlideFolder
from deblurd.slides.verify import verify


def pixels(mosaic: Path) -> tuple[np.ndarray, np.ndarray, Any]:
    group = zarr.open_group(str(mosaic), mode="r")
    image: Any = group["0"]
    label: Any = group["labels/source/0"]
    ome: Any = group.attrs["ome"]
    return np.asarray(image[:]), np.asarray(label[:]), ome["multiscales"][0]["datasets"]


def same(a: Path, b: Path) -> None:
    for first, second in zip(pixels(a), pixels(b), strict=True):
        if isinstance(first, np.ndarray):
            assert first.shape == second.shape
            assert np.array_equal(first, second)
        else:
            assert first == second


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
    assert done.tiles == Journal(slide.journal).count()
    same(slide.mosaic, SlideFolder(finished).mosaic)
    assert slide.read_manifest()["state"] == "done"
    assert {p.name for p in slide.path.iterdir()} >= {"mosaic.ome.zarr", "raw.zarr", "slide.json"}
    assert not list(slide.path.glob("*.part"))
    assert not slide.scratch.exists()
    assert verify(slide)[2] == []


def test_a_slide_is_painted_anew_of_its_raw_tiles_and_back(finished: Path, slide: SlideFolder) -> None:
    resume(slide, model="raw")
    assert set(np.unique(pixels(slide.mosaic)[1])) <= {0, 1}
    resume(slide, model="fast")
    same(slide.mosaic, SlideFolder(finished).mosaic)


def test_a_damaged_tile_is_named_and_left_out(slide: SlideFolder, capsys: pytest.CaptureFixture[str]) -> None:
    tile = next(path for path in sorted((slide.raw).rglob("*2.*")) if path.is_file())
    data = bytearray(tile.read_bytes())
    data[1000] ^= 0xFF
    tile.write_bytes(bytes(data))
    assert main(["slides", "verify", str(slide.path)]) == 65
    assert "are not what was recorded" in capsys.readouterr().out
    done, damaged = resume(slide)
    assert len(damaged) == 1
    assert done.tiles == Journal(slide.journal).count() - 1
    assert slide.read_manifest()["damaged"] == damaged


def test_what_cannot_be_resumed_says_why(slide: SlideFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["slides", "repaint", str(slide.path), "--model", "nope"]) == 66
    assert "there is no model" in capsys.readouterr().err
    assert slide.mosaic.is_dir()
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


def test_the_slides_of_a_folder(slide: SlideFolder, capsys: pytest.CaptureFixture[str]) -> None:
    output = slide.path.parent.parent
    assert [found.state for found in slides(output)] == ["done"]
    assert main(["slides", "list", "--output", str(output)]) == 0
    assert main(["slides", "show", str(slide.path)]) == 0
    assert "done" in capsys.readouterr().out
    assert main(["slides", "list", "--output", str(output / "nowhere")]) == 66


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no kill -9 here")
@pytest.mark.parametrize("tiles", [2, 9])
def test_kill_nine_loses_no_acknowledged_tile(tmp_path: Path, tiles: int) -> None:
    command = [sys.executable, "-m", "deblurd", "demo", "--area-mm", "0.6", "0.5", "--fov-px", "256"]
    command += ["--blur-px", "8", "--output", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            journals = list(tmp_path.glob("demo/*/journal.sqlite"))
            if journals and len(list(journals[0].parent.glob("raw.zarr/c*/*"))) >= tiles:
                break
            if journals and len(list(journals[0].parent.glob("raw.zarr/*"))) > tiles:
                break
            time.sleep(0.01)
        assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
    (journal,) = tmp_path.glob("demo/*/journal.sqlite")
    slide = SlideFolder(journal.parent)
    count = Journal(slide.journal).count()
    done, damaged = resume(slide)
    assert damaged == []
    assert done.tiles == count >= 1
    first = pixels(slide.mosaic)
    resume(slide)
    for a, b in zip(first[:2], pixels(slide.mosaic)[:2], strict=True):
        assert np.array_equal(a, b)
