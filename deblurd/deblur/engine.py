"""ONNX Runtime: one session for each network file, and images of any size through it."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from deblurd.errors import ModelError

log = logging.getLogger(__name__)

Device = Literal["auto", "cpu", "cuda"]
Batch = NDArray[np.float32]
"""(N, 3, H, W) float32, sRGB-encoded, full scale 1."""

INPUTS: Final = ("blurred", "estimate", "motion")
OUTPUTS: Final = ("sharp",)
BLOCK_PX = 1024


class Engine:
    """One network. device "auto" takes CUDA where it works and the CPU otherwise; "cuda" refuses to fall back.

    threads: of the CPU; 0 for all cores. stride, halo_px: of the manifest: sides are padded to a multiple of the stride; images larger than
    a block are cut into blocks that overlap by the halo, the network's reach, so that no seam can be seen.
    Raises ModelError where the file is not ONNX or has other inputs and outputs than the contract.
    """

    def __init__(self, path: Path, *, device: Device, threads: int, stride: int, halo_px: int) -> None:
        self._stride = stride
        self._halo = -(-halo_px // stride) * stride
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or os.cpu_count() or 1
        # other stages use the same cores: a thread that spins while it waits takes their time
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # ORT keeps its memory between batches: given back, it came from ever new holes, and the peak of a scan rose by a third
        options.enable_cpu_mem_arena = True
        options.log_severity_level = 3
        wanted = providers_for(device)
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=wanted)
        except Exception as err:  # ORT raises many kinds that share no base class but Exception
            raise ModelError(
                f"{path} could not be loaded by ONNX Runtime ({str(err).splitlines()[0]}): export the model again"
            ) from err
        self.providers: list[str] = self.session.get_providers()
        if device == "cuda" and "CUDAExecutionProvider" not in self.providers:
            raise ModelError(
                'deblur.device is "cuda", but ONNX Runtime fell back to the CPU: install the extra deblurd[gpu] and a driver, '
                'or set deblur.device to "auto"'
            )
        if "CUDAExecutionProvider" in wanted and "CUDAExecutionProvider" not in self.providers:
            log.warning(
                "CUDA is installed but did not start: the model runs on the CPU, several times slower"
            )
        found = [i.name for i in self.session.get_inputs()], [o.name for o in self.session.get_outputs()]
        if (sorted(found[0]), found[1]) != (sorted(INPUTS), list(OUTPUTS)):
            raise ModelError(
                f"{path} has inputs {found[0]} and outputs {found[1]}, but deblurd needs {list(INPUTS)} and {list(OUTPUTS)}: "
                "export it with deblurd-train export"
            )

    def run(self, blurred: Batch, estimate: Batch, motion: NDArray[np.float32]) -> Batch:
        """Sharp images (N, 3, H, W) float32 of blurred ones, their Wiener estimates and motion vectors (N, 2), (dy, dx) px."""
        height, width = blurred.shape[2:]
        if max(height, width) <= BLOCK_PX:
            return self._padded(blurred, estimate, motion)
        sharp = np.empty_like(blurred)
        for y in range(0, height, BLOCK_PX):
            for x in range(0, width, BLOCK_PX):
                inner = slice(y, min(y + BLOCK_PX, height)), slice(x, min(x + BLOCK_PX, width))
                outer = tuple(
                    slice(max(s.start - self._halo, 0), min(s.stop + self._halo, side))
                    for s, side in zip(inner, (height, width), strict=True)
                )
                part = self._padded(blurred[:, :, *outer], estimate[:, :, *outer], motion)
                core = tuple(
                    slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True)
                )
                sharp[:, :, *inner] = part[:, :, *core]
        return sharp

    def _padded(self, blurred: Batch, estimate: Batch, motion: NDArray[np.float32]) -> Batch:
        height, width = blurred.shape[2:]
        pad = ((0, 0), (0, 0), (0, -height % self._stride), (0, -width % self._stride))
        if pad[2][1] or pad[3][1]:
            blurred, estimate = np.pad(blurred, pad, mode="edge"), np.pad(estimate, pad, mode="edge")
        feed: dict[str, Any] = {
            "blurred": np.ascontiguousarray(blurred),
            "estimate": np.ascontiguousarray(estimate),
            "motion": np.ascontiguousarray(motion, dtype=np.float32),
        }
        sharp: Batch = self.session.run(["sharp"], feed)[0]
        return sharp[:, :, :height, :width]


def providers_for(device: Device) -> list[str]:
    """What to ask ONNX Runtime for; whether it gets CUDA to work, only the session tells."""
    available = onnxruntime.get_available_providers()
    if device == "cpu" or "CUDAExecutionProvider" not in available or not _cuda_in_sight(device):
        return ["CPUExecutionProvider"]
    onnxruntime.preload_dlls()
    return ["CUDAExecutionProvider", "CPUExecutionProvider"]


def _cuda_in_sight(device: Device) -> bool:
    """Whether it is worth a try: without a driver the attempt prints pages of errors and takes seconds."""
    return device == "cuda" or Path("/dev/nvidiactl").exists() or "CUDA_PATH" in os.environ
