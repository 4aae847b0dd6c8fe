"""A virtual microscope to drive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from deblurd.acquire import open_microscope
from deblurd.acquire.microscope import Microscope
from deblurd.settings import MicroscopeSettings, Settings, SimulatorSettings

Simulated = Callable[..., Microscope]


@pytest.fixture
def simulated() -> Iterator[Simulated]:
    """Opens the virtual microscope; options are those of its section in the configuration."""
    opened: list[Microscope] = []

    def make(**options: Any) -> Microscope:
        values: dict[str, Any] = {
            "fov_px": (64, 96), "slide_size_mm": (0.3, 0.2), "frames_per_s": 100.0, "latency_ms": 1.0, "jitter_ms": 0.0,
            "stage_read_ms": 0.0, "stage_noise_um": 0.0,
        }  # fmt: skip
        settings = Settings(
            microscope=MicroscopeSettings(backend="simulator", exposure_ms=1.0),
            simulator=SimulatorSettings(**(values | options)),
        )
        opened.append(open_microscope(settings))
        return opened[-1]

    yield make
    for microscope in opened:
        microscope.close()
