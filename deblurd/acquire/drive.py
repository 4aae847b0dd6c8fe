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
    Neighbouring lanes share `overlap` of a field's height, or a little more, so that the last one ends on the border.
    """
    width_um, height_um = area_mm[0] * 1000, area_mm[1] * 1000
    rest_um = max(height_um - fov_um[0], 0.0)
    n = math.ceil(rest_um / (fov_um[0] * (1 - overlap)) - 1e-9) + 1
    step_um = rest_um / (n - 1) if n > 1 else 0.0
    x0, x1 = start_um[1], start_um[1] + max(width_um - fov_um[1], 0.0)
    return [Lane(start_um[0] + i * step_um, *((x0, x1) if i % 2 == 0 else (x1, x0))) for i in range(n)]


class Driver(threading.Thread):
    """Moves along lanes, one after the other, until the last is done or `stop` is called.

    done_s: when the stage came to rest for good, None before. failure: what ended it early, if anything did.
    """

    def __init__(self, microscope: Microscope, lanes: Sequence[Lane], speed_um_s: float) -> None:
        super().__init__(name="deblurd-drive", daemon=True)
        self._microscope, self._lanes, self._speed_um_s = microscope, lanes, speed_um_s
        self._stop_now = threading.Event()
        self.done_s: float | None = None
        self.failure: MicroscopeError | None = None

    def run(self) -> None:
        try:
            self._microscope.set_speed_um_s(self._speed_um_s)
            for lane in self._lanes:
                self._go(lane.y_um, lane.x0_um)
                self._go(lane.y_um, lane.x1_um)
        except MicroscopeError as err:
            self.failure = err
        finally:
            self.done_s = time.perf_counter()

    def stop(self) -> None:
        """Stops the stage and waits for the thread."""
        self._stop_now.set()
        if self.is_alive():
            self.join()

    def _go(self, y_um: float, x_um: float) -> None:
        if self._stop_now.is_set():
            return
        self._microscope.move_to_um(y_um, x_um)
        while self._microscope.is_moving():
            if self._stop_now.wait(_LOOK_S):
                self._microscope.halt()
                return
