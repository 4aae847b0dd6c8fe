"""A slide whose camera has a rolling shutter: straightened wherever its pixels are read, and nowhere on the disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deblurd.deblur.model import find_model
from deblurd.frames import Frame, MotionVector, Pose, Tile
from deblurd.geometry import PixelToStage
from deblurd.pipeline import Finished, SlidePipeline, make_deblurrer
from deblurd.record.journal import Journal
from deblurd.record.raw import RawStore
from deblurd.replay.readers import read_recording
from deblurd.resume import resume
from deblurd.settings import DeblurSettings, MicroscopeSettings, MosaicSettings, Settings
from deblurd.simulator.optics import Optics
from deblurd.simulator.score import position_error_px, score_mosaic
from deblurd.simulator.sensor import Sensor
from deblurd.simulator.slide import open_slide
from deblurd.slides.camera import Camera
from deblurd.slides.folder import SlideFolder
from deblurd.slides.join import join
from deblurd.slides.repaint import paint_raw
from deblurd.slides.verify import verify
from deblurd.trajectory.sources import Told, open_series
from tests.soak.kill_nine import differences

SIDE, MARGIN, PIXEL_UM = 192, 12, 0.5
EXPOSURE_MS, ROLLING_MS, BLUR_PX = 5.0, 8.0, 8.0
SLIDE = open_slide(None, PIXEL_UM, 3, (0.5, 0.35))
AFFINE = PixelToStage.from_scale(PIXEL_UM)
CAMERA = Camera(
    (SIDE - 2 * MARGIN,) * 2 + (3,), "uint8", "srgb", AFFINE, EXPOSURE_MS, "virtual", rolling_ms=ROLLING_MS, margin_px=MARGIN
)  # fmt: skip


def centres_um() -> list[tuple[float, float, float]]:
    """(y, x, way) of frames along lanes there and back."""
    columns = np.arange(60.0, 440.0, 62.0)
    return [
        (y, x, 1.0 - 2 * (row % 2))
        for row, y in enumerate((60.0, 122.0, 184.0))
        for x in (columns[::-1] if row % 2 else columns)
    ]


def shots() -> Iterator[tuple[Frame, Tile]]:
    optics = Optics(SLIDE, AFFINE, (SIDE, SIDE), color=True)
    sensor = Sensor((SIDE, SIDE, 3), 8, "srgb", 20000.0, 4.0, 0.0, 1)
    u = (np.arange(64) + 0.5) / 64 - 0.5
    for number, (y, x, way) in enumerate(centres_um()):
        # in micrometres that the stage goes within an exposure
        travel = np.array([0.0, way * BLUR_PX * PIXEL_UM])
        rows = np.linspace(-0.5, 0.5, SIDE)[:, None] * travel * ROLLING_MS / EXPOSURE_MS
        light = optics.rolled_light(np.array([y, x]) + u[:, None] * travel, rows)
        dy, dx = -AFFINE.to_pixels(travel)
        motion = MotionVector(float(dy), float(dx), sigma_px=0.05)
        pose = Pose(number / 10, y, x, sigma_um=0.5)
        frame = Frame(sensor.expose(light, 0, number), number, pose.t_s, EXPOSURE_MS)
        yield frame, Tile(-1, 0, number, pose, motion, EXPOSURE_MS, frame.pixels.shape, "")


def scanned(output: Path, camera: Camera) -> Finished:
    settings = Settings(
        microscope=MicroscopeSettings(backend="simulator"),
        deblur=DeblurSettings(model="wiener"),
        mosaic=MosaicSettings(output=output, shading="off"),
    )
    folder = SlideFolder.create(output, "rolled")
    with make_deblurrer(find_model("wiener"), camera, settings.deblur) as deblurrer:
        pipeline = SlidePipeline(folder, camera, deblurrer, settings)
        for frame, tile in shots():
            pipeline.intake(frame, tile)
        finished = pipeline.finish()
    assert finished.failure is None
    folder.write_manifest({"config": json.loads(settings.model_dump_json())} | finished.to_manifest("done"))
    return finished


@pytest.fixture(scope="module")
def rolled(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return scanned(tmp_path_factory.mktemp("rolled"), CAMERA)


def psnr_db(finished: Finished, mosaic: Path | None = None) -> float:
    truth = {n: np.array([y, x]) for n, (y, x, _) in enumerate(centres_um())}
    rms_px, offset_um = position_error_px(finished.places, truth, AFFINE)
    assert rms_px < 1
    return score_mosaic(mosaic or finished.folder.mosaic, SLIDE, offset_um).psnr_db


def test_the_mosaic_is_as_straight_as_the_slide(rolled: Finished, tmp_path: Path) -> None:
    as_it_was = replace(CAMERA, shape=(SIDE, SIDE, 3), rolling_ms=0.0, margin_px=0)
    # 29.7 and 20.5
    assert psnr_db(rolled) > psnr_db(scanned(tmp_path, as_it_was)) + 5


def test_what_the_camera_gave_stays_on_the_disk(rolled: Finished) -> None:
    raw = RawStore.open(rolled.folder.raw)
    assert raw.shape == CAMERA.raw_shape == (SIDE, SIDE, 3)
    for number, (frame, _) in enumerate(shots()):
        np.testing.assert_array_equal(raw.read(number), frame.pixels)
    assert verify(rolled.folder)[2] == []


def test_it_comes_out_the_same_again(rolled: Finished, tmp_path: Path) -> None:
    with closing(Journal(rolled.folder.journal, read_only=True)) as journal:
        assert Camera.from_json(journal.slide("camera")).to_json() == CAMERA.to_json()
    again = SlideFolder(tmp_path / "slide" / rolled.folder.name)
    shutil.copytree(rolled.folder.path, again.path)
    resume(again)
    assert differences(again.mosaic, rolled.folder.mosaic) == []
    painted, _ = resume(again, model="raw")
    assert psnr_db(painted, paint_raw(again, tmp_path / "raw")) == pytest.approx(psnr_db(painted), abs=0.1)
    both, left_out = join(again, rolled.folder, tmp_path / "joined")
    assert left_out == []
    assert resume(both)[0].acknowledged == 2 * len(centres_um())


def test_who_follows_objects_sees_them_straight_and_a_replay_what_the_camera_gave(rolled: Finished) -> None:
    first, tile = next(shots())
    with open_series(rolled.folder.path, Told()) as series:
        assert series.shape == CAMERA.shape
        np.testing.assert_array_equal(series.read(0), CAMERA.straight(first.pixels, tile))
    recording = read_recording(
        rolled.folder.path, Settings(microscope=MicroscopeSettings(backend="simulator"))
    )
    assert recording.rolling_ms == ROLLING_MS
    np.testing.assert_array_equal(recording.frames[0].read(), first.pixels)


def test_a_frame_that_is_too_fast_for_the_margin_is_not_believed() -> None:
    _, tile = next(shots())
    assert CAMERA.believed(tile) is tile
    fast = replace(tile, motion=MotionVector(0.0, 2 * BLUR_PX))
    assert not CAMERA.believed(fast).motion.is_known
    # shorter exposures collect less blur at the same speed
    assert not CAMERA.believed(replace(tile, exposure_ms=EXPOSURE_MS / 2)).motion.is_known


def test_a_frame_of_which_nobody_said_how_long_it_was_exposed_counts_as_sharp() -> None:
    frame, tile = next(shots())
    tile = replace(tile, exposure_ms=0.0, motion=MotionVector(0.0, 0.0))
    assert CAMERA.believed(tile) is tile
    assert CAMERA.straight(frame.pixels, tile).shape == CAMERA.shape


def test_a_slide_from_before_rolling_shutters_were_known_reads_as_ever() -> None:
    old = json.loads(replace(CAMERA, rolling_ms=0.0, margin_px=0).to_json())
    del old["rolling_ms"], old["margin_px"]
    camera = Camera.from_json(json.dumps(old))
    assert camera.raw_shape == camera.shape
    frame, tile = next(shots())
    assert camera.straight(frame.pixels, tile) is frame.pixels
    assert camera.believed(tile) is tile
