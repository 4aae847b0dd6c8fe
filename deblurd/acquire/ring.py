"""Frames from one process to another: a ring of slots in shared memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.shared_memory import SharedMemory

import numpy as np

from deblurd.frames import Pixels

_HEADER = 64
_BYTES = 64 << 20
_LEAST, _MOST = 4, 64


class Ring:
    """Room for the last frames on their way, all of one shape and dtype. One process puts, another one takes, in the same order.

    Which slot holds what is told by other means: whoever puts returns a slot's number, and hands it on. name: of a ring that is there;
    a new one, of about 64 MiB, if absent. What is put comes after what was put before is seen, on every machine that Python runs on.
    """

    def __init__(self, shape: tuple[int, ...], dtype: str, name: str | None = None) -> None:
        frame_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        self._slots = min(max(_BYTES // frame_bytes, _LEAST), _MOST)
        size = _HEADER + self._slots * frame_bytes
        self._owner = name is None
        self._memory = SharedMemory(name, create=self._owner, size=size if self._owner else 0)
        self.name = self._memory.name
        self._taken = np.ndarray(1, np.int64, self._memory.buf)
        self._frames = np.ndarray((self._slots, *shape), dtype, self._memory.buf, _HEADER)
        if self._owner:
            self._taken[0] = 0
        self._put = 0

    def put(self, pixels: Pixels, while_full: Callable[[], None]) -> int:
        """Copies `pixels` in; returns the slot. while_full: called again and again while there is no room; it may raise."""
        while self._put - int(self._taken[0]) >= self._slots:
            while_full()
        slot = self._put % self._slots
        self._frames[slot] = pixels
        self._put += 1
        return slot

    def take(self, slot: int) -> Pixels:
        """A copy of what lies in `slot`, which is free from then on."""
        pixels: Pixels = self._frames[slot].copy()
        self._taken[0] += 1
        return pixels

    def close(self) -> None:
        """Lets go of the memory; safe to call twice."""
        self._taken = self._frames = np.empty(0)
        with suppress(BufferError, FileNotFoundError):
            self._memory.close()
            if self._owner:
                self._memory.unlink()
                self._owner = False
