"""What a microscope does to a scan, through the whole daemon: the slide is kept, the cause is said, and where it can go on it does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from deblurd.daemon import Daemon
from deblurd.errors import DeblurdError, MicroscopeError
from deblurd.record.journal import Journal
from deblurd.settings import (
    DeblurSettings,
    MicroscopeSettings,
    MosaicSettings,
    ScanSettings,
    ServeSettings,
    Settings,
    SimulatorSettings,
)
from deblurd.slides.verify import verify
from tests.acquire.conftest import DEVICES, adapters

pytestmark = pytest.mark.long

PATIENCE_S = 40.0
"""For the machine, which may be busy; each wait ends when what it waits for is there."""

STEP_UM = 15.0


class Watched:
    """A daemon that watches while the stage goes on and on, a step each time somebody looks for something."""

    def __init__(self, settings: Settings) -> None:
        self.daemon = Daemon(settings)
        self.stop = threading.Event()
        self.failure: Exception | None = None
        self.moves = True
        self.each: Callable[[], None] = lambda: None
        self._x_um = 0.0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.daemon.run(lambda _: None, self.stop)
        except DeblurdError as err:
            self.failure = err

    @property
    def faults(self) -> Any:
        return self.daemon.microscope.simulation.faults

    @property
    def tiles(self) -> int:
        slide = self.daemon.sessions.slide
        return slide.progress.recorded if slide else 0

    def said(self) -> str:
        """All that the journal of the slide says."""
        slide = self.daemon.sessions.slide
        folder = slide.folder if slide else self.daemon.report.slides[0].folder
        journal = Journal(folder.journal, read_only=True)
        try:
            return "\n".join(text for _, _, _, text in journal.events())
        finally:
            journal.close()

    def until(self, there: Callable[[], bool]) -> None:
        """Waits, and moves the stage meanwhile."""
        until_s = time.perf_counter() + PATIENCE_S
        while not there():
            assert time.perf_counter() < until_s, "waited in vain"
            self.each()
            if self.moves:
                self._x_um += STEP_UM
                self._move()
            time.sleep(0.05)

    def _move(self) -> None:
        try:
            self.daemon.microscope.move_to_um(60.0, 60.0 + self._x_um % 400)
        except MicroscopeError:
            return  # that is the fault

    def end(self) -> None:
        self.stop.set()
        if self.daemon.microscope.simulation is not None:
            # whatever the test came to: one that hangs would not end
            self.faults.stage_hangs = self.faults.camera_hangs = False
        self._thread.join()
        self.daemon.close()


@contextmanager
def watched(settings: Settings) -> Iterator[Watched]:
    scan = Watched(settings)
    try:
        scan.until(lambda: scan.tiles >= 3)
        yield scan
    finally:
        scan.end()


def simulated(output: Path) -> Settings:
    return Settings(
        microscope=MicroscopeSettings(backend="simulator", exposure_ms=2.0, hang_s=0.5),
        simulator=SimulatorSettings(
            fov_px=(96, 96), slide_size_mm=(0.6, 0.3), frames_per_s=60.0, latency_ms=1.0, jitter_ms=0.0
        ),
        scan=ScanSettings(mode="watch"),
        deblur=DeblurSettings(model="raw"),
        mosaic=MosaicSettings(output=output),
        serve=ServeSettings(enabled=False),
    )


def throw(**faults: Any) -> Callable[[Watched], None]:
    def do(scan: Watched) -> None:
        # one that hangs would keep whoever moves it
        scan.moves = not faults.get("stage_hangs", False)
        for name, value in faults.items():
            setattr(scan.faults, name, value)

    return do


def jump(scan: Watched) -> None:
    """Again and again: on a busy machine so much time may pass between two readings that the stage could have driven there."""

    def there_and_back() -> None:
        scan.faults.jump_um = (1000.0 - scan.faults.jump_um[0], 0.0)

    scan.each = there_and_back


def jump_no_more(scan: Watched) -> None:
    scan.each = lambda: None
    scan.faults.jump_um = (0.0, 0.0)


def joystick(scan: Watched) -> None:
    scan.daemon.microscope.move_to_um(200.0, 30.0)


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)  # a driver's thread dies of camera_raises
@pytest.mark.parametrize(
    ("fault", "mend", "words"),
    [
        (throw(camera_raises=True), throw(), "the camera stopped by itself"),
        (throw(camera_hangs=True), throw(camera_hangs=False), "the camera sent nothing for too long"),
        (throw(stage_raises=True), throw(stage_raises=False), "a reading of the stage was left out: the microscope refused"),
        (throw(position_nan=True), throw(position_nan=False), "a reading of the stage was left out: XY reports the position x nan"),
        (throw(stage_hangs=True), throw(stage_hangs=False), "have no place, because the stage was not read in time"),
        (jump, jump_no_more, "the stage's position jumped by"),
        (joystick, throw(), "tissue under a moving stage"),
    ],
    ids=["camera raises", "camera hangs", "stage raises", "position nan", "stage hangs", "position jumps", "joystick"],
)  # fmt: skip
def test_a_scan_goes_on_after(
    tmp_path: Path, fault: Callable[[Watched], None], mend: Callable[[Watched], None], words: str
) -> None:
    with watched(simulated(tmp_path)) as scan:
        fault(scan)
        scan.until(lambda: words in scan.said())
        mend(scan)
        tiles = scan.tiles
        scan.until(lambda: scan.tiles >= tiles + 2)
    assert scan.failure is None
    kept(scan)


def test_frames_of_another_shape_end_the_scan(tmp_path: Path) -> None:
    with watched(simulated(tmp_path)) as scan:
        scan.faults.frame_shape = (32, 32, 3)
        scan.until(lambda: scan.failure is not None)
    assert "undo the change of binning, region or pixel type" in str(scan.failure)
    assert MicroscopeError.exit_code == 69
    assert "now sends (32, 32, 3)" in scan.said()
    kept(scan)


@pytest.mark.skipif(adapters() is None, reason="Micro-Manager's DemoCamera adapter is not on this machine")
def test_a_process_that_an_adapter_brings_down(tmp_path: Path) -> None:
    config = tmp_path / "microscope.cfg"
    small = "Property,Camera,OnCameraCCDXSize,96\nProperty,Camera,OnCameraCCDYSize,96\n"
    config.write_text(DEVICES + small, encoding="utf-8")
    microscope = MicroscopeSettings(
        config_file=config,
        adapter_path=adapters(),
        pixel_size_um=0.5,
        rotation_deg=0.0,
        exposure_ms=5.0,
        hang_s=0.5,
    )
    settings = simulated(tmp_path / "slides").model_copy(update={"microscope": microscope, "simulator": None})
    with watched(settings) as scan:
        # DemoCamera's stage begins anew at (0, 0): elsewhere it would have lost its origin
        scan.moves = False
        there = scan.daemon.microscope
        there.move_to_um(0.0, 0.0)
        scan.until(lambda: max(map(abs, there.position_um())) < 0.1 and not there.is_moving())
        first = getattr(there, "pid")  # noqa: B009 - of this kind of microscope only
        psutil.Process(first).kill()
        scan.until(lambda: "the process that holds the microscope was gone" in scan.said())
        assert getattr(there, "pid") != first  # noqa: B009
        tiles, scan.moves = scan.tiles, True
        scan.until(lambda: scan.tiles >= tiles + 2)
    assert scan.failure is None
    assert scan.daemon.report.lost["process"] == 1
    kept(scan)


def kept(scan: Watched) -> None:
    """Every tile that was recorded is there, and in the mosaic."""
    (slide,) = scan.daemon.report.slides
    assert slide.failure is None
    assert slide.tiles == slide.acknowledged >= 3
    assert verify(slide.folder)[2] == []
