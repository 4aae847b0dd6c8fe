"""What pauses between frames tell, on paper."""

from __future__ import annotations

from datetime import datetime, timedelta
from time import perf_counter

import numpy as np
import pytest

from deblurd.acquire.arrival import Watch, received_s
from deblurd.acquire.losses import Losses

PERIOD_S = 0.02


def counted(arrived_s: np.ndarray, numbers: np.ndarray | None = None) -> dict[str, int]:
    losses = Losses()
    watch = Watch(losses)
    for number, at_s in enumerate(arrived_s) if numbers is None else zip(numbers, arrived_s, strict=True):
        watch.see(int(number), float(at_s))
    return losses.counts()


def with_clock(beats: np.ndarray, jitter_s: float, seed: int = 0) -> np.ndarray:
    """Arrivals of a camera that exposes on a clock's beats; each frame is late by itself."""
    return PERIOD_S * beats + np.random.default_rng(seed).gamma(2, jitter_s, len(beats))


@pytest.mark.parametrize("left_out", [1, 3])
@pytest.mark.parametrize("jitter_s", [1e-5, 5e-4, 2e-3])
def test_beats_that_a_camera_with_a_clock_leaves_out_are_suspected(left_out: int, jitter_s: float) -> None:
    beats = np.concatenate([np.arange(200), np.arange(200 + left_out, 300)])
    assert counted(with_clock(beats, jitter_s)) == {"suspected": left_out}


def test_a_late_frame_that_the_next_ones_make_up_for_is_no_loss() -> None:
    arrived = with_clock(np.arange(300), 5e-4)
    arrived[200] += 0.03
    arrived[201] = max(arrived[200] + 1e-3, arrived[201])
    assert counted(arrived) == {}


@pytest.mark.parametrize("seed", range(5))
def test_pauses_of_a_camera_without_a_clock_are_pauses(seed: int) -> None:
    rng = np.random.default_rng(seed)
    waits = PERIOD_S + rng.gamma(2, 5e-4, 2000)
    waits[rng.integers(150, 2000, 40)] += rng.uniform(0.5, 4, 40) * PERIOD_S
    assert counted(np.cumsum(waits)) == {}


def test_a_gap_in_the_numbers_is_certain() -> None:
    numbers = np.array([0, 1, 2, 5, 6])
    assert counted(PERIOD_S * numbers, numbers) == {"buffer": 2}


def test_the_time_of_receiving_is_believed_only_where_it_can_be() -> None:
    popped_s = perf_counter()
    waited = datetime.now() - timedelta(seconds=0.05)
    assert received_s(waited.isoformat(), popped_s, popped_s - 1) == pytest.approx(popped_s - 0.05, abs=0.02)
    an_hour_off = waited + timedelta(hours=1)
    for stamp in (None, "yesterday", an_hour_off.isoformat(), "2026-01-01T00:00:00+00:00"):
        assert received_s(stamp, popped_s, popped_s - 1) == popped_s
    assert received_s(waited.isoformat(), popped_s, popped_s - 0.01) == popped_s
