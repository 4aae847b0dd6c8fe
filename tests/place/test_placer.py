"""Whole scans, tile by tile, against the truth."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from deblurd.errors import DataError
from deblurd.frames import MotionVector, Pixels, Pose, Tile
from deblurd.geometry import PixelToStage
from deblurd.place import placer as placer_module
from deblurd.place.pairwise import Edge
from deblurd.place.placer import Placer
from deblurd.place.solve import Solution
from deblurd.place.subpixel import Match
from tests.benchmarks.scan_sets import Scan, ScanSet

SMALL = ScanSet(rows=4, columns=5, tile_px=320, overlap=0.2)
Floats = NDArray[np.float64]


def placed(scan: Scan, overlap: float = 0.2, solve_every: int = 7) -> tuple[Placer, Solution]:
    placer = Placer(scan.affine, scan.pixels[0].shape, overlap, scan.pixels.__getitem__, scan.encoding)
    for tile, pixels in zip(scan.tiles, scan.pixels, strict=True):
        placer.add(tile, pixels)
        if (tile.index + 1) % solve_every == 0:
            placer.solve()
    return placer, placer.solve()


def held(solution: Solution) -> NDArray[np.bool_]:
    return np.array([n not in solution.weak for n in range(len(solution.places))])


def places(solution: Solution) -> Floats:
    return np.array([solution.places[n].yx_px for n in range(len(solution.places))])


@pytest.mark.parametrize(
    "scan_set",
    [
        SMALL,
        SMALL.but(overlap=0.12, tile_px=512, rows=3, columns=3),
        SMALL.but(stage_sigma_px=20.0, tile_px=512, rows=3, columns=3),
        SMALL.but(noise=8.0),
        SMALL.but(scale=1.01, rotation_deg=1.0),
        SMALL.but(backlash_um=5.0),
        SMALL.but(blur_px=15.0),
        SMALL.but(vignetting=0.3),
        SMALL.but(color=False, dtype="uint16"),
        SMALL.but(picture="slide", tile_px=512),
        SMALL.but(picture="slide", tile_px=512, blur_px=15.0),
    ],
    ids=[
        *("plain", "12 % overlap", "sigma 20", "noise", "wrong affine", "backlash", "blur", "vignetting"),
        *("16-bit mono", "slide", "slide with blur"),
    ],
)
def test_places_are_exact(scan_of: Callable[[ScanSet], Scan], scan_set: ScanSet) -> None:
    scan = scan_of(scan_set)
    _, solution = placed(scan, scan_set.overlap)
    assert held(solution).mean() >= 0.9
    sigma = np.array([solution.places[n].sigma_px for n in range(len(scan.tiles))])
    # nearly empty overlaps of the real slide are limited by noise, and say so
    errors = scan.errors_px(places(solution), held(solution) & (sigma < 0.1))
    assert np.sqrt((errors**2).mean()) < 0.10
    assert errors.max() < 0.3
    assert np.mean(sigma < 0.1) >= 0.7


@pytest.mark.parametrize("stray_px", [68.0, 140.0])
@pytest.mark.parametrize("stage_sigma_px", [2.0, 10.0])
def test_readings_that_are_wrong_altogether_misplace_no_tile(
    scan_of: Callable[[ScanSet], Scan], stray_px: float, stage_sigma_px: float
) -> None:
    base = SMALL.but(rows=6, columns=8, tile_px=256, color=False, stage_sigma_px=stage_sigma_px)
    scan = scan_of(base.but(stray=0.15, stray_px=stray_px))
    wrong = sum(
        np.hypot(*(a.pose.yx_um - b.pose.yx_um)) > 1
        for a, b in zip(scan.tiles, scan_of(base).tiles, strict=True)
    )
    assert wrong >= 5
    _, solution = placed(scan, solve_every=12)
    assert not solution.weak
    assert set(solution.island.values()) == {0}
    assert scan.errors_px(places(solution)).max() < 0.3
    assert solution.stage.sigma_px < 2 * stage_sigma_px


def test_sparse_fluorescence(scan_of: Callable[[ScanSet], Scan]) -> None:
    scan = scan_of(SMALL.but(picture="fluorescence", dtype="uint16", color=False, tile_px=512, rows=3))
    _, solution = placed(scan)
    errors = scan.errors_px(places(solution), held(solution))
    assert np.sqrt((errors**2).mean()) < 0.15
    assert held(solution).mean() > 0.8


def test_blank_tiles_follow_the_stage(scan_of: Callable[[ScanSet], Scan]) -> None:
    scan = scan_of(SMALL.but(blank=0.5, stage_sigma_px=2.0))
    _, solution = placed(scan)
    assert 4 <= len(solution.weak) <= 10
    errors = scan.errors_px(places(solution), held(solution))
    assert errors.max() < 0.3
    assert scan.errors_px(places(solution)).max() < 15.0
    assert min(solution.places[n].sigma_px for n in solution.weak) > 1.0


def test_what_two_neighbours_say_of_a_nearly_empty_tile_is_believed(
    scan_of: Callable[[ScanSet], Scan],
) -> None:
    """Details of a grey level or two below noise of three: no match is sure by itself, but most agree."""
    scan = scan_of(SMALL.but(blank=0.6, trace=0.02, tile_px=512, rows=4, columns=4))
    _, solution = placed(scan)
    assert len(solution.weak) <= 2
    errors = scan.errors_px(places(solution), held(solution))
    # the stage alone is off by ten
    assert errors.max() < 2.5
    sigma = np.array([solution.places[n].sigma_px for n in range(len(scan.tiles))])
    assert scan.errors_px(places(solution), sigma < 0.1).max() < 0.3


def test_accidents_do_not_agree(scan_of: Callable[[ScanSet], Scan]) -> None:
    scan = scan_of(SMALL.but(blank=0.6, tile_px=512, rows=4, columns=4))
    placer, solution = placed(scan)
    # with nothing on the slide the stage alone says where they are
    assert len(solution.weak) >= 8
    assert all(edge.match.ok for edge in placer.edges)


def test_first_places_are_already_good(scan_of: Callable[[ScanSet], Scan]) -> None:
    scan = scan_of(SMALL)
    placer = Placer(scan.affine, scan.pixels[0].shape, 0.2, scan.pixels.__getitem__, scan.encoding)
    first = np.array([placer.add(t, p).yx_px for t, p in zip(scan.tiles, scan.pixels, strict=True)])
    assert scan.errors_px(first).max() < 0.5


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_turned_or_mirrored_camera(scan_of: Callable[[ScanSet], Scan], mirrored: bool) -> None:
    scan = scan_of(SMALL)
    affine = PixelToStage.from_scale(0.5, 37.0, mirrored)
    placer = Placer(affine, scan.pixels[0].shape, 0.2, scan.pixels.__getitem__, scan.encoding)
    for tile, pixels in zip(scan.tiles, scan.pixels, strict=True):
        y, x = affine.to_stage(scan.affine.to_pixels(tile.pose.yx_um))
        turned = Pose(tile.pose.t_s, float(y), float(x))
        placer.add(Tile(tile.index, 0, 0, turned, tile.motion, 5.0, tile.shape, ""), pixels)
    assert scan.errors_px(places(placer.solve())).max() < 0.3


def test_tiles_that_left_the_cache_are_read_again(
    scan_of: Callable[[ScanSet], Scan], monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = scan_of(SMALL)
    monkeypatch.setattr(placer_module, "CACHE_BYTES", 300_000)
    reads: list[int] = []

    def read(index: int) -> Pixels:
        reads.append(index)
        return scan.pixels[index]

    placer = Placer(scan.affine, scan.pixels[0].shape, 0.2, read, scan.encoding)
    for tile, pixels in zip(scan.tiles, scan.pixels, strict=True):
        placer.add(tile, pixels)
    assert reads
    assert scan.errors_px(places(placer.solve())).max() < 0.3


def test_a_damaged_neighbour_is_left_out(
    scan_of: Callable[[ScanSet], Scan], monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = scan_of(SMALL)
    monkeypatch.setattr(placer_module, "CACHE_BYTES", 0)

    def read(index: int) -> Pixels:
        if index == 6:
            raise DataError("tile 6 is cut short")
        return scan.pixels[index]

    placer = Placer(scan.affine, scan.pixels[0].shape, 0.2, read, scan.encoding)
    for tile, pixels in zip(scan.tiles, scan.pixels, strict=True):
        placer.add(tile, pixels)
    solution = placer.solve()
    assert all(edge.i != 6 for edge in placer.edges)
    among = held(solution)
    assert scan.errors_px(places(solution), among).max() < 0.3


def test_nothing_and_one_tile() -> None:
    affine = PixelToStage.from_scale(0.5)
    placer = Placer(affine, (64, 64), 0.2, lambda _: np.zeros((64, 64), np.uint8))
    assert placer.solve().places == {}
    assert placer.shading.gain() is None
    tile = Tile(0, 0, 0, Pose(0.0, 10.0, -20.0), MotionVector(0.0, 0.0), 5.0, (64, 64), "")
    place = placer.add(tile, np.zeros((64, 64), np.uint8))
    assert (place.y_px, place.x_px) == pytest.approx((20.0, -40.0))
    assert list(placer.solve().weak) == [0]


def test_a_stage_that_stands_still(scan_of: Callable[[ScanSet], Scan]) -> None:
    """The same field again and again: all tiles lie at one place."""
    pixels = scan_of(SMALL).pixels[0]
    placer = Placer(PixelToStage.from_scale(0.5), pixels.shape, 0.2, lambda _: pixels)
    for n in range(12):
        placer.add(
            Tile(n, 0, n, Pose(0.1 * n, 5.0, 5.0), MotionVector(0.0, 0.0), 5.0, pixels.shape, ""), pixels
        )
    assert np.ptp(places(placer.solve()), axis=0).max() < 0.01


def test_small_overlaps_join_islands(
    scan_of: Callable[[ScanSet], Scan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The white fields of a chessboard, whose corners were passed over when they came."""
    scan = scan_of(SMALL.but(stage_sigma_px=2.0))
    white = np.round(scan.truth / 256).astype(int).sum(axis=1) % 2 == 0
    placer = Placer(scan.affine, scan.pixels[0].shape, 0.2, scan.pixels.__getitem__, scan.encoding)
    monkeypatch.setattr(placer, "_match", lambda *_: [])
    for n in np.flatnonzero(white):
        placer.add(scan.tiles[n], scan.pixels[n])
    solution = placer.solve()
    assert set(solution.island.values()) == {0}
    off = np.array([place.yx_px - scan.truth[n] for n, place in solution.places.items()])
    assert np.ptp(off, axis=0).max() < 0.3


def test_a_repeated_pattern_is_placed_by_the_stage() -> None:
    """Dots every 40 px match at every 40 px; the stage is right to a few."""
    rng = np.random.default_rng(4)
    grid = np.zeros((1400, 1400), np.float32)
    grid[20::40, 20::40] = 1
    picture = 230 - 2500 * cv2.GaussianBlur(grid, (0, 0), 3)
    affine = PixelToStage.from_scale(0.5)
    corners = [np.array([200.0 * r, 200.0 * c]) for r in range(4) for c in range(4)]
    pixels = [
        np.clip(picture[int(y) : int(y) + 256, int(x) : int(x) + 256] + rng.normal(0, 3, (256, 256)), 0, 255)
        for y, x in corners
    ]
    tiles = [field.astype(np.uint8) for field in pixels]
    placer = Placer(affine, (256, 256), 0.2, tiles.__getitem__, stage_sigma_px=3.0)
    for n, corner in enumerate(corners):
        y, x = affine.to_stage(corner + rng.normal(0, 3, 2))
        pose = Pose(0.1 * n, float(y), float(x))
        placer.add(Tile(n, 0, n, pose, MotionVector(0.0, 0.0), 5.0, (256, 256), ""), tiles[n])
    off = places(placer.solve()) - np.array(corners)
    assert np.ptp(off, axis=0).max() < 1.0


@pytest.mark.parametrize(
    ("side", "fall_off", "noise", "step"), [(256, 0.4, 2.0, (205.0, 40.0)), (512, 0.1, 1.0, (390.0, 190.0))]
)
def test_bare_glass_matches_nothing_and_follows_the_stage(
    side: int, fall_off: float, noise: float, step: tuple[float, float]
) -> None:
    """Light that falls off to the corners is alike in all tiles; believed, it laid a whole scan of glass into one place."""
    rng = np.random.default_rng(1)
    rows, columns = 4, 9
    y, x = np.mgrid[:side, :side] / (side / 2) - 1.0
    lamp = 245.0 * (1.0 - fall_off * (y**2 + x**2) / 2)
    pixels: list[Pixels] = [
        np.clip(lamp + rng.normal(0, noise, lamp.shape), 0, 255).round().astype(np.uint8)
        for _ in range(rows * columns)
    ]
    truth = np.array([(row * step[0], column * step[1]) for row in range(rows) for column in range(columns)])
    placer = Placer(PixelToStage.from_scale(0.5), (side, side), 0.2, pixels.__getitem__)
    for number, (picture, at) in enumerate(zip(pixels, truth, strict=True)):
        y_um, x_um = 0.5 * at + rng.normal(0, 0.1, 2)
        pose = Pose(0.1 * number, float(y_um), float(x_um), sigma_um=0.1)
        placer.add(
            Tile(number, 0, number, pose, MotionVector(0.0, 3.0), 5.0, picture.shape, "2026-01-01T00:00:00Z"),
            picture,
        )
    solution = placer.solve()
    assert len(solution.weak) == rows * columns
    off = places(solution) - truth
    assert np.abs(off - off.mean(axis=0)).max() < 2.0


@pytest.mark.parametrize(("step_px", "joined"), [(20.0, False), (150.0, True)])
def test_doubtful_matches_with_the_same_ground_are_one_accident(step_px: float, joined: bool) -> None:
    """Two tiles that lie nearly on one another match a third by the same accident; where they show other ground, each is evidence."""
    blank: Pixels = np.full((256, 256), 240, np.uint8)
    placer = Placer(PixelToStage.from_scale(0.5), (256, 256), 0.2, lambda _: blank)
    for n, x_px in enumerate((0.0, step_px, 400.0)):
        pose = Pose(0.1 * n, 0.0, 0.5 * x_px)
        placer.add(Tile(n, 0, n, pose, MotionVector(0.0, 0.0), 5.0, (256, 256), ""), blank)
    sure = Match(np.array([0.0, step_px]), 0.01 * np.eye(2), 0.9, 400.0)
    placer.edges.append(Edge(0, 1, sure))
    for n, x_px in ((0, 0.0), (1, step_px)):
        accident = Match(np.array([30.0, 250.0 - x_px]), 0.01 * np.eye(2), 0.4, 10.0)
        placer._doubtful.append(Edge(n, 2, accident))
    assert (2 not in placer.solve().weak) == joined
