"""What fusing costs: CPU time per megapixel of the result, and memory, against the number of frames m; beside the single-frame path.

python -m tests.benchmarks.fuse_cost [--side PX] [--model NAME] [--most M] [--repeats N]

A tile in colour with m - 1 other frames that see most of it. Alike: all blurred by 8 px. In turn: by 10, 7 and 5 px. Memory: the most that is held at once
beyond the frames that are read, by tracemalloc; threads: as many as there are cores for the FFTs of both.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable
from functools import partial

import numpy as np

from deblurd.deblur.deblurrer import Deblurrer
from deblurd.deblur.model import find_model
from deblurd.frames import MotionVector, Pixels, Pose, Tile
from deblurd.fuse.fuser import Fuser, Noise
from deblurd.fuse.views import View
from deblurd.kernel import reblur
from deblurd.light import from_linear, to_linear
from deblurd.simulator.slide import open_slide

EXPOSURE_MS, ELECTRONS, READ_E, MARGIN_PX = 10.0, 10_000.0, 4.0, 40
BLURS_PX = {"alike": (8.0,), "in turn": (10.0, 7.0, 5.0)}


def frames(side: int, blurs_px: tuple[float, ...]) -> tuple[list[Pixels], list[View]]:
    """A few frames, at places that differ by parts of a pixel too; they are seen again and again."""
    whole = side + 2 * MARGIN_PX
    sharp = to_linear(open_slide(None, 0.5, 2, (1.0, 1.0)).region(500, 500, whole, whole), "srgb")
    rng = np.random.default_rng(1)
    pixels, views = [], []
    for n, offset in enumerate([(0, 0), (6, 17), (-11, 30), (20, -9), (-25, -33), (3, 38)]):
        motion = MotionVector(0.0, blurs_px[n % len(blurs_px)])
        y, x = MARGIN_PX + offset[0], MARGIN_PX + offset[1]
        light = reblur(sharp, motion)[y : y + side, x : x + side]
        seen = light + rng.normal(size=light.shape) * np.sqrt(np.maximum(light, 0) / ELECTRONS)
        pixels.append(from_linear(seen.astype(np.float32), np.uint8, "srgb"))
        views.append(View(n, motion, (float(offset[0]), float(offset[1])), EXPOSURE_MS))
    return pixels, views


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--model", default="fast")
    parser.add_argument("--most", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    o = parser.parse_args()
    megapixels = o.side**2 / 1e6
    pixels, views = frames(o.side, BLURS_PX["alike"])
    deblurrer = Deblurrer(find_model(o.model), encoding="srgb", pixel_size_um=0.5, device="cpu")
    pose = Pose(0.0, 0.0, 0.0, sigma_um=0.1)
    tile = Tile(0, 0, 0, pose, views[0].motion, EXPOSURE_MS, pixels[0].shape, "")
    with deblurrer:
        deblurrer.deblur([(tile, pixels[0])])
        alone_s = cpu_s(lambda: deblurrer.deblur([(tile, pixels[0])]), o.repeats) / megapixels
    print(f"one frame alone, {o.model}: {alone_s:.2f} CPU s/MP\n")
    print(
        "| frames m | "
        + " | ".join(f"{name}: CPU, s/MP | of one alone | memory, MB" for name in BLURS_PX)
        + " |"
    )
    print("|" + "---|" * (1 + 3 * len(BLURS_PX)), flush=True)
    counts = [m for m in (2, 4, 8, 16, 32, 60) if m <= o.most]
    for m in counts:
        cells = []
        for blurs_px in BLURS_PX.values():
            pixels, views = frames(o.side, blurs_px)
            fuser = Fuser(pixels.__getitem__, "srgb", noise=Noise(ELECTRONS, READ_E))
            others = [views[1 + n % (len(views) - 1)] for n in range(m - 1)]
            key = views[0]
            took_s = cpu_s(partial(fuser.fuse, key, others), o.repeats) / megapixels
            tracemalloc.start()
            fuser.fuse(key, others)
            peak = tracemalloc.get_traced_memory()[1] / 1e6
            tracemalloc.stop()
            cells.append(f"{took_s:.2f} | {took_s / alone_s:.1f} | {peak:.0f}")
        print(f"| {m} | {' | '.join(cells)} |", flush=True)


def cpu_s(work: Callable[[], object], repeats: int) -> float:
    """The least of a few."""
    took = []
    for _ in range(repeats):
        began_s = time.process_time()
        work()
        took.append(time.process_time() - began_s)
    return min(took)


if __name__ == "__main__":
    main()
