"""Driving the stage over an area without stopping at the fields."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from deblurd.acquire.microscope import Microscope
from deblurd.errors import MicroscopeError

log = logging.getLogger(__name__)

_LOOK_S = 0.01
_RUN_UP = 0.1
"""How far lanes reach over the area on both sides, as a share of a field: room to speed up and to brake."""

_NEAR_UM = 50.0
_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Lane:
    """One straight line of a scan: from x0 to x1 at y, micrometres."""

    y_um: float
    x0_um: float
    x1_um: float


def serpentine(
    area_mm: tuple[float, float], fov_um: tuple[float, float], overlap: float, start_um: tuple[float, float]
) -> list[Lane]:
    """Lanes back and forth over an area whose top-left corner is the top-left corner of the first field.

    area_mm: width, height. fov_um: height, width of a field on the stage. start_um: (y, x) of the first field's centre.
    Neighbouring lanes share `overlap` of a field's height, or a little more, so that the last one ends on the border. Each lane
    begins and ends a tenth of a field outside the area; where the area is no wider than a field, it is a single point.
    """
    width_um, height_um = area_mm[0] * 1000, area_mm[1] * 1000
    rest_um = max(height_um - fov_um[0], 0.0)
    n = math.ceil(rest_um / (fov_um[0] * (1 - overlap)) - 1e-9) + 1
    step_um = rest_um / (n - 1) if n > 1 else 0.0
    length_um = max(width_um - fov_um[1], 0.0)
    run_up_um = _RUN_UP * fov_um[1] if length_um > 0 else 0.0
    x0, x1 = start_um[1] - run_up_um, start_um[1] + length_um + run_up_um
    return [Lane(start_um[0] + i * step_um, *((x0, x1) if i % 2 == 0 else (x1, x0))) for i in range(n)]


class Driver(threading.Thread):
    """Moves along lanes, one after the other, until the last is done or `stop` is called.

    rest_s: how long the stage stands at the end of each lane, where it stops anyway: long enough for a sharp frame. done: set when the
    stage is at rest for good; done_s: when that was, None before. failure: what ended it early, if anything did.
    """

    def __init__(self, microscope: Microscope, lanes: Sequence[Lane], speed_um_s: float) -> None:
        super().__init__(name="deblurd-drive", daemon=True)
        self._microscope, self._lanes, self._speed_um_s = microscope, lanes, speed_um_s
        self._stop_now = threading.Event()
        self.rest_s = 0.0
        self.done = threading.Event()
        self.done_s: float | None = None
        self.failure: MicroscopeError | None = None

    def go_to_start(self) -> None:
        """Moves to the first lane, and returns when the stage is there. Raises MicroscopeError."""
        self._go(self._lanes[0].y_um, self._lanes[0].x0_um)

    def run(self) -> None:
        try:
            self._microscope.set_speed_um_s(self._speed_um_s)
            for lane in self._lanes:
                for x_um in (lane.x0_um, lane.x1_um):
                    self._go(lane.y_um, x_um)
                    self._stop_now.wait(self.rest_s)
        except MicroscopeError as err:
            log.error("the scan of the area ended early: %s", err)
            self.failure = err
        finally:
            self.done_s = time.perf_counter()
            self.done.set()

    def stop(self) -> None:
        """Stops the stage and waits for the thread."""
        self._stop_now.set()
        if self.is_alive():
            self.join()

    def _go(self, y_um: float, x_um: float) -> None:
        """Moves there and waits. A stage that says that it is not busy is believed only near the target: some say so too early."""
        if self._stop_now.is_set():
            return
        self._microscope.move_to_um(y_um, x_um)
        moved_s = time.perf_counter()
        while True:
            if self._microscope.is_moving():
                moved_s = time.perf_counter()
            else:
                at_um = self._microscope.position_um()
                if math.dist(at_um, (y_um, x_um)) < _NEAR_UM:
                    return
                if time.perf_counter() - moved_s > _PATIENCE_S:
                    raise MicroscopeError(
                        f"the stage stopped at x {at_um[1]:.0f}, y {at_um[0]:.0f} um on its way to x {x_um:.0f}, y {y_um:.0f} um: check "
                        "whether it has met its limit or an obstacle, and that scan.area_mm lies within its travel"
                    )
            if self._stop_now.wait(_LOOK_S):
                self._microscope.halt()
                return
