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
from tests.acquire import crashable
from tests.acquire.conftest import DEVICES, adapters
from tests.acquire.test_streaming import OBJECTIVES

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
    assert ("unread" in scan.daemon.report.lost) >= ("was not read in time" in scan.said())
    kept(scan)


def test_frames_of_another_shape_end_the_scan(tmp_path: Path) -> None:
    with watched(simulated(tmp_path)) as scan:
        scan.faults.frame_shape = (32, 32, 3)
        scan.until(lambda: scan.failure is not None)
    assert "undo the change of binning, region or pixel type" in str(scan.failure)
    assert MicroscopeError.exit_code == 69
    assert "now sends (32, 32, 3)" in scan.said()
    kept(scan)


def test_a_camera_that_is_dead_ends_the_scan(tmp_path: Path) -> None:
    with watched(simulated(tmp_path)) as scan:
        scan.faults.camera_hangs = True
        scan.until(lambda: scan.failure is not None)
    assert "was started 3 times and sent no frame: check its cable and power" in str(scan.failure)
    assert "the camera sent nothing for too long" in scan.said()
    kept(scan)


def test_numbers_that_jump_and_go_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of drivers that lose some frames, or of old cores after an overflow."""
    with watched(simulated(tmp_path)) as scan:
        core = getattr(scan.daemon.microscope, "_core")  # noqa: B009 - of this kind of microscope only
        pop, off = core.popNextImageAndMD, [50]

        def renumbered(fix: bool = True) -> Any:
            image, tags = pop(fix=fix)
            return image, {**tags, "ImageNumber": str(int(tags["ImageNumber"]) + off[0])}

        monkeypatch.setattr(core, "popNextImageAndMD", renumbered)
        scan.until(lambda: "50 frame(s) lost" in scan.said())
        off[0] = 0
        scan.until(lambda: "numbers went back" in scan.said())
        tiles = scan.tiles
        scan.until(lambda: scan.tiles >= tiles + 2)
    assert scan.failure is None
    assert scan.daemon.report.lost["buffer"] >= 51
    kept(scan)


# --- the same with Micro-Manager's own adapters ---

needs_democam = pytest.mark.skipif(
    adapters() is None, reason="Micro-Manager's DemoCamera adapter is not on this machine"
)


def with_democam(
    tmp_path: Path, *lines: str, devices: str = DEVICES, size: int = 96, **options: Any
) -> Settings:
    config = tmp_path / "microscope.cfg"
    sides = [f"Property,Camera,OnCameraCCD{side}Size,{size}" for side in "XY"]
    config.write_text("\n".join([devices, *sides, *lines, ""]), encoding="utf-8")
    microscope = MicroscopeSettings(
        config_file=config, adapter_path=adapters(),
        **({"pixel_size_um": 0.5, "rotation_deg": 0.0, "exposure_ms": 5.0, "hang_s": 0.5} | options),
    )  # fmt: skip
    return simulated(tmp_path / "slides").model_copy(update={"microscope": microscope, "simulator": None})


def kill(scan: Watched) -> None:
    psutil.Process(getattr(scan.daemon.microscope, "pid")).kill()  # noqa: B009 - of this kind of microscope only


def crash(scan: Watched) -> None:
    """DemoCamera's own SimulateCrash."""
    with pytest.raises(MicroscopeError, match="check the devices"):
        scan.daemon.microscope.move_to_um(crashable.CRASH_UM, 0.0)


def stage_hangs(scan: Watched) -> None:
    with pytest.raises(MicroscopeError, match="check the devices"):
        scan.daemon.microscope.move_to_um(crashable.HANG_UM, 0.0)


@needs_democam
@pytest.mark.parametrize("fault", [kill, crash, stage_hangs])
def test_a_process_that_an_adapter_brings_down(
    tmp_path: Path, fault: Callable[[Watched], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deblurd.acquire._open_mmcore", crashable.open_crashable)
    monkeypatch.setattr("deblurd.acquire.CORE_TIMEOUT_S", 1.0)
    with watched(with_democam(tmp_path)) as scan:
        # DemoCamera's stage begins anew at (0, 0): elsewhere it would have lost its origin
        scan.moves = False
        there = scan.daemon.microscope
        there.move_to_um(0.0, 0.0)
        scan.until(lambda: max(map(abs, there.position_um())) < 0.1 and not there.is_moving())
        first = getattr(there, "pid")  # noqa: B009
        fault(scan)
        scan.until(lambda: "the process that holds the microscope was gone" in scan.said())
        assert getattr(there, "pid") != first  # noqa: B009
        tiles, scan.moves = scan.tiles, True
        scan.until(lambda: scan.tiles >= tiles + 2)
    assert scan.failure is None
    assert scan.daemon.report.lost["process"] == 1
    kept(scan)


@needs_democam
def test_a_buffer_that_overflows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = with_democam(
        tmp_path, "Property,Camera,PixelType,32bitRGB", size=512, isolated=False, buffer_mb=8
    )
    with watched(settings) as scan:
        core = getattr(scan.daemon.microscope, "_core")  # noqa: B009
        feed = scan.daemon._tracker.feed

        def slow(frame: Any) -> Any:
            """Nobody takes frames out until the core says that it is full."""
            until_s = time.perf_counter() + PATIENCE_S
            while not core.isBufferOverflowed() and time.perf_counter() < until_s:
                time.sleep(0.01)
            monkeypatch.undo()
            return feed(frame)

        monkeypatch.setattr(scan.daemon._tracker, "feed", slow)
        scan.until(lambda: "8 MB were full after number" in scan.said())
        tiles = scan.tiles
        scan.until(lambda: scan.tiles >= tiles + 2)
    assert scan.failure is None
    assert scan.daemon.report.lost["buffer"] >= 1
    kept(scan)


@needs_democam
@pytest.mark.skipif(not hasattr(time, "tzset"), reason="this system has one zone for all")
def test_a_clock_that_is_set_back_an_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The core stamps frames with local time."""
    monkeypatch.setenv("TZ", "XYZ+0")
    time.tzset()
    try:
        with watched(with_democam(tmp_path, isolated=False)) as scan:
            monkeypatch.setenv("TZ", "XYZ+1")
            time.tzset()
            tiles = scan.tiles
            scan.until(lambda: scan.tiles >= tiles + 3)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert scan.failure is None
    assert set(scan.daemon.report.lost) <= {"suspected", "surplus", "untimed", "unread"}
    kept(scan)


TURRET = DEVICES.replace("Device,XY", "Device,Objective,DemoCamera,DObjective\nDevice,XY")


@needs_democam
def test_an_objective_that_changes_in_mid_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = with_democam(tmp_path, *OBJECTIVES, devices=TURRET, isolated=False, pixel_size_um=None)
    with watched(settings) as scan:
        core = getattr(scan.daemon.microscope, "_core")  # noqa: B009
        core.setProperty("Objective", "State", "1")
        scan.until(lambda: "was Res10x and is Res40x now" in str(scan.daemon.status.trouble))
        # the slide at work ends, and goes on where the first objective is back soon
        scan.until(lambda: scan.daemon.sessions.slide is None)
        core.setProperty("Objective", "State", "0")
        scan.until(lambda: scan.tiles >= 3)
        monkeypatch.setattr("deblurd.acquire.mmcore.OBJECTIVE_PATIENCE_S", 0.3)
        core.setProperty("Objective", "State", "1")
        scan.until(lambda: scan.failure is not None)
    assert "put the first one back to go on, or start again" in str(scan.failure)
    for slide in scan.daemon.report.slides:
        assert slide.failure is None
        assert slide.tiles == slide.acknowledged
        assert verify(slide.folder)[2] == []


# --- while deblurd drives ---


def driven(tmp_path: Path) -> Settings:
    area = ScanSettings(
        mode="serpentine", start_um=(60.0, 60.0), area_mm=(0.4, 0.2), speed_um_s=100.0, calibrate="never"
    )
    return simulated(tmp_path).model_copy(update={"scan": area})


def test_a_stage_that_somebody_moves_while_deblurd_drives(tmp_path: Path) -> None:
    """It is sent on once, to where it was going; where that is no help, the scan ends."""
    scan = Watched(driven(tmp_path))
    scan.moves = False
    try:
        scan.until(lambda: scan.tiles >= 3)
        joystick(scan)
        scan.until(lambda: "sent there again" in scan.said())
        tiles = scan.tiles
        scan.until(lambda: scan.tiles >= tiles + 2)
        scan.each = lambda: joystick(scan)
        scan.until(lambda: scan.daemon.scan is not None and scan.daemon.scan.failure is not None)
    finally:
        scan.end()
    assert "the stage stopped at" in str(scan.failure)
    kept(scan)


def kept(scan: Watched) -> None:
    """Every tile that was recorded is there, and in the mosaic."""
    (slide,) = scan.daemon.report.slides
    assert slide.failure is None
    assert slide.tiles == slide.acknowledged >= 3
    assert verify(slide.folder)[2] == []
