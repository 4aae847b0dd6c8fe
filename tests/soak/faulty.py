"""`deblurd` whose virtual microscope, disk and model fail on order, and whose technician never tires.

python -m tests.soak.faulty run --config FILE, with DEBLURD_FAULTS naming a folder: a file in it that is called like a fault of FAULTS
and holds a number of seconds is an order, taken by deleting it. With DEBLURD_TECHNICIAN, patches of the virtual slide are driven over
by hand, one slide after the other: the configuration should say scan.mode = "watch" and have slide.home_um beside the tissue.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import deblurd.daemon
from deblurd.acquire import open_microscope
from deblurd.acquire.microscope import Microscope
from deblurd.cli import main
from deblurd.deblur.deblurrer import Deblurrer
from deblurd.errors import MicroscopeError
from deblurd.settings import Settings

SLOW_S = 3.0
"""What each batch of tiles takes longer while the model is slow."""

AT_HOME_S = 2.5
"""Long enough for a slide to be changed."""

PATCH_UM = 400.0
LANE_UM = 100.0


class _Usage(NamedTuple):
    total: int
    used: int
    free: int


class Injector:
    """Takes orders, and ends what they began after its time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._simulation: Any = None
        self._slow, self._hung, self._full = threading.Event(), threading.Event(), threading.Event()
        deblur, usage = Deblurrer.deblur, shutil.disk_usage

        def slow_deblur(deblurrer: Deblurrer, tiles: Sequence[Any]) -> list[Any]:
            if self._slow.is_set():
                time.sleep(SLOW_S)
            while self._hung.is_set():
                time.sleep(0.05)
            return deblur(deblurrer, tiles)

        def full_usage(path: Any) -> Any:
            found = usage(path)
            return _Usage(found.total, found.total, 0) if self._full.is_set() else found

        Deblurrer.deblur = slow_deblur  # type: ignore[method-assign, assignment]
        shutil.disk_usage = full_usage
        deblurd.daemon.open_microscope = self._open  # type: ignore[attr-defined]

    def _open(self, settings: Settings) -> Microscope:
        microscope = open_microscope(settings)
        self._simulation = microscope.simulation
        threading.Thread(target=self._take_orders, name="orders", daemon=True).start()
        if os.environ.get("DEBLURD_TECHNICIAN"):
            technician = Technician(microscope, settings)
            threading.Thread(target=technician.work, name="technician", daemon=True).start()
        return microscope

    def _take_orders(self) -> None:
        begun: list[tuple[float, str]] = []
        while True:
            time.sleep(0.05)
            # the truth is for scoring, and would grow
            self._simulation.truth.clear()
            for order in self._folder.iterdir():
                if order.name in FAULTS and (text := order.read_text("utf-8")):
                    order.unlink()
                    FAULTS[order.name](self, True)
                    begun.append((time.perf_counter() + float(text), order.name))
            for each in [each for each in begun if each[0] < time.perf_counter()]:
                begun.remove(each)
                FAULTS[each[1]](self, False)


def _flick(name: str) -> Callable[[Injector, bool], None]:
    return lambda injector, on: setattr(injector._simulation.faults, name, on)


def _stop_camera(injector: Injector, on: bool) -> None:
    """The next frame raises, whenever it comes; but only that one, for a camera that never comes back is another fault."""
    if on:
        injector._simulation.faults.camera_raises = True


def _event(name: str) -> Callable[[Injector, bool], None]:
    def set_or_clear(injector: Injector, on: bool) -> None:
        event: threading.Event = getattr(injector, name)
        (event.set if on else event.clear)()

    return set_or_clear


FAULTS: dict[str, Callable[[Injector, bool], None]] = {
    "camera-stops": _stop_camera,
    "camera-hangs": _flick("camera_hangs"),
    "stage-silent": _flick("stage_raises"),
    "stage-nan": _flick("position_nan"),
    "disk-full": _event("_full"),
    "model-slow": _event("_slow"),
    "model-hangs": _event("_hung"),
}


class Technician:
    """Moves the stage over one patch after the other, and home in between; what the stage refuses is tried again."""

    def __init__(self, microscope: Microscope, settings: Settings) -> None:
        simulator, home = settings.simulator, settings.slide.home_um
        assert simulator is not None
        assert home is not None
        self._microscope, self._home_um = microscope, (home[1], home[0])
        width_um, height_um = (1000 * side for side in simulator.slide_size_mm)
        self._room_um = (height_um - PATCH_UM - 200.0, width_um - PATCH_UM - 200.0)
        self._speed_um_s = settings.scan.speed_um_s or 500.0

    def work(self) -> None:
        rng = random.Random(os.getpid())
        while True:
            y_um, x_um = (100.0 + rng.uniform(0, room_um) for room_um in self._room_um)
            self._go(5000.0, (y_um, x_um))
            for lane in itertools.count():
                down_um = lane * LANE_UM
                if down_um > PATCH_UM:
                    break
                ends = (x_um, x_um + PATCH_UM) if lane % 2 == 0 else (x_um + PATCH_UM, x_um)
                for x in ends:
                    self._go(self._speed_um_s, (y_um + down_um, x))
            self._go(5000.0, self._home_um)
            time.sleep(AT_HOME_S)

    def _go(self, speed_um_s: float, to_um: tuple[float, float]) -> None:
        while True:
            try:
                self._microscope.set_speed_um_s(speed_um_s)
                self._microscope.move_to_um(*to_um)
                while self._microscope.is_moving():
                    time.sleep(0.02)
            except MicroscopeError:
                time.sleep(0.5)
                continue
            return


if __name__ == "__main__":
    Injector(Path(os.environ["DEBLURD_FAULTS"]))
    sys.exit(main())
