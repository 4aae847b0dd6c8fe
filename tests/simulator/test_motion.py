"""The stage's motion against its own definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deblurd.errors import DataError
from deblurd.simulator.motion import Axis, Motion, plan


def test_a_long_move_is_a_trapezoid() -> None:
    axis = Axis(acceleration_um_s2=1000.0, backlash_um=0.0)
    axis.go(1000.0, 500.0, now_s=10.0)
    # 0.5 s up over 125 um, 1.5 s at 500 um/s, 0.5 s down
    assert axis.end_s == pytest.approx(12.5)
    t = np.array([9.0, 10.0, 10.25, 10.5, 11.0, 12.0, 12.25, 12.5, 99.0])
    expected = [0.0, 0.0, 31.25, 125.0, 375.0, 875.0, 968.75, 1000.0, 1000.0]
    np.testing.assert_allclose(axis.commanded(t), expected, atol=1e-9)


def test_a_short_move_is_a_triangle() -> None:
    axis = Axis(1000.0, 0.0)
    axis.go(-90.0, 500.0, 0.0)
    assert axis.end_s == pytest.approx(0.6)
    np.testing.assert_allclose(axis.commanded(np.array([0.3, 0.6])), [-45.0, -90.0], atol=1e-9)


@given(
    st.lists(
        st.tuples(st.floats(-5000, 5000), st.floats(10, 5000), st.floats(0.001, 2.0), st.booleans()),
        min_size=1,
        max_size=6,
    ),
    st.floats(100, 50000),
)
@settings(max_examples=60, deadline=None)
def test_any_moves_are_continuous_obey_the_limits_and_arrive(
    moves: list[tuple[float, float, float, bool]], acceleration: float
) -> None:
    axis = Axis(acceleration, backlash_um=0.0)
    now, fastest = 0.0, 0.0
    for target, speed, wait, stop in moves:
        axis.go(target, speed, now)
        fastest = max(fastest, speed)
        now += wait
        if stop:
            axis.stop(now)
            now += 0.01
    axis.go(12.5, 1000.0, now)
    fastest = max(fastest, 1000.0)
    step = 1e-3
    p = axis.commanded(np.arange(0.0, min(axis.end_s + 1.0, 60.0), step))
    assert np.abs(np.diff(p)).max(initial=0) <= fastest * step * 1.001 + 1e-6
    assert np.abs(np.diff(p, 2)).max(initial=0) <= acceleration * step**2 * 1.001 + 1e-6
    assert axis.commanded(np.array([axis.end_s + 1]))[0] == 12.5


@given(
    st.floats(-1000, 1000),
    st.floats(-800, 800),
    st.floats(-1000, 1000),
    st.floats(1, 500),
    st.floats(10, 9999),
)
def test_a_plan_ends_at_its_target_at_rest(p: float, v: float, target: float, speed: float, a: float) -> None:
    for duration, push in plan(p, v, target, speed, a):
        p, v = p + v * duration + push * duration**2 / 2, v + push * duration
    assert p == pytest.approx(target, abs=1e-4)
    assert v == pytest.approx(0, abs=1e-6)


def test_a_new_target_on_the_way_does_not_change_the_past() -> None:
    axis = Axis(10000.0, 0.0)
    axis.go(1000.0, 500.0, 0.0)
    t = np.linspace(0, 0.5, 50)
    before = axis.commanded(t)
    axis.go(-1000.0, 500.0, 0.5)
    np.testing.assert_array_equal(axis.commanded(t), before)
    assert axis.commanded(np.array([0.55]))[0] > before[-1]  # it cannot turn on the spot


def test_the_true_position_lags_by_the_backlash_after_a_turn_only() -> None:
    axis = Axis(1e6, backlash_um=3.0)
    axis.go(100.0, 100.0, 0.0)
    assert axis.true(np.array([2.0]))[0] == pytest.approx(100.0)
    axis.go(50.0, 100.0, 2.0)
    early, late = axis.true(np.array([2.02, 3.0]))
    assert early == pytest.approx(100.0)  # 2 um into the play
    assert late == pytest.approx(53.0)
    axis.go(60.0, 100.0, 3.0)
    assert axis.true(np.array([3.02]))[0] == pytest.approx(53.0)
    assert axis.true(np.array([4.0]))[0] == pytest.approx(60.0)


def test_a_turn_within_one_move_runs_through_the_play_too() -> None:
    axis = Axis(1000.0, backlash_um=2.0)
    axis.go(1000.0, 100.0, 0.0)
    axis.go(0.0, 100.0, 1.0)  # brakes, turns, comes back
    top = axis.commanded(np.linspace(1, 2, 1001)).max()
    t = np.linspace(1.0, axis.end_s, 2001)
    true, said = axis.true(t), axis.commanded(t)
    assert true.max() == pytest.approx(top, abs=1e-6)
    assert true[-1] == pytest.approx(2.0)
    assert np.all(true - said >= -1e-9)
    assert np.all(true - said <= 2.0 + 1e-9)


def test_the_wobble_is_smooth_repeatable_and_of_the_wanted_size() -> None:
    motion, same = (Motion(1e5, wobble_um=2.0, seed=7) for _ in range(2))
    for m in (motion, same):
        m.go((20000.0, 20000.0), 1000.0, 0.0)
    t = np.linspace(0.0, 20.0, 20001)
    deviation = motion.true(t) - motion.commanded(t)
    np.testing.assert_array_equal(motion.true(t), same.true(t))
    assert 1.0 < math.sqrt(float((deviation**2).mean())) < 3.5
    assert np.abs(np.diff(deviation, axis=0)).max() < 0.05  # um in a millisecond
    assert not np.array_equal(Motion(1e5, wobble_um=2.0, seed=8).true([0.0]), motion.true([0.0]))


def test_the_memory_is_bounded_and_says_so() -> None:
    axis = Axis(1e5, 0.0)
    for i in range(2000):
        axis.go(float(i % 2), 100.0, float(i))
    assert axis.commanded(np.array([1999.9]))[0] == pytest.approx(1.0)
    with pytest.raises(DataError, match="forgot where it was"):
        axis.commanded(np.array([0.0]))
