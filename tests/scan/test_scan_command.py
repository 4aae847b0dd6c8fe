"""``deblurd scan run``, as a technician types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deblurd.cli import _parser, main
from deblurd.commands.run import _scan_settings
from deblurd.errors import UsageError
from deblurd.settings import MicroscopeSettings, ScanSettings, Settings

CONFIG = """
[microscope]
backend = "simulator"
exposure_ms = 4.0
latency_ms = 2.0
[simulator]
fov_px = [128, 128]
slide_size_mm = [0.5, 0.4]
color = false
frames_per_s = 40.0
latency_ms = 2.0
jitter_ms = 0.5
[deblur]
model = "raw"
[mosaic]
output = "slides"
[serve]
enabled = false
"""


def asked(*words: str, **configured: Any) -> ScanSettings:
    settings = Settings(microscope=MicroscopeSettings(backend="simulator"), scan=ScanSettings(**configured))
    options = _parser().parse_args(["scan", "run", "--config", "deblurd.toml", *words])
    found: ScanSettings = _scan_settings(settings, options)
    return found


def test_what_is_typed_goes_before_what_is_configured() -> None:
    configured = {"area_mm": (3.0, 2.0), "overlap": 0.3, "speed_um_s": 100.0}
    assert asked(**configured).area_mm == (3.0, 2.0)
    assert asked(**configured).mode == "serpentine"
    assert asked(mode="stop_and_stare").mode == "stop_and_stare"
    assert asked("--stops").mode == "stop_and_stare"
    corners = asked("--corners-um", "0", "1", "-20", "30", "--speed-um-s", "50", **configured)
    assert corners.polygon_um == ((0.0, 1.0), (-20.0, 30.0))
    assert (corners.area_mm, corners.overlap, corners.speed_um_s) == (None, 0.3, 50.0)
    assert asked("--plan", "p.json", **configured).plan == Path("p.json")
    assert asked("--area-mm", "1", "2", polygon_um=((0, 0), (9, 9))).polygon_um is None
    tissue = asked("--tissue", "--start-um", "5", "6", plan=Path("p.json"), **configured)
    assert (tissue.area_mm, tissue.plan, tissue.start_um) == (None, None, (5.0, 6.0))


@pytest.mark.parametrize(
    ("words", "option"), [(("--speed-um-s", "0"), "--speed-um-s"), (("--area-mm", "1", "-1"), "--area-mm")]
)
def test_what_makes_no_sense_names_its_option(words: tuple[str, ...], option: str) -> None:
    with pytest.raises(UsageError, match=option):
        asked(*words)


@pytest.mark.long
def test_a_scan_says_its_speed_and_ends_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "deblurd.toml"
    file.write_text(CONFIG, encoding="utf-8")
    area = ["--corners-um", "70", "70", "230", "170", "--speed-um-s", "200"]
    assert main(["scan", "run", "--config", str(file), *area]) == 0
    said = capsys.readouterr()
    assert "The scan took" in said.out
    assert "lanes at 200 um/s" in said.err
    assert "which is more than" in said.err
    (manifest,) = (tmp_path / "slides").glob("*/*/slide.json")
    assert json.loads(manifest.read_text("utf-8"))["reason"] == "area done"


def test_what_is_wrong_before_the_first_frame_is_all_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deblurd.toml").write_text(CONFIG, "utf-8")
    assert main(["scan", "run", "--config", "deblurd.toml", "--corners-um", "0", "0", "0", "0"]) == 78
    said = capsys.readouterr()
    assert "encloses no area" in said.err
    assert "No slide was begun" not in said.out
