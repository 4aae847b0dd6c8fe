"""Exposure times out of arrivals that are late, jittery, stalled, and follow exposures that never came."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deblurd.track.clock import FrameClock

Floats = NDArray[np.float64]
EXPOSURE_S, LATENCY_S = 0.01, 0.012


def errors(
    beats: NDArray[np.int64], late_s: Floats, period_s: float, *, behind: int = 5, warm: int = 20
) -> Floats:
    """By how much (s) exposure ends are wrong, when each frame is asked for `behind` frames later."""
    clock = FrameClock(EXPOSURE_S * 1000, LATENCY_S * 1000)
    end = 5000.0 + beats * period_s
    wrong = []
    for i, arrived in enumerate(end + LATENCY_S + late_s):
        clock.see(i, float(arrived))
        asked = i - behind
        if asked >= warm and clock.is_settled(asked):
            times = clock.exposure(asked)
            assert times is not None
            wrong.append(times[2] - end[asked])
    return np.array(wrong)


def rms(values: Floats) -> float:
    return float(np.sqrt((values**2).mean()))


def skewed(rng: np.random.Generator, sd_s: float, n: int) -> Floats:
    """Mean nought, with a tail on the late side."""
    return np.asarray(rng.gamma(2, sd_s / math.sqrt(2), n) - math.sqrt(2) * sd_s)


@pytest.mark.parametrize("seed", range(3))
def test_a_line_is_ten_times_better_than_an_arrival(seed: int) -> None:
    late = skewed(np.random.default_rng(seed), 0.003, 1500)
    assert rms(errors(np.arange(1500), late, 1 / 30, warm=60)) < 0.00032


@pytest.mark.parametrize("share", [0.02, 0.2])
@pytest.mark.parametrize("seed", range(3))
def test_exposures_that_were_left_out_move_later_frames_by_whole_periods(share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    beats = np.cumsum(1 + (rng.random(600) < share))
    assert np.abs(errors(beats, skewed(rng, 0.002, 600), 1 / 30)).max() < 0.004


@pytest.mark.parametrize("seed", range(3))
def test_a_frame_that_is_merely_late_moves_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    late = skewed(rng, 0.001, 600) + np.where(rng.random(600) < 0.05, rng.exponential(0.05, 600), 0)
    assert np.abs(errors(np.arange(600), late, 1 / 30)).max() < 0.004


def test_a_burst_after_a_stall_moves_nothing() -> None:
    """At 400 frames/s the computer stands still for 30 ms: twelve frames come at once."""
    late = skewed(np.random.default_rng(0), 0.0002, 1000)
    late[500:512] += np.arange(12, 0, -1) * 0.0025
    assert np.abs(errors(np.arange(1000), late, 0.0025, behind=20)).max() < 0.0005


@pytest.mark.parametrize("period_s", [0.0025, 0.005])
def test_jitter_that_is_longer_than_the_period_is_averaged_away(period_s: float) -> None:
    late = skewed(np.random.default_rng(1), 0.003, 2000)
    assert rms(errors(np.arange(2000), late, period_s, behind=30, warm=200)) < 0.0006


def test_a_camera_that_changes_its_pace_is_followed() -> None:
    clock = FrameClock(EXPOSURE_S * 1000, LATENCY_S * 1000)
    end = np.cumsum(np.where(np.arange(400) < 200, 0.033, 0.05))
    for i, t in enumerate(end + LATENCY_S):
        clock.see(i, float(t))
    times = clock.exposure(399)
    assert times is not None
    assert times[2] == pytest.approx(end[399], abs=0.001)


@given(
    period_s=st.floats(0.004, 0.2),
    offset_s=st.floats(0, 1e5),
    gaps=st.lists(st.integers(1, 3), min_size=10, max_size=40),
)
@settings(max_examples=40, deadline=None)
def test_gaps_in_the_numbers_are_no_matter(period_s: float, offset_s: float, gaps: list[int]) -> None:
    numbers = np.cumsum(gaps)
    clock = FrameClock(EXPOSURE_S * 1000, LATENCY_S * 1000)
    for number in numbers:
        clock.see(int(number), offset_s + period_s * int(number) + LATENCY_S)
    for number in numbers:
        times = clock.exposure(int(number))
        assert times is not None
        assert times[2] == pytest.approx(offset_s + period_s * int(number), abs=1e-5)
        assert times[2] - times[0] == pytest.approx(EXPOSURE_S)
        assert times[1] == pytest.approx((times[0] + times[2]) / 2)


def test_it_needs_eight_frames_and_gets_surer() -> None:
    clock = FrameClock(EXPOSURE_S * 1000, LATENCY_S * 1000)
    late = skewed(np.random.default_rng(2), 0.003, 500)
    sigmas = []
    for i in range(500):
        assert (clock.exposure(0) is None) == (i < 8)
        assert not clock.is_settled(i) or i >= 8
        clock.see(i, i / 30 + float(late[i]))
        sigmas.append(clock.sigma_s)
    assert sigmas[5] == math.inf
    assert sigmas[-1] < 0.4 * sigmas[40]
    assert clock.period_s == pytest.approx(1 / 30, rel=0.001)


def test_the_newest_late_frame_waits_until_it_is_clear_what_it_means() -> None:
    clock = FrameClock(EXPOSURE_S * 1000, LATENCY_S * 1000)
    for i in range(50):
        clock.see(i, i / 30)
    clock.see(50, 51.2 / 30)
    assert clock.is_settled(49)
    assert not clock.is_settled(50)
    for i in range(51, 55):
        clock.see(i, i / 30)
    assert clock.is_settled(50)
    times = clock.exposure(50)
    assert times is not None
    assert times[2] + LATENCY_S == pytest.approx(50 / 30, abs=0.001)


def test_memory_is_bounded() -> None:
    clock = FrameClock(EXPOSURE_S * 1000, LATENCY_S * 1000)
    for i in range(3000):
        clock.see(i, i / 400)
    assert len(clock._numbers) <= 1024


def test_a_frame_that_is_late_before_a_gap_is_doubted() -> None:
    """A busy computer takes a frame two beats late, and leaves out the next two: which came first, arrivals do not tell."""
    clock, period, latency_s = FrameClock(10.0, 15.0), 1 / 30, 0.015
    late, left_out = 60, 2
    true_end_s = [period * (n + (left_out if n > late else 0)) for n in range(120)]
    for number, end_s in enumerate(true_end_s):
        clock.see(number, end_s + latency_s + (left_out * period if number == late else 0.0))
    off = []
    for number, end_s in enumerate(true_end_s[:110]):
        exposure = clock.exposure(number)
        assert exposure is not None
        off.append(exposure[2] - end_s)
        # what is not doubted is right, and what is doubted is wrong by no more than the doubt
        assert -1e-3 < off[-1] < clock.doubt_s(number) + 1e-3, number
    assert off[late] == pytest.approx(left_out * period, abs=1e-3)
    assert clock.doubt_s(late) == pytest.approx(left_out * period, rel=0.01)
    assert clock.doubt_s(late - 1) == clock.doubt_s(late + 1) == 0.0


@pytest.mark.parametrize("seed", range(4))
def test_what_is_not_doubted_is_right_however_busy_the_computer_is(seed: int) -> None:
    """Every second exposure is left out, and frames come late by up to several periods: the beat is gone, and comes back afterwards."""
    rng = np.random.default_rng(seed)
    period_s, calm, busy = 1 / 30, 200, 400
    is_busy = np.arange(2 * calm + busy) // calm % 3 != 0
    is_busy[-calm:] = False
    beats = np.cumsum(1 + np.where(is_busy, rng.integers(0, 3, len(is_busy)), 0))
    late = np.where(is_busy, rng.gamma(1.5, 0.03, len(is_busy)), rng.gamma(2.0, 0.0005, len(is_busy)))
    end_s = beats * period_s
    arrived_s = np.maximum.accumulate(end_s + LATENCY_S + late)
    clock, behind = FrameClock(EXPOSURE_S * 1000, LATENCY_S * 1000), 12
    is_wrong, is_trusted = np.zeros((2, len(beats)), dtype=bool)
    for number, at_s in enumerate(arrived_s):
        clock.see(number, float(at_s))
        if (asked := number - behind) >= 60:
            times = clock.exposure(asked)
            assert times is not None
            is_wrong[asked] = abs(times[2] - end_s[asked]) > period_s / 2
            is_trusted[asked] = clock.doubt_s(asked) == 0.0
    assert is_wrong[calm : calm + busy].mean() > 0.3
    assert (is_wrong & is_trusted).mean() < 0.01
    assert is_trusted[60 : calm - 40].mean() > 0.98
    assert is_trusted[-calm + 80 : -behind].mean() > 0.98


def test_jitter_longer_than_the_period_is_no_reason_for_doubt() -> None:
    rng = np.random.default_rng(3)
    clock = FrameClock(1.0, 15.0)
    for number, late in enumerate(rng.normal(0.0, 0.006, 300)):
        clock.see(number, number / 200 + 0.015 + float(late))
    assert np.mean([clock.doubt_s(number) == 0.0 for number in range(100, 260)]) > 0.95


@pytest.mark.parametrize(("pace_s", "spread_s"), [(0.03, 0.001), (0.1, 0.004)])
def test_a_camera_without_a_beat_is_timed_by_its_frames(pace_s: float, spread_s: float) -> None:
    """It starts each exposure when it is done with the one before: a line through many walks away from them."""
    rng = np.random.default_rng(1)
    end_s = np.cumsum(rng.normal(pace_s, spread_s, 1500))
    clock, wrong = FrameClock(EXPOSURE_S * 1000, LATENCY_S * 1000), []
    for number, arrived_s in enumerate(end_s + LATENCY_S + rng.normal(0.0, 0.0003, 1500)):
        clock.see(number, float(arrived_s))
        if (asked := number - 12) >= 100:
            times = clock.exposure(asked)
            assert times is not None
            wrong.append(times[2] - end_s[asked])
    # by the line alone it would be 3 and 11 ms
    assert rms(np.array(wrong)) < 0.0015


def test_what_was_believed_of_a_frame_can_be_put_in_terms_of_what_is_believed_now() -> None:
    """The first frames come late, as the computer is busy starting up."""
    clock = FrameClock(EXPOSURE_S * 1000, LATENCY_S * 1000)
    late = np.where(np.arange(400) < 60, 0.004, 0.0) + np.random.default_rng(4).normal(0, 0.002, 400)
    then, later = {}, {}
    for i, arrived in enumerate(100.0 + np.arange(400) / 30 + late):
        clock.see(i, float(arrived))
        if i in (50, 200):
            then[i], later[i] = clock.exposure(i), clock.revision(i)
            assert later[i]() == 0.0
    for i, exposure in then.items():
        now = clock.exposure(i)
        assert now is not None
        assert exposure is not None
        assert later[i]() == pytest.approx(now[1] - exposure[1], abs=1e-9)
    assert later[50]() < -0.001


def test_a_frame_that_was_timed_by_its_arrival_is_not_revised() -> None:
    """A camera that keeps no beat: its pace wanders, and no frame is late."""
    clock = FrameClock(EXPOSURE_S * 1000, LATENCY_S * 1000)
    arrivals = 100.0 + np.cumsum(0.033 * (1 + 0.003 * np.sin(np.arange(300) / 20)))
    for i, arrived in enumerate(arrivals[:170]):
        clock.see(i, float(arrived))
    before, revision = clock.exposure(150), clock.revision(150)
    for i, arrived in enumerate(arrivals[170:], 170):
        clock.see(i, float(arrived))
    assert before is not None
    assert before[2] == pytest.approx(arrivals[150] - LATENCY_S, abs=1e-6)
    assert revision() == 0.0


def test_a_clock_that_knows_nothing_yet_revises_nothing() -> None:
    assert FrameClock(EXPOSURE_S * 1000, LATENCY_S * 1000).revision(0)() == 0.0
