"""What the mean squared displacement tells."""

from __future__ import annotations

import math

import numpy as np
import pytest

from deblurd.trajectory.measure import FieldSums, Track, fit_msd, measure, place_noise_um

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
