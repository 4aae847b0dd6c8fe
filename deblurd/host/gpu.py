"""How busy the GPU is, where there is one of NVIDIA's and its library (`nvidia-ml-py`, with extra gpu)."""

from __future__ import annotations

import importlib
import logging
from dataclasses import dataclass
from typing import Any

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GpuUse:
    """One look at a GPU. busy_percent: of the last moment; memory in bytes, that of all programs together."""

    name: str
    busy_percent: int
    used_bytes: int
    total_bytes: int


class GpuMeter:
    """Looks at one GPU; None from `read` where none can be looked at, which is said once and not tried again.

    index: among those of the driver. nvml: the library's module; imported if absent.
    """

    def __init__(self, index: int = 0, nvml: Any = None) -> None:
        self._nvml: Any = None
        self._handle: Any = None
        try:
            nvml = nvml or importlib.import_module("pynvml")
        except ImportError:
            return  # without the extra nobody asked for it
        try:
            nvml.nvmlInit()
            self._handle = nvml.nvmlDeviceGetHandleByIndex(index)
        except nvml.NVMLError as err:
            # no driver, no card, or one that this program may not see
            log.debug("no meter of a GPU: %s", err)
            return
        self._nvml = nvml

    def read(self) -> GpuUse | None:
        """A few tenths of a millisecond."""
        nvml, handle = self._nvml, self._handle
        if nvml is None:
            return None
        try:
            name = nvml.nvmlDeviceGetName(handle)
            busy, memory = nvml.nvmlDeviceGetUtilizationRates(handle), nvml.nvmlDeviceGetMemoryInfo(handle)
        except nvml.NVMLError as err:
            self._nvml = None
            log.warning("the GPU does not tell any more how busy it is (%s): look at its driver", err)
            return None
        # older versions give bytes
        name = name.decode() if isinstance(name, bytes) else str(name)
        return GpuUse(name, int(busy.gpu), int(memory.used), int(memory.total))
