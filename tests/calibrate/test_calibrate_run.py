"""``deblurd calibrate`` on a real core: the virtual camera is not as configured, and the run finds out."""

from __future__ import annotations

import json
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deblurd import config
from deblurd.calibrate.kept import KeptCalibrations
from deblurd.calibrate.run import calibrate
from deblurd.cli import main
from deblurd.errors import DataError, MicroscopeError
from deblurd.record.journal import Journal
from deblurd.settings import MicroscopeSettings, MosaicSettings, ScanSettings, Settings, SimulatorSettings
from deblurd.simulator.demo import run_demo
from deblurd.simulator.options import DemoOptions
from deblurd.slides.camera import Camera
from deblurd.track.calibration import Calibration

pytestmark = pytest.mark.long


def settings(output: Path, told: dict[str, Any], **simulator: Any) -> Settings:
    return Settings(
        microscope=MicroscopeSettings(backend="simulator", exposure_ms=5.0, latency_ms=0.0, **told),
        simulator=SimulatorSettings(
            **(
                {
                    "fov_px": (192, 192), "slide_size_mm": (0.6, 0.6), "pixel_size_um": 0.5, "color": False,
                    "frames_per_s": 30.0, "latency_ms": 12.0, "jitter_ms": 1.0,
                }
                | simulator
            )
        ),
        scan=ScanSettings(start_um=(250.0, 250.0)),
        mosaic=MosaicSettings(output=output),
    )  # fmt: skip


def test_turn_latency_and_play_are_found_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a technician types it."""
    path = tmp_path / "deblurd.toml"
    told = settings(tmp_path, {"rotation_deg": 0.0}, rotation_deg=1.5, backlash_um=3.0)
    path.write_text(config.effective_text(told), encoding="utf-8")
    assert main(["calibrate", "--config", str(path)]) == 0
    turn_deg = float(capsys.readouterr().out.split("configuration: ")[1].split()[0])
    assert turn_deg == pytest.approx(1.5, abs=0.2)
    (kept,) = json.loads((tmp_path / "calibrations.json").read_text(encoding="utf-8")).values()
    found = Calibration.from_dict(kept["calibration"])
    assert found.is_known
    # the time that the machine takes to hand a frame on is a part of it
    assert 9 < -1000 * found.lag_s.mean() < 25
    assert found.play_um == pytest.approx([3.0, 3.0], abs=0.8)


@pytest.mark.parametrize("rolling_ms", [10.0, -6.0, 0.0])
def test_a_rolling_shutter_is_found_and_put_right_from_then_on(tmp_path: Path, rolling_ms: float) -> None:
    told = settings(tmp_path, {}, rolling_ms=rolling_ms, latency_ms=15.0, fov_px=(256, 256))
    found = calibrate(told)
    assert 1000 * found.calibration.row_s * 255 == pytest.approx(rolling_ms, rel=0.05, abs=0.3)
    assert any(line.startswith("rolling shutter: ") for line in found.lines())
    kept_ms = KeptCalibrations(tmp_path).rolling_ms(found.info)
    assert kept_ms == pytest.approx(rolling_ms, rel=0.05)
    # what the configuration says counts
    assert KeptCalibrations(tmp_path).rolling_ms(replace(found.info, rolling_ms=3.0)) == 3.0


def test_a_scan_finds_it_in_its_first_seconds_and_is_straight(tmp_path: Path) -> None:
    options = DemoOptions(
        area_mm=(0.5, 0.4), fov_px=256, exposure_ms=5.0, blur_px=8.0, rolling_ms=10.0, latency_ms=15.0, output=tmp_path
    )  # fmt: skip
    report = run_demo(options)
    with closing(Journal(Path(report["slide"]) / "journal.sqlite", read_only=True)) as journal:
        camera = Camera.from_json(journal.slide("camera"))
    assert camera.rolling_ms == pytest.approx(10.0, rel=0.1)
    assert camera.raw_shape == (256, 256, 3)
    assert report["psnr_db"]["deblurred"] > report["psnr_db"]["raw"]


@pytest.mark.parametrize(
    ("told", "word"),
    [({"pixel_size_um": 0.53}, "pixel_size_um"), ({"mirrored": True}, "mirrored")],
)
def test_a_camera_that_is_not_as_configured_stops_it_with_a_sentence(
    tmp_path: Path, told: dict[str, Any], word: str
) -> None:
    with pytest.raises(MicroscopeError, match=word):
        calibrate(settings(tmp_path, told))
    assert not (tmp_path / "calibrations.json").exists()


def test_without_anything_to_see_it_says_so(tmp_path: Path) -> None:
    stop = threading.Event()
    with pytest.raises(DataError, match="tissue in focus"):
        calibrate(settings(tmp_path, {}), lambda n, _: stop.set() if n > 50 else None, stop)
