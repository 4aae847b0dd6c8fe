"""Frames per second of acquisition and tracking, beside a loop that only takes images out of Micro-Manager's core.

``python -m tests.benchmarks.acquire_rate [--seconds 2] [--rounds 6] [--most 120]``; DemoCamera at 1024 x 1024, RGB, as fast as it goes. The ways take turns, so
that other work on the machine weighs on all of them. Of a camera that is faster than microscope.most_frames_per_s not every frame is handed on.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
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

SPEED_UM_S = 500.0
WARM_S = 0.5


@dataclass(frozen=True, slots=True)
class Rate:
    """Per second: frames that left the core's buffer, and those of them that were handed on. lost: by cause."""

    out: float
    on: float
    lost: dict[str, int]


def pop_loop(config: Path, seconds: float) -> Rate:
    """Only takes images out, and drops them."""
    core = CMMCorePlus()
    core.setDeviceAdapterSearchPaths([str(adapters())])
    core.loadSystemConfiguration(str(config))
    core.setCircularBufferMemoryFootprint(512)
    core.startContinuousSequenceAcquisition()
    taken, began_s = 0, time.perf_counter() + WARM_S
    while time.perf_counter() - began_s < seconds:
        if core.getRemainingImageCount():
            core.popNextImageAndMD(fix=False)
            taken += time.perf_counter() > began_s
        else:
            time.sleep(0.0005)
    rate = taken / (time.perf_counter() - began_s)
    core.stopSequenceAcquisition()
    core.unloadAllDevices()
    return Rate(rate, rate, {})


def stages(
    config: Path,
    seconds: float,
    most: float,
    *,
    isolated: bool = True,
    tracked: bool = True,
    learns: bool = False,
) -> Rate:
    """deblurd's own: acquisition, and tracking with it, while the stage drives to and fro. learns: whether frames are registered for the calibration."""
    settings = Settings(
        microscope=MicroscopeSettings(
            config_file=config,
            adapter_path=adapters(),
            pixel_size_um=0.5,
            rotation_deg=0.0,
            isolated=isolated,
            most_frames_per_s=most,
        )
    )
    microscope: Microscope = open_microscope(settings)
    microscope.set_speed_um_s(SPEED_UM_S)
    tracker = make_tracker(settings, microscope, Calibration.configured(microscope.info.affine), learn=learns)
    if tracked:
        tracker.start()
    stop = threading.Event()
    taken = before = moved = 0
    began_s = 0.0
    for frame in microscope.frames(stop):
        now_s = time.perf_counter()
        began_s = began_s or now_s + WARM_S
        if tracked:
            for _ in tracker.feed(frame):
                pass
        if now_s < began_s:
            before = microscope.losses.counts().get("surplus", 0)
            continue
        taken += 1
        if now_s - began_s > moved:
            # a lane a second
            moved += 1
            microscope.move_to_um(0.0, SPEED_UM_S * (moved % 2))
        if now_s - began_s > seconds:
            break
    passed_s = time.perf_counter() - began_s
    surplus = microscope.losses.counts().get("surplus", 0) - before
    tracker.stop()
    lost = microscope.losses.counts()
    microscope.close()
    lost.pop("surplus", None)
    return Rate((taken + surplus) / passed_s, taken / passed_s, lost)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--most", type=float, default=120.0, help="microscope.most_frames_per_s")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "fast.cfg"
        config.write_text(DEVICES + FAST, encoding="utf-8")
        ways: dict[str, Callable[[], Rate]] = {
            "empty pop loop": lambda: pop_loop(config, options.seconds),
            "acquire": lambda: stages(config, options.seconds, options.most, tracked=False),
            "acquire + track": lambda: stages(config, options.seconds, options.most),
            "acquire + track, in one process": lambda: stages(
                config, options.seconds, options.most, isolated=False
            ),
            "acquire + track, calibrating": lambda: stages(
                config, options.seconds, options.most, learns=True
            ),
        }
        rates: dict[str, list[Rate]] = {name: [] for name in ways}
        for turn in range(options.rounds):
            names = list(ways)
            for name in names if turn % 2 == 0 else reversed(names):
                rates[name].append(ways[name]())
    floors = [rate.out for rate in rates["empty pop loop"]]
    table = Table(
        "way",
        "frames/s out of the core",
        "of the empty loop in the same round",
        "frames/s handed on",
        "lost in all rounds",
        title=f"1024 x 1024 RGB, DemoCamera, {options.rounds} rounds of {options.seconds:g} s",
    )
    for name, found in rates.items():
        out, on = statistics.median(rate.out for rate in found), statistics.median(rate.on for rate in found)
        shares = sorted(rate.out / floor for rate, floor in zip(found, floors, strict=True))
        lost = sum((Counter(rate.lost) for rate in found), Counter[str]())
        table.add_row(
            name,
            f"{out:.0f}",
            f"{statistics.median(shares):.2f} ({shares[0]:.2f} to {shares[-1]:.2f})",
            f"{on:.0f}",
            ", ".join(f"{cause} {n}" for cause, n in lost.items()) or "none",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
