"""Joining objects of frames to tracks: gaps, crossings, frames that are missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deblurd.geometry import PixelToStage
from deblurd.trajectory.detect import Points
from deblurd.trajectory.link import Found, Linked, LinkRules, link
from deblurd.trajectory.own_motion import without_own_blur
from deblurd.trajectory.series import Instant, Series


def found(number: int, places: Sequence[Sequence[float]], t_s: float | None = None) -> Found:
    yx = np.array(places, dtype=np.float64).reshape(-1, 2)
    points = Points(yx, np.full(len(yx), 4.0), np.full(len(yx), 9.0))
    return Found(Instant(number, number / 10 if t_s is None else t_s), points, yx)


def linked(founds: Sequence[Found], reach_um: float | None = 6.0, most_gap: int = 2) -> list[Linked]:
    return list(link(founds, LinkRules(0.1, 1.0, reach_um, most_gap)))


def tracks_of(each: Linked) -> list[int]:
    return [int(track) for track in each.tracks]


def test_a_gap_is_closed_and_a_longer_one_is_not() -> None:
    way = [[[10.0, 10.0 + n]] for n in range(12)]
    short = [found(n, [] if n in (5, 6) else way[n]) for n in range(12)]
    long = [found(n, [] if n in (5, 6, 7) else way[n]) for n in range(12)]
    assert len({track for each in linked(short) for track in tracks_of(each)}) == 1
    assert len({track for each in linked(long) for track in tracks_of(each)}) == 2


def test_missing_frames_count_as_a_gap_in_time() -> None:
    near = [found(n, [[10.0, 10.0]], t_s) for n, t_s in enumerate((0.0, 0.1, 0.2, 0.5, 0.6))]
    far = [found(n, [[10.0, 10.0]], t_s) for n, t_s in enumerate((0.0, 0.1, 0.2, 3.0, 3.1))]
    assert len({track for each in linked(near) for track in tracks_of(each)}) == 1
    assert len({track for each in linked(far) for track in tracks_of(each)}) == 2


def test_swimmers_that_cross_keep_their_names() -> None:
    frames = [found(n, [[50.0, 10.0 + 4 * n], [50.5, 90.0 - 4 * n]]) for n in range(20)]
    for each in linked(frames, reach_um=8.0):
        assert tracks_of(each) == [0, 1]


def test_one_leaves_and_another_enters() -> None:
    frames = [found(n, [[10.0, 10.0]] if n < 4 else [[80.0, 80.0]]) for n in range(8)]
    assert [tracks_of(each) for each in linked(frames)] == [[0]] * 4 + [[1]] * 4


def test_frames_without_objects_pass_through() -> None:
    assert [len(each.tracks) for each in linked([found(n, []) for n in range(7)])] == [0] * 7
    assert linked([]) == []


def test_frames_are_asked_for_one_at_a_time() -> None:
    asked = 0

    def frames() -> Iterator[Found]:
        nonlocal asked
        for n in range(100):
            asked += 1
            yield found(n, [[10.0, 10.0]])

    for count, _ in enumerate(link(frames(), LinkRules(0.1, 1.0)), start=1):
        assert asked <= count + 5


def test_a_linker_that_feeds_another_keeps_its_names() -> None:
    """trackpy counts the tracks of all linkers together, and begins anew with each."""
    rng = np.random.default_rng(1)
    frames = [found(n, rng.uniform(0, 60, (8 + n, 2)).tolist()) for n in range(20)]
    rules = LinkRules(0.1, 1.0, 6.0)
    for each in link((inner.found for inner in link(frames, rules)), rules):
        assert len(set(tracks_of(each))) == len(each.tracks)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), count=st.integers(0, 60), frames=st.integers(1, 8))
def test_no_track_has_two_objects_of_a_frame_and_none_is_lost(seed: int, count: int, frames: int) -> None:
    rng = np.random.default_rng(seed)
    # so crowded that trackpy's own search would give up
    places: list[NDArray[np.float64]] = [rng.uniform(0, 30, (count, 2)) for _ in range(frames)]
    for number, each in enumerate(
        linked([found(n, p.tolist()) for n, p in enumerate(places)], reach_um=10.0)
    ):
        assert len(set(tracks_of(each))) == len(each.tracks) == count
        assert np.array_equal(each.found.yx_um, places[number].reshape(-1, 2))


def test_where_most_links_are_guesses_no_velocity_is_believed() -> None:
    frames = [found(n, [[20.0, 20.0 + 8 * n], [60.0, 40.0], [90.0, 30.0], [120.0, 50.0]]) for n in range(3)]
    light = np.random.default_rng(1).normal(50, 1, (160, 160)).astype(np.float32)
    instants = tuple(each.instant for each in frames)
    series = Series("a", instants, (160, 160), PixelToStage.from_scale(1.0), "linear", 100.0, lambda _: light)

    def moved(*tracks: Sequence[int]) -> bool:
        given = [
            Linked(each, np.array(these, dtype=np.int64)) for each, these in zip(frames, tracks, strict=True)
        ]
        seen = list(without_own_blur(given, series, lambda _: light, lambda: False))
        return not np.array_equal(seen[1].points.yx_px, frames[1].points.yx_px)

    assert moved([0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3])
    assert not moved([0, 1, 2, 3], [0, 4, 5, 6], [0, 7, 8, 9])
