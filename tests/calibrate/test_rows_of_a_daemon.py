"""By which rolling shutter a daemon straightens: what is configured, what is kept, what its frames show."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deblurd.calibrate.kept import KeptCalibrations
from deblurd.daemon import Daemon
from deblurd.settings import (
    DeblurSettings,
    MicroscopeSettings,
    MosaicSettings,
    ScanSettings,
    Settings,
    SimulatorSettings,
)

HEIGHT, ROLLING_MS = 128, 10.0
RAW = (HEIGHT, HEIGHT, 3)


@contextmanager
def daemon(output: Path, told_ms: float | None = None, **scan: Any) -> Iterator[Daemon]:
    """On a microscope whose speeds in scans are a pixel in a millisecond."""
    settings = Settings(
        microscope=MicroscopeSettings(backend="simulator", exposure_ms=5.0, rolling_ms=told_ms),
        simulator=SimulatorSettings(fov_px=(HEIGHT, HEIGHT), slide_size_mm=(0.3, 0.3), pixel_size_um=0.5),
        scan=ScanSettings(
            **(
                {"mode": "serpentine", "area_mm": (0.1, 0.1), "speed_um_s": 500.0, "calibrate": "always"}
                | scan
            )
        ),
        deblur=DeblurSettings(model="wiener"),
        mosaic=MosaicSettings(output=output),
    )
    with closing(Daemon(settings)) as made:
        yield made


def show_rolling(made: Daemon, rolling_ms: float) -> None:
    """As if the frames had shown it."""
    witness = made._tracker.witness
    assert witness is not None
    witness._known = replace(
        witness.calibration,
        affine_sigma=np.full(2, 1e-3),
        lag_sigma_s=np.full(2, 1e-3),
        row_s=rolling_ms / 1000 / (HEIGHT - 1),
        row_sigma_s=1e-7,
    )
    made._mind_rows()


def test_frames_that_show_one_are_straightened_from_the_next_slide_on_and_by_the_next_daemon(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with daemon(tmp_path) as made:
        assert (made.camera.shape, made.camera.rolling_ms) == (RAW, 0.0)
        show_rolling(made, ROLLING_MS)
        assert made.camera.rolling_ms == pytest.approx(ROLLING_MS)
        assert made.camera.raw_shape == RAW
        assert made.camera.shape == (HEIGHT - 20, HEIGHT - 20, 3)
        assert made.sessions.camera is made.camera
        assert "10.0 ms apart from first to last" in caplog.text
        # it is said once, and better known by and by
        show_rolling(made, 12.0)
        assert made.camera.rolling_ms == pytest.approx(12.0)
        assert caplog.text.count("apart from first to last") == 1
        KeptCalibrations(tmp_path).keep(made.microscope.info, made._tracker.calibration)
    with daemon(tmp_path) as again:
        assert again.camera.rolling_ms == pytest.approx(12.0)
        assert again.camera.raw_shape == RAW


def test_what_is_configured_counts_and_a_contradiction_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with daemon(tmp_path, told_ms=-4.0) as made:
        before = made.camera
        assert (before.rolling_ms, before.shape) == (-4.0, (HEIGHT - 14, HEIGHT - 14, 3))
        show_rolling(made, -4.1)
        assert "apart" not in caplog.text
        show_rolling(made, ROLLING_MS)
        assert made.camera is before
        assert "and not -4 ms: change [microscope] rolling_ms" in caplog.text


def test_frames_at_rest_are_left_whole(tmp_path: Path) -> None:
    with daemon(tmp_path, told_ms=ROLLING_MS, mode="stop_and_stare") as made:
        assert (made.camera.shape, made.camera.rolling_ms) == (RAW, 0.0)


def test_a_speed_that_takes_too_wide_a_margin_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with daemon(tmp_path, told_ms=ROLLING_MS, speed_um_s=5000.0) as made:
        assert made.camera.margin_px == HEIGHT // 8 + 4
        assert "frames that move faster than 1455 um/s are taken again at rest" in caplog.text


def test_without_a_speed_a_scan_is_no_faster_than_rows_can_be_put_right(tmp_path: Path) -> None:
    with daemon(tmp_path, told_ms=ROLLING_MS, speed_um_s=None) as made:
        assert made.scan is not None
        course = made.scan._plan(0.0, (100.0, 100.0))
        assert course.speed_um_s == pytest.approx(made.camera.most_um_s)
        assert "would lie too far apart to be put right" in course.sentence


def test_without_a_speed_the_models_range_counts(tmp_path: Path) -> None:
    with daemon(tmp_path, told_ms=0.4, mode="watch") as made:
        longest_px = made.deblurrer.blur_range_px[1]
        assert made.camera.margin_px == pytest.approx(4 + 1.1 * 0.4 * longest_px / 5.0 / 2, abs=1)
