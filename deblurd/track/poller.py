"""Reads the stage at a steady pace."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Literal

from deblurd import health
from deblurd.errors import MicroscopeError
from deblurd.track.path import StagePath

log = logging.getLogger(__name__)

StageState = Literal["not read yet", "ok", "stage silent"]

_JOIN_S = 2.0
JUMP_UM = 200.0
HARDEST_UM_S2 = 4e6
"""No stage under a microscope speeds up harder: a reading that says so jumped."""


class StagePoller(threading.Thread):
    """Reads the stage into `path`, with a pause of `period_s` between readings, for as long as it runs.

    read: gives (y, x) in um and may raise MicroscopeError. A reading that fails or is not finite is left out and counted in `failed`.
    hang_s: without a reading for longer, `state` is "stage silent". on_event: told in a sentence when readings begin to fail, and when
    they come again.
    """

    def __init__(
        self,
        read: Callable[[], tuple[float, float]],
        period_s: float,
        *,
        hang_s: float = 5.0,
        on_event: Callable[[str], None] = log.warning,
    ) -> None:
        super().__init__(name="deblurd-stage", daemon=True)
        self.path = StagePath()
        self.failed = 0
        self._read, self._period_s, self._hang_s, self._on_event = read, period_s, hang_s, on_event
        self._ended = threading.Event()
        self._failing = False
        self._speed_um_s = 0.0
        self._began_s = math.inf

    @property
    def state(self) -> StageState:
        newest = self.path.newest
        heard_s = self._began_s if newest is None else newest.t_s
        if time.perf_counter() - heard_s > self._hang_s:
            return "stage silent"
        return "not read yet" if newest is None else "ok"

    def run(self) -> None:
        with health.watched("stage"):
            self._poll()

    def _poll(self) -> None:
        self._began_s = time.perf_counter()
        while not self._ended.wait(self._period_s):
            health.beat()
            began_s = time.perf_counter()
            try:
                y_um, x_um = self._read()
            except MicroscopeError as err:
                self._failure(str(err))
                continue
            ended_s = time.perf_counter()
            if not (math.isfinite(y_um) and math.isfinite(x_um)):
                self._failure(f"the stage reports the position x {x_um}, y {y_um}, which is no place")
                continue
            if self._failing:
                self._failing = False
                self._on_event(f"the stage can be read again, after {self.failed} failed readings in all")
            self._mind_jump(y_um, x_um, began_s)
            # a reading is as old as the middle of the call that brought it
            self.path.add(0.5 * (began_s + ended_s), y_um, x_um, 0.5 * (ended_s - began_s))

    def stop(self) -> None:
        """Ends the thread; one that hangs in the driver is left behind."""
        self._ended.set()
        if self.is_alive():
            self.join(_JOIN_S)

    def _mind_jump(self, y_um: float, x_um: float, began_s: float) -> None:
        """Says so where no stage can have moved that fast: what follows is taken for another place, and registration may not agree."""
        last = self.path.newest
        if last is None:
            return
        step_um, passed_s = math.hypot(y_um - last.y_um, x_um - last.x_um), began_s - last.t_s
        speed_um_s, self._speed_um_s = self._speed_um_s, step_um / max(passed_s, 1e-6)
        if step_um > JUMP_UM + speed_um_s * passed_s + 0.5 * HARDEST_UM_S2 * passed_s**2:
            self._on_event(
                f"the stage's position jumped by {step_um / 1000:.2f} mm within {1000 * passed_s:.0f} ms: check its encoder, and "
                "home it if tiles no longer match"
            )

    def _failure(self, text: str) -> None:
        self.failed += 1
        if not self._failing:
            self._failing = True
            self._on_event(f"a reading of the stage was left out: {text}")
