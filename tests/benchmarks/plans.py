"""What plans are worth at equal scan time: a table of all plans, by light and frame rate, on a slide image or generated tissue.

python -m tests.benchmarks.plans [--slide IMAGE] [--area-mm W H] [--fov-px N] [--light E ...] [--fps F ...] [--plans NAME ...] [--model NAME]

In simulated time (tests/fuse/virtual_scan.py): all but the core and the tracker, so that other work on the computer changes nothing but the last
columns. The time is half of what stopping at every field with 5 ms takes, for all plans but "stop", which takes its own. Observations: frames a pixel is
made of. CPU: of everything from recording to the mosaic, s per megapixel of mosaic.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from deblurd.errors import UsageError
from deblurd.simulator.options import DemoOptions
from tests.fuse.virtual_scan import scan


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--slide", type=Path)
    parser.add_argument("--area-mm", type=float, nargs=2, default=(0.4, 0.3))
    parser.add_argument("--fov-px", type=int, default=256)
    parser.add_argument("--light", type=float, nargs="+", default=[1000.0, 100.0])
    parser.add_argument("--fps", type=float, nargs="+", default=[10.0, 30.0])
    parser.add_argument("--plans", nargs="+", default=["stop", "single", "lanes", "burst", "cross", "auto"])
    parser.add_argument("--model", default="fast")
    o = parser.parse_args()
    columns = "light, e-/ms | frames/s | plan | scan, s | exposure, ms | observations | PSNR, dB | predicted | SSIM | places, px | CPU, s/MP"
    print(f"| {columns} |\n|{'---|' * 11}", flush=True)
    for light in o.light:
        for fps in o.fps:
            for name in o.plans:
                with tempfile.TemporaryDirectory(prefix="deblurd-plans-") as folder:
                    options = DemoOptions(
                        slide=o.slide, area_mm=tuple(o.area_mm), fov_px=o.fov_px, plan=name, light_e_ms=light, fps=fps, model=o.model,
                        output=Path(folder),
                    )  # fmt: skip
                    began_s = time.process_time()
                    try:
                        done = scan(options)
                    except UsageError as err:
                        print(f"| {light:g} | {fps:g} | {name} | {err} | | | | | | | |", flush=True)
                        continue
                    cpu_s, mosaic = time.process_time() - began_s, done.finished.mosaic
                    assert mosaic is not None
                    megapixels = mosaic.covered * mosaic.height_px * mosaic.width_px / 1e6
                    way = name if name == done.plan.way else f"{name}: {done.plan.way}"
                    exposures = " / ".join(f"{ms:.3g}" for ms in done.plan.exposures_ms)
                    print(
                        f"| {light:g} | {fps:g} | {way} | {done.scan_s:.2f} | {exposures} | {done.finished.observations_mean:.1f} | {done.psnr_db:.1f} | "
                        f"{done.plan.psnr_db:.1f} | {done.ssim:.3f} | {done.position_rms_px:.3f} | {cpu_s / megapixels:.1f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
