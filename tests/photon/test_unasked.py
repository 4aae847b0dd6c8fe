"""A camera is measured without anybody asking, once, and where it makes no sense the scan goes on without."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import numpy as np
import pytest

from deblurd.acquire import open_microscope
from deblurd.acquire.microscope import MicroscopeInfo
from deblurd.check import check
from deblurd.config import load
from deblurd.daemon import Daemon
from deblurd.frames import Frame, Pixels, Pose
from deblurd.geometry import PixelToStage
from deblurd.photon.kept import KeptTransfers
from deblurd.photon.transfer import PhotonTransfer
from deblurd.photon.unasked import EVERY_S, MOST_TRIES, WhileResting, measure_before_scan
from deblurd.record.journal import Journal
from deblurd.simulator.sensor import Sensor
from deblurd.slides.camera import Camera
from tests.photon.test_transfer import LIGHT

CONFIG = """
[microscope]
backend = "simulator"
isolated = false
exposure_ms = 8
latency_ms = 15
[simulator]
frames_per_s = 60
fov_px = [128, 128]
slide_size_mm = [0.3, 0.3]
electrons_full_scale = 5000
{light}
[scan]
mode = "serpentine"
start_um = [100, 100]
area_mm = [0.1, 0.08]
speed_um_s = 400
go_back = false
[deblur]
model = "wiener"
[mosaic]
output = "{output}"
"""


def _file(tmp_path: Path, light: str) -> Path:
    file = tmp_path / "deblurd.toml"
    file.write_text(CONFIG.format(light=light, output=(tmp_path / "out").as_posix()), encoding="utf-8")
    return file


def _scan(file: Path) -> Camera:
    """What the scan's slide was told of its camera."""
    daemon = Daemon(load(file))
    try:
        slide = daemon.run(lambda _: None, threading.Event()).slides[0]
    finally:
        daemon.close()
    assert slide.failure is None
    journal = Journal(slide.folder.journal, read_only=True)
    try:
        return Camera.from_json(journal.slide("camera"))
    finally:
        journal.close()


def test_a_scan_measures_the_camera_first_and_its_slide_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = _file(tmp_path, "light_e_ms = 550")
    with caplog.at_level(logging.INFO):
        camera = _scan(file)
    assert camera.full_scale_e == pytest.approx(5000, rel=0.15)
    assert camera.exposure_ms == 8
    assert [each for each in caplog.messages if each.startswith("measured Camera")]
    noise = next(each for each in check(file) if each.part == "camera noise")
    assert "e-/count" in noise.text


def test_it_is_measured_once_and_not_where_it_exposes_by_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings, kept = load(_file(tmp_path, "")), KeptTransfers(tmp_path)
    microscope = open_microscope(settings)
    try:
        with caplog.at_level(logging.INFO):
            assert measure_before_scan(microscope, kept) is None
        assert [each for each in caplog.messages if "sets its own exposure or gain" in each]
        kept.keep(microscope.info, PhotonTransfer(5000.0, 20.0, 4.0, 0.0, 255, 500.0, 8.0, 0.01))
        caplog.clear()
        with caplog.at_level(logging.INFO):
            assert measure_before_scan(microscope, kept) is None
        assert not caplog.messages
    finally:
        microscope.close()


class _Stream:
    """Frames by the simulator's sensor, one every tenth of a second."""

    def __init__(self, tmp_path: Path) -> None:
        self.info = MicroscopeInfo(
            "Camera", "XY", LIGHT.shape, "uint8", "srgb", 8.0, 15.0, PixelToStage.from_scale(0.5), "", ""
        )
        self.kept = KeptTransfers(tmp_path)
        self.resting = WhileResting(self.info, self.kept)
        self._sensor = Sensor(LIGHT.shape, 8, "srgb", 12_000.0, 6.0, 0.1, seed=3)
        self._number = 0

    def see(self, x_um: float = 0.0, *, shift: int = 0, exposure_ms: float = 8.0) -> PhotonTransfer | None:
        pixels: Pixels = self._sensor.expose(LIGHT * np.float32(0.9), 0, self._number)
        self._number += 1
        now_s = self._number / 10
        frame = Frame(np.roll(pixels, shift, axis=1), self._number, now_s, exposure_ms)
        return self.resting.see(frame, Pose(now_s - 0.05, 0.0, x_um))


def test_frames_at_rest_that_come_anyway_tell_the_gain(tmp_path: Path) -> None:
    stream = _Stream(tmp_path)
    # a stage that moves, and an exposure that changes
    assert not any(stream.see(10.0 * n) for n in range(5))
    assert stream.see(40.0, exposure_ms=9.0) is None
    found = stream.see(40.0, exposure_ms=9.0)
    assert found is not None
    assert found.full_scale_e == pytest.approx(12_000, rel=0.12)
    assert stream.kept.get(stream.info) == found
    assert stream.see(40.0, exposure_ms=9.0) is None, "it is measured once"
    assert WhileResting(stream.info, stream.kept).see(Frame(LIGHT, 0, 0.0, 8.0), None) is None


def test_a_specimen_that_moves_is_refused_until_nobody_asks_any_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stream = _Stream(tmp_path)
    with caplog.at_level(logging.INFO):
        for n in range(round(10 * EVERY_S) * (MOST_TRIES + 1)):
            assert stream.see(shift=n) is None
    assert len([each for each in caplog.messages if "the picture moved by" in each]) == 1
    assert not any(stream.see() for _ in range(30))
