"""What a technician is told who drives the stage by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deblurd.scan.advice import LEAST_GAIN_DB, advise
from deblurd.scan.plan import Conditions, expected_db

BRIGHT = Conditions((1.0, 1.0), (512, 512), 0.5, 30.0, light_e_ms=5000.0)


def test_in_bright_light_a_long_exposure_is_advised_against() -> None:
    found = advise(BRIGHT, 1000.0, 15.0, fuses=False)
    assert found is not None
    assert found.exposure_ms < 4.0
    before, after = (expected_db(BRIGHT, "single", 1000.0, (ms,), 1.0) for ms in (15.0, found.exposure_ms))
    # the exposure is rounded to two digits, which costs next to nothing
    assert after - before == pytest.approx(found.gain_db, abs=0.1)
    assert found.gain_db >= LEAST_GAIN_DB


def test_the_dimmer_the_light_the_longer_the_exposure() -> None:
    found = [
        advise(replace(BRIGHT, light_e_ms=light), 300.0, 0.11, fuses=False) for light in (20.0, 200.0, 2000.0)
    ]
    exposures = [each.exposure_ms for each in found if each is not None]
    assert len(exposures) == 3
    assert exposures == sorted(exposures, reverse=True)
    assert exposures[0] > 2 * exposures[2]


@pytest.mark.parametrize("fuses", [False, True])
def test_what_is_best_already_is_left_alone(fuses: bool) -> None:
    first = advise(BRIGHT, 500.0, 25.0, fuses=fuses)
    assert first is not None
    assert advise(BRIGHT, 500.0, first.exposure_ms, fuses=fuses) is None


def test_a_stage_at_rest_needs_no_advice() -> None:
    assert advise(BRIGHT, 0.0, 15.0, fuses=False) is None


def test_at_a_speed_that_is_too_much_for_any_exposure_the_shortest_is_advised() -> None:
    found = advise(replace(BRIGHT, shortest_ms=2.0), 20_000.0, 20.0, fuses=False)
    assert found is None or found.exposure_ms == 2.0
