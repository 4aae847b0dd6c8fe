"""Frames from microscopes: which backend the configuration asks for."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from deblurd.acquire.microscope import Microscope
from deblurd.acquire.mmcore import MMCoreMicroscope
from deblurd.settings import Settings, SimulatorSettings


def open_microscope(settings: Settings) -> Microscope:
    """The microscope of the configuration, ready to stream.

    Raises NoInputError, ConfigError or MicroscopeError.
    """
    s = settings.microscope
    options: dict[str, Any] = {
        "exposure_ms": s.exposure_ms,
        "pixel_size_um": s.pixel_size_um,
        "rotation_deg": s.rotation_deg,
        "mirrored": s.mirrored,
        "encoding": s.encoding,
        "latency_ms": s.latency_ms,
        "hang_s": s.hang_s,
    }
    if s.config_file is not None and s.backend == "mmcore":
        return MMCoreMicroscope.from_config(s.config_file, s.adapter_path, buffer_mb=s.buffer_mb, **options)
    return _open_simulator(settings, options)


def _open_simulator(settings: Settings, options: dict[str, Any]) -> Microscope:
    from pymmcore_plus.experimental.unicore import UniMMCore

    # by name: only the configuration leads to the simulator, nothing in the flow depends on it
    simulator = importlib.import_module("deblurd.simulator.simulation")
    s = settings.simulator or SimulatorSettings()
    if "encoding" not in settings.microscope.model_fields_set:
        options["encoding"] = s.encoding
    if options["latency_ms"] is None:
        options["latency_ms"] = s.latency_ms
    # any folder will do: without one the core looks for Micro-Manager, and complains where there is none
    core = UniMMCore(mm_path=str(Path(__file__).parent))
    simulation = simulator.Simulation.load(core, s, options["exposure_ms"], settings.microscope.buffer_mb)
    return MMCoreMicroscope(core, simulation=simulation, **options)
