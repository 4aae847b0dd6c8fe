"""Driving a stage of a real core: along the lanes, and away from them when somebody says so."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from deblurd.acquire.microscope import Microscope
from deblurd.errors import MicroscopeError
from deblurd.scan.driver import Driver
from deblurd.scan.lane import Lane

Simulated = Callable[..., Microscope]

LONG = Lane((0.0, 0.0), (0.0, 5000.0), 500.0)


def wait_for(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    until_s = time.perf_counter() + seconds
    while not condition():
        assert time.perf_counter() < until_s, "it did not happen in time"
        time.sleep(0.005)


def x_um(microscope: Microscope) -> float:
    return microscope.position_um()[1]


@pytest.fixture
def driving() -> Iterator[Callable[..., Driver]]:
    """Starts a driver; stops all of them in the end."""
    drivers: list[Driver] = []

    def start(*args: object, **options: object) -> Driver:
        drivers.append(Driver(*args, **options))  # type: ignore[arg-type]
        drivers[-1].start()
        return drivers[-1]

    yield start
    for driver in drivers:
        driver.stop()


def test_lanes_are_driven_in_order_and_the_stage_ends_at_rest(
    simulated: Simulated, driving: Callable[..., Driver]
) -> None:
    microscope = simulated()
    began: list[Lane] = []
    lanes = [Lane((0.0, 0.0), (0.0, 100.0), 2000.0), Lane((30.0, 100.0), (30.0, 20.0), 1000.0)]
    driver = driving(microscope, lanes, on_lane=began.append)
    assert driver.done.wait(5)
    assert microscope.position_um() == (30.0, 20.0)
    assert not microscope.is_moving()
    assert driver.failure is None
    assert began == lanes


def test_a_pause_halts_the_stage_and_going_on_brings_it_to_the_end(
    simulated: Simulated, driving: Callable[..., Driver]
) -> None:
    microscope = simulated()
    lane = Lane((0.0, 0.0), (0.0, 600.0), 600.0)
    driver = driving(microscope, [lane])
    wait_for(lambda: x_um(microscope) > 50)
    driver.pause()
    wait_for(lambda: not microscope.is_moving())
    at_um = x_um(microscope)
    assert 50 < at_um < 500
    assert not driver.done.wait(0.1)
    assert x_um(microscope) == at_um
    driver.go_on()
    assert driver.done.wait(5)
    assert x_um(microscope) == 600.0


@pytest.mark.parametrize("paused", [False, True])
def test_home_leaves_the_lanes(simulated: Simulated, driving: Callable[..., Driver], paused: bool) -> None:
    microscope = simulated()
    driver = driving(microscope, [LONG, LONG], home_um=(10.0, -20.0))
    wait_for(lambda: x_um(microscope) > 50)
    if paused:
        driver.pause()
    driver.home()
    assert driver.done.wait(5)
    assert microscope.position_um() == (10.0, -20.0)
    # and once more, when all is over
    microscope.move_to_um(50.0, 50.0)
    driver.home()
    wait_for(lambda: not microscope.is_moving())
    assert microscope.position_um() == (10.0, -20.0)


@pytest.mark.parametrize("paused", [False, True])
def test_a_stop_brakes_at_once(simulated: Simulated, driving: Callable[..., Driver], paused: bool) -> None:
    microscope = simulated()
    driver = driving(microscope, [LONG])
    wait_for(lambda: x_um(microscope) > 50)
    if paused:
        driver.pause()
    driver.stop()
    assert driver.done.is_set()
    wait_for(lambda: not microscope.is_moving(), 0.5)
    assert x_um(microscope) < 1000


def test_what_comes_next_may_depend_on_what_was_seen(
    simulated: Simulated, driving: Callable[..., Driver]
) -> None:
    microscope = simulated()
    asked_at: list[float] = []

    def lanes() -> Iterator[Lane]:
        for end_um in (40.0, 80.0):
            asked_at.append(x_um(microscope))
            yield Lane((0.0, 0.0), (0.0, end_um), 2000.0)

    assert driving(microscope, lanes()).done.wait(5)
    assert asked_at == [0.0, 40.0]


def test_a_lane_may_end_where_there_is_no_more_tissue(
    simulated: Simulated, driving: Callable[..., Driver]
) -> None:
    microscope = simulated()
    lane = Lane((0.0, 0.0), (0.0, 5000.0), 500.0, until_blank=True)
    driver = driving(microscope, [lane], is_blank=lambda: x_um(microscope) > 100)
    assert driver.done.wait(5)
    wait_for(lambda: not microscope.is_moving(), 0.5)
    assert 100 < x_um(microscope) < 1000


def test_the_stage_never_leaves_its_limits(simulated: Simulated, driving: Callable[..., Driver]) -> None:
    microscope = simulated()
    driver = driving(microscope, [LONG], limits_um=((-10.0, 10.0), (200.0, -10.0)))
    assert driver.done.wait(5)
    assert isinstance(driver.failure, MicroscopeError)
    assert "stage_limits_um" in str(driver.failure)
    assert x_um(microscope) == 0.0


@pytest.mark.parametrize(
    ("busy", "words"),
    [(True, "says that it moves, but has stood at x 0"), (False, "the stage stopped at x 0")],
)
def test_a_stage_that_gets_nowhere_ends_the_scan(
    simulated: Simulated,
    driving: Callable[..., Driver],
    monkeypatch: pytest.MonkeyPatch,
    busy: bool,
    words: str,
) -> None:
    """A motor without power: Micro-Manager would time out for those who wait for the device."""
    for name, value in (("PATIENCE_S", 0.3), ("AGAIN_S", 0.1), ("STANDS_LOOK_S", 0.05)):
        monkeypatch.setattr(f"deblurd.scan.driver._{name}", value)
    microscope = simulated()
    moves: list[tuple[float, float]] = []
    monkeypatch.setattr(microscope, "move_to_um", lambda y, x: moves.append((y, x)))
    monkeypatch.setattr(microscope, "is_moving", lambda: busy)
    driver = driving(microscope, [Lane((0.0, 900.0), (0.0, 900.0), 500.0)])
    assert driver.done.wait(5)
    assert isinstance(driver.failure, MicroscopeError)
    assert words in str(driver.failure)
    # one that says that it is there, and is not, is sent once more: somebody may have moved it
    assert moves == [(0.0, 900.0)] * (1 if busy else 2)


def test_the_focus_follows_its_plane(simulated: Simulated, driving: Callable[..., Driver]) -> None:
    microscope = simulated()
    heights: list[float] = []

    def plane(at_um: tuple[float, float]) -> float:
        heights.append(at_um[1] / 100)
        return heights[-1]

    lane = Lane((0.0, 100.0), (0.0, 500.0), 1000.0)
    driver = driving(microscope, [lane], focus=plane)
    assert driver.done.wait(5)
    assert microscope.z_um() == pytest.approx(5.0, abs=0.3)
    assert sum(1.5 < z < 4.5 for z in heights) > 3


def test_each_lane_sets_its_speed_and_exposure(simulated: Simulated, driving: Callable[..., Driver]) -> None:
    microscope = simulated()
    stop, exposures = threading.Event(), []
    lanes = [Lane((0.0, 0.0), (0.0, 60.0), 600.0, exposure_ms=ms, rest_s=0.1) for ms in (2.0, 4.0)]
    driver: Driver | None = None
    for frame in microscope.frames(stop):
        exposures.append((frame.sequence, frame.number, frame.exposure_ms))
        if len(exposures) == 5:
            driver = driving(microscope, lanes)
        if driver is not None and driver.done.is_set():
            stop.set()
    assert driver is not None
    assert driver.failure is None
    assert [e[2] for e in exposures if e[1] == 0] == [1.0, 2.0, 4.0]
    assert {e[:1] + e[2:] for e in exposures} == {(0, 1.0), (1, 2.0), (2, 4.0)}
    assert not any(microscope.losses.counts().values())
