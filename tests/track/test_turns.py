from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from deblurd.track.turns import TurnClock

LATENCY_S = 0.012
Floats = NDArray[np.float64]


def _errors(start_s: Floats, exposures_s: Floats, jitter_s: float = 0.0005) -> Floats:
    """By how much (s) start, middle and end of exposures are wrong, (n, 3), each asked for 5 frames later."""
    clock = TurnClock(1000 * float(exposures_s[0]), 1000 * LATENCY_S)
    late = np.random.default_rng(1).gamma(2, jitter_s / 1.414, len(start_s)) - 1.414 * jitter_s
    wrong = []
    for n, (start, own) in enumerate(zip(start_s, exposures_s, strict=True)):
        clock.see(n, float(start + own + LATENCY_S + late[n]), 1000 * float(own))
        asked = n - 5
        if asked >= 60 and clock.is_settled(asked):
            times = clock.exposure(asked, 1000 * float(exposures_s[asked]))
            assert times is not None
            assert clock.doubt_s(asked) == 0.0
            own = exposures_s[asked]
            wrong.append(np.array(times) - start_s[asked] - [0.0, own / 2, own])
    assert len(wrong) > len(start_s) / 2
    return np.array(wrong)


@pytest.mark.parametrize("turns_ms", [(20.0, 5.0), (8.0, 8.0), (5.0, 20.0, 12.0)])
def test_a_triggered_camera_begins_its_exposures_on_a_beat(turns_ms: tuple[float, ...]) -> None:
    exposures_s = np.resize(turns_ms, 400) / 1000
    assert np.abs(_errors(1000 + np.arange(400) / 30, exposures_s)).max() < 3e-4


@pytest.mark.parametrize("turns_ms", [(20.0, 5.0), (20.0, 14.0)])
def test_a_camera_that_begins_when_the_last_is_done_has_its_middles_on_one(
    turns_ms: tuple[float, ...],
) -> None:
    exposures_s = np.resize(turns_ms, 400) / 1000
    start_s = 1000 + np.concatenate([[0.0], np.cumsum(exposures_s)[:-1]])
    assert np.abs(_errors(start_s, exposures_s)).max() < 3e-4
