"""Real devices in a real core that can be told to fail as no Python code can: found by name in a new process."""

from __future__ import annotations

import ctypes
import time

from deblurd.acquire.losses import Losses
from deblurd.acquire.microscope import Microscope
from deblurd.acquire.mmcore import MMCoreMicroscope
from deblurd.errors import MicroscopeError
from deblurd.settings import Settings

CRASH_UM, HANG_UM, FREEZE_UM = 101.0, 102.0, 103.0
"""Moves to these y: the camera's adapter kills the process; the stage does not return; the whole process stands still."""

CRASHES_ON_START = "crashes-on-start"


class Crashable(MMCoreMicroscope):
    def move_to_um(self, y_um: float, x_um: float) -> None:
        if y_um == CRASH_UM:
            self._core.setProperty("Camera", "SimulateCrash", "Dereference Null Pointer")
        elif y_um == HANG_UM:
            time.sleep(3600)
        elif y_um == FREEZE_UM:
            ctypes.PyDLL(None).sleep(
                3600
            )  # with the lock of the interpreter held, as a driver's extension might
        else:
            super().move_to_um(y_um, x_um)


def open_crashable(settings: Settings, losses: Losses, again: bool) -> Microscope:
    s = settings.microscope
    assert s.config_file is not None
    if again and settings.slide.name == CRASHES_ON_START:
        ctypes.string_at(0)
    return Crashable.from_config(
        s.config_file,
        s.adapter_path,
        pixel_size_um=1.0,
        rotation_deg=0.0,
        exposure_ms=1.0,
        hang_s=0.5,
        losses=losses,
    )


def refuse(settings: Settings, losses: Losses, again: bool) -> Microscope:
    raise MicroscopeError("the stage is not there: switch it on, then start again")


def crash(settings: Settings, losses: Losses, again: bool) -> Microscope:
    ctypes.string_at(0)
    raise AssertionError("still there")
