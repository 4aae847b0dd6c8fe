"""What plans are worth at equal scan time: a table of all plans, by slide, light and frame rate.

python -m tests.benchmarks.plans [--slides IMAGE|tissue ...] [--area-mm W H] [--fov-px N] [--light E ...] [--fps F ...] [--plans NAME ...]
    [--scan-s S] [--model NAME] [--live]

The time is half of what stopping at every field with 5 ms takes, for all plans but "stop", which takes its own. Observations: frames a pixel is made of.
Without --live in simulated time (tests/fuse/virtual_scan.py): all but the core and the tracker, so that other work on the computer changes nothing but the last
column, megapixels of mosaic by CPU second of everything from recording on. With --live by `deblurd demo`: a real core, the tracker, and the last column by the clock; on a computer that does something else
frames come late, and some without a time are no tiles.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from deblurd.errors import DeblurdError
from deblurd.simulator.demo import run_demo
from deblurd.simulator.options import DemoOptions
from tests.fuse.virtual_scan import scan

PLANS = ["stop", "single", "lanes", "alternate", "burst", "cross", "auto"]
TISSUE = "tissue"
COLUMNS = "slide | light, e-/ms | frames/s | plan | scan, s | observations | PSNR, dB | predicted | SSIM | places, px | MP/s"


@dataclass(frozen=True, slots=True)
class Row:
    way: str
    scan_s: float
    observations: float
    psnr_db: float
    predicted_db: float
    ssim: float
    position_rms_px: float
    megapixels_per_s: float

    def cells(self) -> str:
        return (
            f"{self.way} | {self.scan_s:.2f} | {self.observations:.1f} | {self.psnr_db:.1f} | {self.predicted_db:.1f} | {self.ssim:.3f} | "
            f"{self.position_rms_px:.3f} | {self.megapixels_per_s:.2f}"
        )


def simulated(options: DemoOptions) -> Row:
    began_s = time.process_time()
    done = scan(options)
    cpu_s, mosaic = time.process_time() - began_s, done.finished.mosaic
    assert mosaic is not None
    megapixels = mosaic.covered * mosaic.height_px * mosaic.width_px / 1e6
    return Row(
        done.plan.way, done.scan_s, done.finished.observations_mean, done.psnr_db, done.plan.psnr_db, done.ssim, done.position_rms_px,
        megapixels / cpu_s,
    )  # fmt: skip


def live(options: DemoOptions) -> Row:
    report = run_demo(options)
    return Row(
        report["plan"], report["scan_s"], report["observations_mean"], report["psnr_db"]["deblurred"], report["predicted_psnr_db"],
        report["ssim"]["deblurred"], report["position_rms_px"], report["megapixels_per_s"],
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--slides", nargs="+", default=[TISSUE])
    parser.add_argument("--area-mm", type=float, nargs=2, default=(0.4, 0.3))
    parser.add_argument("--fov-px", type=int, default=256)
    parser.add_argument("--light", type=float, nargs="+", default=[1000.0, 100.0])
    parser.add_argument("--fps", type=float, nargs="+", default=[10.0, 30.0])
    parser.add_argument("--plans", nargs="+", default=PLANS)
    parser.add_argument("--scan-s", type=float)
    parser.add_argument("--model", default="fast")
    parser.add_argument("--live", action="store_true")
    o = parser.parse_args()
    print(f"| {COLUMNS} | load |\n|{'---|' * 12}", flush=True)
    for slide in o.slides:
        for light in o.light:
            for fps in o.fps:
                for name in o.plans:
                    _print_row(o, slide, light, fps, name)


def _print_row(o: argparse.Namespace, slide: str, light: float, fps: float, name: str) -> None:
    with tempfile.TemporaryDirectory(prefix="deblurd-plans-") as folder:
        options = DemoOptions(
            slide=None if slide == TISSUE else Path(slide), area_mm=tuple(o.area_mm), fov_px=o.fov_px, plan=name, light_e_ms=light, fps=fps,
            scan_s=None if name == "stop" else o.scan_s, model=o.model, output=Path(folder),
        )  # fmt: skip
        cell = f"| {Path(slide).stem} | {light:g} | {fps:g} |"
        try:
            row = (live if o.live else simulated)(options)
        except DeblurdError as err:
            print(f"{cell} {name} | {err} | | | | | | | |", flush=True)
            return
        way = row.cells() if name == row.way else f"{name}: {row.cells()}"
        print(f"{cell} {way} | {os.getloadavg()[0]:.0f} |", flush=True)


if __name__ == "__main__":
    main()
