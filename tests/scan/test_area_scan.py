"""Scans of a small slide on a real core, from the first frame to the stage at rest: every place of the area is seen."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import shapely

from deblurd.acquire import open_microscope
from deblurd.acquire.microscope import Microscope
from deblurd.calibrate.run import make_tracker
from deblurd.errors import ConfigError, MicroscopeError
from deblurd.frames import Tile
from deblurd.scan.scan import AreaScan
from deblurd.settings import MicroscopeSettings, ScanSettings, Settings, SimulatorSettings
from deblurd.track.calibration import Calibration

FOV_UM = 64.0
AREA = shapely.box(68, 68, 68 + 250, 68 + 130)


def settings(**scan: Any) -> Settings:
    return Settings(
        microscope=MicroscopeSettings(backend="simulator", exposure_ms=4.0, latency_ms=2.0),
        simulator=SimulatorSettings(
            fov_px=(128, 128), slide_size_mm=(0.5, 0.4), pixel_size_um=0.5, color=False, frames_per_s=40.0, latency_ms=2.0, jitter_ms=0.5,
            stage_read_ms=1.0,
        ),
        scan=ScanSettings(**({"start_um": (100.0, 100.0), "area_mm": (0.25, 0.13), "speed_um_s": 250.0, "settle_ms": 100.0} | scan)),
    )  # fmt: skip


def scanned(
    given: Settings,
    failed: Sequence[tuple[float, float]] = (),
    drop: int | None = None,
    prepare: Callable[[Microscope], None] = lambda _: None,
) -> list[Tile]:
    """Runs it; the tiles. failed: middles of tiles that come to nothing. drop: a stretch of frames that never arrive begins so many after the start."""
    microscope = open_microscope(given)
    try:
        prepare(microscope)
        known = Calibration.configured(microscope.info.affine)
        tracker = make_tracker(given, microscope, known, learn=False)
        scan = AreaScan(given, microscope, tracker, 20.0, lambda: (failed, 100))
        scan.check()
        stop, tiles = threading.Event(), []
        tracker.start()
        begun = 0
        for frame in microscope.frames(stop):
            begun += np.isfinite(tracker.choose_from_s)
            lost = drop is not None and drop <= begun < drop + 20
            if not lost:
                tiles += [tile for _, tile in tracker.feed(frame)]
            scan.see(frame)
            if scan.done_s is not None and frame.arrived_s > scan.done_s + 0.5:
                stop.set()
        tiles += [tile for _, tile in tracker.drain()]
        scan.stop()
        tracker.stop()
        assert scan.failure is None
        return tiles
    finally:
        microscope.close()


def unseen(tiles: list[Tile]) -> float:
    """Share of the area that no tile shows."""
    half = FOV_UM / 2
    boxes = [
        shapely.box(t.pose.x_um - half, t.pose.y_um - half, t.pose.x_um + half, t.pose.y_um + half)
        for t in tiles
    ]
    return float(shapely.difference(AREA, shapely.union_all(boxes)).area / AREA.area)


@pytest.mark.long
def test_a_serpentine_sees_all_of_its_area() -> None:
    tiles = scanned(settings(mode="serpentine"))
    assert unseen(tiles) < 0.01
    assert any(tile.motion.length_px > 1 for tile in tiles)


@pytest.mark.long
def test_stop_and_stare_sees_it_at_rest() -> None:
    tiles = scanned(settings(mode="stop_and_stare", speed_um_s=1000.0))
    assert unseen(tiles) < 0.01
    assert max(tile.motion.length_px for tile in tiles) < 1
    # a field is taken once
    assert len(tiles) <= 16


@pytest.mark.long
def test_a_gap_is_gone_back_to() -> None:
    tiles = scanned(settings(mode="serpentine"), drop=30)
    assert unseen(tiles) < 0.01
    left = scanned(settings(mode="serpentine", go_back=False), drop=30)
    assert unseen(left) > 0.02


@pytest.mark.long
def test_a_tile_that_came_to_nothing_is_taken_again() -> None:
    at_um = (133.0, 200.0)
    tiles = scanned(settings(mode="serpentine"), failed=[at_um])
    last = tiles[-1]
    assert np.hypot(last.pose.y_um - at_um[0], last.pose.x_um - at_um[1]) < 30
    assert last.motion.length_px < 3


def test_the_plane_that_autofocus_finds_at_three_places_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slide is tilted; the virtual microscope has no device that would find it in focus."""
    asked: list[tuple[float, float]] = []
    off_um: list[float] = []

    def sharp_at_um(microscope: Microscope) -> float:
        y_um, x_um = microscope.position_um()
        return 3.0 + x_um / 50 - y_um / 80

    def tilt(microscope: Microscope) -> None:
        focus = microscope.focus_to_um

        def autofocus_um() -> float:
            asked.append(microscope.position_um())
            focus(sharp_at_um(microscope))
            return sharp_at_um(microscope)

        def focus_to_um(z_um: float) -> None:
            off_um.append(z_um - sharp_at_um(microscope))
            focus(z_um)

        monkeypatch.setattr(microscope, "autofocus_um", autofocus_um)
        monkeypatch.setattr(microscope, "focus_to_um", focus_to_um)

    given = settings(mode="stop_and_stare", speed_um_s=1000.0, autofocus=True, area_mm=(0.12, 0.1))
    scanned(given, prepare=tilt)
    assert len(set(asked)) == 3
    assert len(off_um) >= 4
    # said on the way, a moment before the stage is there
    assert np.median(np.abs(off_um)) < 0.3


@pytest.mark.parametrize(
    ("options", "error", "word"),
    [
        ({"focus_points_um": [(0, 0, 0), (1, 1, 0), (2, 2, 0)]}, ConfigError, "focus_points_um"),
        ({"polygon_um": [(0, 0), (0, 9)]}, ConfigError, "polygon_um"),
        ({"stage_limits_um": [(0, 0), (10, 10)]}, MicroscopeError, "stage_limits_um"),
        ({"stage_limits_um": [(0, 0), (250, 500)]}, MicroscopeError, "stage_limits_um"),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_moves(
    options: dict[str, Any], error: type[Exception], word: str
) -> None:
    with pytest.raises(error, match=word):
        scanned(settings(mode="serpentine", **options))
