"""Whole shards of a zarr array as files: every chunk through the codec on all cores, then one write.

The array, its metadata and whatever reads it are zarr-python's. Here is its codec `sharding_indexed` for a shard that is in memory altogether: the chunks
one after the other, an index of their (offset, bytes) as little-endian uint64, and its CRC-32C. ``python -m tests.benchmarks.write_rate`` says
what that gains over the libraries that write shards.
"""

from __future__ import annotations

from concurrent.futures import Executor, Future
from pathlib import Path

import cv2
import google_crc32c
import numpy as np
from numcodecs.zstd import Zstd
from zarr.codecs import ZstdCodec

from deblurd.frames import Pixels

_LEVEL = 1
_MISSING = 2**64 - 1

CODEC = ZstdCodec(level=_LEVEL, checksum=True)
"""For the chunks of the arrays whose shards are written here."""


Encoded = list[Future[list[bytes]]]
"""The chunks of a shard, row by row, as they become ready; no bytes for one that is 0 everywhere."""


def encode_shard(pixels: Pixels, chunk_px: int, pool: Executor) -> Encoded:
    """Begins to encode a shard.

    pixels: (side, side), or (side, side, c) for an array (c, y, x); side is a multiple of chunk_px.
    """
    return [
        pool.submit(_encoded, pixels[y : y + chunk_px], chunk_px) for y in range(0, len(pixels), chunk_px)
    ]


def write_shard(path: Path, encoded: Encoded) -> None:
    """Writes the shard file `path`, whole or not at all; where every pixel is 0, what the array is filled with, there is none afterwards.

    Raises OSError.
    """
    chunks = [chunk for row in encoded for chunk in row.result()]
    if not any(chunks):
        path.unlink(missing_ok=True)
        return
    sizes = np.array([len(chunk) for chunk in chunks], dtype="<u8")
    index = np.stack([np.cumsum(sizes) - sizes, sizes], axis=1)
    index[sizes == 0] = _MISSING
    content = index.tobytes()
    # not its parents: where the mosaic was taken away, nothing shall be in its place
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_bytes(b"".join([*chunks, content, google_crc32c.value(content).to_bytes(4, "little")]))
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _encoded(row: Pixels, chunk_px: int) -> list[bytes]:
    codec, chunks = Zstd(level=_LEVEL, checksum=True), []
    for x in range(0, row.shape[1], chunk_px):
        chunk = row[:, x : x + chunk_px]
        if not chunk.any():
            chunks.append(b"")
            continue
        planes = np.stack(cv2.split(chunk)) if chunk.ndim == 3 else np.ascontiguousarray(chunk)
        chunks.append(codec.encode(planes.astype(planes.dtype.newbyteorder("<"), copy=False)))
    return chunks
