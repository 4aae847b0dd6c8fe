"""How fast mosaics reach the disk: deblurd's store, the bare codec with a file write, and other writers of Zarr, in one run.

python -m tests.benchmarks.write_rate [--side 8192] [--rounds 5]

All write the same mosaic: eight levels of the image and of its provenance, in the same chunks, zstd level 1. deblurd is given what a painter has, pixels by
pixels, and makes the coarser levels itself, as shards of the finest come, several at once, as at the end of a slide; the others are given every level ready, plane by plane. acquire-zarr takes whole planes only and writes the finest level of the image; its
rate counts those bytes. floor: every chunk through the codec on all cores, each shard's chunks then written to a file at once.
floor, levels: the same, and the coarser levels are made of the finest one first, as deblurd must; the rest is given to the floor for nothing.
The writers take turns, and the best round of each counts.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import itertools
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import EllipsisType
from typing import Any

import cv2
import numpy as np
import zarr
from numcodecs.zstd import Zstd
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from deblurd.frames import Pixels
from deblurd.mosaic.canvas import MIDDLE
from deblurd.mosaic.store import MosaicStore
from deblurd.simulator.slide import open_slide

CHUNK, SHARD = 256, 1024
Levels = dict[str, NDArray[np.uint8]]
"""By name, each (3, h, w) or (h, w); "0" is the image itself."""
Writer = Callable[[Any, Path], None]


def levels_of(image: Pixels, count: int = 8) -> Levels:
    """The pyramid of an image (3, h, w) and of its provenance."""
    found: Levels = {}
    plane = np.moveaxis(image, 0, 2)
    for level in range(count):
        found[f"{level}"] = np.ascontiguousarray(np.moveaxis(plane, 2, 0))
        found[f"labels/source/{level}"] = np.full(plane.shape[:2], 2, np.uint8)
        plane = cv2.resize(plane, (plane.shape[1] // 2, plane.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return found


def windows(shape: tuple[int, ...], side: int) -> Iterator[tuple[slice | EllipsisType, ...]]:
    for y in range(0, shape[-2], side):
        for x in range(0, shape[-1], side):
            yield ..., slice(y, min(y + side, shape[-2])), slice(x, min(x + side, shape[-1]))


def sides(array: Pixels, side: int) -> tuple[int, ...]:
    return (*array.shape[:-2], side, side)


def floor(levels: Levels, folder: Path) -> None:
    codec = Zstd(level=1, checksum=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, array in levels.items():
            for n, window in enumerate(windows(array.shape, SHARD)):
                shard = array[window]
                chunks = [np.ascontiguousarray(shard[part]) for part in windows(shard.shape, CHUNK)]
                path = folder / f"{name.replace('/', '-')}-{n}"
                path.write_bytes(b"".join(pool.map(codec.encode, chunks)))


def floor_levels(levels: Levels, folder: Path) -> None:
    floor(levels_of(levels["0"]), folder)


Shards = dict[tuple[int, int], Pixels]
"""Of the finest level, (h, w, c), as a painter makes them."""


def deblurd(shards: Shards, folder: Path) -> None:
    store = MosaicStore(
        folder / "mosaic.ome.zarr",
        name="rate",
        channels=3,
        dtype=np.dtype(np.uint8),
        pixel_size_um=0.5,
        chunk_px=CHUNK,
        shard_px=SHARD,
        sources=["raw", "fast"],
    )
    store.create(np.zeros(2))
    source = np.full((SHARD, SHARD), 2, np.uint8)
    first = MIDDLE // SHARD
    places = [(first + y, first + x) for y, x in shards]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        patches = pool.map(store.write_finer, places, shards.values(), itertools.repeat(source))
        for place, patch in zip(places, patches, strict=True):
            store.merge(place, patch)
    store.flush()


def zarr_python(levels: Levels, folder: Path) -> None:
    root = zarr.open_group(str(folder / "a.zarr"), mode="w", zarr_format=3)
    for name, array in levels.items():
        target = root.create_array(
            name, shape=array.shape, dtype=array.dtype, chunks=sides(array, CHUNK), shards=sides(array, SHARD),
            compressors=ZstdCodec(level=1, checksum=True),
        )  # fmt: skip
        for window in windows(array.shape, SHARD):
            target[window] = array[window]


def tensorstore(levels: Levels, folder: Path) -> None:
    import tensorstore as ts

    codecs = [{"name": "bytes", "configuration": {"endian": "little"}}]
    codecs.append({"name": "zstd", "configuration": {"level": 1, "checksum": True}})
    for name, array in levels.items():
        inner = {"chunk_shape": sides(array, CHUNK), "codecs": codecs}
        metadata = {
            "shape": array.shape,
            "data_type": "uint8",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": sides(array, SHARD)}},
            "codecs": [{"name": "sharding_indexed", "configuration": inner}],
        }
        where = {"driver": "file", "path": str(folder / "a.zarr" / name)}
        spec = {"driver": "zarr3", "kvstore": where, "metadata": metadata, "create": True}
        target = ts.open(spec).result()
        for window in windows(array.shape, SHARD):
            target[window].write(array[window]).result()


def acquire_zarr(levels: Levels, folder: Path) -> None:
    aqz: Any = importlib.import_module("acquire_zarr")

    image = levels["0"]
    kinds, names = aqz.DimensionType, ("c", "y", "x")
    array = aqz.ArraySettings(
        data_type=aqz.DataType.UINT8,
        dimensions=[
            aqz.Dimension(
                name=name,
                kind=kinds.CHANNEL if name == "c" else kinds.SPACE,
                array_size_px=size,
                chunk_size_px=3 if name == "c" else CHUNK,
                shard_size_chunks=1 if name == "c" else SHARD // CHUNK,
            )
            for name, size in zip(names, image.shape, strict=True)
        ],
        compression=aqz.CompressionSettings(
            compressor=aqz.Compressor.ZSTD, codec=aqz.CompressionCodec.ZSTD, level=1, shuffle=0
        ),
    )
    stream = aqz.ZarrStream(aqz.StreamSettings(arrays=[array], store_path=str(folder / "a.zarr")))
    for plane in image:
        stream.append(np.ascontiguousarray(plane)[None])
    stream.close()


WRITERS: dict[str, tuple[str, Writer]] = {
    "floor": ("numcodecs", floor),
    "floor, levels": ("numcodecs", floor_levels),
    "deblurd": ("deblurd", deblurd),
    "zarr-python": ("zarr", zarr_python),
    "tensorstore": ("tensorstore", tensorstore),
    "acquire-zarr": ("acquire_zarr", acquire_zarr),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    tissue = open_slide(None, 0.5, 1).region(2000, 3000, SHARD, SHARD)
    tiles = -(-options.side // SHARD)
    noisy: NDArray[np.float32] = np.tile(tissue, (tiles, tiles, 1)) + rng.normal(
        0, 2, (tiles * SHARD, tiles * SHARD, 3)
    ).astype(np.float32)
    image = np.ascontiguousarray(np.moveaxis(noisy.clip(0, 255).astype(np.uint8), 2, 0))
    levels = levels_of(image)
    shards = {
        (y, x): np.ascontiguousarray(
            np.moveaxis(image[:, y * SHARD : (y + 1) * SHARD, x * SHARD : (x + 1) * SHARD], 0, 2)
        )
        for y in range(tiles)
        for x in range(tiles)
    }
    best: dict[str, float] = {}
    cpu: dict[str, float] = {}
    # nothing is deleted before the end: where many files were just deleted, ext4 is slow to make others
    with tempfile.TemporaryDirectory(prefix="deblurd-rate-") as temporary:
        for n in range(options.rounds):
            for name, (module, write) in WRITERS.items():
                if importlib.util.find_spec(module) is None:
                    continue
                written = (
                    sum(level.nbytes for level in levels.values())
                    if write is not acquire_zarr
                    else image.nbytes
                )
                folder = Path(temporary) / f"{name}-{n}"
                folder.mkdir()
                # what others wrote reaches the disk before, not meanwhile
                if sys.platform != "win32":
                    os.sync()
                began_s, began_cpu_s = time.perf_counter(), time.process_time()
                write(shards if write is deblurd else levels, folder)
                best[name] = max(best.get(name, 0.0), written / (time.perf_counter() - began_s))
                cpu[name] = min(cpu.get(name, math.inf), (time.process_time() - began_cpu_s) / written * 1e9)
    print(f"{'writer':14}{'MB/s':>8}{'over floor':>12}{'cpu s/GB':>10}")
    for name in WRITERS:
        if name not in best:
            print(f"{name:14}  not installed: pip install {WRITERS[name][0].replace('_', '-')}")
            continue
        print(f"{name:14}{best[name] / 1e6:8.0f}{best[name] / best['floor']:12.2f}{cpu[name]:10.2f}")


if __name__ == "__main__":
    main()
