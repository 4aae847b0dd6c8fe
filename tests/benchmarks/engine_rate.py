"""What the engine makes of ONNX Runtime's own rate, with one thread and with all, for one model or several beside each other.

python -m tests.benchmarks.engine_rate [--models fast path/to/mine] [--fov 512] [--tiles 8] [--rounds 5] [--angle 0]

bare: the session alone on tensors that are ready. engine: `Engine.run`, what the daemon calls for a batch. + Wiener: with the estimate made
on as many threads. whole: everything from raw pixels to clean ones, with light, gate, estimate, the steps back to the measured pixels and the check.
Motion of 10 px; along an axis (--angle 0 or 90) the estimate takes half the time of a slanting one. A model that has its networks in int8 too is run in both. All are run in turn, and the best round counts.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from deblurd.deblur.deblurrer import Deblurrer
from deblurd.deblur.engine import Engine
from deblurd.deblur.model import Model, find_model
from deblurd.deblur.wiener import wiener
from deblurd.frames import MotionVector
from deblurd.settings import DeblurSettings
from deblurd.train.degrade import turned
from tests.benchmarks.throughput import MOTION, tiles

Job = Callable[[], object]


def precisions(model: Model) -> dict[str, Model]:
    """The model as it is on this CPU, and in fp32 where that is not the same."""
    assert model.manifest is not None
    if all(file.int8 is None for file in model.manifest.files):
        return {"fp32": model}
    files = [file.model_copy(update={"int8": None}) for file in model.manifest.files]
    return {
        "fp32": replace(model, manifest=model.manifest.model_copy(update={"files": files})),
        "int8": model,
    }


def jobs_of(model: Model, threads: int, count: int, fov_px: int, moved: MotionVector) -> dict[str, Job]:
    """The same tiles by the four ways, each a function to be timed."""
    assert model.manifest is not None
    assert model.folder is not None
    batch = DeblurSettings().batch
    engine = Engine(
        model.folder / model.file_for(moved).on(gpu=False).file,
        device="cpu",
        threads=threads,
        stride=model.manifest.stride,
        halo_px=model.manifest.halo_px,
    )
    deblurrer = Deblurrer(model, encoding="srgb", device="cpu", threads=threads, batch=batch)
    found = [(tile, frame.pixels) for frame, tile in tiles(4 * count, fov_px, moved)]
    raw = sorted(found, key=lambda item: -float(item[1].std()))[:count]  # none of them blank
    planes = np.stack([pixels for _, pixels in raw]).transpose(0, 3, 1, 2).astype(np.float32) / 255
    motion = np.array([[moved.dy, moved.dx]] * count, np.float32)
    groups = [slice(n, n + batch) for n in range(0, count, batch)]
    feeds: list[dict[str, NDArray[np.float32]]] = [
        {
            "blurred": np.ascontiguousarray(planes[g]),
            "estimate": np.square(planes[g], dtype=np.float32),
            "motion": motion[g],
        }
        for g in groups
    ]

    def bare() -> None:
        for feed in feeds:
            engine.session.run(["sharp"], feed)

    def through_engine() -> None:
        for feed in feeds:
            engine.run(feed["blurred"], feed["estimate"], feed["motion"])

    pool = ThreadPoolExecutor(threads)

    def with_wiener() -> None:
        for g, feed in zip(groups, feeds, strict=True):
            scenes = [np.square(image.transpose(1, 2, 0)) for image in feed["blurred"]]
            list(pool.map(lambda scene: wiener(scene, moved, 0.01), scenes))
            engine.run(feed["blurred"], feed["estimate"], motion[g])

    def whole() -> None:
        for g in groups:
            results = deblurrer.deblur(raw[g])
            assert all(result.gate == "deblur" for result in results)

    return {"bare": bare, "engine": through_engine, "+ Wiener": with_wiener, "whole": whole}


def seconds(job: Job) -> float:
    began_s = time.perf_counter()
    job()
    return time.perf_counter() - began_s


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", default=["fast"])
    parser.add_argument("--fov", type=int, default=512)
    parser.add_argument("--tiles", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--angle", type=float, default=0.0)
    options = parser.parse_args()
    moved = turned(MOTION, 1.0, options.angle)
    cores = os.cpu_count() or 1
    jobs = {
        (f"{name} {precision}", threads, way): job
        for name in options.models
        for precision, model in precisions(find_model(name)).items()
        for threads in sorted({1, cores})
        for way, job in jobs_of(model, threads, options.tiles, options.fov, moved).items()
    }
    times = [{key: seconds(job) for key, job in jobs.items()} for _ in range(options.rounds + 1)][1:]
    megapixels = options.tiles * math.prod((options.fov, options.fov)) / 1e6
    rate = {key: megapixels / min(found[key] for found in times) for key in jobs}
    ways = list(dict.fromkeys(way for _, _, way in jobs))
    rows = list(dict.fromkeys((name, threads) for name, threads, _ in jobs))
    first = rows[0][0]
    print(
        f"{'model':24}{'threads':>8}" + "".join(f"{way:>10}" for way in ways) + "  MP/s; engine / bare, "
        f"whole / bare, bare / 1 thread, bare / {first}"
    )
    for name, threads in rows:
        row = {way: rate[name, threads, way] for way in ways}
        bare = row["bare"]
        print(
            f"{name:24}{threads:8}"
            + "".join(f"{row[way]:10.2f}" for way in ways)
            + f"  {row['engine'] / bare:8.2f}"
            f"{row['whole'] / bare:8.2f}{bare / rate[name, 1, 'bare']:8.2f}{bare / rate[first, threads, 'bare']:8.2f}"
        )


if __name__ == "__main__":
    main()
