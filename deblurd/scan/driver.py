"""Drives the stage along lanes; pauses, stops and goes home when it is told to."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable

from deblurd.acquire.microscope import Microscope
from deblurd.errors import MicroscopeError
from deblurd.scan.lane import Lane, Point

log = logging.getLogger(__name__)

Limits = tuple[tuple[float, float], tuple[float, float]]
"""Two opposite corners, each (x, y) um, between which the stage may move."""

_LOOK_S = 0.01
_NEAR_UM = 50.0
_PATIENCE_S = 5.0
_AGAIN_S = 1.0
_STANDS_UM = 1.0
_STANDS_LOOK_S = 0.5
_FOCUS_UM = 0.3
"""The focus follows its plane in steps of so much: less than any objective's depth of field."""


def is_within(limits_um: Limits | None, at_um: Point) -> bool:
    """Whether (y, x) lies between the corners; anything does where there are none."""
    if limits_um is None:
        return True
    (y, x), ((xa, ya), (xb, yb)) = at_um, limits_um
    return min(xa, xb) <= x <= max(xa, xb) and min(ya, yb) <= y <= max(ya, yb)


def check_within(limits_um: Limits | None, at_um: Point) -> None:
    """Raises MicroscopeError where (y, x) lies outside."""
    if not is_within(limits_um, at_um):
        raise MicroscopeError(
            f"the stage was not moved to x {at_um[1]:.0f}, y {at_um[0]:.0f} um, because that lies outside scan.stage_limits_um: choose another "
            "area, or correct the limits"
        )


class Driver(threading.Thread):
    """Moves along lanes, one after the other, until the last is done or `stop` is called.

    lanes: taken one at a time, when the one before is done; so what comes next may depend on what was seen. limits_um: no move leaves them.
    home_um: (y, x), where `home` leads; the start of the first lane if absent. focus: height of the focus drive, um, at (y, x) um; None leaves it.
    is_blank: whether there is no tissue under the objective now, for lanes that end there. on_lane: told each
    lane when the stage stands at its start. done: set when the stage is at rest for good; done_s:
    when that was, None before. failure: what ended it early, if anything did. The methods may be called from any thread.
    """

    def __init__(
        self,
        microscope: Microscope,
        lanes: Iterable[Lane],
        *,
        limits_um: Limits | None = None,
        home_um: Point | None = None,
        focus: Callable[[Point], float | None] | None = None,
        is_blank: Callable[[], bool] = lambda: False,
        on_lane: Callable[[Lane], None] = lambda _: None,
    ) -> None:
        super().__init__(name="deblurd-drive", daemon=True)
        self._microscope, self._lanes = microscope, iter(lanes)
        self._limits_um, self._home_um, self._focus, self._is_blank = limits_um, home_um, focus, is_blank
        self._on_lane = on_lane
        self._leave, self._halt, self._clear = threading.Event(), threading.Event(), threading.Event()
        self._clear.set()
        self._goes_home = False
        self._speed_um_s: float | None = None
        self._exposure_ms: float | None = None
        self._z_um: float | None = None
        self.rest_s = 0.0
        self.lane: Lane | None = None
        self.done = threading.Event()
        self.done_s: float | None = None
        self.failure: MicroscopeError | None = None

    def run(self) -> None:
        try:
            while not self._leave.is_set() and (lane := next(self._lanes, None)) is not None:
                self._drive(lane)
            if self._goes_home and self._home_um is not None:
                self._go(self._home_um, self._halt)
        except MicroscopeError as err:
            log.error("the scan of the area ended early: %s", err)
            self.failure = err
        finally:
            self.lane = None
            self.done_s = time.perf_counter()
            self.done.set()

    # --- for other threads ---

    @property
    def is_paused(self) -> bool:
        return not self._clear.is_set()

    def pause(self) -> None:
        """Halts the stage where it is, until `go_on`."""
        self._clear.clear()

    def go_on(self) -> None:
        """Drives on to where the stage was going."""
        self._clear.set()

    def home(self) -> None:
        """Leaves the lanes for good, and drives home. Raises MicroscopeError."""
        self._goes_home = True
        self._leave.set()
        self._clear.set()
        if self.done.is_set() and self._home_um is not None:
            check_within(self._limits_um, self._home_um)
            self._microscope.move_to_um(*self._home_um)

    def stop(self) -> None:
        """Stops the stage and waits for the thread."""
        self._goes_home = False
        self._leave.set()
        self._halt.set()
        self._clear.set()
        if self.is_alive():
            self.join()

    # --- the thread ---

    def _drive(self, lane: Lane) -> None:
        self.lane = lane
        self._set_out(lane)
        self._go(lane.start_um, self._leave)
        if self._home_um is None:
            self._home_um = lane.start_um
        if not self._leave.is_set():
            self._on_lane(lane)
        self._leave.wait(self.rest_s + lane.rest_s)
        if lane.end_um != lane.start_um:
            self._go(lane.end_um, self._leave, until_blank=lane.until_blank)
            self._leave.wait(self.rest_s + lane.rest_s)

    def _set_out(self, lane: Lane) -> None:
        if lane.speed_um_s != self._speed_um_s:
            self._microscope.set_speed_um_s(lane.speed_um_s)
            self._speed_um_s = lane.speed_um_s
        if lane.exposure_ms is not None and lane.exposure_ms != self._exposure_ms:
            self._microscope.set_exposure_ms(lane.exposure_ms)
            self._exposure_ms = lane.exposure_ms

    def _go(self, at_um: Point, until: threading.Event, *, until_blank: bool = False) -> None:
        """Moves there and waits. A stage that says that it is not busy is believed only near the target: some say so too early."""
        check_within(self._limits_um, at_um)
        moved_s = -math.inf
        sent_again = False
        progress = _Progress(self._microscope)
        while not until.is_set():
            if not self._clear.is_set():
                self._microscope.halt()
                self._clear.wait()
                moved_s = -math.inf
                continue
            if moved_s == -math.inf:
                self._follow_focus(at_um if self._z_um is None else None)
                self._microscope.move_to_um(*at_um)
                moved_s = time.perf_counter()
                progress = _Progress(self._microscope)
            elif self._microscope.is_moving():
                moved_s = time.perf_counter()
                progress.check(moved_s)
            elif self._is_there(at_um, time.perf_counter() - moved_s):
                self._follow_focus(at_um)
                return
            elif not sent_again and time.perf_counter() - moved_s > _AGAIN_S:
                log.warning(
                    "the stage stopped on its way, as if somebody had moved it: it is sent there again"
                )
                sent_again, moved_s = True, -math.inf
                continue
            if until_blank and self._is_blank():
                break
            self._follow_focus()
            until.wait(_LOOK_S)
        self._microscope.halt()

    def _is_there(self, at_um: Point, rested_s: float) -> bool:
        now_um = self._microscope.position_um()
        if math.dist(now_um, at_um) < _NEAR_UM:
            return True
        if rested_s > _PATIENCE_S:
            raise MicroscopeError(
                f"the stage stopped at x {now_um[1]:.0f}, y {now_um[0]:.0f} um on its way to x {at_um[1]:.0f}, y {at_um[0]:.0f} um: check "
                "whether it has met its limit or an obstacle, and that the area to scan lies within its travel"
            )
        return False

    def _follow_focus(self, at_um: Point | None = None) -> None:
        """Brings the focus drive to where its plane is at `at_um`, or under the objective."""
        if self._focus is None:
            return
        z_um = self._focus(self._microscope.position_um() if at_um is None else at_um)
        if z_um is None:
            return
        if self._z_um is None or abs(z_um - self._z_um) > _FOCUS_UM:
            self._microscope.focus_to_um(z_um)
            self._z_um = z_um


class _Progress:
    """Whether a stage that says that it moves does so."""

    def __init__(self, microscope: Microscope) -> None:
        self._microscope = microscope
        self._at_um: Point | None = None
        self._since_s = self._looked_s = time.perf_counter()

    def check(self, now_s: float) -> None:
        """Raises MicroscopeError where it has stood still for seconds."""
        if now_s - self._looked_s < _STANDS_LOOK_S:
            return
        self._looked_s, at_um = now_s, self._microscope.position_um()
        if self._at_um is None or math.dist(at_um, self._at_um) > _STANDS_UM:
            self._at_um, self._since_s = at_um, now_s
        elif now_s - self._since_s > _PATIENCE_S:
            raise MicroscopeError(
                f"the stage says that it moves, but has stood at x {at_um[1]:.0f}, y {at_um[0]:.0f} um for {_PATIENCE_S:g} s: check whether it is "
                "switched on and free to move"
            )
