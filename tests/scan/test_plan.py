from __future__ import annotations

import math
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deblurd.cli import main
from deblurd.errors import UsageError
from deblurd.scan.plan import WAYS, Conditions, best_of, expected_db, plan, scan_time_s
from deblurd.settings import ScanSettings

SLIDE = Conditions((1.1, 1.1), (512, 512), 0.5, 30.0, 1000.0, can_alternate=True)


def test_there_is_a_plan_for_every_way_and_the_best_comes_first() -> None:
    plans = plan(SLIDE, time_s=7.0)
    assert sorted(each.way for each in plans) == sorted(WAYS)
    possible = [each.psnr_db for each in plans if each.is_possible]
    assert possible == sorted(possible, reverse=True)
    assert plans[0].psnr_db > next(each.psnr_db for each in plans if each.way == "single") + 3
    for each in plans:
        assert each.is_possible or "to settle" in each.why_not
        if each.is_possible:
            assert each.scan_s == pytest.approx(7.0)
            if each.way != "stop":
                assert scan_time_s(SLIDE, each.way, each.lane_overlap, each.speed_um_s) == pytest.approx(
                    7.0, rel=0.02
                )


def test_more_light_more_frames_and_more_time_are_never_worse() -> None:
    best = plan(SLIDE, time_s=7.0)[0].psnr_db
    assert plan(replace(SLIDE, light_e_ms=100.0), time_s=7.0)[0].psnr_db < best
    assert plan(replace(SLIDE, frames_per_s=10.0), time_s=7.0)[0].psnr_db < best
    assert plan(SLIDE, time_s=5.0)[0].psnr_db < best


def test_dim_light_asks_for_longer_exposures() -> None:
    bright, dim = (best_of("burst", replace(SLIDE, light_e_ms=e), 7.0) for e in (3000.0, 50.0))
    assert dim.exposures_ms[0] > 1.5 * bright.exposures_ms[0]


def test_an_exposure_never_saturates_nor_outlasts_the_frame() -> None:
    for light in (10.0, 1e4, 1e6):
        c = replace(SLIDE, light_e_ms=light)
        for each in plan(c, time_s=60.0):
            for ms in each.exposures_ms:
                assert ms * light <= c.full_e * 1.001 or ms <= c.shortest_ms * 1.001
                assert each.way == "stop" or ms <= 1000 / c.frames_per_s


def test_what_cannot_be_done_is_said() -> None:
    slow = replace(SLIDE, frames_per_s=2.0)
    assert "places would be missed" in best_of("burst", slow, 4.0).why_not
    assert "stops" in best_of("stop", SLIDE, 4.0).why_not
    assert (
        "cannot change its exposure" in best_of("alternate", replace(SLIDE, can_alternate=False), 7.0).why_not
    )
    assert "would have to drive" in best_of("single", replace(SLIDE, stage_um_s=100.0), 7.0).why_not


def test_a_wanted_quality_gives_the_fastest_way() -> None:
    plans = plan(SLIDE, psnr_db=36.0)
    assert plans[0].psnr_db >= 36.0
    assert plans[0].scan_s == min(each.scan_s for each in plans if each.is_possible)
    never = plan(SLIDE, psnr_db=200.0)
    assert not any(each.is_possible for each in never)
    assert "not better than" in never[0].why_not


@settings(max_examples=4, deadline=None)
@given(light=st.floats(1, 1e5), fps=st.floats(1, 200), time_s=st.floats(1, 100))
def test_any_conditions_give_plans_or_reasons(light: float, fps: float, time_s: float) -> None:
    for each in plan(replace(SLIDE, light_e_ms=light, frames_per_s=fps), time_s):
        assert math.isfinite(each.psnr_db) or each.why_not
        assert each.advice(0.5)


def test_nonsense_is_refused() -> None:
    for wrong in ({"light_e_ms": 0.0}, {"frames_per_s": math.nan}, {"area_mm": (0.0, 1.0)}):
        with pytest.raises(UsageError, match="must be a number above 0"):
            replace(SLIDE, **wrong)
    for time_s, psnr_db in ((None, None), (1.0, 30.0), (-1.0, None), (None, math.nan)):
        with pytest.raises(UsageError):
            plan(SLIDE, time_s, psnr_db)


def test_the_command_prints_the_table_and_the_best(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    words = ["scan", "plan", "--area-mm", "1", "1", "--fov-px", "512", "512", "--pixel-size-um", "0.5"]
    assert main([*words, "--time-s", "8", "--light", "1000"]) == 0
    out = capsys.readouterr().out
    assert "Best: " in out
    assert "was not measured" in out
    assert all(way in out for way in WAYS)
    assert main([*words, "--time-s", "0.1", "--light", "1000"]) == 64
    assert "no way of scanning is possible" in capsys.readouterr().err
    assert main([*words, "--time-s", "8"]) == 64
    assert "the light is not known" in capsys.readouterr().err


def test_each_plan_says_how_it_is_configured() -> None:
    for best in plan(SLIDE, 8.0):
        if best.is_possible:
            section, scan = best.settings()[0], best.settings()[1:]
            loaded = tomllib.loads("\n".join(scan))
            settings = ScanSettings(**loaded["scan"])
            assert section.startswith("microscope.exposure_ms = ")
            assert settings.speed_um_s == pytest.approx(best.speed_um_s, abs=1)
            turns = {"alternate": settings.exposures_ms, "lanes": settings.lane_exposures_ms}
            if best.way in turns:
                assert turns[best.way] == pytest.approx(best.exposures_ms, rel=1e-3)


def test_a_camera_of_a_configuration_is_asked_whether_it_takes_turns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    file = tmp_path / "deblurd.toml"
    file.write_text(
        f'[microscope]\nbackend = "simulator"\n[simulator]\nslide_size_mm = [0.3, 0.3]\n[mosaic]\noutput = "{tmp_path.as_posix()}"\n'
    )
    words = ["scan", "plan", "--config", str(file), "--area-mm", "1", "1", "--time-s", "8", "--light", "300"]
    known = ["--read-noise-e", "4", "--full-well-e", "20000"]
    assert main([*words, *known]) == 0
    assert "cannot change its exposure" not in capsys.readouterr().out
    monkeypatch.setattr("deblurd.acquire.mmcore.most_turns", lambda core: 0)
    assert main([*words, *known]) == 0
    assert "cannot change its exposure" in capsys.readouterr().out
    assert main([*words, *known, "--sequenced"]) == 64
    assert "said to be --sequenced" in capsys.readouterr().err


def test_a_small_area_is_seen_by_fewer_frames_than_its_middle() -> None:
    """Its ends make up more of it."""
    db = [
        expected_db(replace(SLIDE, area_mm=(side, side), frames_per_s=60.0), "burst", 500.0, (1.0,), 20.0)
        for side in (0.4, 4.0)
    ]
    assert db[0] < db[1] - 0.3


def test_a_short_motion_is_expected_to_stay_in() -> None:
    bright = replace(SLIDE, light_e_ms=20_000.0)
    alone = expected_db(bright, "single", 500.0, (1.0,), 1.0)
    assert expected_db(bright, "burst", 500.0, (1.0,), 4.0) > alone
    assert expected_db(bright, "single", 500.0, (0.5,), 1.0) > alone
