"""A slide of which more frames are recorded than the mosaic needs, through the daemon's own pipeline."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from deblurd.cli import main
from deblurd.frames import Frame, Tile
from deblurd.fuse.views import LIGHT_CHANGED
from deblurd.fusing import FIRST_SOURCE
from deblurd.light import from_linear, to_linear
from deblurd.record.journal import Journal
from deblurd.simulator.options import DemoOptions
from tests.deblur.samples import tissue
from tests.fuse.virtual_scan import Scanned, VirtualScan, scan


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Scanned:
    return scan(_options("single", tmp_path_factory.mktemp("single")))


@pytest.fixture(scope="module")
def burst(tmp_path_factory: pytest.TempPathFactory) -> Scanned:
    return scan(_options("burst", tmp_path_factory.mktemp("burst")))


def _options(plan: str, output: Path) -> DemoOptions:
    slide = output / "slide.png"
    cv2.imwrite(str(slide), cv2.cvtColor(cv2.GaussianBlur(tissue(420, 560), (0, 0), 0.7), cv2.COLOR_RGB2BGR))
    return DemoOptions(
        slide=slide,
        pixel_size_um=0.5,
        area_mm=(0.25, 0.16),
        fov_px=192,
        plan=plan,
        scan_s=2.0,
        light_e_ms=150.0,
        fps=30.0,
        model="wiener",
        output=output,
    )


def test_a_fused_mosaic_is_better_than_one_of_single_frames_in_the_same_time(
    single: Scanned, burst: Scanned
) -> None:
    assert burst.scan_s == pytest.approx(single.scan_s, rel=0.1)
    assert burst.psnr_db > single.psnr_db + 1.5
    assert burst.finished.observations_mean > 2
    assert single.finished.observations_mean == 1


def test_all_frames_are_recorded_and_only_tiles_are_shown(burst: Scanned) -> None:
    rows = _rows(burst)
    shown = [row for row in rows if row["gate"] is not None]
    assert burst.finished.acknowledged == len(rows) > 2 * len(shown)
    assert burst.finished.tiles == len(shown)


def test_provenance_names_the_number_of_frames(burst: Scanned) -> None:
    group = zarr.open_group(str(burst.finished.folder.mosaic), mode="r")
    label: Any = group["labels/source"]
    ids = set(np.unique(np.asarray(label["0"])).tolist()) - {0}
    named = {
        each["label-value"]: each.get("source", each)
        for each in label.attrs["ome"]["image-label"]["properties"]
    }
    assert ids <= named.keys()
    assert any("fused from" in str(named[n]) for n in ids)
    manifest = json.loads(burst.finished.folder.manifest.read_text(encoding="utf-8"))
    assert manifest["observations_mean"] > 2


def test_repainting_fuses_as_the_scan_did_or_not_at_all(
    burst: Scanned, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = burst.finished.folder
    pixels, counts = _mosaic(burst)
    assert len(np.unique(counts[counts >= FIRST_SOURCE])) > 2, "each pixel has its own count of frames"

    assert main(["slides", "repaint", str(folder.path), "--model", "wiener", "--no-fuse"]) == 0
    alone, sources = _mosaic(burst)
    assert sources.max() < FIRST_SOURCE
    assert folder.read_manifest()["observations_mean"] == 1.0
    assert alone.shape == pixels.shape

    capsys.readouterr()
    assert main(["slides", "repaint", str(folder.path), "--model", "wiener", "--fuse"]) == 0
    assert "frames a pixel" in capsys.readouterr().out
    again, counts_again = _mosaic(burst)
    assert np.abs(pixels.astype(int) - again).max() <= 1
    assert (counts != counts_again).mean() < 1e-3
    assert np.abs(pixels.astype(int) - alone).mean() > 1
    manifest = folder.read_manifest()
    assert manifest["raw_frames"] == {
        "kept": burst.finished.acknowledged,
        "shown_by_themselves": burst.finished.tiles,
    }


class _Dimmed(VirtualScan):
    """Somebody turns the lamp down in the middle of the scan."""

    def _shot(self, exposed: Any) -> tuple[Frame, Tile]:
        frame, tile = super()._shot(exposed)
        if frame.number < 40:
            return frame, tile
        dim = from_linear(0.7 * to_linear(frame.pixels, "srgb"), np.uint8, "srgb")
        return replace(frame, pixels=dim), tile


def test_a_lamp_that_changes_in_mid_scan_is_said_at_once_and_in_the_verdict(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    finished = scan(_options("burst", tmp_path), _Dimmed).finished
    assert [each.levelname for each in caplog.records if each.getMessage() == LIGHT_CHANGED] == ["WARNING"]
    assert "fused from" in finished.verdict
    assert LIGHT_CHANGED in finished.verdict
    assert main(["slides", "show", str(finished.folder.path)]) == 0
    assert "changed" in capsys.readouterr().out


def _mosaic(scanned: Scanned) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Pixels (c, y, x), and provenance (y, x)."""
    group = zarr.open_group(str(scanned.finished.folder.mosaic), mode="r")
    label: Any = group["labels/source"]
    return np.asarray(group["0"]), np.asarray(label["0"])


def _rows(scanned: Scanned) -> list[dict[str, Any]]:
    journal = Journal(scanned.finished.folder.journal, read_only=True)
    try:
        return journal.rows()
    finally:
        journal.close()
