"""A running Micro-Manager, by pycromanager's own client: against a stand-in for its server with real adapters, and the Python backend."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from deblurd.acquire import open_microscope
from deblurd.acquire.losses import Losses
from deblurd.acquire.microscope import Microscope
from deblurd.acquire.studio import StudioCore, StudioMicroscope, attach, java_words, probe
from deblurd.cli import main
from deblurd.daemon import Daemon, Status
from deblurd.errors import ConfigError, MicroscopeError
from deblurd.frames import Frame
from deblurd.record.journal import Journal
from deblurd.settings import (
    DeblurSettings,
    MicroscopeSettings,
    MosaicSettings,
    ScanSettings,
    Settings,
    SlideSettings,
)
from tests.acquire.conftest import DEVICES, Democam, adapters
from tests.acquire.test_streaming import take

pytest.importorskip("mmpycorex", reason="pycromanager is not installed")
pytestmark = pytest.mark.skipif(
    adapters() is None, reason="Micro-Manager's DemoCamera adapter is not on this machine"
)

ROOT = Path(__file__).parents[2]
SMALL = (
    "Property,Camera,OnCameraCCDXSize,48\nProperty,Camera,OnCameraCCDYSize,64\nProperty,Camera,Exposure,5\n"
)
DRIVING = ScanSettings(mode="serpentine", area_mm=(1.0, 1.0), speed_um_s=500.0)
HANG_S = 0.5


class Studio:
    """The other program."""

    def __init__(self, config: Path, port: int | None = None) -> None:
        where = [] if port is None else ["--port", str(port)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.acquire.zmq_server", str(config), *where],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def order(self, text: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{text}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        with self.process:
            self.process.kill()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("studio") / "studio.cfg"
    path.write_text(DEVICES + SMALL, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def shared(config: Path) -> Iterator[Studio]:
    studio = Studio(config)
    yield studio
    studio.kill()


@pytest.fixture
def studio(shared: Studio) -> Iterator[Studio]:
    """For tests that leave it as it was."""
    yield shared
    shared.order("well")
    if shared.order("ask isSequenceRunning") == "True":
        shared.order("stop")
    shared.order("set Camera PixelType 8bit")


Attached = Callable[..., Microscope]


@pytest.fixture
def attached(monkeypatch: pytest.MonkeyPatch) -> Iterator[Attached]:
    monkeypatch.setattr("deblurd.acquire.CORE_TIMEOUT_S", 2.5)
    opened: list[Microscope] = []

    def make(port: int, scan: ScanSettings = DRIVING, **options: Any) -> Microscope:
        microscope = MicroscopeSettings(
            backend="studio",
            studio_port=port,
            pixel_size_um=1.0,
            rotation_deg=0.0,
            **({"hang_s": HANG_S, "most_frames_per_s": 1000.0} | options),
        )
        opened.append(open_microscope(Settings(microscope=microscope, scan=scan)))
        return opened[-1]

    yield make
    for microscope in opened:
        microscope.close()


def until(microscope: Microscope, enough: Callable[[Frame], bool]) -> Frame:
    """Takes frames until one is as wanted."""
    stop = threading.Event()
    found: list[Frame] = []
    for frame in microscope.frames(stop):
        if not found and enough(frame):
            found.append(frame)
            stop.set()
    return found[0]


@pytest.mark.parametrize(
    ("pixel_type", "shape", "dtype"),
    [
        ("16bit", (64, 48), "uint16"),
        ("64bitRGB", (64, 48, 3), "uint16"),
    ],
)
def test_deblurd_drives(
    studio: Studio, attached: Attached, pixel_type: str, shape: tuple[int, ...], dtype: str
) -> None:
    studio.order(f"set Camera PixelType {pixel_type}")
    microscope = attached(studio.port)
    assert (microscope.info.shape, microscope.info.dtype) == (shape, dtype)
    assert microscope.info.exposure_ms == 5.0
    assert studio.order("ask isSequenceRunning") == "False"
    frames = take(microscope, 20)
    assert {(f.pixels.shape, f.pixels.dtype.name) for f in frames} == {(shape, dtype)}
    assert [f.number for f in frames] == list(range(20))
    assert studio.order("ask isSequenceRunning") == "False"
    microscope.set_speed_um_s(20000.0)
    microscope.move_to_um(30.0, -40.0)
    while microscope.is_moving():
        pass
    assert microscope.position_um() == pytest.approx((30.0, -40.0), abs=0.02)
    assert microscope.z_um() is None
    microscope.close()
    assert studio.order("ask getCameraDevice") == "Camera"


def test_colours_are_those_of_the_core(studio: Studio, attached: Attached, democam: Democam) -> None:
    studio.order("set Camera PixelType 32bitRGB")
    studio.order("set Camera Mode Color Test Pattern")
    seen = take(attached(studio.port), 1)[0].pixels
    studio.order("set Camera Mode Artificial Waves")
    core = democam(SMALL, "Property,Camera,PixelType,32bitRGB", "Property,Camera,Mode,Color Test Pattern")
    assert np.array_equal(seen, take(core, 1)[0].pixels)
    assert seen.std() > 10


def test_the_live_view_is_only_looked_at(studio: Studio, attached: Attached) -> None:
    microscope = attached(studio.port, ScanSettings())
    stop = threading.Event()
    switch = threading.Timer(0.6, lambda: studio.order("live"))
    frames: list[Frame] = []
    switch.start()
    began = threading.Event()

    def look() -> None:
        for frame in microscope.frames(stop):
            frames.append(frame)
            if len(frames) >= 20:
                began.set()

    looking = threading.Thread(target=look)
    looking.start()
    while microscope.trouble is None and not began.is_set():
        stop.wait(0.01)
    assert frames or "live view is off: switch Live on" in str(microscope.trouble)
    assert began.wait(30)
    waiting = int(studio.order("ask getRemainingImageCount"))
    studio.order("stop")
    studio.order("live")
    while not any(frame.sequence == 1 for frame in frames):
        stop.wait(0.01)
    stop.set()
    looking.join()
    assert waiting >= 20, "frames were taken out of the live view"
    assert studio.order("ask isSequenceRunning") == "True"
    first = [frame.number for frame in frames if frame.sequence == 0]
    assert first == sorted(set(first))
    # the process that holds Studio says several times a second how it is
    until_s = time.perf_counter() + 10
    while microscope.trouble is not None and time.perf_counter() < until_s:
        time.sleep(0.01)
    assert microscope.trouble is None
    assert set(microscope.losses.counts()) <= {"live"}
    with pytest.raises(MicroscopeError, match="only looks at"):
        microscope.set_exposure_ms(3.0)
    microscope.close()
    assert studio.order("ask isSequenceRunning") == "True"


def test_an_acquisition_of_studio_begins_a_slide_and_ends_it(studio: Studio, tmp_path: Path) -> None:
    settings = Settings(
        microscope=MicroscopeSettings(
            backend="studio", studio_port=studio.port, pixel_size_um=1.0, rotation_deg=0.0, latency_ms=1.0
        ),
        deblur=DeblurSettings(model="raw"),
        slide=SlideSettings(start="asked"),
        mosaic=MosaicSettings(output=tmp_path / "slides", least_free_mb=1),
    )
    stop, orders = threading.Event(), [("acquire", True), ("acquired", False)]
    studio.order("live")
    daemon = Daemon(settings)

    def conduct(status: Status) -> None:
        """Next order when the one before has been obeyed."""
        if orders and status.frames_per_s > 0 and (daemon.sessions.slide is None) == orders[0][1]:
            studio.order(orders.pop(0)[0])
        elif not orders and daemon.sessions.slide is None:
            stop.set()

    report = daemon.run(conduct, stop)
    daemon.close()
    [slide] = report.slides
    with closing(Journal(slide.folder.journal, read_only=True)) as journal:
        story = [(kind, text) for _, _, kind, text in journal.events() if kind in ("scanning", "closing")]
    assert story == [
        ("scanning", "Micro-Manager's acquisition"),
        ("closing", "Micro-Manager's acquisition ended"),
    ]


def test_an_acquisition_without_a_stream_is_said(studio: Studio, attached: Attached) -> None:
    microscope = attached(studio.port, ScanSettings())
    stop = threading.Event()
    studio.order("acquire")
    looking = threading.Thread(target=lambda: list(microscope.frames(stop)))
    looking.start()
    until_s = time.perf_counter() + 10
    while "one by one" not in (said := microscope.trouble or "") and time.perf_counter() < until_s:
        time.sleep(0.01)
    is_acquiring = microscope.is_acquiring
    stop.set()
    looking.join()
    studio.order("acquired")
    assert is_acquiring
    assert "takes its pictures one by one" in said


def test_deblurd_does_not_drive_beside_a_live_view(studio: Studio, attached: Attached) -> None:
    studio.order("live")
    with pytest.raises(MicroscopeError, match="live view has the camera: switch Live off"):
        attached(studio.port)
    assert studio.order("ask isSequenceRunning") == "True"


def test_what_devices_say_comes_as_one_line(studio: Studio, attached: Attached) -> None:
    microscope = attached(studio.port)
    studio.order('error Error in device "XY": the cable is out')
    with pytest.raises(MicroscopeError) as caught:
        microscope.position_um()
    assert 'Error in device "XY": the cable is out' in str(caught.value)
    assert "java" not in str(caught.value)
    assert "\n" not in str(caught.value)
    studio.order("well")
    assert microscope.position_um() is not None
    studio.order("oom")
    with pytest.raises(
        MicroscopeError, match="OutOfMemoryError in place of a frame: give Micro-Manager more memory"
    ):
        take(microscope, 1)


def test_a_server_that_answers_late_is_waited_for(studio: Studio, attached: Attached) -> None:
    microscope = attached(studio.port, hang_s=2.0)
    studio.order("late 0.05")
    assert [f.number for f in take(microscope, 3)] == [0, 1, 2]


def test_pixels_that_nobody_can_use_are_refused(studio: Studio, attached: Attached) -> None:
    studio.order("set Camera PixelType 32bit")
    with pytest.raises(ConfigError, match="set its pixel type to 8 or 16 bits"):
        attached(studio.port)


def test_a_studio_that_closes_in_mid_scan_is_waited_for(config: Path, attached: Attached) -> None:
    studio = Studio(config)
    microscope = attached(studio.port)
    said: list[str] = []
    back: list[Studio] = []

    def close() -> None:
        studio.kill()
        while not (microscope.trouble and "nothing listens" in microscope.trouble):
            pause.wait(0.01)
        said.append(microscope.trouble)
        back.append(Studio(config, studio.port))
        # whoever asks meanwhile waits until it is back
        assert microscope.position_um() == (0.0, 0.0)

    pause = threading.Event()
    closing = threading.Thread(target=close)
    last = until(microscope, lambda frame: _at_10(frame, closing) and frame.sequence == 1)
    closing.join()
    assert last.number == 0
    assert microscope.trouble is None
    assert microscope.losses.counts()["process"] == 1
    assert "start Micro-Manager" in said[0]
    assert microscope.position_um() == (0.0, 0.0)
    microscope.close()
    back[0].kill()


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system cannot let a process stand still")
def test_a_studio_that_hangs_in_mid_scan_is_attached_to_again(config: Path, attached: Attached) -> None:
    studio = Studio(config)
    microscope = attached(studio.port)

    def hang() -> None:
        os.kill(studio.process.pid, signal.SIGSTOP)
        while microscope.trouble is None:
            pause.wait(0.01)
        os.kill(studio.process.pid, signal.SIGCONT)

    pause = threading.Event()
    hanging = threading.Thread(target=hang)
    until(microscope, lambda frame: _at_10(frame, hanging) and frame.sequence == 1)
    hanging.join()
    assert microscope.trouble is None
    # on a busy machine it may seem to hang once more while it comes back
    losses = [loss for loss in microscope.losses.recent() if loss.cause == "process"]
    assert losses
    assert all("did not come back" in loss.detail for loss in losses)
    microscope.close()
    # the sequence that was left behind was deblurd's own
    assert studio.order("ask isSequenceRunning") == "False"
    studio.kill()


def _at_10(frame: Frame, thread: threading.Thread) -> bool:
    if thread.ident is None and frame.number >= 10:
        thread.start()
    return True


def test_who_else_may_listen_at_the_port(config: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with pytest.raises(MicroscopeError, match=r"nothing listens at port \d+: start Micro-Manager"):
            probe(nobody.getsockname()[1])
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(MicroscopeError, match="says nothing: if it is Micro-Manager, it hangs"),
    ):
        probe(silent.getsockname()[1])
    with socket.create_server(("127.0.0.1", 0)) as web:

        def answer() -> None:
            with web.accept()[0] as connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(MicroscopeError, match="taken by something that is not Micro-Manager"):
            probe(web.getsockname()[1])
        thread.join()


def test_a_run_at_a_port_that_is_not_micro_managers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "deblurd.toml"
    with socket.create_server(("127.0.0.1", 0)) as web:
        file.write_text(
            f"""[microscope]\nbackend = "studio"\nstudio_port = {web.getsockname()[1]}\n[mosaic]\noutput = "slides"\n""", encoding="utf-8"
        )  # fmt: skip

        def answer() -> None:
            with web.accept()[0] as connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert main(["run", "--config", str(file)]) == MicroscopeError.exit_code
        thread.join()
    assert "is taken by something that is not Micro-Manager" in capsys.readouterr().err


def test_one_that_is_mute_or_speaks_otherwise_is_given_up(studio: Studio, attached: Attached) -> None:
    context = zmq.Context()
    other = context.socket(zmq.REP)
    port = other.bind_to_random_port("tcp://127.0.0.1")
    with pytest.raises(MicroscopeError, match=rf"Micro-Manager at port {port} cannot be asked"):
        attached(port)
    other.close(linger=0)
    context.term()


def test_a_handshake_and_then_silence(config: Path, attached: Attached) -> None:
    studio = Studio(config)
    studio.order("mute")
    with pytest.raises(MicroscopeError, match=r"cannot be asked \(it said nothing for 0.5 s\)"):
        attached(studio.port)
    studio.kill()


def test_points_that_the_server_keeps_to_itself(config: Path, attached: Attached) -> None:
    studio = Studio(config)
    studio.order("badpoint")
    microscope = attached(studio.port)
    studio.order("move 7 -3")
    while microscope.is_moving():
        pass
    assert microscope.position_um() == pytest.approx((-3.0, 7.0), abs=0.02)
    microscope.close()
    studio.kill()


def test_nothing_is_left_behind_for_each_frame(studio: Studio) -> None:
    """pyjavaz registers a function that is called at exit with each object of Java's."""
    script = f"""
import atexit, os, threading
from deblurd.acquire.studio import StudioMicroscope, attach
microscope = StudioMicroscope(attach({studio.port}, 5.0), drives=True, pixel_size_um=1.0, rotation_deg=0.0)
stop, before = threading.Event(), 0
for n, frame in enumerate(microscope.frames(stop)):
    before = before or atexit._ncallbacks()
    if n == 50:
        break
print(atexit._ncallbacks() - before, flush=True)
os._exit(0)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "0"


def test_without_pycromanager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mmpycorex", None)
    with pytest.raises(MicroscopeError, match=r'pip install "deblurd\[studio\]"'):
        attach(4827, 1.0)


def test_java_words() -> None:
    assert (
        java_words(Exception('java.lang.Exception: Error in device "XY"\n\tat mmcorej.X'))
        == 'Error in device "XY"'
    )
    assert java_words(Exception("java.lang.NullPointerException\n\tat a.b")) == "Exception"
    assert java_words(Exception("Camera is busy.")) == "Camera is busy"


@pytest.fixture
def headless(config: Path) -> Iterator[Callable[[], Any]]:
    """pycromanager's Python backend: no Java, and the same names."""
    mmpycorex = pytest.importorskip("mmpycorex")
    mmpycorex.create_core_instance(mm_app_path=str(adapters()), config_file=str(config), python_backend=True)
    yield mmpycorex.Core
    mmpycorex.terminate_core_instances()


def test_the_python_backend(headless: Callable[[], Any]) -> None:
    losses = Losses()
    core = StudioCore(headless)
    core.setProperty("Camera", "PixelType", "32bitRGB")
    microscope = StudioMicroscope(
        StudioCore(headless), drives=True, pixel_size_um=1.0, rotation_deg=0.0, losses=losses
    )
    assert [f.number for f in take(microscope, 10)] == list(range(10))
    assert microscope.info.shape == (64, 48, 3)
    microscope.move_to_um(3.0, 4.0)
    while microscope.is_moving():
        pass
    assert microscope.position_um() == pytest.approx((3.0, 4.0), abs=0.02)
    microscope.close()
    assert core.getCameraDevice() == "Camera"
    headless().start_continuous_sequence_acquisition(0.0)
    looker = StudioMicroscope(core, drives=False, pixel_size_um=1.0, rotation_deg=0.0)
    looked = [f.number for f in take(looker, 10)]
    assert looked == sorted(set(looked))
    assert core.isSequenceRunning()
    core.stopSequenceAcquisition()
