"""Images to a GPU and back while it computes: each lane has page-locked and device memory of its own, and a thread.

One image goes through a lane at a time, so that shapes stay the same for as long as the camera's do. While one lane computes, the other copies.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

log = logging.getLogger(__name__)

Feed = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
"""blurred, estimate (N, 3, H, W), motion (N, 2)."""

NAMES = ("blurred", "estimate", "motion")
LANES = 2
_TRIED_PX = 64
_MOST_OFF = 0.01
"""Lanes and a plain run may choose convolutions of other rounding (TF32), but must agree on the picture."""


class Lane:
    """One set of buffers, bound to a session. gpu: an OrtEpDevice; None for buffers of the CPU alone, which are bound as they are."""

    def __init__(self, session: Any, gpu: Any | None) -> None:
        self._session, self._gpu = session, gpu
        self._shape: tuple[int, ...] = ()

    def run(self, feed: Feed) -> NDArray[np.float32]:
        """(1, 3, H, W) of one image."""
        if feed[0].shape != self._shape:
            self._allocate(feed[0].shape)
        for host, given in zip(self._host, feed, strict=False):
            np.copyto(host.numpy(), given)
        if self._gpu is not None:
            onnxruntime.copy_tensors(self._host[:-1], self._bound[:-1])
        self._session.run_with_iobinding(self._binding)
        if self._gpu is not None:
            onnxruntime.copy_tensors(self._bound[-1:], self._host[-1:])
        return np.array(self._host[-1].numpy())

    def _allocate(self, shape: tuple[int, ...]) -> None:
        """Three inputs and the output, in memory of the host and of the GPU."""
        shapes = [shape, shape, (shape[0], 2), shape]
        kinds = onnxruntime.OrtDeviceMemoryType
        self._host = [_memory(s, self._gpu, kinds.HOST_ACCESSIBLE) for s in shapes]
        self._bound = (
            self._host if self._gpu is None else [_memory(s, self._gpu, kinds.DEFAULT) for s in shapes]
        )
        self._binding = self._session.io_binding()
        for name, value in zip(NAMES, self._bound, strict=False):
            self._binding.bind_ortvalue_input(name, value)
        self._binding.bind_ortvalue_output("sharp", self._bound[-1])
        self._shape = shape


class Lanes:
    """Several lanes of one session, which ONNX Runtime lets run at the same time."""

    def __init__(self, session: Any, gpu: Any | None, count: int = LANES) -> None:
        self._free: SimpleQueue[Lane] = SimpleQueue()
        for _ in range(count):
            self._free.put(Lane(session, gpu))
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="deblurd-gpu-lane")

    @staticmethod
    def of(session: Any) -> Lanes | None:
        """For a session on CUDA. None, and a warning, where this ONNX Runtime or driver cannot, or gives other numbers: then plain runs do."""
        try:
            gpu = next(d for d in onnxruntime.get_ep_devices() if d.ep_name == "CUDAExecutionProvider")
            lanes = Lanes(session, gpu)
            lanes.check(session)
        except Exception as err:  # noqa: BLE001 - ORT raises many kinds that share no other base, and a plain run will tell if it is serious
            reason = str(err).splitlines()[0] if str(err) else "no such device is listed"
            log.warning(
                "Images are not copied to the GPU while it computes (%s): it works, but slower", reason
            )
            return None
        return lanes

    def run(self, feeds: Sequence[Feed]) -> list[NDArray[np.float32]]:
        """One result (N, 3, H, W) for each feed, in order."""
        singles = [tuple(array[n : n + 1] for array in feed) for feed in feeds for n in range(len(feed[0]))]
        results = iter(list(self._threads.map(self._one, singles)))
        return [np.concatenate([next(results) for _ in feed[0]]) for feed in feeds]

    def check(self, session: Any) -> None:
        """ValueError where the lanes give something else than a plain run."""
        rng = np.random.default_rng(0)
        blurred, estimate = rng.random((2, 3, 3, _TRIED_PX, _TRIED_PX), dtype=np.float32)
        feed = blurred, estimate, np.array([[0, 9], [5, 5], [9, 0]], np.float32)
        (wanted,) = session.run(["sharp"], dict(zip(NAMES, feed, strict=True)))
        off = float(np.abs(self.run([feed])[0] - wanted).max())
        if not off <= _MOST_OFF:
            raise ValueError(f"the results differ by {off:.2g} from those of a plain run")

    def _one(self, feed: Any) -> NDArray[np.float32]:
        lane = self._free.get()
        try:
            return lane.run(feed)
        finally:
            self._free.put(lane)


def _memory(shape: tuple[int, ...], gpu: Any | None, kind: Any) -> Any:
    """An OrtValue of float32; of the CPU where there is no GPU."""
    if gpu is None:
        return onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.float32)
    return onnxruntime.OrtValue.ortvalue_from_shape_and_type(
        shape, np.float32, memory_info=gpu.memory_info(kind)
    )
