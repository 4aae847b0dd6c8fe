"""Frames per second of acquisition and tracking, beside a loop that only takes images out of Micro-Manager's core.

``python -m tests.benchmarks.acquire_rate [--seconds 5] [--rounds 3]``; DemoCamera at 1024 x 1024, RGB, as fast as it goes. The ways take turns, so
that other work on the machine weighs on all of them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pymmcore_plus import CMMCorePlus
from rich.console import Console
from rich.table import Table

from deblurd.acquire import open_microscope
from deblurd.acquire.microscope import Microscope
from deblurd.calibrate.run import make_tracker
from deblurd.settings import MicroscopeSettings, Settings
from deblurd.track.calibration import Calibration
from tests.acquire.conftest import DEVICES, adapters

FAST = """Property,Camera,PixelType,32bitRGB
Property,Camera,OnCameraCCDXSize,1024
Property,Camera,OnCameraCCDYSize,1024
Property,Camera,FastImage,1
Property,Camera,Exposure,1
"""


def pop_loop(config: Path, seconds: float) -> tuple[float, str]:
    """Only takes images out, and drops them."""
    core = CMMCorePlus()
    core.setDeviceAdapterSearchPaths([str(adapters())])
    core.loadSystemConfiguration(str(config))
    core.setCircularBufferMemoryFootprint(512)
    core.startContinuousSequenceAcquisition()
    taken, began_s = 0, time.perf_counter()
    while time.perf_counter() - began_s < seconds:
        if core.getRemainingImageCount():
            core.popNextImageAndMD(fix=False)
            taken += 1
        else:
            time.sleep(0.0005)
    rate = taken / (time.perf_counter() - began_s)
    core.stopSequenceAcquisition()
    core.unloadAllDevices()
    return rate, ""


def stages(config: Path, seconds: float, *, isolated: bool, tracked: bool) -> tuple[float, str]:
    """deblurd's own: acquisition, and tracking with it."""
    settings = Settings(
        microscope=MicroscopeSettings(
            config_file=config,
            adapter_path=adapters(),
            pixel_size_um=0.5,
            rotation_deg=0.0,
            isolated=isolated,
        )
    )
    microscope: Microscope = open_microscope(settings)
    tracker = make_tracker(settings, microscope, Calibration.configured(microscope.info.affine))
    if tracked:
        tracker.start()
    stop = threading.Event()
    taken, began_s = 0, 0.0
    for frame in microscope.frames(stop):
        taken += 1
        began_s = began_s or time.perf_counter()
        if tracked:
            for _ in tracker.feed(frame):
                pass
        if time.perf_counter() - began_s > seconds:
            break
    rate = taken / (time.perf_counter() - began_s)
    stop.set()
    tracker.stop()
    lost = microscope.losses.counts()
    microscope.close()
    return rate, ", ".join(f"{cause} {n}" for cause, n in lost.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "fast.cfg"
        config.write_text(DEVICES + FAST, encoding="utf-8")
        ways: dict[str, Callable[[], tuple[float, str]]] = {
            "empty pop loop": lambda: pop_loop(config, options.seconds),
            "acquire, isolated": lambda: stages(config, options.seconds, isolated=True, tracked=False),
            "acquire + track, isolated": lambda: stages(config, options.seconds, isolated=True, tracked=True),
            "acquire + track, one process": lambda: stages(
                config, options.seconds, isolated=False, tracked=True
            ),
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        lost: dict[str, str] = {}
        for turn in range(options.rounds):
            names = list(ways)
            for name in names if turn % 2 == 0 else reversed(names):
                rate, lost[name] = ways[name]()
                rates[name].append(rate)
    floor = statistics.median(rates["empty pop loop"])
    table = Table(
        "way", "frames/s", "of the empty loop", "lost in the last round", title="1024 x 1024 RGB, DemoCamera"
    )
    for name, found in rates.items():
        rate = statistics.median(found)
        table.add_row(name, f"{rate:.0f}", f"{rate / floor:.2f}", lost[name])
    Console().print(table)


if __name__ == "__main__":
    main()
