"""Whole shards of a zarr array as files: every chunk through the codec, then one write.

The array, its metadata and whatever reads it are zarr-python's. Here is its codec `sharding_indexed` for a shard that is in memory altogether: the chunks
one after the other, an index of their (offset, bytes) as little-endian uint64, and its CRC-32C. A shard is one thread's work, several are written at once.
``python -m tests.benchmarks.write_rate`` says what that gains over the libraries that write shards.
"""

from __future__ import annotations

import threading
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

CODEC = ZstdCodec(level=_LEVEL, checksum=True)
"""For the chunks of the arrays whose shards are written here."""

_ZSTD = Zstd(level=_LEVEL, checksum=True)
_NOTHING: Pixels = np.empty(0, np.uint8)
_own = threading.local()


def write_shard(path: Path, pixels: Pixels, chunk_px: int) -> None:
    """Writes the shard file `path`, whole or not at all; where every pixel is 0, what the array is filled with, there is none afterwards.

    pixels: (side, side), or (side, side, c) for an array (c, y, x); side is a multiple of chunk_px. Raises OSError.
    """
    chunks = _encoded(pixels, chunk_px)
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


def _encoded(pixels: Pixels, chunk_px: int) -> list[bytes]:
    """Row by row; no bytes for a chunk that is 0 everywhere."""
    chunks = []
    for y in range(0, len(pixels), chunk_px):
        for x in range(0, pixels.shape[1], chunk_px):
            part = pixels[y : y + chunk_px, x : x + chunk_px]
            # the first row tells for nearly all that are not one value all over
            value = int(part.flat[0])
            if (part[0] == value).all() and part.min() == part.max():
                shape = (*pixels.shape[2:], chunk_px, chunk_px)
                chunks.append(_constant(value, shape, pixels.dtype.str) if value else b"")
            else:
                chunks.append(_compressed(_in_planes(part)))
    return chunks


def _in_planes(part: Pixels) -> Pixels:
    """(h, w) as it is, (h, w, c) as (c, h, w), contiguous; in this thread it stands until the next call."""
    if part.ndim == 2:
        return np.ascontiguousarray(part)
    # in memory that was used before: fresh pages cost as much as the codec
    if getattr(_own, "bytes", _NOTHING).nbytes < part.nbytes:
        _own.bytes = np.empty(part.nbytes, np.uint8)
    shape = (part.shape[2], *part.shape[:2])
    planes: Pixels = _own.bytes[: part.nbytes].view(part.dtype).reshape(shape)
    cv2.split(part, list(planes))
    return planes


@lru_cache(16)
def _constant(value: int, shape: tuple[int, ...], dtype: str) -> bytes:
    """A chunk that is all one value, as most are of what says where pixels come from."""
    return _compressed(np.full(shape, value, dtype))


def _compressed(chunk: Pixels) -> bytes:
    return bytes(_ZSTD.encode(chunk.astype(chunk.dtype.newbyteorder("<"), copy=False)))
