"""Calibrations kept beside the slides: one for each objective and camera."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deblurd.acquire.microscope import MicroscopeInfo
from deblurd.calibrate.kept import FILE, KeptCalibrations
from deblurd.errors import OutputError
from deblurd.geometry import PixelToStage
from deblurd.track.calibration import Calibration

INFO = MicroscopeInfo(
    "Cam", "XY", (64, 64), "uint8", "linear", 5.0, 3.0, PixelToStage.from_scale(0.5), "10x", "1"
)


def found(scale: float = 0.503, rotation_deg: float = 0.7) -> Calibration:
    return Calibration(
        PixelToStage.from_scale(scale, rotation_deg),
        np.array([0.001, 0.002]),
        np.array([1.0, 0.5]),
        np.full(2, 1e-3),
        np.full(2, 2e-4),
        np.full(2, 0.1),
        80,
        0.2,
    )


def test_what_was_found_comes_back_for_the_same_objective_and_camera_only(tmp_path: Path) -> None:
    KeptCalibrations(tmp_path).keep(INFO, found())
    kept = KeptCalibrations(tmp_path)
    assert kept.get(INFO).to_dict() == found().to_dict()
    for other in (replace(INFO, objective="40x"), replace(INFO, camera="Other")):
        assert not kept.get(other).is_known
    kept.keep(replace(INFO, objective="40x"), found(0.501))
    assert kept.get(INFO).to_dict() == found().to_dict()


def test_a_latency_that_is_configured_anew_takes_its_part_of_the_lag(tmp_path: Path) -> None:
    kept = KeptCalibrations(tmp_path)
    kept.keep(INFO, found())
    assert kept.get(replace(INFO, latency_ms=4.0)).lag_s == pytest.approx([0.002, 0.003])


@pytest.mark.parametrize(
    "configured",
    [
        PixelToStage.from_scale(0.25),
        PixelToStage.from_scale(0.5, mirrored=True),
        PixelToStage.from_scale(0.5, 90),
    ],
)
def test_what_no_longer_fits_the_configuration_is_passed_over(
    tmp_path: Path, configured: PixelToStage
) -> None:
    kept = KeptCalibrations(tmp_path)
    kept.keep(INFO, found())
    got = kept.get(replace(INFO, affine=configured))
    assert not got.is_known
    assert got.affine is configured


@pytest.mark.parametrize(
    "content", ["", "[]", '{"Cam, 10x": {}}', '{"Cam, 10x": {"calibration": {}, "latency_ms": 1}}']
)
def test_a_damaged_file_is_measured_anew(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content, encoding="utf-8")
    kept = KeptCalibrations(tmp_path)
    assert not kept.get(INFO).is_known
    kept.keep(INFO, found())
    assert kept.get(INFO).is_known


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"calibrations\.json"):
        KeptCalibrations(tmp_path / "gone").keep(INFO, found())
