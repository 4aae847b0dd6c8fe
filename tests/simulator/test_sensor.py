"""Counts, and their noise."""

from __future__ import annotations

import numpy as np
import pytest

from deblurd.frames import Encoding
from deblurd.light import from_linear, to_linear
from deblurd.simulator.sensor import Sensor


def _flat(
    value: float, shape: tuple[int, ...] = (512, 512)
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.full(shape, value, np.float32)


@pytest.mark.parametrize("value", [0.02, 0.2, 0.9])
def test_noise_has_the_mean_and_variance_of_photons_and_readout(value: float) -> None:
    electrons, read = 5000.0, 6.0
    sensor = Sensor((512, 512), 16, "linear", electrons, read, 0.0, seed=1)
    seen = sensor.expose(_flat(value), 0, 0) / 65535 * electrons
    assert seen.mean() == pytest.approx(value * electrons, abs=0.6)
    assert seen.var() == pytest.approx(value * electrons + read**2, rel=0.03)


@pytest.mark.parametrize("bit_depth", [8, 16])
@pytest.mark.parametrize("encoding", ["srgb", "linear"])
def test_without_noise_counts_are_the_encoded_light(bit_depth: int, encoding: Encoding) -> None:
    light = np.random.default_rng(2).random((130, 70, 3)).astype(np.float32)
    sensor = Sensor(light.shape, bit_depth, encoding, 1e12, 0.0, 0.0, seed=1)
    expected = from_linear(light, sensor.dtype, encoding).astype(int)
    seen = sensor.expose(light, 0, 0)
    assert seen.dtype == (np.uint8 if bit_depth == 8 else np.uint16)
    assert np.abs(seen - expected).max() <= (1 if bit_depth == 8 else 4)


def test_corners_lose_the_vignettings_share() -> None:
    sensor = Sensor((101, 151, 3), 8, "srgb", 1e12, 0.0, 0.3, seed=1)
    light = to_linear(sensor.expose(_flat(0.8, (101, 151, 3)), 0, 0), "srgb")
    assert light[50, 75, 1] == pytest.approx(0.8, abs=0.005)
    assert light[0, 0, 1] == pytest.approx(0.8 * 0.7, abs=0.005)


def test_noise_depends_on_seed_sequence_and_number_only() -> None:
    sensor, other = (Sensor((64, 64), 8, "srgb", 1000.0, 4.0, 0.0, seed=s) for s in (1, 2))
    again = Sensor((64, 64), 8, "srgb", 1000.0, 4.0, 0.0, seed=1)
    first = sensor.expose(_flat(0.5, (64, 64)), 0, 0)
    np.testing.assert_array_equal(first, again.expose(_flat(0.5, (64, 64)), 0, 0))
    for different in (sensor.expose(_flat(0.5, (64, 64)), 0, 1), sensor.expose(_flat(0.5, (64, 64)), 1, 0)):
        assert np.mean(first == different) < 0.5
    assert np.mean(first == other.expose(_flat(0.5, (64, 64)), 0, 0)) < 0.5


def test_negative_and_too_bright_light_is_clipped() -> None:
    sensor = Sensor((64, 64), 8, "srgb", 1e6, 0.0, 0.0, seed=1)
    assert sensor.expose(_flat(-0.1, (64, 64)), 0, 0).max() <= 1
    assert sensor.expose(_flat(1.1, (64, 64)), 0, 0).min() == 255


def test_neighbouring_pixels_and_channels_share_no_noise() -> None:
    sensor = Sensor((256, 256, 3), 8, "linear", 1000.0, 4.0, 0.0, seed=1)
    n = sensor.expose(_flat(0.5, (256, 256, 3)), 0, 0).astype(float) - 127
    for a, b in ((n[1:], n[:-1]), (n[:, 1:], n[:, :-1]), (n[..., 1:], n[..., :-1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.02
