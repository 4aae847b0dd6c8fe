"""Peak memory of the whole path for few and for many tiles: it must not grow with the slide.

python -m tests.benchmarks.memory [--tiles 50 400] [--model fast] [--fov 512]

Each count runs in a process of its own; the fields are made one by one, and come in as a camera's would.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil

from deblurd.deblur.deblurrer import Deblurrer
from deblurd.deblur.model import find_model
from deblurd.frames import Frame, MotionVector, Pose, Tile
from deblurd.geometry import PixelToStage
from deblurd.host.memory import keep_one_heap
from deblurd.pipeline import SlidePipeline
from deblurd.settings import DeblurSettings, MicroscopeSettings, MosaicSettings, Settings
from deblurd.slides.camera import Camera
from deblurd.slides.folder import SlideFolder
from tests.benchmarks.throughput import tiles

VARIETY = 25
"""Different fields; they come again and again, at places of their own."""


def stream(count: int, fov_px: int) -> Iterator[tuple[Frame, Tile]]:
    """`count` fields on rows of ten; what repeats are the pixels only."""
    patterns = [frame.pixels for frame, _ in tiles(VARIETY, fov_px)]
    motion = MotionVector(0.0, 10.0, sigma_px=0.1)
    step_um = 0.4 * fov_px
    for n in range(count):
        row, column = divmod(n, 10)
        pixels = patterns[n % VARIETY]
        pose = Pose(0.1 * n, row * step_um, column * step_um, sigma_um=1.0)
        frame = Frame(pixels.copy(), n, 0.1 * n, 10.0)
        yield frame, Tile(-1, 0, n, pose, motion, 10.0, pixels.shape, "")


def peak_mb() -> float:
    """The largest resident size of this process so far, MB."""
    if sys.platform == "win32":
        return float(psutil.Process().memory_info().peak_wset) / 1e6
    import resource

    return (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    )


def run(count: int, model: str, fov_px: int) -> None:
    deblurrer = Deblurrer(find_model(model), encoding="srgb", batch=DeblurSettings(model=model).batch)
    with tempfile.TemporaryDirectory(prefix="deblurd-memory-") as folder:
        settings = Settings(
            microscope=MicroscopeSettings(backend="simulator"), mosaic=MosaicSettings(output=Path(folder))
        )
        camera = Camera((fov_px, fov_px, 3), "uint8", "srgb", PixelToStage.from_scale(0.5), 10.0)
        pipeline = SlidePipeline(SlideFolder.create(Path(folder), "memory"), camera, deblurrer, settings)
        for frame, tile in stream(count, fov_px):
            pipeline.intake(frame, tile)
        finished = pipeline.finish()
    assert finished.failure is None
    assert finished.tiles == count
    print(f"{peak_mb():.1f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tiles", type=int, nargs="+", default=[50, 400])
    parser.add_argument("--model", default="fast")
    parser.add_argument("--fov", type=int, default=512)
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        keep_one_heap()  # as the daemon does
        run(options.tiles[0], options.model, options.fov)
        return
    peaks = []
    for count in options.tiles:
        command = [sys.executable, "-m", "tests.benchmarks.memory", "--once", "--tiles", str(count)]
        command += ["--model", options.model, "--fov", str(options.fov)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks.append(float(done.stdout.split()[-1]))
        print(f"{count:6d} tiles  {peaks[-1]:7.1f} MB  {np.divide(peaks[-1], peaks[0]):5.2f}", flush=True)


if __name__ == "__main__":
    main()
