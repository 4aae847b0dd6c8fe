"""A motorised XY stage and a focus drive, as devices of Micro-Manager's core."""

from __future__ import annotations

import math
import time

import numpy as np
from pymmcore_plus.experimental.unicore import StageDevice, XYStageDevice

from deblurd.simulator.faults import Faults
from deblurd.simulator.motion import Motion

SPEED = "Speed_um_s"
"""The property that sets how fast each axis moves, from the next move on."""

_SPEED_LIMITS_UM_S = (1.0, 200_000.0)


class VirtualXYStage(XYStageDevice):
    """XY stage over a virtual slide: moves in closed form, readings late and noisy."""

    def __init__(
        self,
        motion: Motion,
        read_s: float,
        noise_um: float,
        seed: int,
        faults: Faults,
        *,
        x_then_y: bool = False,
    ) -> None:
        """read_s: how long a reading takes; the position is that of its middle, or of a quarter for x and three quarters for y where
        x_then_y. noise_um: standard deviation."""
        super().__init__()
        self.motion = motion
        self._noise_um = noise_um
        self._pauses_s = tuple(
            read_s * share for share in ((0.25, 0.5, 0.25) if x_then_y else (0.5, 0.0, 0.5))
        )
        self._rng = np.random.default_rng([seed, 0x2EAD])
        self._faults = faults
        self._speed_um_s = 5000.0
        self.register_property(
            SPEED,
            default_value=self._speed_um_s,
            getter=lambda device: device._speed_um_s,
            setter=VirtualXYStage._set_speed,
            limits=_SPEED_LIMITS_UM_S,
        )

    def _set_speed(self, value: float) -> None:
        self._speed_um_s = float(value)

    def set_position_um(self, x: float, y: float) -> None:
        """Start to move; returns at once."""
        self._check()
        if not (math.isfinite(x) and math.isfinite(y)):
            raise ValueError(f"The stage cannot move to x={x}, y={y}: give finite micrometres.")
        self.motion.go((y, x), self._speed_um_s, time.perf_counter())

    def get_position_um(self) -> tuple[float, float]:
        """The commanded position during the reading, with noise; takes `read_s`."""
        self._check()
        before_s, between_s, after_s = self._pauses_s
        self._wait(before_s)
        y_um, x_um = self.motion.commanded([time.perf_counter()])[0]
        if between_s > 0:
            self._wait(between_s)
            y_um = self.motion.commanded([time.perf_counter()])[0][0]
        self._wait(after_s)
        while self._faults.stage_hangs:
            self._wait(0.005)
        y, x = np.array([y_um, x_um]) + self._faults.jump_um + self._rng.normal(0, self._noise_um, 2)
        return (math.nan, math.nan) if self._faults.position_nan else (float(x), float(y))

    def busy(self) -> bool:
        return time.perf_counter() < self.motion.end_s

    def stop(self) -> None:
        self.motion.stop(time.perf_counter())

    def home(self) -> None:
        self.set_position_um(0.0, 0.0)

    def set_origin_x(self) -> None:
        raise NotImplementedError("The origin of the virtual stage is the slide image's top-left pixel.")

    def set_origin_y(self) -> None:
        self.set_origin_x()

    def _check(self) -> None:
        if self._faults.stage_raises:
            raise RuntimeError("Error in device: the virtual stage does not answer")

    @staticmethod
    def _wait(seconds: float) -> None:
        if seconds > 0:
            time.sleep(seconds)


class VirtualFocus(StageDevice):
    """Focus drive that is there at once; the slide is in focus at z = 0."""

    def __init__(self) -> None:
        super().__init__()
        self.z_um = 0.0

    def set_position_um(self, val: float) -> None:
        if not math.isfinite(val):
            raise ValueError(f"The focus drive cannot move to z={val}: give finite micrometres.")
        self.z_um = float(val)

    def get_position_um(self) -> float:
        return self.z_um

    def home(self) -> None:
        self.z_um = 0.0

    def stop(self) -> None:
        """It never moves for longer than no time."""

    def set_origin(self) -> None:
        raise NotImplementedError("The origin of the virtual focus drive is the focus itself.")
