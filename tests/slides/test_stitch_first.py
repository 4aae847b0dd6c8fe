"""The raw fields put together first, and the mosaic deblurred after."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deblurd import stitch_first as module
from deblurd.cli import main
from deblurd.frames import MotionVector, Place
from deblurd.geometry import PixelToStage
from deblurd.mosaic.reader import MosaicReader
from deblurd.record.journal import Journal
from deblurd.slides.camera import Camera
from deblurd.slides.folder import SlideFolder
from deblurd.slides.verify import verify
from deblurd.stitch_first import Boxes
from tests.soak.kill_nine import differences


def repaint(slide: SlideFolder, order: str, model: str = "fast") -> int:
    return main(["slides", "repaint", str(slide.path), "--model", model, "--order", order])


def test_a_slide_is_painted_in_the_other_order_and_back(finished: Path, slide: SlideFolder) -> None:
    assert repaint(slide, "stitch-first") == 0
    assert slide.read_manifest()["order"] == "stitch-first"
    assert slide.read_manifest()["state"] == "done"
    assert verify(slide)[2] == []
    before, after = MosaicReader(SlideFolder(finished).mosaic), MosaicReader(slide.mosaic)
    # by a pixel at either end
    assert np.abs(np.subtract(before.shapes[0], after.shapes[0])).max() <= 2
    assert after.state == "final"
    assert 2 in np.unique(after.read_source(0, 0, 0, *after.shapes[0][1:]))
    assert {p.name for p in slide.path.iterdir()} == {p.name for p in finished.iterdir()}
    assert repaint(slide, "deblur-first") == 0
    assert slide.read_manifest()["order"] == "deblur-first"
    assert differences(slide.mosaic, SlideFolder(finished).mosaic) == []


def test_without_a_model_it_is_the_raw_mosaic(slide: SlideFolder) -> None:
    assert repaint(slide, "stitch-first", "raw") == 0
    mosaic = MosaicReader(slide.mosaic)
    assert set(np.unique(mosaic.read_source(0, 0, 0, *mosaic.shapes[0][1:]))) <= {0, 1}


def test_where_it_fails_the_old_mosaic_is_back(
    finished: Path, slide: SlideFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(folder: SlideFolder, target: Path, without: object = ()) -> Path:
        target.mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "paint_raw", full)
    assert repaint(slide, "stitch-first") != 0
    assert "No space left" in capsys.readouterr().err
    assert differences(slide.mosaic, SlideFolder(finished).mosaic) == []
    assert slide.read_manifest()["state"] == "done"
    assert {p.name for p in slide.path.iterdir()} == {p.name for p in finished.iterdir()}


def test_a_slide_that_is_not_done_is_refused(slide: SlideFolder, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(slide.mosaic)
    assert repaint(slide, "stitch-first") == 65
    assert "slides resume" in capsys.readouterr().err


@pytest.mark.parametrize("rotation_deg", [0.0, 90.0, 180.0, 1.0])
@pytest.mark.parametrize("mirrored", [False, True])
def test_boxes_lie_inside_their_tiles(finished: Path, rotation_deg: float, mirrored: bool) -> None:
    folder = SlideFolder(finished)
    mosaic, journal = MosaicReader(folder.mosaic), Journal(folder.journal, read_only=True)
    camera = Camera.from_json(journal.slide("camera"))
    affine = PixelToStage.from_scale(mosaic.pixel_size_um, rotation_deg, mirrored)
    boxes = Boxes(mosaic, replace(camera, affine=affine, shape=(128, 160, 3)))
    y, x = np.linalg.inv(affine.rotation) @ (mosaic.origin_um / mosaic.pixel_size_um + 200)
    place = Place(float(y), float(x), 0.0)
    corner = boxes.corner(place)
    middle = boxes.place(corner).yx_px * mosaic.pixel_size_um
    assert np.abs(middle - affine.to_stage(place.yx_px)).max() <= 0.5 * mosaic.pixel_size_um + 1e-9
    assert boxes.cut(corner).shape == (boxes.height, boxes.width, 3)
    quarter = rotation_deg == 90.0
    assert max(boxes.height, boxes.width) <= 160
    assert (boxes.height < boxes.width) is not quarter
    if rotation_deg != 1.0:
        assert sorted((boxes.height, boxes.width)) == [128, 160]
    motion = boxes.motion(MotionVector(3.0, 4.0, 0.1, 0.2))
    assert motion.length_px == pytest.approx(5.0)
    assert math.hypot(motion.bend_dy, motion.bend_dx) == pytest.approx(math.hypot(0.1, 0.2))
    journal.close()


def test_beyond_the_mosaic_stand_the_pixels_of_its_border(finished: Path) -> None:
    folder = SlideFolder(finished)
    mosaic, journal = MosaicReader(folder.mosaic), Journal(folder.journal, read_only=True)
    boxes = Boxes(mosaic, Camera.from_json(journal.slide("camera")))
    places = journal.places()
    corner = boxes.corner(places[0])
    inside, around = boxes.cut(corner), boxes.cut(corner, 20)
    assert np.array_equal(around[20:-20, 20:-20], inside)
    assert (around > 0).any(axis=2).all()
    journal.close()
