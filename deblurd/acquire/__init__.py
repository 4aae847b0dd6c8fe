"""Frames from microscopes: which backend the configuration asks for."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

from deblurd.acquire.isolated import IsolatedMicroscope
from deblurd.acquire.losses import Losses
from deblurd.acquire.microscope import Microscope
from deblurd.acquire.mmcore import MMCoreMicroscope
from deblurd.acquire.studio import StudioMicroscope, attach
from deblurd.settings import Settings, SimulatorSettings

CORE_TIMEOUT_S = 5.0
"""After so long Micro-Manager's core gives up waiting for a device by itself."""


def open_microscope(settings: Settings) -> Microscope:
    """The microscope of the configuration, ready to stream.

    Raises NoInputError, DataError, ConfigError or MicroscopeError.
    """
    s = settings.microscope
    if s.backend == "simulator":
        return _open_simulator(settings, _options(settings))
    if s.backend == "replay":
        # by name, as the simulator: it reads slides, which nothing in this room knows of
        replay: Microscope = importlib.import_module("deblurd.replay.microscope").open_replay(settings)
        return replay
    if s.backend == "studio":
        return IsolatedMicroscope(_open_studio, settings, patience_s=s.hang_s + CORE_TIMEOUT_S, waits=True)
    if s.isolated:
        return IsolatedMicroscope(_open_mmcore, settings, patience_s=s.hang_s + CORE_TIMEOUT_S)
    return _open_mmcore(settings, Losses(), again=False)


def _options(settings: Settings) -> dict[str, Any]:
    s = settings.microscope
    return {
        "exposure_ms": s.exposure_ms,
        "pixel_size_um": s.pixel_size_um,
        "rotation_deg": s.rotation_deg,
        "mirrored": s.mirrored,
        "encoding": s.encoding,
        "latency_ms": s.latency_ms,
        "rolling_ms": s.rolling_ms,
        "hang_s": s.hang_s,
        "turns_ms": settings.scan.exposures_ms,
        "most_frames_per_s": s.most_frames_per_s if settings.scan.observations == 1 else math.inf,
    }


def _open_mmcore(settings: Settings, losses: Losses, again: bool) -> Microscope:
    s = settings.microscope
    assert s.config_file is not None  # the configuration sees to it
    return MMCoreMicroscope.from_config(
        s.config_file, s.adapter_path, buffer_mb=s.buffer_mb, losses=losses, **_options(settings)
    )


def _open_studio(settings: Settings, losses: Losses, again: bool) -> Microscope:
    s = settings.microscope
    core = attach(s.studio_port, s.hang_s)
    drives = settings.scan.mode != "watch"
    return StudioMicroscope(core, drives=drives, ours=again, losses=losses, **_options(settings))


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
