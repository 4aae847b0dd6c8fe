"""What grows with the number of tiles, and what must not: memory, time per tile, and the time from the last tile to the finished mosaic.

python -m tests.benchmarks.scale [--tiles 100 1000 10000] [--fov 256] [--model raw]

Each count runs in a process of its own. The fields are cut out of one texture that goes on in every direction, with the errors of a stage,
and the next comes when the last one is placed; the mosaic grows upwards, so that it is to be trimmed where it begins. place: milliseconds of processor time that placing takes for a tile, over all and over the last tenth of them, with the solves on the way. finish: from the last tile's
place to the closed mosaic, without the painting that was left.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from deblurd.deblur.deblurrer import Deblurrer
from deblurd.deblur.model import find_model
from deblurd.frames import Frame, MotionVector, Pixels, Pose, Tile
from deblurd.geometry import PixelToStage
from deblurd.host.memory import keep_one_heap
from deblurd.pipeline import SlidePipeline
from deblurd.settings import DeblurSettings, MicroscopeSettings, MosaicSettings, Settings
from deblurd.simulator.slide import open_slide
from deblurd.slides.camera import Camera
from deblurd.slides.folder import SlideFolder
from tests.benchmarks.memory import peak_mb

PIXEL_UM = 0.5
OVERLAP = 0.2
TEXTURE_PX = 2048
STAGE_PX = 4.0
MOTION = MotionVector(0.0, 0.0)


def field(texture: Pixels, y: int, x: int, side: int) -> Pixels:
    """(side, side, 3) of the endless texture from (y, x) on."""
    rows, columns = (np.arange(v, v + side) % TEXTURE_PX for v in (y, x))
    return np.ascontiguousarray(texture[rows[:, None], columns[None, :]])


def cpu_of(subject: Any, *names: str) -> list[float]:
    """A list that grows by the processor seconds of each call of the methods of that name."""
    seconds: list[float] = []

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            began_s = time.thread_time()
            try:
                return call(*arguments, **options)
            finally:
                seconds.append(time.thread_time() - began_s)

        return wrapped

    for name in names:
        setattr(subject, name, timed(getattr(subject, name)))
    return seconds


def run(count: int, model: str, fov_px: int) -> None:
    texture = open_slide(None, PIXEL_UM, 1).region(2000, 3000, TEXTURE_PX, TEXTURE_PX)
    columns, step = math.ceil(math.sqrt(count)), round(fov_px * (1 - OVERLAP))
    rng = np.random.default_rng(0)
    deblurrer = Deblurrer(find_model(model), encoding="srgb", batch=DeblurSettings(model=model).batch)
    placing = [(0, 0.0)]
    with tempfile.TemporaryDirectory(prefix="deblurd-scale-") as folder:
        settings = Settings(
            microscope=MicroscopeSettings(backend="simulator"), mosaic=MosaicSettings(output=Path(folder))
        )
        camera = Camera((fov_px, fov_px, 3), "uint8", "srgb", PixelToStage.from_scale(PIXEL_UM), 10.0)
        pipeline = SlidePipeline(SlideFolder.create(Path(folder), "scale"), camera, deblurrer, settings)
        placing_s = cpu_of(pipeline._placer, "add", "solve")
        began_s = time.perf_counter()
        for n in range(count):
            # from the last lane to the first, so that the mosaic grows towards its own beginning
            row, column = divmod(n, columns)
            row = -(-count // columns) - 1 - row
            column = columns - 1 - column if row % 2 else column
            y, x = (np.array([row, column]) * step + rng.normal(0, STAGE_PX, 2)).round().astype(int)
            middle_um = (np.array([row, column]) * step + fov_px / 2) * PIXEL_UM
            pose = Pose(0.1 * n, float(middle_um[0]), float(middle_um[1]), sigma_um=2.0)
            frame = Frame(field(texture, int(y), int(x), fov_px), n, 0.1 * n, 10.0)
            pipeline.intake(frame, Tile(-1, 0, n, pose, MOTION, 10.0, frame.pixels.shape, ""))
            if n % 64 == 0:
                _wait(pipeline, n + 1)
                placing.append((n + 1, sum(placing_s)))
        _wait(pipeline, count)
        placing.append((count, sum(placing_s)))
        scanned_s = time.perf_counter() - began_s
        began_s = time.perf_counter()
        finished = pipeline.finish()
        finish_s = time.perf_counter() - began_s
    assert finished.failure is None
    assert finished.mosaic is not None
    assert finished.tiles == count
    before = next(found for found in reversed(placing) if found[0] <= 0.9 * count)
    (tiles_before, busy_before), (_, busy_s) = before, placing[-1]
    late_ms = 1000 * (busy_s - busy_before) / (count - tiles_before)
    left_s = finished.mosaic.left_s
    print(
        f"{count:7d}{peak_mb():9.0f}{1000 * busy_s / count:10.2f}{late_ms:10.2f}{count / scanned_s:9.1f}{left_s:9.2f}{finish_s - left_s:9.2f}"
    )


def _wait(pipeline: SlidePipeline, count: int) -> None:
    while pipeline.progress.placed < count or any(pipeline.progress.backlog.values()):
        assert pipeline.failure is None
        time.sleep(0.002)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tiles", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--model", default="raw")
    parser.add_argument("--fov", type=int, default=256)
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        keep_one_heap()  # as the daemon does
        cv2.setNumThreads(1)  # so that the thread's time is all
        run(options.tiles[0], options.model, options.fov)
        return
    print(
        "  tiles  peak MB  place ms  the last  tiles/s  left, s  finish, s    (place: processor time for a tile)"
    )
    for count in options.tiles:
        command = [sys.executable, "-m", "tests.benchmarks.scale", "--once", "--tiles", str(count)]
        command += ["--model", options.model, "--fov", str(options.fov)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
