"""Tiles as a zarr array (tile, y, x, c), one chunk file each.

Chunks are not compressed: the noise of a camera does not compress (zstd 1 kept 78 % of noisy H&E tiles at
1.5 ms each, lz4 87 % at 1.0 ms). So a chunk file holds exactly the pixels, and is written and read as such: 0.05 ms
for 512 px RGB where zarr-python takes 0.5 ms. Everything else about the array is zarr-python's.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import zarr
import zarr.errors
from numpy.typing import DTypeLike

from deblurd.errors import DataError, NoInputError, OutputError
from deblurd.frames import Pixels
from deblurd.host.durable import fsync_dir, fsync_file

GROWTH = 256
"""Rows by which the array grows at a time: each growth writes its small zarr.json again."""


class RawStore:
    """Tiles of one shape and dtype in the zarr v3 array at `path`; rows never written read as an error.

    Readers may open the array with any zarr library at any moment. Thread-safe, one writer of a row at a time.
    shape: of a tile, (H, W) or (H, W, C).
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype, capacity: int) -> None:
        self.path, self.shape, self.dtype = path, shape, dtype
        self._stored = dtype.newbyteorder("<")
        self._bytes = int(np.prod(shape)) * dtype.itemsize
        self._capacity = capacity
        self._lock = threading.Lock()

    @classmethod
    def create(cls, path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> RawStore:
        """A new, empty array; its parent folder must exist. Raises OutputError where that is not possible."""
        chunk = (*shape, 1) if len(shape) == 2 else shape
        try:
            zarr.create_array(
                str(path),
                shape=(0, *chunk),
                chunks=(1, *chunk),
                dtype=np.dtype(dtype),
                compressors=None,
                fill_value=0,
                # one flat folder, so that one fsync makes all new names durable
                chunk_key_encoding={"name": "default", "separator": "."},
                dimension_names=("tile", "y", "x", "c"),
                attributes={"mono": len(shape) == 2},
            )
            fsync_file(path / "zarr.json")
            fsync_dir(path)
            fsync_dir(path.parent)
        except (OSError, zarr.errors.ContainsArrayError) as err:
            raise OutputError(
                f"cannot create {path} ({_reason(err)}): choose a folder that is new, writable and has room"
            ) from err
        return cls(path, tuple(shape), np.dtype(dtype), 0)

    @classmethod
    def open(cls, path: Path) -> RawStore:
        """An array that `create` made. Raises NoInputError where there is none, DataError where it is another kind."""
        if not (path / "zarr.json").is_file():
            raise NoInputError(f"{path} holds no tiles: name a slide folder that has its raw.zarr")
        try:
            array = zarr.open_array(str(path), mode="r")
            _, *chunk = array.chunks
            ours = array.ndim == 4 and array.compressors == () and (path / "zarr.json").is_file()
            mono = bool(array.attrs["mono"])
        except (ValueError, KeyError, TypeError) as err:
            raise DataError(f"{path / 'zarr.json'} is broken ({err}): restore it from a backup") from err
        if not ours or array.chunks[0] != 1 or tuple(chunk) != array.shape[1:]:
            raise DataError(f"{path} is a zarr array of another kind: name the raw.zarr of a slide")
        return cls(path, tuple(chunk[:2] if mono else chunk), np.dtype(array.dtype), array.shape[0])

    @property
    def capacity(self) -> int:
        """Rows that the array has now, written or not."""
        return self._capacity

    def check(self, pixels: Pixels) -> None:
        """Raises DataError unless `pixels` are of this store's shape and dtype."""
        if pixels.shape != self.shape or pixels.dtype != self.dtype:
            raise DataError(
                f"a frame of {pixels.shape} {pixels.dtype} does not fit {self.path}, which holds "
                f"{self.shape} {self.dtype}: finish the slide before the camera is changed"
            )

    def write(self, index: int, pixels: Pixels) -> None:
        """Puts a tile into row `index`, whole or not at all; durable only after `sync`.

        Raises DataError for another shape or dtype, OutputError where it cannot be written.
        """
        self.check(pixels)
        chunk = self._chunk(index)
        part = chunk.with_name(f"{chunk.name}.part")
        try:
            self._grow(index + 1)
            with part.open("wb") as file:
                file.write(np.ascontiguousarray(pixels, dtype=self._stored).data)
            part.replace(chunk)
        except OSError as err:
            raise OutputError(
                f"cannot write tile {index} to {self.path} ({_reason(err)}): "
                "make room or give the folder back, then try again"
            ) from err

    def sync(self, indices: Iterable[int]) -> None:
        """Returns when the rows are on the disk, pixels and names. Raises OutputError."""
        try:
            for index in indices:
                fsync_file(self._chunk(index))
            fsync_dir(self.path)
        except OSError as err:
            raise OutputError(
                f"cannot bring tiles to the disk in {self.path} ({_reason(err)}): "
                "make room or give the folder back, then try again"
            ) from err

    def read(self, index: int) -> Pixels:
        """The tile of row `index`, in its own shape. Raises DataError where it is missing or cut short."""
        chunk = self._chunk(index)
        try:
            pixels = np.fromfile(chunk, dtype=self._stored)
        except OSError as err:
            raise DataError(
                f"tile {index} is missing from {self.path} ({_reason(err)}): leave it out, or restore {chunk.name}"
            ) from err
        if pixels.nbytes != self._bytes:
            raise DataError(
                f"tile {index} is cut short in {self.path} ({pixels.nbytes} of {self._bytes} bytes): "
                f"leave it out, or restore {chunk.name}"
            )
        return pixels.reshape(self.shape).astype(self.dtype, copy=False)

    def is_intact(self, index: int, crc: int) -> bool:
        """Whether the tile of row `index` has all its bytes, and this crc32."""
        try:
            return crc32(self.read(index)) == crc
        except DataError:
            return False

    def trim(self, rows: int) -> None:
        """Cuts the array to its first `rows` rows and sweeps what an interrupted write left. Raises OutputError."""
        try:
            with self._lock:
                self._resize(rows)
            # ours, and the .partial of zarr-python
            for part in self.path.glob("*.part*"):
                part.unlink()
        except OSError as err:
            raise OutputError(
                f"cannot trim {self.path} ({_reason(err)}): make room or give the folder back, then resume"
            ) from err

    def close(self) -> None:
        """Nothing is held open between calls; here for symmetry with what does."""

    def _chunk(self, index: int) -> Path:
        return self.path / f"c.{index}.0.0.0"

    def _grow(self, rows: int) -> None:
        with self._lock:
            if rows > self._capacity:
                self._resize(-(-rows // GROWTH) * GROWTH)

    def _resize(self, rows: int) -> None:
        # zarr-python deletes the chunks that a shorter array loses
        array = zarr.open_array(str(self.path), mode="r+")
        array.resize((rows, *array.shape[1:]))
        fsync_file(self.path / "zarr.json")
        fsync_dir(self.path)
        self._capacity = rows


def crc32(pixels: Pixels) -> int:
    """Of a tile's pixels: what its row in the journal keeps."""
    return zlib.crc32(np.ascontiguousarray(pixels).data)


def _reason(err: Exception) -> str:
    return err.strerror or str(err) if isinstance(err, OSError) else str(err)
