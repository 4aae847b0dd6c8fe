from __future__ import annotations

import json
from pathlib import Path

import pytest

from deblurd.cli import main
from deblurd.config import load
from deblurd.daemon import Daemon
from deblurd.photon.kept import FILE
from deblurd.slides.camera import Camera

CONFIG = """
[microscope]
backend = "simulator"
exposure_ms = 8
[simulator]
frames_per_s = 60
fov_px = [256, 256]
electrons_full_scale = 5000
{light}
[mosaic]
output = "{output}"
"""


def _config(tmp_path: Path, light: str) -> str:
    file = tmp_path / "deblurd.toml"
    file.write_text(CONFIG.format(light=light, output=(tmp_path / "out").as_posix()), encoding="utf-8")
    return str(file)


def test_a_camera_in_a_real_core_is_measured_kept_checked_and_planned_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    file = _config(tmp_path, "light_e_ms = 550")
    main(["check", "--config", file])
    assert "not measured yet" in capsys.readouterr().out
    assert main(["photons", "--config", file]) == 0
    assert "e-/count" in capsys.readouterr().out
    kept = next(iter(json.loads((tmp_path / "out" / FILE).read_text(encoding="utf-8")).values()))
    assert kept["full_scale_e"] == pytest.approx(5000, rel=0.15)
    assert kept["light_e_ms"] == pytest.approx(550, rel=0.3)
    main(["check", "--config", file])
    assert "e-/count" in capsys.readouterr().out
    assert main(["scan", "plan", "--config", file, "--area-mm", "1", "1", "--time-s", "20"]) == 0
    assert "not measured" not in capsys.readouterr().out
    daemon = Daemon(load(Path(file)))
    try:
        camera = Camera.from_json(daemon.camera.to_json())
    finally:
        daemon.close()
    assert (camera.full_scale_e, camera.read_e) == (kept["full_scale_e"], kept["read_e"])
    (tmp_path / "out" / FILE).write_text(
        '{"Camera, uint8, linear": {"gain_e": 1}, "Camera, uint8, srgb": 3}', encoding="utf-8"
    )
    main(["check", "--config", file])
    assert "not measured yet" in capsys.readouterr().out


def test_a_camera_that_exposes_by_itself_is_refused_with_the_safe_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["photons", "--config", _config(tmp_path, "")]) != 0
    said = capsys.readouterr().err
    assert "sets its own exposure or gain" in said
    assert "scans are planned for" in said
    assert not (tmp_path / "out" / FILE).exists()
