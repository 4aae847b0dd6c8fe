"""The score that the benchmark's tables are made of, on tracks whose faults are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.benchmarks.trajectory_score import Rows, Score, score


@pytest.fixture
def truth() -> Rows:
    """Three objects side by side through ten frames: track, frame, y, x."""
    return np.array([(track, frame, 20.0 * track, 3.0 * frame) for track in range(3) for frame in range(10)])


def test_the_truth_scores_one(truth: Rows) -> None:
    found = score(truth, truth)
    assert (found.f1, found.rmse_px, found.links) == (1, 0, 1)


def test_what_is_missed_and_what_is_not_there_cost_detection(truth: Rows) -> None:
    assert score(truth[:-3], truth).f1 == pytest.approx(2 * 27 / 57)
    false = np.array([(9.0, frame, 90.0, 90.0) for frame in range(3)])
    assert score(np.concatenate([truth, false]), truth).f1 == pytest.approx(2 * 30 / 63)


def test_an_error_of_place_is_the_rmse(truth: Rows) -> None:
    found = score(truth + np.array([0, 0, 0.3, 0.4]), truth)
    assert found.f1 == 1
    assert found.rmse_px == pytest.approx(0.5)


def test_a_swap_costs_links_alone(truth: Rows) -> None:
    found = score(swapped(truth), truth)
    assert found.f1 == 1
    # two of the 27 steps lead to the other object
    assert found.links == pytest.approx(25 / 27)


def test_tra_is_traccuracys(truth: Rows) -> None:
    pytest.importorskip("traccuracy", reason="traccuracy is not installed: pip install 'deblurd[bench]'")
    assert score(truth, truth).tra == 1
    assert 0.9 < score(swapped(truth), truth).tra < 1


def test_without_traccuracy_tra_is_unknown(truth: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found: Score = score(truth, truth)
    assert math.isnan(found.tra)


def swapped(truth: Rows) -> Rows:
    """Objects 0 and 1 change names in the middle."""
    rows = truth.copy()
    late = truth[:, 1] >= 5
    rows[late & (truth[:, 0] == 0), 0] = 1
    rows[late & (truth[:, 0] == 1), 0] = 0
    return rows
