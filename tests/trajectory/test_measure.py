"""What the mean squared displacement tells."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from deblurd.trajectory.measure import FieldSums, Track, fit_msd, measure, place_noise_um, usual_noise_um

D_UM2_S, INTERVAL_S, FINE = 0.4, 0.1, 20


def brownian(exposure_share: float, noise_um: float, seed: int = 3) -> FieldSums:
    """200 tracks whose places are means over the exposure."""
    rng = np.random.default_rng(seed)
    sums = FieldSums()
    seen = max(round(exposure_share * FINE), 1)
    for number in range(200):
        steps = rng.normal(0, math.sqrt(2 * D_UM2_S * INTERVAL_S / FINE), (60 * FINE, 2))
        path = steps.cumsum(axis=0).reshape(60, FINE, 2)[:, :seen].mean(axis=1)
        path += rng.normal(0, noise_um, path.shape)
        track = Track(number, INTERVAL_S * np.arange(60.0), path, np.ones(60), np.ones(60))
        sums.add(track, measure(track, INTERVAL_S), INTERVAL_S)
    return sums


@pytest.mark.parametrize(("exposure_share", "noise_um"), [(0.05, 0.1), (1.0, 0.0), (0.5, 0.2)])
def test_diffusion_is_found_beside_noise_and_exposure(exposure_share: float, noise_um: float) -> None:
    diffusion, offset_um2 = fit_msd(*brownian(exposure_share, noise_um).msd(INTERVAL_S))
    assert diffusion == pytest.approx(D_UM2_S, rel=0.05)
    expected_um2 = 4 * noise_um**2 - 4 / 3 * D_UM2_S * exposure_share * INTERVAL_S
    assert offset_um2 == pytest.approx(expected_um2, abs=0.015)


def test_a_noise_that_the_exposure_hides_is_not_said_to_be_none() -> None:
    assert place_noise_um(0.04) == pytest.approx(0.1)
    assert math.isnan(place_noise_um(-0.01))


# --- active or still ---

SIZE_UM, NOISE_UM = 1.0, 0.15
"""A seventh of the size: the places of an object at rest reach more than half its size within a hundred frames."""


def active_share(paths: list[NDArray[np.float64]], others: list[NDArray[np.float64]] | None = None) -> float:
    """Of the objects with these paths that are called active, in a field that has others too; places are noisy."""
    rng = np.random.default_rng(1)
    tracks = []
    for number, path in enumerate([*paths, *(others or [])]):
        count = len(path)
        noise_um = NOISE_UM * math.exp(rng.normal(0, 0.3))
        places = path + rng.normal(0, noise_um, path.shape)
        tracks.append(
            Track(
                number, INTERVAL_S * np.arange(float(count)), places, np.full(count, SIZE_UM), np.ones(count)
            )
        )
    noise_um = usual_noise_um(tracks)
    return float(np.mean([measure(track, INTERVAL_S, noise_um).active for track in tracks[: len(paths)]]))


def resting(count: int) -> list[NDArray[np.float64]]:
    return [np.zeros((count, 2)) for _ in range(200)]


def diffusing(count: int) -> list[NDArray[np.float64]]:
    rng = np.random.default_rng(2)
    return [rng.normal(0, 0.35, (count, 2)).cumsum(axis=0) for _ in range(200)]


def swimming(count: int) -> list[NDArray[np.float64]]:
    return [np.outer(np.arange(count), [0.5, 0.2]) for _ in range(200)]


@pytest.mark.parametrize("count", [3, 5, 10, 30, 100])
def test_what_rests_is_still_however_long_its_noise_is_watched(count: int) -> None:
    assert active_share(resting(count)) < 0.06


@pytest.mark.parametrize("others", [diffusing, swimming])
def test_what_rests_among_others_that_move_is_still(
    others: Callable[[int], list[NDArray[np.float64]]],
) -> None:
    assert active_share(resting(30), others(30)) < 0.06


def test_what_moves_is_active() -> None:
    assert active_share(diffusing(30)) > 0.95
    assert active_share(diffusing(30), resting(30)) > 0.95
    assert active_share(swimming(5)) > 0.95
    assert active_share(swimming(5), resting(30)) > 0.95


def test_a_wrong_link_makes_nobody_active() -> None:
    jumped = [path + 4.0 * (np.arange(30) >= 12)[:, None] for path in resting(30)]
    assert active_share(jumped, resting(30)) < 0.06


def test_two_places_tell_something_and_one_nothing() -> None:
    once, twice = (
        Track(1, INTERVAL_S * np.arange(float(count)), np.eye(2)[:count], np.ones(count), np.ones(count))
        for count in (1, 2)
    )
    assert usual_noise_um([once, twice]) == 0
    assert measure(once, INTERVAL_S).active is None
    assert measure(twice, INTERVAL_S, 0.1).active is True
    assert measure(twice, INTERVAL_S, 0.5).active is False
