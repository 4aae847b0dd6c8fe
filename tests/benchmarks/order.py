"""Which order gives the better mosaic: each field deblurred and then put together, or the raw fields put together and then deblurred.

python -m tests.benchmarks.order [--slide FILE] [--blur 10 20] [--area 1.0 0.6] [--model fast] [--fov 512]

One scan of a virtual slide for each blur, painted in both orders and as it came, each scored against the slide.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from deblurd.simulator.demo import run_demo
from deblurd.simulator.options import DemoOptions
from deblurd.simulator.score import score_mosaic
from deblurd.simulator.slide import open_slide
from deblurd.slides.folder import SlideFolder
from deblurd.stitch_first import stitch_first


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--slide", type=Path)
    parser.add_argument("--blur", type=float, nargs="+", default=[10.0, 20.0])
    parser.add_argument("--area", type=float, nargs=2, default=[1.0, 0.6], metavar=("W", "H"))
    parser.add_argument("--model", default="fast")
    parser.add_argument("--fov", type=int, default=512)
    parser.add_argument("--overlap", type=float, default=0.2)
    options = parser.parse_args()
    print(
        f"{'blur px':>8}{'raw':>16}{'deblur first':>16}{'stitch first':>16}{'s':>8}   PSNR dB / SSIM; gates of stitch-first"
    )
    for blur_px in options.blur:
        with tempfile.TemporaryDirectory(prefix="deblurd-order-") as output:
            demo = DemoOptions(
                slide=options.slide, pixel_size_um=0.5, area_mm=tuple(options.area), fov_px=options.fov, overlap=options.overlap,
                exposure_ms=5.0, speed_um_s=None, blur_px=blur_px, model=options.model, seed=1, output=Path(output), report=None,
            )  # fmt: skip
            report = run_demo(demo)
            folder = SlideFolder(Path(report["slide"]))
            began_s = time.perf_counter()
            gates = stitch_first(folder, options.model, lambda done, count: None)
            seconds = time.perf_counter() - began_s
            slide = open_slide(options.slide, 0.5, 1)
            other = score_mosaic(folder.mosaic, slide, np.array(report["offset_um"]))
        psnr_db, ssim = report["psnr_db"], report["ssim"]
        cells = [f"{psnr_db[kind]:.2f} / {ssim[kind]:.3f}" for kind in ("raw", "deblurred")] + [
            f"{other.psnr_db:.2f} / {other.ssim:.3f}"
        ]
        print(f"{blur_px:8.0f}" + "".join(f"{cell:>16}" for cell in cells) + f"{seconds:8.1f}   {gates}")


if __name__ == "__main__":
    main()
