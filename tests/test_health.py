"""A thread is stuck that has work and does not move on; one that waits for work is not."""

from __future__ import annotations

import threading
import time

from deblurd import health
from deblurd.stages import Stage

PATIENCE_S = 0.05


def names() -> set[str]:
    return {each.name for each in health.stuck(PATIENCE_S)}


def until_stuck(name: str) -> None:
    end_s = time.perf_counter() + 10
    while name not in names():
        assert time.perf_counter() < end_s
        time.sleep(0.005)


def test_a_thread_that_does_not_beat_is_stuck_until_it_beats_rests_or_leaves() -> None:
    with health.watched("careful"):
        until_stuck("careful")
        [found] = [each for each in health.stuck(PATIENCE_S) if each.name == "careful"]
        assert found.for_s > PATIENCE_S
        health.beat()
        assert "careful" not in {each.name for each in health.stuck(5.0)}
        health.rest()
        time.sleep(2 * PATIENCE_S)
        assert "careful" not in names()
        health.beat()
        until_stuck("careful")
    assert "careful" not in names()


def test_who_watches_itself_in_something_else_is_looked_at_there() -> None:
    with health.watched("outer"):
        with health.watched("inner"):
            until_stuck("inner")
            assert "outer" not in names()
        until_stuck("outer")


def test_threads_that_are_not_watched_may_call_all_the_same() -> None:
    health.beat()
    health.rest()
    assert threading.current_thread().name not in names()


def test_a_stage_is_stuck_in_its_work_and_not_while_it_waits_for_some() -> None:
    go = threading.Event()

    def work(_: list[int]) -> None:
        assert go.wait(20)

    stage: Stage[int] = Stage("slow", work)
    stage.start()
    time.sleep(2 * PATIENCE_S)
    assert "slow" not in names()
    stage.put(1)
    until_stuck("slow")
    go.set()
    stage.close()
    assert "slow" not in names()


def test_of_a_row_of_stages_the_one_that_holds_the_others_up_is_named() -> None:
    go = threading.Event()

    def work(_: list[int]) -> None:
        assert go.wait(20)

    last: Stage[int] = Stage("last", work, room=1)
    first: Stage[int] = Stage("first", lambda items: last.put(items[0]))
    first.start()
    last.start()
    for item in range(6):
        first.put(item)
    until_stuck("last")
    # it waits half a second at a time for room
    assert {each.name for each in health.stuck(1.0)} <= {"last"}
    time.sleep(1.2)
    assert {each.name for each in health.stuck(1.0)} == {"last"}
    go.set()
    first.close()
    last.close()
