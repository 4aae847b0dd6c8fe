"""ONNX Runtime: one session for each network file, and images of any size through it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import onnxruntime
import platformdirs
from numpy.typing import NDArray

from deblurd.deblur.lanes import Feed, Lanes
from deblurd.errors import ModelError

log = logging.getLogger(__name__)

Device = Literal["auto", "cpu", "cuda", "tensorrt"]
Batch = NDArray[np.float32]
"""(N, 3, H, W) float32, sRGB-encoded, full scale 1."""

INPUTS: Final = ("blurred", "estimate", "motion")
OUTPUTS: Final = ("sharp",)
BLOCK_PX = 1024

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
_MUST: Final[dict[Device, str]] = {"cuda": CUDA, "tensorrt": TENSORRT}
"""What a device insists on; "auto" and "cpu" take what there is."""


class Engine:
    """One network. device "auto" takes CUDA where it works and the CPU otherwise; "cuda" and "tensorrt" refuse to fall back.

    threads: of the CPU; 0 for all cores. stride, halo_px: of the manifest: sides are padded to a multiple of the stride; images larger than
    a block are cut into blocks of one size that overlap by the halo, the network's reach, so that no seam can be seen.
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
        must = _MUST.get(device)
        if must and must not in self.providers:
            raise ModelError(
                f'deblur.device is "{device}", but ONNX Runtime fell back to {_word(self.providers)}: install the extra deblurd[gpu] and a driver'
                f'{" and TensorRT" if device == "tensorrt" else ""}, or set deblur.device to "auto"'
            )
        if wanted[0] != CPU and CUDA not in self.providers:
            log.warning(
                "CUDA is installed but did not start: the model runs on the CPU, several times slower"
            )
        found = [i.name for i in self.session.get_inputs()], [o.name for o in self.session.get_outputs()]
        if (sorted(found[0]), found[1]) != (sorted(INPUTS), list(OUTPUTS)):
            raise ModelError(
                f"{path} has inputs {found[0]} and outputs {found[1]}, but deblurd needs {list(INPUTS)} and {list(OUTPUTS)}: "
                "export it with deblurd-train export"
            )
        self._lanes = Lanes.of(self.session) if CUDA in self.providers else None

    def run(self, blurred: Batch, estimate: Batch, motion: NDArray[np.float32]) -> Batch:
        """Sharp images (N, 3, H, W) float32 of blurred ones, their Wiener estimates and motion vectors (N, 2), (dy, dx) px."""
        height, width = blurred.shape[2:]
        pad = ((0, 0), (0, 0), (0, -height % self._stride), (0, -width % self._stride))
        if pad[2][1] or pad[3][1]:
            blurred, estimate = np.pad(blurred, pad, mode="edge"), np.pad(estimate, pad, mode="edge")
        cuts = list(_cuts(blurred.shape[2], blurred.shape[3], self._halo, self._stride))
        if len(cuts) == 1:
            return next(iter(self._sharp([(blurred, estimate, motion)])))[:, :, :height, :width]
        feeds = [(blurred[:, :, *outer], estimate[:, :, *outer], motion) for outer, _, _ in cuts]
        sharp = np.empty_like(blurred)
        for (_, inner, core), part in zip(cuts, self._sharp(feeds), strict=True):
            sharp[:, :, *inner] = part[:, :, *core]
        return sharp[:, :, :height, :width]

    def _sharp(self, feeds: list[Feed]) -> Iterable[Batch]:
        """What the network makes of images whose sides are multiples of the stride."""
        if self._lanes is not None:
            return self._lanes.run(feeds)
        return (self.session.run(["sharp"], _by_name(feed))[0] for feed in feeds)


def providers_for(device: Device) -> list[Any]:
    """What to ask ONNX Runtime for, names or (name, options); whether it gets CUDA to work, only the session tells."""
    available = onnxruntime.get_available_providers()
    if device == "cpu" or CUDA not in available or not _cuda_in_sight(device):
        return [CPU]
    onnxruntime.preload_dlls()
    # tiles of a scan are all of one size, so a search for the fastest convolution pays
    cuda = (CUDA, {"cudnn_conv_algo_search": "EXHAUSTIVE", "cudnn_conv_use_max_workspace": "1"})
    if device != "tensorrt" or TENSORRT not in available:
        return [cuda, CPU]
    folder = str(engine_cache())
    options = {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": folder,
    }
    return [(TENSORRT, options), cuda, CPU]


def engine_cache() -> Path:
    """Where TensorRT keeps what it compiled, which takes it minutes: the service's cache folder, or the user's."""
    of_service = os.environ.get("CACHE_DIRECTORY", "").split(os.pathsep)[0]
    folder = Path(of_service) if of_service else platformdirs.user_cache_path("deblurd", appauthor=False)
    folder /= "tensorrt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise ModelError(
            f'TensorRT\'s folder {folder} cannot be made ({err.strerror}): make it writable, or set deblur.device to "cuda"'
        ) from err
    return folder


def _word(providers: list[str]) -> str:
    return "CUDA" if CUDA in providers else "the CPU"


def _cuda_in_sight(device: Device) -> bool:
    """Whether it is worth a try: without a driver the attempt prints pages of errors and takes seconds."""
    return device in _MUST or Path("/dev/nvidiactl").exists() or "CUDA_PATH" in os.environ


def _by_name(feed: Feed) -> dict[str, NDArray[np.float32]]:
    return {
        name: np.ascontiguousarray(array, dtype=np.float32) for name, array in zip(INPUTS, feed, strict=True)
    }


_Window = tuple[slice, slice]


def _cuts(height: int, width: int, halo: int, stride: int) -> Iterator[tuple[_Window, _Window, _Window]]:
    """(outer, inner, core) of each block: what the network sees, what of the image it gives, and where that lies in what it made."""
    for y_outer, y_inner in _along(height, halo, stride):
        for x_outer, x_inner in _along(width, halo, stride):
            core = tuple(
                slice(i.start - o.start, i.stop - o.start)
                for i, o in ((y_inner, y_outer), (x_inner, x_outer))
            )
            yield (y_outer, x_outer), (y_inner, x_inner), (core[0], core[1])


def _along(side: int, halo: int, stride: int) -> list[tuple[slice, slice]]:
    """(outer, inner) of each block along one side, a multiple of the stride. All outer ones are of one length, and inner ones meet."""
    count = -(-side // BLOCK_PX)
    if count == 1:
        return [(slice(0, side), slice(0, side))]
    length = -(-(side + 2 * halo * (count - 1)) // (count * stride)) * stride
    starts = [min(i * (length - 2 * halo), side - length) for i in range(count)]
    edges = [0, *(start + halo for start in starts[1:]), side]
    return [(slice(start, start + length), slice(edges[i], edges[i + 1])) for i, start in enumerate(starts)]
