from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deblurd.errors import DataError
from deblurd.frames import Encoding, Pixels
from deblurd.light import decode, encode, from_linear, to_linear

ENCODINGS: tuple[Encoding, ...] = ("linear", "srgb")


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_pixel_value_survives_the_way_to_light_and_back(encoding: Encoding, dtype: type) -> None:
    values: Pixels = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)
    light = to_linear(values, encoding)
    assert light.dtype == np.float32
    assert light[0] == 0
    assert light[-1] == 1
    assert np.all(np.diff(light) > 0)
    assert np.array_equal(from_linear(light, dtype, encoding), values)


def test_known_points_of_the_srgb_curve() -> None:
    # IEC 61966-2-1: the linear toe, and 18 % grey
    light = np.array([0.0, 0.0031308, 0.18, 0.5, 1.0], dtype=np.float32)
    srgb = np.array([0.0, 0.04045, 0.46136, 0.73536, 1.0])
    assert encode(light) == pytest.approx(srgb, abs=1e-4)
    assert decode(srgb.astype(np.float32)) == pytest.approx(light, abs=1e-4)


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=3, max_side=9),
        elements=st.floats(-0.5, 1.5, width=32),
    )
)
def test_encoding_clips_and_inverts(light: Pixels) -> None:
    back = decode(encode(light))
    assert back.shape == light.shape
    assert back == pytest.approx(np.clip(light, 0, 1), abs=1e-4)


@given(st.floats(0, 1, width=32))
def test_eight_bit_srgb_is_within_rounding_of_the_curve(value: float) -> None:
    exact = 12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055
    got = from_linear(np.full((1, 1), value, dtype=np.float32), np.uint8, "srgb")
    assert abs(int(got[0, 0]) - 255 * exact) < 0.5 + 0.03


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_light_outside_the_range_is_clipped(encoding: Encoding, dtype: type) -> None:
    got = from_linear(np.array([[-3.0, 7.0]], dtype=np.float32), dtype, encoding)
    assert got.tolist() == [[0, np.iinfo(dtype).max]]
    assert got.dtype == dtype


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.uint32])
def test_other_dtypes_are_refused(dtype: type) -> None:
    with pytest.raises(DataError, match="uint8 and uint16"):
        to_linear(np.zeros((2, 2), dtype=dtype), "srgb")
    with pytest.raises(DataError, match="uint8 and uint16"):
        from_linear(np.zeros((2, 2), dtype=np.float32), dtype, "srgb")
