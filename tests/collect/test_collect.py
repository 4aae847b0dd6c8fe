"""The same places sharp, out of focus and in motion: on the simulator they fit to a hundredth of a pixel."""

from __future__ import annotations

import csv
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from deblurd import cli
from deblurd.acquire import open_microscope
from deblurd.acquire.microscope import Microscope
from deblurd.collect.collector import Collector, Plan, collect, plan_over
from deblurd.collect.folder import CaptureFolder
from deblurd.collect.pairs import middle_light, pair
from deblurd.collect.watch import Watch
from deblurd.errors import OutputError, UsageError
from deblurd.frames import MotionVector, Pixels
from deblurd.host import logs
from deblurd.kernel import reblur
from deblurd.light import from_linear, to_linear
from deblurd.settings import MicroscopeSettings, ScanSettings, Settings, SimulatorSettings
from deblurd.train.dataset import list_images, usable_pairs
from deblurd.train.recipe import DataRecipe, DegradeRecipe
from tests.acquire.conftest import adapters
from tests.deblur.samples import blurred, psnr, tissue

SIMULATED: dict[str, Any] = {
    "slide_size_mm": (0.5, 0.4),
    "fov_px": (256, 256),
    "frames_per_s": 60.0,
    "pixel_size_um": 0.5,
    "jitter_ms": 0.1,
    "stage_read_ms": 0.5,
}


def settings(rolling_ms: float = 0.0, **scan: Any) -> Settings:
    return Settings(
        microscope=MicroscopeSettings(
            backend="simulator", exposure_ms=5.0, latency_ms=15.0, rolling_ms=rolling_ms, stage_poll_ms=3.0
        ),
        simulator=SimulatorSettings(**SIMULATED, rolling_ms=rolling_ms),
        scan=ScanSettings(**scan),
    )


def again(sharp: Pixels, motion: MotionVector, sigma_px: float) -> Pixels:
    return from_linear(reblur(to_linear(sharp, "srgb"), motion, sigma_px), np.uint8, "srgb")


def read(path: Path) -> Pixels:
    image = cv2.imread(str(path))
    assert image is not None
    return np.asarray(image)


@pytest.mark.parametrize("rolling_ms", [0.0, pytest.param(10.0, marks=pytest.mark.long)])
def test_a_place_is_captured_sharp_out_of_focus_and_in_motion(tmp_path: Path, rolling_ms: float) -> None:
    steps: list[tuple[int, int]] = []
    plan = Plan([(200.0, 250.0)], blur_px=(8,), defocus_um=(-6.0, 4.0))
    report = collect(
        settings(rolling_ms),
        tmp_path / "pairs",
        lambda _: plan,
        lambda *step: steps.append(step),
        threading.Event(),
    )
    assert (report.places, report.defocused, report.notes) == (1, 2, [])
    assert report.moving >= 4  # along y and x, there and back
    assert steps == [(n, 6) for n in range(1, 7)]
    with (tmp_path / "pairs" / "pairs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == report.moving + report.defocused
    directions = set()
    for row in rows:
        motion = MotionVector(*(float(row[key]) for key in ("dy", "dx", "bend_dy", "bend_dx")))
        seen, sharp = (read(tmp_path / "pairs" / row[kind]) for kind in ("blurred", "sharp"))
        # the sharp one, blurred as the list says, is the other one but for noise
        assert psnr(again(sharp, motion, float(row["defocus_px"])), seen, 16) > 36
        assert psnr(sharp, seen, 16) < 33
        if motion.length_px:
            # as far as the collector lets the stage be off; that the motion is right was seen above
            assert motion.length_px == pytest.approx(8, rel=0.25)
            directions.add((round(motion.dy / 8), round(motion.dx / 8)))
        else:
            assert float(row["defocus_px"]) == pytest.approx(abs(float(row["z_um"])) * 0.2 / 0.5, rel=0.1)
    assert directions == {(1, 0), (-1, 0), (0, 1), (0, -1)}

    entries = list_images(tmp_path, DataRecipe())  # what the trainer makes of it
    assert {entry.group for entry in entries} == {"place_000"}
    assert len(usable_pairs(entries, DegradeRecipe())) == report.moving
    assert len(usable_pairs(entries, DegradeRecipe(rest_share=0.5))) == len(rows)


def test_a_stop_leaves_whole_what_was_taken(tmp_path: Path) -> None:
    stop = threading.Event()
    plan = Plan([(200.0, 250.0)] * 3, blur_px=(), defocus_um=(4.0,))

    def after_the_first(done: int, total: int) -> None:
        stop.set()

    report = collect(settings(), tmp_path / "pairs", lambda _: plan, after_the_first, stop)
    assert report.places == 1
    assert "Stopped early" in report.notes[0]
    assert len((tmp_path / "pairs" / "pairs.csv").read_text("utf-8").splitlines()) == 2
    assert list((tmp_path / "pairs").rglob("*.part")) == []


def test_the_focus_comes_back_after_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    microscope = open_microscope(settings())
    microscope.focus_to_um(3.0)
    folder = CaptureFolder(tmp_path)
    plan = Plan([(200.0, 250.0)], blur_px=(), defocus_um=(4.0,))

    def broken(*_: Any) -> None:
        assert microscope.z_um() == 7.0
        raise OutputError("no room")

    monkeypatch.setattr(folder, "add", broken)
    with pytest.raises(OutputError), Watch(microscope, threading.Event(), 0.003) as watch:
        Collector(microscope, folder, plan, lambda *_: None).run(watch)
    assert microscope.z_um() == 3.0
    microscope.close()


def test_a_folder_that_holds_pairs_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("blurred\n", "utf-8")
    with pytest.raises(OutputError, match="another folder"):
        CaptureFolder(tmp_path)


def test_what_cannot_be_registered_is_left_out() -> None:
    truth = tissue(seed=1)
    motion = MotionVector(0, 6)
    sharp = middle_light([truth] * 3, "srgb")
    nowhere = np.zeros(2)
    found = pair(sharp, blurred(truth, motion), motion, nowhere, "srgb")
    assert found is not None
    assert np.abs(found.shift_px).max() < 0.05
    assert pair(sharp, blurred(tissue(seed=2), motion), motion, nowhere, "srgb") is None
    assert pair(sharp, np.full_like(truth, 230), motion, nowhere, "srgb") is None


def test_a_frame_that_did_not_rest_does_not_show_in_the_sharp_one() -> None:
    truth = tissue(seed=1)
    frames = [truth] * 4 + [tissue(seed=2)]
    assert np.array_equal(middle_light(frames, "srgb"), to_linear(truth, "srgb"))


def test_places_are_named_or_spread_or_where_the_stage_stands() -> None:
    with_area = settings(area_mm=(0.4, 0.3), start_um=(100.0, 50.0))
    microscope = open_microscope(with_area)
    try:
        plan = Plan(())
        assert plan_over(plan, microscope, with_area, [(1.0, 2.0)], None).places_um == [(2.0, 1.0)]
        here = plan_over(plan, microscope, with_area, [], None).places_um
        assert np.allclose(here, [(0, 0)], atol=1)
        spread = plan_over(plan, microscope, with_area, [], 4).places_um
        assert 4 <= len(spread) <= 6
        assert all(50 < y < 50 + 172 and 100 < x < 100 + 272 for y, x in spread)
        for wrong in (
            {"places": 3, "settings": settings()},
            {"places": 0},
            {"plan": Plan((), blur_px=(0.5,))},
            {"plan": Plan((), defocus_um=(float("nan"),))},
        ):
            arguments = {"plan": plan, "settings": with_area, "places": None} | wrong
            with pytest.raises(UsageError):
                plan_over(microscope=microscope, at_um=[], **arguments)  # type: ignore[arg-type]
    finally:
        microscope.close()


def test_a_plan_that_makes_no_sense_leaves_no_folder(tmp_path: Path) -> None:
    plain, output = settings(), tmp_path / "pairs"

    def without_area(microscope: Microscope) -> Plan:
        return plan_over(Plan(()), microscope, plain, [], 3)

    with pytest.raises(UsageError):
        collect(plain, output, without_area, lambda _done, _all: None, threading.Event())
    assert not output.exists()


def test_it_is_a_command_and_runs_on_micro_manager_s_demo_camera(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "configure", lambda verbose: None)
    folder = adapters()
    if folder is None:
        pytest.skip("Micro-Manager's DemoCamera adapter is not on this machine")
    config = tmp_path / "democam.toml"
    config.write_text(
        f"""[microscope]
backend = "mmcore"
config_file = "MMConfig_demo.cfg"
adapter_path = {str(folder)!r}
exposure_ms = 5.0
pixel_size_um = 1.0
rotation_deg = 0.0
""",
        "utf-8",
    )
    arguments = ["collect", "--config", str(config), "--output", str(tmp_path / "pairs")]
    assert cli.main([*arguments, "--blur-px", "--defocus-um", "2"]) == 0
    said = capsys.readouterr().out
    assert "1 places, 0 frames in motion" in said
    assert (tmp_path / "pairs" / "pairs.csv").is_file()
