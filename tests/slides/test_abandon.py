"""A slide whose finishing is left off: soon, with everything that was recorded, and with the same mosaic later."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from deblurd.deblur.model import find_model
from deblurd.errors import DeblurdError
from deblurd.mosaic.store import MosaicStore, Patch
from deblurd.pipeline import Finished, SlidePipeline, make_deblurrer
from deblurd.resume import recorded, resume, settings_of
from deblurd.slides.catalog import entry
from deblurd.slides.folder import SlideFolder
from tests.soak.kill_nine import differences


@pytest.mark.parametrize("when", ["before the first is painted", "while the last are painted"])
def test_what_was_left_off_is_finished_later(
    slide: SlideFolder, finished: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    slide.write_manifest(slide.read_manifest() | {"state": "growing"})
    done = work_through(slide, monkeypatch, when == "before the first is painted")
    assert isinstance(done.failure, DeblurdError)
    assert done.mosaic is None
    manifest = done.to_manifest("stopped")
    assert manifest["state"] == "incomplete"
    assert "left unfinished" in manifest["reason"]
    slide.write_manifest(slide.read_manifest() | manifest)
    monkeypatch.undo()
    tiles = entry(slide, in_use=False).tiles
    again, damaged = resume(slide)
    assert (again.tiles, damaged) == (tiles, [])
    assert differences(slide.mosaic, SlideFolder(finished).mosaic) == []


def work_through(slide: SlideFolder, monkeypatch: pytest.MonkeyPatch, at_once: bool) -> Finished:
    """A pipeline that is given all tiles, and abandoned at once or when the end of its mosaic is being written."""
    shutil.rmtree(slide.mosaic)
    camera, *_ = recorded(slide, is_done=True)
    settings = settings_of(slide, slide.read_manifest(), "raw", None)
    settings = settings.model_copy(update={"mosaic": settings.mosaic.model_copy(update={"shard_px": 512})})
    with make_deblurrer(find_model("raw"), camera, settings.deblur) as deblurrer:
        pipeline = SlidePipeline(slide, camera, deblurrer, settings)
        write = MosaicStore.write_finer

        def write_and_leave(store: MosaicStore, *what: Any) -> Patch:
            if pipeline.progress.painted == pipeline.progress.recorded or not pipeline.stages[-1].backlog:
                pipeline.abandon()
            return write(store, *what)

        pipeline.again(without=())
        if at_once:
            pipeline.abandon()
        else:
            monkeypatch.setattr(MosaicStore, "write_finer", write_and_leave)
        return pipeline.finish()
