"""How well poses and motion vectors are known, beside the virtual microscope's truth: ``python -m tests.benchmarks.track_accuracy``.

Every frame of a serpentine counts, whether it would become a tile or not: those at an even speed, and those that are taken while the stage speeds up,
brakes or turns. The first seconds, in which latency is being learnt, are a row of their own. "load" adds processes that keep all cores busy.
"""

from __future__ import annotations

import argparse
import itertools
import math
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from deblurd.acquire import open_microscope
from deblurd.calibrate.run import make_tracker
from deblurd.frames import MotionVector, Pose
from deblurd.scan.cross import cross
from deblurd.scan.driver import Driver
from deblurd.scan.lane import serpentine
from deblurd.settings import MicroscopeSettings, ScanSettings, Settings, SimulatorSettings
from deblurd.track.calibration import Calibration

MOVING_PX = 1.0
DOUBTFUL_UM = 5.0
EVEN_PX = 0.15
"""Travel in the first and second half of an exposure that differs by less is even."""


@dataclass
class Case:
    """A microscope: settings of its simulator, and whether the computer is busy."""

    name: str
    load: int = 0
    learn: bool = True
    told_ms: float = 0.0
    simulator: dict[str, Any] = field(default_factory=dict)


SERIAL = {"stage_read_ms": 30.0, "stage_skew": True, "jitter_ms": 3.0, "latency_ms": 12.0}
CASES = [
    Case("good stage, latency told", learn=False, told_ms=15.0),
    Case("good stage, latency unknown", simulator={"latency_ms": 12.0}),
    Case("serial stage, skewed, 3 ms jitter, 12 ms unknown", simulator=SERIAL),
    Case("the same, under load", load=2, simulator=SERIAL),
    Case("the same, 2 um backlash, 2 degrees", simulator=SERIAL | {"backlash_um": 2.0, "rotation_deg": 2.0}),
]


def _burn(stop: Any) -> None:
    while not stop.is_set():
        sum(i * i for i in range(10_000))


@contextmanager
def busy(processes: int) -> Iterator[None]:
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    others = [context.Process(target=_burn, args=(stop,), daemon=True) for _ in range(processes)]
    for each in others:
        each.start()
    try:
        yield
    finally:
        stop.set()
        for each in others:
            each.join()


@dataclass
class Found:
    t_s: list[float] = field(default_factory=list)
    off_um: list[float] = field(default_factory=list)
    motion: list[tuple[float, float, float, float]] = field(default_factory=list)
    bend_px: list[float] = field(default_factory=list)
    sigma_um: list[float] = field(default_factory=list)


def track(
    case: Case, speed_um_s: float, exposure_ms: float, area_mm: tuple[float, float], save: Path | None = None
) -> tuple[Any, ...]:
    settings = Settings(
        microscope=MicroscopeSettings(backend="simulator", exposure_ms=exposure_ms, latency_ms=case.told_ms),
        simulator=SimulatorSettings(
            **(
                {
                    "pixel_size_um": 0.5,
                    "slide_size_mm": (area_mm[0] + 0.4, area_mm[1] + 0.4),
                    "fov_px": (512, 512),
                }
                | case.simulator
            )
        ),
        scan=ScanSettings(),
    )
    microscope = open_microscope(settings)
    info, slide = microscope.info, microscope.simulation.slide
    # real tissue is there before it is scanned
    width, height = (int((side + 0.3) * 1000 / slide.pixel_size_um) for side in area_mm)
    for y in range(0, height, 512):
        slide.region(y, 0, min(512, height - y), width)
    seen: list[tuple[int, int, Pose, MotionVector]] = []
    tracker = make_tracker(settings, microscope, Calibration.configured(info.affine), learn=case.learn)
    sequence = 0
    arrivals: list[tuple[int, float]] = []
    tracker._on_frame = lambda number, pose, motion: seen.append((sequence, number, pose, motion))
    area = shapely.box(100, 100, 100 + 1000 * area_mm[0], 100 + 1000 * area_mm[1])
    lanes = serpentine(area, info.affine.field_um(info.shape), 0.2, speed_um_s, run_up_um=25.0)
    first = cross(
        (lanes[0].start_um[0] + 100, lanes[0].start_um[1] + 200), min(info.affine.field_um(info.shape))
    )
    calibrating = itertools.takewhile(lambda _: not tracker.is_calibrated, first)
    began: list[float] = []
    driver = Driver(
        microscope,
        itertools.chain(calibrating, lanes),
        on_lane=lambda lane: began.extend([time.perf_counter()] * (lane is lanes[0])),
    )
    driver.rest_s = 0.08
    stop = threading.Event()
    tracker.start()
    with busy(case.load):
        for n, frame in enumerate(microscope.frames(stop)):
            sequence = frame.sequence
            arrivals.append((frame.number, frame.arrived_s))
            for _ in tracker.feed(frame):
                pass
            n += 1
            if n == 40:
                driver.start()
            if driver.done_s is not None and frame.arrived_s > driver.done_s + 1.0:
                stop.set()
    for _ in tracker.drain():
        pass
    driver.stop()
    tracker.stop()
    truth = microscope.simulation.truth
    rows = []
    for sequence, number, pose, motion in seen:
        true = truth[sequence, number]
        off = pose.yx_um - true.mean_um
        rows.append(
            (true.exposure_start_s, *off, pose.sigma_um, motion.dy, motion.dx, true.motion.dy, true.motion.dx,
             math.hypot(true.motion.bend_dy, true.motion.bend_dx), motion.sigma_px, pose.t_s - 0.5 * (true.exposure_start_s + true.exposure_end_s))
        )  # fmt: skip
    if save is not None:
        ends = [(truth[0, n].exposure_end_s, truth[0, n].arrived_s, truth[0, n].missed) for n, _ in arrivals]
        readings = tracker.poller.path.readings
        np.savez(
            save,
            rows=np.array(rows),
            arrivals=np.hstack([np.array(arrivals), np.array(ends)]),
            readings=readings,
        )
    lost = microscope.losses.counts()
    calibration = tracker.calibration
    missed = max((t.missed for t in truth.values()), default=0)
    microscope.close()
    return np.array(rows), calibration, lost, tracker, missed, began[0]


def rms(values: Any) -> float:
    return float(np.sqrt(np.mean(values**2))) if len(values) else math.nan


def row(name: str, rows: Any) -> str:
    if len(rows) == 0:
        return f"{name:34s} no frames"
    # those that become no tiles, as their time is not known, are lost
    known = rows[:, 3] < DOUBTFUL_UM
    off = np.linalg.norm(rows[:, 1:3], axis=1)
    seen, true = rows[:, 5] + 1j * rows[:, 4], rows[:, 7] + 1j * rows[:, 6]
    moving = known & np.isfinite(seen) & (np.abs(true) > MOVING_PX)
    length = 100 * (np.abs(seen[moving]) / np.abs(true[moving]) - 1)
    angle = np.degrees(np.angle(seen[moving] / true[moving]))
    apart = np.abs(seen[moving] - true[moving])
    return f"{name:34s} {len(rows):6d} {100 * (1 - known.mean()):8.1f} {rms(off[known]):9.3f} {np.percentile(off[known], 95) if known.any() else math.nan:8.3f} {rms(length):9.2f} {rms(angle):9.2f} {rms(apart):8.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--speed-um-s", type=float, default=500.0)
    parser.add_argument("--exposure-ms", type=float, default=10.0)
    parser.add_argument("--area-mm", type=float, nargs=2, default=(2.0, 1.0))
    parser.add_argument("--case", type=int, nargs="*", default=range(len(CASES)))
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    head = f"{'':34s} {'frames':>6s} {'lost, %':>8s} {'pose, um':>9s} {'95 %':>8s} {'length, %':>9s} {'angle, deg':>9s} {'apart, px':>8s}"
    for i in options.case:
        case = CASES[i]
        rows, calibration, lost, tracker, missed, began_s = track(
            case,
            options.speed_um_s,
            options.exposure_ms,
            tuple(options.area_mm),
            options.save and options.save / f"{i}.npz",
        )
        print(
            f"\n{case.name} (cores {os.cpu_count()}, left out {missed}, unplaced {tracker.unplaced}, lost {lost or 'none'})"
        )
        print(head)
        first = rows[:, 0] < began_s
        speed = np.hypot(rows[:, 6], rows[:, 7])
        top = options.speed_um_s * options.exposure_ms / 1000 / 0.5
        even = (rows[:, 8] < EVEN_PX) & (np.abs(speed - top) < 0.01 * top)
        rest = speed < 0.01
        print(row(f"calibrating, {began_s - rows[0, 0]:.1f} s", rows[first]))
        print(row("at an even speed", rows[~first & even]))
        print(row("speeding up, braking, turning", rows[~first & ~even & ~rest]))
        print(row("at rest", rows[~first & rest]))
        print(
            f"lag {np.round(1000 * calibration.lag_s, 2)} +- {np.round(1000 * calibration.lag_sigma_s, 2)} ms, play {np.round(calibration.play_um, 2)} um, "
            f"{calibration.sightings} sightings, {calibration.rms_px:.2f} px"
        )


if __name__ == "__main__":
    main()
