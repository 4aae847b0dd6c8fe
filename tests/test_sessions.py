"""Slides that begin and end by themselves: what happens, one story after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deblurd.frames import Pose
from deblurd.pipeline import Finished
from deblurd.sessions import DISK_S, WAITING_S
from deblurd.slides.starting import REST_S
from deblurd.slides.states import NEXT
from tests.microscope_bench import HOME_UM, Bench, Pipeline, stand_in


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(**slide: Any) -> Bench:
        found = Bench(tmp_path / f"slides{len(made)}", **slide)
        stand_in(found, monkeypatch)
        made.append(found)
        return found

    yield make
    for each in made:
        each.sessions.end("stopped")
        each.settle()
        each.deblurrer.close()


def test_a_slide_begins_with_tissue_and_keeps_the_fields_before_it_was_sure(
    bench: Callable[..., Bench],
) -> None:
    b = bench()
    b.rest(1.0)
    assert b.state == "armed"
    b.go(0, 60, 2)
    assert b.state == "scanning"
    assert len(b.pipelines[0].frames) == 2
    assert b.pipelines[0].events == [("scanning", "tissue under a moving stage")]


def test_glass_without_tissue_begins_nothing(bench: Callable[..., Bench]) -> None:
    b = bench()
    b.at_um = np.array([400.0, 900.0])
    b.go(0, 50, 8)
    assert b.pipelines == []
    b.go(0, -90, 8)
    assert b.state == "scanning"


def test_a_field_that_waited_long_is_of_another_slide(bench: Callable[..., Bench]) -> None:
    b = bench()
    b.rest(WAITING_S / 2)
    b.glass = 1
    b.rest(2 * WAITING_S)
    b.go(0, 60, 2)
    [slide] = b.pipelines
    assert {b.glass_of[frame.number] for frame in slide.frames} == {1}


def test_the_load_position_ends_a_slide_and_a_short_gap_does_not(bench: Callable[..., Bench]) -> None:
    b = bench()
    b.go(0, 60, 6)
    where = b.at_um
    b.at_um = np.array(HOME_UM)
    b.rest(3.0)
    assert b.state == "closing"
    b.at_um = where
    b.go(30, -60, 4)
    assert b.state == "scanning"
    assert len(b.pipelines) == 1
    kinds = [kind for kind, _ in b.pipelines[0].events]
    assert kinds == ["scanning", "closing", "scanning"]
    assert b.pipelines[0].events[1:] == [
        ("closing", "load position"),
        ("scanning", "only a short gap: its own ground is seen again"),
    ]


def test_another_glass_at_the_same_place_is_another_slide(bench: Callable[..., Bench]) -> None:
    b = bench()
    b.go(0, 60, 6)
    where = b.at_um
    b.at_um = np.array(HOME_UM)
    b.rest(3.0)
    b.glass, b.at_um = 1, where
    b.go(30, -60, 4)
    assert len(b.pipelines) == 2
    b.settle()
    assert b.pipelines[0].is_finished
    assert b.news == [("done", f"{b.pipelines[0].folder.name} is done: {len(b.pipelines[0].frames)} fields")]


def test_slides_that_have_ended_are_painted_one_after_the_other(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    b = bench(start="field")
    may_end, at_work, most = threading.Event(), [], []
    finish = Pipeline.finish

    def slowly(pipeline: Pipeline) -> Finished:
        at_work.append(pipeline)
        assert may_end.wait(30)
        most.append(len(at_work))
        at_work.remove(pipeline)
        return finish(pipeline)

    monkeypatch.setattr(Pipeline, "finish", slowly)
    for _ in range(3):
        b.go(0, 60, 2)
        b.sessions.order("finish")
        b.rest(REST_S + 1)
        b.go(60, 0, 2)
    b.sessions.end("stopped")
    assert not b.sessions.finishing.wait(0.1)
    may_end.set()
    b.settle()
    assert len(most) > 2
    assert set(most) == {1}
    assert [finished.folder.name for finished in b.sessions.finishing.finished] == [
        pipeline.folder.name for pipeline in b.pipelines
    ]


def test_a_gap_that_was_long_ends_a_slide_for_good_and_its_ground_begins_no_other(
    bench: Callable[..., Bench],
) -> None:
    b = bench(resume_s=5.0)
    b.go(0, 60, 6)
    b.rest(31.0)
    assert b.state == "closing"
    b.rest(6.0)
    b.settle()
    assert b.pipelines[0].is_finished
    b.go(0, -60, 4)
    assert b.state == "armed"
    b.sessions.order("start")
    b.go(0, -60, 2)
    assert len(b.pipelines) == 2


def test_after_finish_the_stage_may_go_on_over_the_same_tissue(bench: Callable[..., Bench]) -> None:
    b = bench()
    b.go(60, 0, 3)
    b.sessions.order("finish")
    b.go(60, 0, 8)
    assert [len(b.pipelines), b.state] == [1, "armed" if b.sessions.finishing.closing == () else "closing"]
    b.rest(REST_S + 1)
    b.glass = 2
    b.go(-60, 0, 3)
    assert len(b.pipelines) == 2


def test_a_pause_takes_no_ground(bench: Callable[..., Bench]) -> None:
    b = bench()
    b.go(0, 60, 4)
    fields = len(b.pipelines[0].frames)
    b.sessions.order("pause")
    b.rest(100.0)
    b.go(60, 0, 4)
    assert (b.state, b.paused, len(b.pipelines[0].frames)) == ("paused", [True], fields)
    b.sessions.order("resume")
    b.frame()
    b.go(-60, 0, 4)
    assert (b.state, b.paused) == ("scanning", [True, False])
    # the ground that it passed while it paused is new, what it had before is not
    assert fields < len(b.pipelines[0].frames) <= fields + 4


def test_a_slide_that_pauses_waits_for_hours_but_not_for_another_glass(bench: Callable[..., Bench]) -> None:
    b = bench()
    b.go(0, 60, 4)
    b.sessions.order("pause")
    b.rest(1000.0)
    assert b.state == "paused"
    where, b.at_um = b.at_um, np.array(HOME_UM)
    b.rest(3.0)
    assert b.state == "closing"
    b.glass, b.at_um = 1, where
    b.rest(1.0)
    b.go(30, -60, 4)
    assert steps(b.pipelines[0])[-1] == ("closing", "load position, while it was paused")
    assert [{b.glass_of[frame.number] for frame in pipeline.frames} for pipeline in b.pipelines] == [{0}, {1}]


def test_a_slide_that_pauses_and_comes_back_from_the_load_position_goes_on(
    bench: Callable[..., Bench],
) -> None:
    b = bench()
    b.go(0, 60, 4)
    where = b.at_um
    b.sessions.order("pause")
    b.rest(1.0)
    b.at_um = np.array(HOME_UM)
    b.rest(3.0)
    b.at_um = where
    b.go(30, -60, 4)
    assert (b.state, len(b.pipelines)) == ("scanning", 1)
    assert steps(b.pipelines[0])[-1] == ("scanning", "only a short gap: its own ground is seen again")


def test_another_objective_closes_the_level_and_the_first_one_may_go_on(bench: Callable[..., Bench]) -> None:
    b = bench(resume_s=5.0)
    b.go(0, 60, 4)
    b.sessions.close_level()
    assert b.state == "closing"
    b.sessions.close_level()  # said again and again
    b.go(30, -60, 4)
    assert (b.state, len(b.pipelines)) == ("scanning", 1)
    b.sessions.close_level()
    b.rest(6.0)
    b.settle()
    assert b.pipelines[0].is_finished
    assert steps(b.pipelines[0])[-1] == ("closing", "another objective is in place")


def test_a_slide_ends_by_idling_also_while_no_frames_come(bench: Callable[..., Bench]) -> None:
    b = bench()
    b.go(0, 60, 4)
    b.now_s += 31.0
    b.sessions.look(Pose(b.now_s, *map(float, b.at_um)))
    assert steps(b.pipelines[0])[-1] == ("closing", "no new ground for 30 s")


def test_another_program_s_acquisition_is_a_slide(bench: Callable[..., Bench]) -> None:
    b = bench(start="asked")
    b.go(0, 60, 3)
    assert (b.state, b.pipelines) == ("idle", [])
    b.sessions.acquisition(True)
    b.go(0, 60, 3)
    b.sessions.acquisition(False)
    b.frame()
    assert b.pipelines[0].events[:2] == [
        ("scanning", "Micro-Manager's acquisition"),
        ("closing", "Micro-Manager's acquisition ended"),
    ]


def test_an_acquisition_ends_only_the_slide_that_it_began(bench: Callable[..., Bench]) -> None:
    b = bench()
    b.go(0, 60, 3)
    b.sessions.acquisition(True)
    b.go(0, 60, 3)
    b.sessions.acquisition(False)
    b.go(0, 60, 3)
    assert (b.state, len(b.pipelines)) == ("scanning", 1)


def test_an_acquisition_that_was_over_before_its_first_field_begins_no_slide(
    bench: Callable[..., Bench],
) -> None:
    b = bench(start="asked")
    b.sessions.acquisition(True)
    b.sessions.acquisition(False)
    b.go(0, 60, 3)
    assert (b.state, b.pipelines) == ("idle", [])


def steps(pipeline: Pipeline) -> list[tuple[str, str]]:
    """Its story, without the warnings that are noted in between when there is time."""
    return [event for event in pipeline.events if event[0] in NEXT]


def fields_of(bench: Bench) -> list[int]:
    return [len(pipeline.frames) for pipeline in bench.pipelines]


def test_a_full_disk_pauses_a_slide_and_room_lets_it_go_on(bench: Callable[..., Bench]) -> None:
    b = bench()
    b.go(0, 60, 4)
    [before] = fields_of(b)
    b.fill_disk()
    b.rest(DISK_S + 0.5)
    assert (b.state, b.sessions.held, b.paused) == ("paused", "no room", [True])
    manifest = b.pipelines[0].folder.read_manifest()
    assert (manifest["state"], manifest["reason"]) == ("incomplete", "disk full")
    assert b.news == [("stopped", "no room")]
    assert "resume" not in b.sessions.actions
    # nobody can have it go on without room, however long it takes
    b.sessions.order("resume")
    b.go(60, 0, 4)
    b.rest(100.0)
    assert fields_of(b) == [before]
    b.make_room()
    b.rest(DISK_S + 0.5)
    assert (b.state, b.sessions.held, b.paused) == ("scanning", None, [True, False])
    assert b.pipelines[0].folder.read_manifest()["state"] == "growing"
    b.go(-60, 0, 4)
    # what it passed meanwhile is new ground still
    assert fields_of(b) > [before]
    assert [kind for kind, _ in steps(b.pipelines[0])] == ["scanning", "paused", "scanning"]


def test_a_disk_that_is_full_before_anybody_looks_stops_nothing_for_good(bench: Callable[..., Bench]) -> None:
    b = bench()
    b.go(0, 60, 4)
    b.fill_disk()
    b.go(60, 0, 3)  # in less than DISK_S
    b.settle()
    fields = len(b.pipelines[0].frames)
    assert (b.state, b.sessions.held, b.paused, b.sessions.finishing.failure) == (
        "paused",
        "no room",
        [True],
        None,
    )
    assert steps(b.pipelines[0])[-1] == ("closing", "disk full")
    b.make_room()
    b.rest(DISK_S + 0.5)
    b.go(60, 0, 3)
    assert (b.state, b.paused, len(b.pipelines[0].frames)) == ("scanning", [True, False], fields)
    assert steps(b.pipelines[1])[0] == ("scanning", "there is room on the disk again")


def test_a_slide_that_would_begin_on_a_disk_that_has_just_been_filled_waits(
    bench: Callable[..., Bench],
) -> None:
    b = bench()
    b.rest(1.0)
    b.fill_disk()
    b.go(0, 60, 3)  # in less than DISK_S
    assert (b.state, b.pipelines) == ("paused", [])
    b.make_room()
    b.rest(DISK_S + 0.5)
    b.go(0, 60, 3)
    assert (b.state, b.sessions.finishing.failure) == ("scanning", None)


def test_nothing_begins_on_a_full_disk(bench: Callable[..., Bench]) -> None:
    b = bench()
    b.fill_disk()
    b.frame()
    b.sessions.order("start")
    b.go(0, 60, 4)
    assert (b.state, b.pipelines) == ("paused", [])
    b.make_room()
    b.rest(DISK_S + 0.5)
    b.go(0, 60, 2)
    assert b.state == "scanning"


def test_a_slide_that_is_taken_away_while_the_disk_is_full_has_ended(bench: Callable[..., Bench]) -> None:
    b = bench()
    b.go(0, 60, 4)
    b.fill_disk()
    b.rest(DISK_S + 0.5)
    where, b.at_um = b.at_um, np.array(HOME_UM)
    b.rest(3.0)
    b.glass, b.at_um = 1, where
    b.make_room()
    b.rest(DISK_S + 0.5)
    b.go(0, -60, 4)
    b.settle()
    assert b.pipelines[0].is_finished
    assert steps(b.pipelines[0])[-1] == ("closing", "load position, while the disk was full")
    assert {b.glass_of[frame.number] for frame in b.pipelines[1].frames} == {1}


def test_who_pauses_a_slide_while_the_disk_is_full_lets_it_go_on_himself(bench: Callable[..., Bench]) -> None:
    b = bench()
    b.go(0, 60, 4)
    b.fill_disk()
    b.rest(DISK_S + 0.5)
    b.sessions.order("pause")
    b.frame()
    b.make_room()
    b.rest(DISK_S + 0.5)
    assert (b.state, b.paused) == ("paused", [True])
    b.sessions.order("resume")
    b.frame()
    assert (b.state, b.paused) == ("scanning", [True, False])
