"""Frames from microscopes: which backend the configuration asks for."""

from __future__ import annotations

import importlib

from deblurd.acquire.microscope import Microscope
from deblurd.acquire.mmcore import MMCoreMicroscope
from deblurd.settings import Settings, SimulatorSettings


def open_microscope(settings: Settings) -> Microscope:
    """The microscope of the configuration, ready to stream.

    Raises NoInputError, ConfigError or MicroscopeError.
    """
    s = settings.microscope
    if s.backend == "mmcore":
        return MMCoreMicroscope.from_config(s)
    from pymmcore_plus.experimental.unicore import UniMMCore

    # by name: only the configuration leads to the simulator, nothing in the flow depends on it
    simulator = importlib.import_module("deblurd.simulator.simulation")
    core = UniMMCore()
    simulation = simulator.Simulation.load(
        core, settings.simulator or SimulatorSettings(), s.exposure_ms, s.buffer_mb
    )
    return MMCoreMicroscope(core, s, simulation)
