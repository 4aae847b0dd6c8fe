"""Whole shards of a zarr array as files: every chunk through the codec on all cores, then one write.

The array, its metadata and whatever reads it are zarr-python's. Here is its codec `sharding_indexed` for a shard that is in memory altogether: the chunks
one after the other, an index of their (offset, bytes) as little-endian uint64, and its CRC-32C. ``python -m tests.benchmarks.write_rate`` says
what that gains over the libraries that write shards.
"""

from __future__ import annotations

from concurrent.futures import Executor, Future
from functools import lru_cache
from pathlib import Path

import cv2
import google_crc32c
import numpy as np
from numcodecs.zstd import Zstd
from zarr.codecs import ZstdCodec

from deblurd.frames import Pixels

_LEVEL = 1
_MISSING = 2**64 - 1
_LEAST_TASK_BYTES = 2**17

CODEC = ZstdCodec(level=_LEVEL, checksum=True)
"""For the chunks of the arrays whose shards are written here."""


Encoded = list[Future[list[bytes]]]
"""The chunks of a shard, row by row, as they become ready; no bytes for one that is 0 everywhere."""


def encode_shard(pixels: Pixels, chunk_px: int, pool: Executor) -> Encoded:
    """Begins to encode a shard.

    pixels: (side, side), or (side, side, c) for an array (c, y, x); side is a multiple of chunk_px.
    """
    # rows of chunks are worth a task of their own if they hold more than a few pixels
    rows = chunk_px * max(1, _LEAST_TASK_BYTES // pixels[:chunk_px].nbytes)
    return [pool.submit(_encoded, pixels[y : y + rows], chunk_px) for y in range(0, len(pixels), rows)]


def write_shard(path: Path, encoded: Encoded) -> None:
    """Writes the shard file `path`, whole or not at all; where every pixel is 0, what the array is filled with, there is none afterwards.

    Raises OSError.
    """
    chunks = [chunk for rows in encoded for chunk in rows.result()]
    if not any(chunks):
        path.unlink(missing_ok=True)
        return
    sizes = np.array([len(chunk) for chunk in chunks], dtype="<u8")
    index = np.stack([np.cumsum(sizes) - sizes, sizes], axis=1)
    index[sizes == 0] = _MISSING
    content = index.tobytes()
    part = path.with_name(f"{path.name}.part")
    whole = b"".join([*chunks, content, google_crc32c.value(content).to_bytes(4, "little")])
    try:
        try:
            part.write_bytes(whole)
        except FileNotFoundError:
            # the first of its row; not its parents: where the mosaic was taken away, nothing shall be in its place
            path.parent.mkdir(exist_ok=True)
            part.write_bytes(whole)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _encoded(rows: Pixels, chunk_px: int) -> list[bytes]:
    planes = cv2.split(rows) if rows.ndim == 3 else [rows]
    chunks = []
    for y in range(0, len(rows), chunk_px):
        for x in range(0, rows.shape[1], chunk_px):
            parts = [plane[y : y + chunk_px, x : x + chunk_px] for plane in planes]
            value = parts[0][0, 0]
            if all((part == value).all() for part in parts):
                shape = (*rows.shape[2:], chunk_px, chunk_px)
                chunks.append(_constant(int(value), shape, rows.dtype.str) if value else b"")
            else:
                chunks.append(_compressed(np.stack(parts)))
    return chunks


@lru_cache(16)
def _constant(value: int, shape: tuple[int, ...], dtype: str) -> bytes:
    """A chunk that is all one value, as most are of what says where pixels come from."""
    return _compressed(np.full(shape, value, dtype))


def _compressed(chunk: Pixels) -> bytes:
    codec = Zstd(level=_LEVEL, checksum=True)
    return bytes(codec.encode(chunk.astype(chunk.dtype.newbyteorder("<"), copy=False)))
