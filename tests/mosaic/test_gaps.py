"""Gaps are places inside the slide, not its rim."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from deblurd.mosaic.gaps import count_gaps, gap_mask

FIELD_UM = (100.0, 120.0)


def grid(rows: int, columns: int, overlap: float = 0.2) -> NDArray[np.float64]:
    """Middles of a full scan."""
    step = (1 - overlap) * np.array(FIELD_UM)
    return np.array([(y * step[0], x * step[1]) for y in range(rows) for x in range(columns)])


def without(centres_um: NDArray[np.float64], *left_out: int) -> NDArray[np.float64]:
    return np.delete(centres_um, left_out, axis=0)


def test_a_full_scan_has_none() -> None:
    assert count_gaps(grid(5, 7), FIELD_UM) == 0
    assert count_gaps(grid(1, 1), FIELD_UM) == 0
    assert count_gaps(np.zeros((0, 2)), FIELD_UM) == 0


def test_a_field_that_is_missing_inside_is_one() -> None:
    centres_um = without(grid(5, 7), 2 * 7 + 3)
    assert count_gaps(centres_um, FIELD_UM) == 1
    mask, _ = gap_mask(centres_um, FIELD_UM)
    # what the neighbours overlap into is covered: 0.6 of a field's sides are left
    assert mask.sum() / 16**2 == pytest.approx(0.36, abs=0.1)


def test_fields_that_are_missing_at_the_rim_are_none() -> None:
    assert count_gaps(without(grid(5, 7), 0, 3, 7 * 4 + 2), FIELD_UM) == 0


def test_two_places_are_two_and_neighbours_are_one() -> None:
    assert count_gaps(without(grid(5, 9), 2 * 9 + 2, 2 * 9 + 6), FIELD_UM) == 2
    assert count_gaps(without(grid(5, 9), 2 * 9 + 3, 2 * 9 + 4), FIELD_UM) == 1


def test_noise_of_the_stage_makes_none() -> None:
    noise = np.random.default_rng(1).normal(0, 2.0, (20 * 30, 2))
    assert count_gaps(grid(20, 30, overlap=0.1) + noise, FIELD_UM) == 0


def test_a_ring_is_one() -> None:
    angles = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    ring = 1000 * np.stack([np.sin(angles), np.cos(angles)], axis=1)
    assert count_gaps(ring, FIELD_UM) == 1
    assert count_gaps(ring[5:], FIELD_UM) == 0
