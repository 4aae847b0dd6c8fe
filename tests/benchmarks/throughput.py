"""How much of the engine's own rate is left end to end: recorded, placed, deblurred, painted and closed, in one process.

python -m tests.benchmarks.throughput [--tiles 120] [--model fast] [--fov 512]

The tiles are there before the clock starts, so nothing waits for a stage or a camera. The engine's own rate is that of `Deblurrer` on the
same tiles, before and after, the better of the two.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deblurd.deblur.deblurrer import Deblurrer
from deblurd.deblur.model import find_model
from deblurd.frames import Frame, MotionVector, Pixels, Pose, Tile
from deblurd.geometry import PixelToStage
from deblurd.kernel import reblur
from deblurd.light import from_linear, to_linear
from deblurd.pipeline import SlidePipeline
from deblurd.settings import DeblurSettings, MicroscopeSettings, MosaicSettings, Settings
from deblurd.simulator.slide import open_slide
from deblurd.slides.camera import Camera
from deblurd.slides.folder import SlideFolder

PIXEL_UM = 0.5
OVERLAP = 0.2
MOTION = MotionVector(0.0, 10.0, sigma_px=0.1)


def tiles(count: int, fov_px: int, motion: MotionVector = MOTION) -> list[tuple[Frame, Tile]]:
    """A square grid of fields of generated tissue, blurred by `motion`, with noise."""
    slide = open_slide(None, PIXEL_UM, 1)
    columns = math.ceil(math.sqrt(count))
    step = round(fov_px * (1 - OVERLAP))
    rng = np.random.default_rng(0)
    made = []
    for n in range(count):
        row, column = divmod(n, columns)
        y, x = row * step, column * step
        pixels = _exposed(slide.region(y, x, fov_px, fov_px), motion, rng)
        middle_um = (np.array([y, x]) + fov_px / 2) * PIXEL_UM + rng.normal(0, 1.0, 2)
        pose = Pose(0.1 * n, float(middle_um[0]), float(middle_um[1]), sigma_um=1.0)
        frame = Frame(pixels=pixels, sequence=0, number=n, arrived_s=0.1 * n, exposure_ms=10.0)
        made.append((frame, Tile(-1, 0, n, pose, motion, 10.0, pixels.shape, "")))
    return made


def _exposed(field: Pixels, motion: MotionVector, rng: np.random.Generator) -> Pixels:
    light: NDArray[np.float32] = reblur(to_linear(field, "srgb"), motion)
    electrons = rng.poisson(light * 20_000) + rng.normal(0, 4, light.shape)
    return from_linear((electrons / 20_000).astype(np.float32), np.uint8, "srgb")


def engine_s(deblurrer: Deblurrer, items: list[tuple[Frame, Tile]], batch: int) -> float:
    began_s = time.perf_counter()
    for n in range(0, len(items), batch):
        deblurrer.deblur([(tile, frame.pixels) for frame, tile in items[n : n + batch]])
    return time.perf_counter() - began_s


def pipeline_s(deblurrer: Deblurrer, items: list[tuple[Frame, Tile]], output: Path) -> float:
    shape = items[0][0].pixels.shape
    camera = Camera(shape, "uint8", "srgb", PixelToStage.from_scale(PIXEL_UM), 10.0)
    settings = Settings(
        microscope=MicroscopeSettings(backend="simulator"), mosaic=MosaicSettings(output=output)
    )
    pipeline = SlidePipeline(SlideFolder.create(output, "throughput"), camera, deblurrer, settings)
    began_s = time.perf_counter()
    for frame, tile in items:
        pipeline.intake(frame, tile)
    finished = pipeline.finish()
    seconds = time.perf_counter() - began_s
    assert finished.failure is None
    assert finished.tiles == len(items)
    busy = {stage.name: f"{stage.busy_s:.1f} s" for stage in pipeline.stages}
    print(f"  {finished.gates}; busy: {busy}")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tiles", type=int, default=120)
    parser.add_argument("--model", default="fast")
    parser.add_argument("--fov", type=int, default=512)
    options = parser.parse_args()
    items = tiles(options.tiles, options.fov)
    batch = DeblurSettings().batch
    deblurrer = Deblurrer(find_model(options.model), encoding="srgb", batch=batch)
    megapixels = sum(math.prod(frame.pixels.shape[:2]) for frame, _ in items) / 1e6
    before_s = engine_s(deblurrer, items, batch)
    with tempfile.TemporaryDirectory(prefix="deblurd-throughput-") as folder:
        whole_s = pipeline_s(deblurrer, items, Path(folder))
    after_s = engine_s(deblurrer, items, batch)
    alone_s = min(before_s, after_s)
    print(f"engine alone  {megapixels / alone_s:6.2f} MP/s ({before_s:.1f} s before, {after_s:.1f} s after)")
    print(f"end to end    {megapixels / whole_s:6.2f} MP/s")
    print(f"ratio         {alone_s / whole_s:6.2f}")


if __name__ == "__main__":
    main()
