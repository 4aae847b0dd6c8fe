"""A stage does its work in order, waits without spinning, and fails without holding anyone up."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deblurd.stages import Stage


@given(st.lists(st.integers(), max_size=50), st.integers(1, 7))
@settings(max_examples=30, deadline=None)
def test_everything_put_is_worked_on_once_and_in_order(items: list[int], most: int) -> None:
    seen: list[list[int]] = []
    stage: Stage[int] = Stage("test", seen.append, most=most)
    stage.start()
    for item in items:
        stage.put(item)
    stage.close()
    assert [item for batch in seen for item in batch] == items
    assert all(0 < len(batch) <= most for batch in seen)
    assert stage.done == len(items)
    assert stage.failure is None


def test_an_abandoned_stage_ends_after_the_item_at_hand() -> None:
    begun, go, seen = threading.Event(), threading.Event(), list[int]()

    def work(items: list[int]) -> None:
        begun.set()
        seen.extend(items)
        assert_set(go)

    stage: Stage[int] = Stage("test", work)
    stage.start()
    put_four(stage)
    assert_set(begun)
    stage.abandon(ValueError("enough"))
    go.set()
    stage.close()
    assert seen == [0]
    assert isinstance(stage.failure, ValueError)


def put_four(stage: Stage[int]) -> None:
    for item in range(4):
        stage.put(item)


def test_a_full_stage_holds_its_supplier_until_there_is_room() -> None:
    go = threading.Event()
    stage: Stage[int] = Stage("test", lambda _: assert_set(go), room=1)
    stage.start()
    put_all = threading.Thread(target=put_four, args=(stage,))
    put_all.start()
    put_all.join(0.2)
    assert put_all.is_alive()
    go.set()
    put_all.join()
    stage.close()
    assert stage.done == 4


def test_a_failed_stage_keeps_its_error_and_lets_go_of_its_suppliers() -> None:
    def fail(_: list[int]) -> None:
        raise ValueError("broken")

    stage: Stage[int] = Stage("test", fail, room=1)
    stage.start()
    for i in range(10):
        stage.put(i)
    stage.close()
    assert isinstance(stage.failure, ValueError)
    stage.put(1)


def test_idle_work_is_done_while_nothing_comes() -> None:
    idle = threading.Event()
    stage: Stage[int] = Stage("test", lambda _: None, when_idle=idle.set, idle_s=0.01)
    stage.start()
    assert idle.wait(5)
    stage.close()


def test_closing_twice_is_harmless() -> None:
    stage: Stage[int] = Stage("test", lambda _: None)
    stage.start()
    stage.close()
    stage.close()


def assert_set(event: threading.Event) -> None:
    if not event.wait(10):
        pytest.fail("nobody gave the word")
