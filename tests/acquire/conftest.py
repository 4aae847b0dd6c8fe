"""Microscopes on real cores: DemoCamera where its adapter is installed, and the virtual one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pymmcore_plus import find_micromanager

from deblurd.acquire import open_microscope
from deblurd.acquire.microscope import Microscope
from deblurd.acquire.mmcore import MMCoreMicroscope
from deblurd.settings import MicroscopeSettings, ScanSettings, Settings, SimulatorSettings

DEVICES = """Property,Core,Initialize,0
Device,Camera,DemoCamera,DCam
Device,XY,DemoCamera,DXYStage
Property,Core,Initialize,1
Property,Core,Camera,Camera
Property,Core,XYStage,XY
"""

Democam = Callable[..., MMCoreMicroscope]
Simulated = Callable[..., Microscope]


def adapters() -> Path | None:
    found = find_micromanager()
    return Path(found) if found and any(Path(found).glob("*DemoCamera*")) else None


@pytest.fixture
def democam(tmp_path: Path) -> Iterator[Democam]:
    """Opens a .cfg with DemoCamera's camera and stage; `lines` are added to it."""
    folder = adapters()
    if folder is None:
        pytest.skip("Micro-Manager's DemoCamera adapter is not on this machine")
    opened: list[MMCoreMicroscope] = []

    def make(*lines: str, **options: Any) -> MMCoreMicroscope:
        config = tmp_path / "microscope.cfg"
        config.write_text(DEVICES + "".join(f"{line}\n" for line in lines), encoding="utf-8")
        options = {"pixel_size_um": 1.0, "rotation_deg": 0.0, "exposure_ms": 1.0} | options
        opened.append(MMCoreMicroscope.from_config(config, folder, **options))
        return opened[-1]

    yield make
    for microscope in opened:
        microscope.close()


@pytest.fixture
def simulated() -> Iterator[Simulated]:
    """Opens the virtual microscope; options are those of its section in the configuration."""
    opened: list[Microscope] = []

    def make(
        hang_s: float = 0.5, buffer_mb: int = 8, exposures_ms: tuple[float, ...] = (), **options: Any
    ) -> Microscope:
        values: dict[str, Any] = {
            "fov_px": (64, 96), "slide_size_mm": (0.3, 0.2), "frames_per_s": 200.0, "latency_ms": 1.0, "jitter_ms": 0.0,
            "stage_read_ms": 0.0,
        }  # fmt: skip
        settings = Settings(
            microscope=MicroscopeSettings(
                backend="simulator", exposure_ms=1.0, hang_s=hang_s, buffer_mb=buffer_mb
            ),
            simulator=SimulatorSettings(**(values | options)),
            scan=ScanSettings(observations=2, exposures_ms=exposures_ms),
        )
        opened.append(open_microscope(settings))
        return opened[-1]

    yield make
    for microscope in opened:
        microscope.close()
