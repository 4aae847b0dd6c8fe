"""Two tiles and the shift between them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deblurd.frames import Pixels
from deblurd.place.pairwise import prepare, register
from deblurd.place.subpixel import Match
from tests.benchmarks.scan_sets import spots, tissue

PICTURE = tissue(900, 900, 3)


def cut(
    y: float, x: float, height: int = 256, width: int = 256, blur_px: float = 0.0, dtype: str = "uint8"
) -> Pixels:
    """A tile of PICTURE whose upper left pixel lies at (y, x), with a little noise."""
    side = int(blur_px)
    matrix = np.array([[1, 0, x - side], [0, 1, y]], np.float64)
    flags = cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP
    wide = (width + 2 * side, height)
    view = cv2.warpAffine(PICTURE, matrix, wide, flags=flags, borderMode=cv2.BORDER_REFLECT)
    if blur_px:
        view = cv2.blur(view, (side | 1, 1))[:, side:-side]
    full = np.iinfo(dtype).max
    noise = np.random.default_rng(int(1000 * y + x)).normal(0, 0.008, view.shape)
    return np.asarray(np.clip((view + noise) * full, 0, full).round().astype(dtype))


def found(a: Pixels, b: Pixels, expected: tuple[float, float], radius_px: float = 40.0) -> Match:
    match = register(prepare(a), prepare(b), np.array(expected), radius_px)
    assert match is not None
    return match


@settings(max_examples=30, deadline=None)
@given(
    dy=st.floats(-60, 60),
    dx=st.floats(150, 220),
    off_y=st.floats(-30, 30),
    off_x=st.floats(-30, 30),
    swapped=st.booleans(),
)
def test_any_shift_is_found_to_a_few_hundredths(
    dy: float, dx: float, off_y: float, off_x: float, swapped: bool
) -> None:
    a, b = cut(300, 200), cut(300 + dy, 200 + dx)
    truth = np.array([dy, dx])
    expected = (dy + off_y, dx + off_x)
    if swapped:
        a, b, truth, expected = b, a, -truth, (-expected[0], -expected[1])
    match = found(a, b, expected)
    assert match.ok
    np.testing.assert_allclose(match.shift, truth, atol=0.1)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(256, 256), (181, 320), (333, 99)])
def test_every_kind_of_tile(dtype: str, channels: int, height: int, width: int) -> None:
    a, b = cut(100, 100, height, width, dtype=dtype), cut(110.3, 160.7, height, width, dtype=dtype)
    if channels == 1:
        a, b = np.ascontiguousarray(a[..., 1]), np.ascontiguousarray(b[..., 1])
    match = found(a, b, (0.0, 50.0))
    assert match.ok
    np.testing.assert_allclose(match.shift, [10.3, 60.7], atol=0.05)


@pytest.mark.parametrize("blur_px", [15.0, 39.0])
def test_motion_blur_does_not_bias(blur_px: float) -> None:
    a, b = cut(200, 100, blur_px=blur_px), cut(205.4, 290.8, blur_px=blur_px)
    np.testing.assert_allclose(found(a, b, (0.0, 200.0)).shift, [5.4, 190.8], atol=0.15)


def test_light_that_falls_off_does_not_bias() -> None:
    shade = 1 - 0.4 * np.linspace(-1, 1, 256)[None, :, None] ** 2
    a, b = (np.asarray((cut(200, x) * shade).astype(np.uint8)) for x in (100, 299.6))
    np.testing.assert_allclose(found(a, b, (0.0, 200.0)).shift, [0.0, 199.6], atol=0.1)


def test_covariance_says_how_wrong_it_is() -> None:
    """Errors of many pairs, in units of what the match claims, are of the order of one."""
    z2 = []
    rng = np.random.default_rng(5)
    for _ in range(40):
        dy, dx = rng.uniform(-20, 20), rng.uniform(205, 225)
        y, x = rng.uniform(100, 500), rng.uniform(50, 350)
        match = found(cut(y, x), cut(y + dy, x + dx), (dy, dx), 10.0)
        error = match.shift - (dy, dx)
        z2.append(float(error @ np.linalg.solve(match.covariance, error)) / 2)
    assert 0.05 < np.mean(z2) < 3.0


def test_stripes_leave_one_direction_uncertain() -> None:
    rng = np.random.default_rng(2)
    profile = cv2.GaussianBlur(rng.random((1, 600)).astype(np.float32), (0, 0), 2) * 255
    noise = rng.normal(0, 1, (2, 256, 256))
    a, b = (
        np.clip(np.repeat(profile[:, x : x + 256], 256, axis=0) + n, 0, 255).astype(np.uint8)
        for x, n in zip((0, 190), noise, strict=True)
    )
    match = register(prepare(a), prepare(b), np.array([0.0, 190.0]), 4.0)
    assert match is None or not match.ok or match.covariance[0, 0] > 100 * match.covariance[1, 1]


def blank(level: int, noise: float) -> Pixels:
    pixels = np.random.default_rng(int(level + 7 * noise)).normal(level, noise, (256, 256, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (blank(240, 3), blank(241, 3)),
        (blank(0, 0), blank(0, 0)),
        (blank(255, 0), blank(255, 0)),
        (blank(240, 3), cut(300, 300)),
        (cut(100, 100), cut(600, 600)),
    ],
    ids=["noise", "black", "burnt out", "blank and tissue", "other tissue"],
)
def test_what_does_not_match_is_not_believed(a: Pixels, b: Pixels) -> None:
    match = register(prepare(a), prepare(b), np.array([0.0, 200.0]), 30.0)
    assert match is None or not match.ok


def test_sparse_cells_are_enough() -> None:
    picture = (spots(700, 700, 2) * 40_000).astype(np.uint16)
    a, b = picture[100:612, 0:512], picture[100:612, 100:612]
    match = found(a, b, (8.0, 90.0))
    assert match.ok
    np.testing.assert_allclose(match.shift, [0.0, 100.0], atol=0.02)


@pytest.mark.parametrize("shift", [(0.0, 256.0), (400.0, 0.0), (250.0, 250.0)])
def test_tiles_that_do_not_overlap(shift: tuple[float, float]) -> None:
    assert register(prepare(cut(0, 0)), prepare(cut(*shift)), np.array(shift), 4.0) is None


@pytest.mark.parametrize("size", [1, 5, 17])
def test_tiny_tiles_are_no_trouble(size: int) -> None:
    tiny: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 255, (size, size), dtype=np.uint8)
    match = register(prepare(tiny), prepare(tiny), np.array([0.0, 1.0]), 4.0)
    assert match is None or np.isfinite(match.shift).all()


def test_a_large_overlap_is_matched_where_it_shows_most() -> None:
    flat = np.full((900, 900, 3), 240, np.uint8)
    flat[500:700, 300:500] = np.clip(PICTURE[500:700, 300:500] * 255, 0, 255).astype(np.uint8)
    match = found(flat[:800, :800], flat[37:837, 21:821], (30.0, 25.0))
    np.testing.assert_allclose(match.shift, [37.0, 21.0], atol=0.02)
