"""Poses and motion vectors on Micro-Manager's own camera and stage: ``python -m tests.benchmarks.democam_poses [--seconds 3] [--load 2]``.

DemoCamera's picture does not follow the stage, so the truth comes from elsewhere: DXYStage drives at an exactly constant speed, so that a line through
all readings of a lane says where it was better than any of them; and the camera stamps each frame by its own clock when the exposure is over. What
both leave open is one constant, the time from that stamp to the clock of this computer: lanes there and back tell it. Turns have no truth here
(the stage has no mass): for those there is `track_accuracy`.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deblurd.acquire import open_microscope
from deblurd.calibrate.run import make_tracker
from deblurd.frames import MotionVector, Pose
from deblurd.settings import MicroscopeSettings, Settings
from deblurd.track.calibration import Calibration
from tests.acquire.conftest import DEVICES, adapters
from tests.benchmarks.track_accuracy import busy, rms

CONFIG = """Property,Camera,PixelType,32bitRGB
Property,Camera,OnCameraCCDXSize,512
Property,Camera,OnCameraCCDYSize,512
"""
SPEED_UM_S, EXPOSURE_MS, PIXEL_UM = 500.0, 10.0, 0.5
LANES = 6
_ENDS_S = 0.1
"""Of a lane, left out: there the stage starts and stops in no time."""


@dataclass(frozen=True, slots=True, eq=False)
class LaneLine:
    """Where the stage was between two times: ``start + speed * t``, um, along x. spread_um: of the readings around it."""

    from_s: float
    until_s: float
    start_um: float
    speed_um_s: float
    spread_um: float

    @classmethod
    def through(cls, readings: NDArray[np.float64], from_s: float, until_s: float) -> LaneLine:
        """readings: (n, 4), as of `StagePath`."""
        inside = (readings[:, 0] > from_s + _ENDS_S) & (readings[:, 0] < until_s - _ENDS_S)
        t, x, half_s = readings[inside, 0], readings[inside, 2], readings[inside, 3]
        prompt = half_s <= np.median(half_s) * 2 + 2e-5
        slope, height = np.polyfit(t[prompt] - from_s, x[prompt], 1)
        off = x[prompt] - (height + slope * (t[prompt] - from_s))
        return cls(
            from_s + _ENDS_S,
            until_s - _ENDS_S,
            float(height - slope * from_s),
            float(slope),
            float(off.std()),
        )


def track(seconds: float, load: int) -> str:
    """Drives there and back, and says what was found, in a line."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "democam.cfg"
        config.write_text(DEVICES + CONFIG, encoding="utf-8")
        settings = Settings(
            microscope=MicroscopeSettings(
                config_file=config, adapter_path=adapters(), pixel_size_um=PIXEL_UM, rotation_deg=0.0, exposure_ms=EXPOSURE_MS, isolated=False,
            )
        )  # fmt: skip
        microscope: Any = open_microscope(settings)
    core, stamps = microscope._core, {}
    pop = core.popNextImageAndMD

    def stamped(fix: bool = True) -> Any:
        image, tags = pop(fix=fix)
        stamps[int(tags["ImageNumber"])] = float(tags["ElapsedTime-ms"]) / 1000
        return image, tags

    core.popNextImageAndMD = stamped
    tracker = make_tracker(settings, microscope, Calibration.configured(microscope.info.affine), learn=False)
    seen: list[tuple[int, Pose, MotionVector, bool]] = []
    tracker._on_frame = lambda number, pose, motion: seen.append((number, pose, motion, tracker.doubt_s > 0))
    spans: list[tuple[float, float]] = []
    stop = threading.Event()

    def drive() -> None:
        time.sleep(1.5)
        for lane in range(LANES):
            began_s = time.perf_counter()
            microscope.move_to_um(0.0, 0.0 if lane % 2 else SPEED_UM_S * seconds)
            while microscope.is_moving():
                time.sleep(0.002)
            spans.append((began_s, time.perf_counter()))
            time.sleep(0.2)
        time.sleep(0.5)
        stop.set()

    microscope.set_speed_um_s(SPEED_UM_S)
    tracker.start()
    driver = threading.Thread(target=drive)
    with busy(load):
        driver.start()
        for frame in microscope.frames(stop):
            for _ in tracker.feed(frame):
                pass
        driver.join()
    for _ in tracker.drain():
        pass
    tracker.stop()
    lines = [LaneLine.through(tracker.poller.path.readings, *span) for span in spans]
    lost = microscope.losses.counts()
    microscope.close()
    return _said(seen, lines, stamps, f"load {load}, lost {lost or 'none'}, unplaced {tracker.unplaced}")


def _said(
    seen: list[tuple[int, Pose, MotionVector, bool]],
    lines: list[LaneLine],
    stamps: dict[int, float],
    head: str,
) -> str:
    rows = np.array(
        [
            (line.start_um, line.speed_um_s, stamps[number], pose.x_um, motion.dy, motion.dx, doubtful)
            for number, pose, motion, doubtful in seen
            for line in lines
            if line.from_s < pose.t_s < line.until_s and np.isfinite(pose.sigma_um)
        ]
    )
    # of the others nobody knows when they were exposed: they become no tiles
    start_um, speed_um_s, stamp_s, x_um, dy, dx, _ = rows[rows[:, 6] == 0].T
    head = f"{head}: {len(rows)} frames in motion, {100 * rows[:, 6].mean():.0f} % left out as doubtful"
    if len(x_um) == 0:
        return head
    # the constant between the camera's clock and this one, to the middle of the exposures
    later_s = float(np.median((x_um - start_um) / speed_um_s - stamp_s))
    off_um = x_um - start_um - speed_um_s * (stamp_s + later_s)
    true_px = np.abs(speed_um_s) * EXPOSURE_MS / 1000 / PIXEL_UM
    way = np.hypot(dy, dx)
    # the image runs against the stage
    angle_deg = np.degrees(np.angle((dx + 1j * dy) / -np.sign(speed_um_s)))
    there = speed_um_s > 0
    return (
        f"{head}; pose {rms(off_um):.3f} um RMS (95 % below {np.percentile(np.abs(off_um), 95):.3f}; mean there {off_um[there].mean():+.3f}, back "
        f"{off_um[~there].mean():+.3f}), motion {rms(100 * (way / true_px - 1)):.2f} % in length, {rms(angle_deg):.2f} degrees; readings lie "
        f"{np.mean([line.spread_um for line in lines]):.3f} um around the lanes"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="of a lane")
    parser.add_argument("--load", type=int, nargs="*", default=(0, 2), help="processes beside it")
    options = parser.parse_args()
    for load in options.load:
        print(track(options.seconds, load), flush=True)


if __name__ == "__main__":
    main()
