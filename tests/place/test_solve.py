"""The solve of all places: synthetic matches with known truth."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deblurd.frames import MotionVector, Place, Pose, Tile
from deblurd.geometry import PixelToStage
from deblurd.place.pairwise import Edge
from deblurd.place.solve import Solution, solve
from deblurd.place.stage import Directions
from deblurd.place.subpixel import Match

Floats = NDArray[np.float64]
AFFINE = PixelToStage.from_scale(0.5)
STEP_PX = 400.0


def grid(rows: int, columns: int, sigma_px: float = 10.0, seed: int = 0) -> tuple[Floats, Floats]:
    """Planned and true places (n, 2) of a serpentine along x."""
    plan = [(r, c if r % 2 == 0 else columns - 1 - c) for r in range(rows) for c in range(columns)]
    planned = STEP_PX * np.array(plan, dtype=np.float64)
    return planned, planned + np.random.default_rng(seed).normal(0, sigma_px, planned.shape)


def tiles_at(poses_um: Floats) -> list[Tile]:
    motion = MotionVector(0.0, 0.0)
    return [
        Tile(n, 0, n, Pose(0.1 * n, float(y), float(x)), motion, 5.0, (512, 512), "")
        for n, (y, x) in enumerate(poses_um)
    ]


def edge(i: int, j: int, shift: Floats, sigma_px: float = 0.03, score: float = 0.9) -> Edge:
    return Edge(i, j, Match(shift, sigma_px**2 * np.eye(2), score, 50.0))


def edges_of(truth: Floats, sigma_px: float = 0.03, seed: int = 1) -> list[Edge]:
    """Between all neighbours along an axis."""
    rng = np.random.default_rng(seed)
    return [
        edge(i, j, truth[j] - truth[i] + rng.normal(0, sigma_px, 2), sigma_px)
        for j in range(len(truth))
        for i in range(j)
        if np.abs(truth[j] - truth[i]).max() < 1.4 * STEP_PX
        and np.abs(truth[j] - truth[i]).min() < 0.4 * STEP_PX
    ]


def errors_px(solution: Solution, truth: Floats, among: Sequence[int] | None = None) -> Floats:
    which = list(range(len(truth)) if among is None else among)
    off = np.array([solution.places[n].yx_px for n in which]) - truth[which]
    return np.asarray(np.hypot(*(off - np.median(off, axis=0)).T))


def test_exact_matches_give_exact_places_wherever_the_stage_says() -> None:
    planned, truth = grid(5, 6)
    solution = solve(tiles_at(AFFINE.to_stage(planned) - 7000.0), edges_of(truth, 1e-4), AFFINE)
    assert errors_px(solution, truth).max() < 0.01
    assert solution.loop_closure_px < 0.01
    assert not solution.weak
    assert set(solution.island.values()) == {0}


def test_mean_of_the_places_stays_where_the_stage_model_has_it() -> None:
    planned, truth = grid(5, 5)
    tiles = tiles_at(AFFINE.to_stage(planned) + 500.0)
    solution = solve(tiles, edges_of(truth), AFFINE)
    ways = Directions(AFFINE)
    poses = np.array([tile.pose.yx_um for tile in tiles])
    said = solution.stage.predict(
        poses, np.array([ways.next(tile) for tile in tiles]), np.array([tile.pose.t_s for tile in tiles])
    )
    placed = np.array([solution.places[tile.index].yx_px for tile in tiles])
    np.testing.assert_allclose((placed - said).mean(axis=0), 0.0, atol=0.5)


def test_affine_is_found_and_blank_tiles_follow_it() -> None:
    planned, truth = grid(10, 10, sigma_px=1.0)
    wrong = PixelToStage.from_scale(0.5 * 1.01, 1.0)
    blank = [n for n, place in enumerate(planned) if place[1] > 6.5 * STEP_PX]
    edges = [e for e in edges_of(truth) if e.i not in blank and e.j not in blank]
    solution = solve(tiles_at(wrong.to_stage(planned)), edges, AFFINE)
    np.testing.assert_allclose(solution.affine.matrix, wrong.matrix, atol=0.002)
    assert sorted(solution.weak) == blank
    off = np.array([solution.places[n].yx_px for n in blank]) - planned[blank]
    seen = [n for n in range(100) if n not in blank]
    off -= np.mean([solution.places[n].yx_px - planned[n] for n in seen], axis=0)
    assert np.sqrt((off**2).mean()) < 1.5
    assert min(solution.places[n].sigma_px for n in blank) > max(solution.places[n].sigma_px for n in seen)


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_wrong_readings_of_single_tiles_pull_nothing(data: st.DataObject) -> None:
    """Neither the tiles that matches hold nor, through the stage model, those that nothing holds."""
    planned, truth = grid(8, 8, sigma_px=1.0)
    readings = planned.copy()
    blank = [n for n in range(64) if planned[n, 1] > 5.5 * STEP_PX]
    seen = [n for n in range(64) if n not in blank]
    # several of them in the first lane, or at the end, pass for the lag of the stage
    wrong = data.draw(st.lists(st.sampled_from(seen[8:-2]), max_size=4, unique=True))
    for n in wrong:
        readings[n] += data.draw(st.tuples(*[st.floats(-400, 400)] * 2))
    edges = [e for e in edges_of(truth) if e.i not in blank and e.j not in blank]
    solution = solve(tiles_at(AFFINE.to_stage(readings)), edges, AFFINE)
    assert errors_px(solution, truth, seen).max() < 0.2
    off = np.array([solution.places[n].yx_px for n in range(64)]) - truth
    assert np.hypot(*(off[blank] - off[seen].mean(axis=0)).T).max() < 15.0


def test_backlash_is_learnt_from_the_way_the_stage_drives() -> None:
    planned, truth = grid(12, 12, sigma_px=0.5)
    row = np.round(planned[:, 0] / STEP_PX)
    lag = np.stack([np.zeros(144), np.where(row % 2 == 0, 5.0, -5.0)], axis=1)
    blank = [n for n in range(144) if row[n] in (5, 6)]
    edges = [e for e in edges_of(truth) if e.i not in blank and e.j not in blank]
    solution = solve(tiles_at(AFFINE.to_stage(planned + lag)), edges, AFFINE)
    off = np.array([solution.places[n].yx_px for n in blank]) - planned[blank]
    assert np.abs(off[2:10, 1].mean() - off[14:22, 1].mean()) < 1.0


def test_directions_keep_their_sign_while_an_axis_stands() -> None:
    ways = Directions(AFFINE)
    rest, right, left = MotionVector(0.0, 0.0), MotionVector(0.0, -8.0), MotionVector(0.0, 8.0)
    steps = [
        (0.0, 0.0, rest, (0, 0)),
        (0.0, 200.0, rest, (0, 1)),
        (200.0, 200.0, rest, (1, 1)),
        (200.0, 0.0, rest, (1, -1)),
        (200.0, 1.0, right, (1, 1)),
        (200.0, 200.0, left, (1, -1)),
        (200.0, 400.0, MotionVector(math.nan, math.nan, sigma_px=math.inf), (1, 1)),
    ]
    for n, (y, x, motion, expected) in enumerate(steps):
        tile = Tile(n, 0, n, Pose(float(n), y, x), motion, 5.0, (512, 512), "")
        assert tuple(ways.next(tile)) == expected


def test_drift_of_the_readings_is_followed() -> None:
    planned, truth = grid(16, 16, sigma_px=1.0)
    drift = 15.0 * np.sin(np.linspace(0, 6, 256))[:, None] * np.array([1.0, -0.5])
    solution = solve(tiles_at(AFFINE.to_stage(planned + drift)), edges_of(truth), AFFINE)
    assert solution.stage.sigma_px < 3.0
    assert errors_px(solution, truth).max() < 0.2


@pytest.mark.parametrize("seed", range(3))
def test_wrong_matches_are_found_out(seed: int) -> None:
    planned, truth = grid(10, 10, seed=seed)
    edges = edges_of(truth, seed=seed)
    rng = np.random.default_rng(seed)
    wrong: dict[tuple[int, int], int] = {}
    # never two at one tile: nobody could tell which is right
    touched: set[int] = set()
    for n in rng.permutation(len(edges)):
        e = edges[n]
        if len(wrong) < 8 and not {e.i, e.j} & touched:
            touched |= {e.i, e.j}
            wrong[(e.i, e.j)] = int(n)
            edges[n] = edge(e.i, e.j, e.match.shift + rng.choice([-1, 1], 2) * rng.uniform(3, 50, 2))
    solution = solve(tiles_at(AFFINE.to_stage(planned)), edges, AFFINE)
    assert solution.outliers == set(wrong)
    assert errors_px(solution, truth).max() < 0.2
    again = solve(tiles_at(AFFINE.to_stage(planned)), edges, AFFINE, near=solution.places)
    assert again.outliers == set(wrong)
    for index, place in again.places.items():
        np.testing.assert_allclose(place.yx_px, solution.places[index].yx_px, atol=0.02)


def test_an_affine_that_no_camera_has_is_not_believed() -> None:
    """Matches that all say "20 % larger" are a repeated pattern, or another objective: the stage model stays."""
    planned, _ = grid(6, 6, sigma_px=0.0)
    stretched = 1.2 * planned
    edges = edges_of(planned)
    edges = [edge(e.i, e.j, stretched[e.j] - stretched[e.i]) for e in edges]
    solution = solve(tiles_at(AFFINE.to_stage(planned)), edges, AFFINE)
    np.testing.assert_allclose(solution.affine.matrix, AFFINE.matrix, rtol=1e-3, atol=1e-4)
    assert errors_px(solution, stretched).max() < 0.2


def test_islands_are_told_apart_the_largest_first() -> None:
    planned, truth = grid(1, 9, sigma_px=1.0)
    edges = [e for e in edges_of(truth) if e.i != 2 and (e.i, e.j) not in {(7, 8), (1, 2)}]
    solution = solve(tiles_at(AFFINE.to_stage(planned)), edges, AFFINE)
    assert [solution.island[n] for n in range(9)] == [1, 1, 2, 0, 0, 0, 0, 0, 3]
    assert list(solution.weak) == [2, 8]


def test_one_tile_none_and_all_at_one_place() -> None:
    assert solve([], [], AFFINE).places == {}
    [place] = solve(tiles_at(np.array([[30.0, -40.0]])), [], AFFINE).places.values()
    assert (place.y_px, place.x_px) == pytest.approx((60.0, -80.0))
    same = solve(tiles_at(np.tile([[30.0, -40.0]], (5, 1))), [], AFFINE)
    assert [p.yx_px for p in same.places.values()] == [pytest.approx((60.0, -80.0))] * 5
    assert math.isnan(same.loop_closure_px)
    assert list(same.weak) == [0, 1, 2, 3, 4]


def test_uncertainty_is_of_the_right_size() -> None:
    planned, truth = grid(12, 12)
    solution = solve(tiles_at(AFFINE.to_stage(planned)), edges_of(truth, 0.1), AFFINE)
    z = (
        errors_px(solution, truth)
        / np.array([solution.places[n].sigma_px for n in range(144)])
        / math.sqrt(2)
    )
    assert 0.4 < math.sqrt(float((z**2).mean())) < 1.6
    assert isinstance(solution.places[0], Place)
