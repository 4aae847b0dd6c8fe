from __future__ import annotations

import numpy as np
import pytest

from deblurd.errors import DataError
from deblurd.frames import Encoding, Pixels
from deblurd.light import from_linear, to_linear
from deblurd.photon.transfer import Pair, PhotonTransfer, measure_transfer
from deblurd.simulator.sensor import Sensor
from tests.deblur.samples import tissue

LIGHT = to_linear(tissue(256, 256), "srgb")


def _pair(
    ms: float,
    *,
    full_e: float = 12_000.0,
    read_e: float = 6.0,
    bits: int = 8,
    encoding: Encoding = "srgb",
    white_ms: float = 10.0,
) -> Pair:
    """By the simulator's sensor, which reaches full scale in `white_ms`."""
    sensor = Sensor(LIGHT.shape, bits, encoding, full_e, read_e, 0.1, seed=3)
    first, second = (
        sensor.expose(LIGHT * np.float32(0.9 * ms / white_ms), round(1000 * ms), n) for n in (0, 1)
    )
    return Pair(ms, first, second)


@pytest.mark.parametrize(("encoding", "bits"), [("srgb", 8), ("linear", 16), ("srgb", 16)])
@pytest.mark.parametrize("full_e", [2_000.0, 20_000.0])
def test_the_simulators_sensor_is_found_again(encoding: Encoding, bits: int, full_e: float) -> None:
    pairs = [_pair(ms, full_e=full_e, encoding=encoding, bits=bits) for ms in (2.5, 5.0, 10.0)]
    found = measure_transfer(pairs, encoding)
    assert found.full_scale_e == pytest.approx(full_e, rel=0.12)
    assert found.light_e_ms == pytest.approx(
        0.09 * full_e * float(np.percentile(LIGHT[..., 1], 99)), rel=0.35
    )
    assert found.offset == pytest.approx(0, abs=0.01 * np.iinfo(pairs[0].first.dtype).max)
    if full_e == 2_000.0 and bits == 16:
        assert found.read_e == pytest.approx(6.0, abs=3.0)


def test_one_exposure_is_enough_for_the_gain() -> None:
    assert measure_transfer([_pair(10.0)], "srgb").full_scale_e == pytest.approx(12_000, rel=0.12)


def test_an_offset_is_found_by_its_exposures() -> None:
    def lifted(pair: Pair) -> Pair:
        return Pair(pair.exposure_ms, *(_plus(each, 2000) for each in (pair.first, pair.second)))

    pairs = [lifted(_pair(ms, bits=16, encoding="linear")) for ms in (2.5, 5.0, 9.0)]
    found = measure_transfer(pairs, "linear")
    assert found.offset == pytest.approx(2000, abs=200)
    assert found.full_scale_e == pytest.approx(12_000, rel=0.12)


def test_a_pixel_in_which_something_happened_changes_nothing() -> None:
    pair = _pair(10.0)
    second = pair.second.copy()
    second[40:60, 40:60] = 20
    assert measure_transfer([Pair(10.0, pair.first, second)], "srgb").full_scale_e == pytest.approx(
        12_000, rel=0.25
    )


def test_nonsense_is_refused_with_what_to_do() -> None:
    good = _pair(10.0)
    moved = Pair(10.0, good.first, np.roll(good.second, 1, axis=1))
    brighter = Pair(10.0, good.first, _encoded(1.2, good.second))
    black = Pair(10.0, np.zeros_like(good.first), np.zeros_like(good.second))
    white = Pair(10.0, np.full_like(good.first, 255), np.full_like(good.second, 255))
    still = Pair(10.0, good.first, good.first.copy())
    automatic = [_pair(10.0), Pair(2.5, good.first, good.second), Pair(5.0, good.first, good.second)]
    for pairs, words in (
        ([moved], "moved by"),
        ([brighter], "differ by 2"),
        ([black], "black"),
        ([white], "burnt out"),
        ([still], "does not grow"),
        (automatic, "sets its own exposure or gain"),
        ([Pair(0.0, good.first, good.second)], "how long they were exposed"),
        ([], "no frames"),
    ):
        with pytest.raises(DataError, match=words):
            measure_transfer(pairs, "srgb")


def test_what_is_kept_is_read_again_unless_it_makes_no_sense() -> None:
    found = measure_transfer([_pair(10.0)], "srgb")
    assert PhotonTransfer.from_dict(found.to_dict()) == found
    with pytest.raises(ValueError, match="positive"):
        PhotonTransfer.from_dict(found.to_dict() | {"light_e_ms": -1.0})
    assert "e-/count" in found.sentence()


def _plus(pixels: Pixels, counts: int) -> Pixels:
    return np.minimum(pixels.astype(np.uint32) + counts, 65535).astype(np.uint16)


def _encoded(factor: float, pixels: Pixels) -> Pixels:
    return from_linear(to_linear(pixels, "srgb") * np.float32(factor), np.uint8, "srgb")
