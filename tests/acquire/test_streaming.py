"""Frames out of real cores: all of them, in the right shape and colours, and every loss under its cause."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from deblurd.acquire.losses import Losses
from deblurd.acquire.microscope import Microscope, OtherObjective
from deblurd.acquire.stream import CameraStream
from deblurd.errors import ConfigError, MicroscopeError
from deblurd.frames import Frame
from tests.acquire.conftest import DEVICES, Democam, Simulated


def take(microscope: Microscope, count: int, at: dict[int, Any] | None = None) -> list[Frame]:
    """The first `count` frames; `at`: what to do after how many."""
    stop = threading.Event()
    frames: list[Frame] = []
    for frame in microscope.frames(stop):
        frames.append(frame)
        if at and len(frames) in at:
            at[len(frames)]()
        if len(frames) >= count:
            stop.set()
            break
    return frames


@pytest.mark.parametrize(
    ("pixel_type", "depth", "shape", "dtype"),
    [
        ("8bit", "8", (64, 48), "uint8"),
        ("16bit", "12", (64, 48), "uint16"),
        ("32bitRGB", "8", (64, 48, 3), "uint8"),
        ("64bitRGB", "16", (64, 48, 3), "uint16"),
    ],
)
def test_every_kind_of_frame(
    democam: Democam, pixel_type: str, depth: str, shape: tuple[int, ...], dtype: str
) -> None:
    microscope = democam(
        f"Property,Camera,PixelType,{pixel_type}",
        f"Property,Camera,BitDepth,{depth}",
        "Property,Camera,OnCameraCCDXSize,48",
        "Property,Camera,OnCameraCCDYSize,64",
    )
    assert (microscope.info.shape, microscope.info.dtype) == (shape, dtype)
    frames = take(microscope, 40)
    assert {(f.pixels.shape, f.pixels.dtype.name) for f in frames} == {(shape, dtype)}
    assert [f.number for f in frames] == list(range(40))
    assert all(f.pixels.flags.c_contiguous for f in frames)
    assert set(microscope.losses.counts()) <= {"suspected"}
    arrived = np.array([f.arrived_s for f in frames])
    assert (np.diff(arrived) > 0).all()


def test_a_stop_counts_though_frames_come_faster_than_they_are_taken(democam: Democam) -> None:
    microscope = democam(
        "Property,Camera,Exposure,1",
        "Property,Camera,OnCameraCCDXSize,48",
        "Property,Camera,OnCameraCCDYSize,64",
    )
    stop = threading.Event()
    after = 0
    for frame in microscope.frames(stop):
        time.sleep(0.01)
        if stop.is_set():
            after += 1
        elif frame.number >= 20:
            stop.set()
        # what had come by then: at 1 ms a frame, ten times what was taken
        assert after < 1000


def test_colours_are_red_green_blue(democam: Democam) -> None:
    """DemoCamera's "Color Test Pattern" begins with red, as the core's own slow route through its planes says too."""
    microscope = democam("Property,Camera,PixelType,32bitRGB", "Property,Camera,Mode,Color Test Pattern")
    fast = take(microscope, 1)[0].pixels
    core: Any = microscope._core
    core.snapImage()
    slow = core.getImage()
    assert fast.shape == slow.shape
    assert np.abs(fast.astype(int) - slow.astype(int)).mean() < 1
    assert np.abs(fast[..., 0].astype(int) - fast[..., 2]).mean() > 1


def test_a_thousand_frames_as_fast_as_the_camera_goes(democam: Democam) -> None:
    microscope = democam(
        "Property,Camera,OnCameraCCDXSize,128", "Property,Camera,OnCameraCCDYSize,128", exposure_ms=0.1
    )
    assert [f.number for f in take(microscope, 1000)] == list(range(1000))
    # a pause of a busy machine may look like one of the camera
    assert set(microscope.losses.counts()) <= {"suspected"}


def test_of_a_camera_that_is_too_fast_only_some_frames_are_handed_on(democam: Democam) -> None:
    size = "Property,Camera,OnCameraCCDXSize,48", "Property,Camera,OnCameraCCDYSize,64"
    microscope = democam(*size, exposure_ms=1.0, most_frames_per_s=50.0)
    frames = take(microscope, 100)
    steps = np.diff([f.number for f in frames])
    # once its pace is known
    assert (steps[32:] > 2).all()
    surplus = microscope.losses.counts()["surplus"]
    assert surplus == frames[-1].number + 1 - len(frames)
    assert not microscope.losses.recent() or {loss.cause for loss in microscope.losses.recent()} == {
        "suspected"
    }
    # and from the first frame on when it is started again
    again = take(microscope, 20)
    assert (again[0].number, again[0].sequence) == (0, 1)
    assert (np.diff([f.number for f in again]) > 2).all()


def test_a_full_buffer_is_counted_and_the_camera_goes_on(democam: Democam) -> None:
    """Nobody takes frames out until the core says that it is full."""
    microscope = democam("Property,Camera,PixelType,32bitRGB", buffer_mb=8, exposure_ms=0.1)
    core: Any = microscope._core
    full = threading.Event()

    def wait_until_full() -> None:
        while not core.isBufferOverflowed():
            full.wait(0.01)

    frames = take(microscope, 60, at={5: wait_until_full})
    assert microscope.losses.counts()["buffer"] >= 1
    assert {f.sequence for f in frames} == {0, 1}
    for sequence in (0, 1):
        numbers = [f.number for f in frames if f.sequence == sequence]
        assert numbers == list(range(len(numbers)))


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)  # the driver's thread dies of it
def test_a_camera_that_stops_by_itself_is_started_again(simulated: Simulated) -> None:
    microscope = simulated()
    faults = microscope.simulation.faults

    def fail_once() -> None:
        faults.camera_raises = True

    frames = take(microscope, 30, at={10: fail_once})
    assert microscope.losses.counts()["camera"] >= 1
    assert frames[-1].sequence >= 1


def test_a_camera_that_hangs_is_started_again(simulated: Simulated) -> None:
    microscope = simulated(hang_s=0.2)
    faults = microscope.simulation.faults

    def hang() -> None:
        faults.camera_hangs = True
        threading.Timer(0.5, lambda: setattr(faults, "camera_hangs", False)).start()

    frames = take(microscope, 30, at={10: hang})
    assert microscope.losses.counts()["hang"] >= 1
    assert frames[-1].sequence >= 1


def test_a_frame_of_another_shape_is_left_out_and_many_of_them_end_the_scan(simulated: Simulated) -> None:
    microscope = simulated(frames_per_s=100.0)
    faults = microscope.simulation.faults
    with pytest.raises(MicroscopeError, match=r"now sends \(32, 32, 3\) uint8 in place of \(64, 96, 3\)"):
        take(microscope, 100, at={10: lambda: setattr(faults, "frame_shape", (32, 32, 3))})
    assert microscope.losses.counts() == {"shape": 10}


def test_a_dead_camera_ends_with_a_sentence(simulated: Simulated) -> None:
    microscope = simulated(hang_s=0.1)
    microscope.simulation.faults.camera_hangs = True
    with pytest.raises(MicroscopeError, match="check its cable and power"):
        take(microscope, 1)


def test_pixels_that_nobody_can_use_are_refused(democam: Democam) -> None:
    with pytest.raises(ConfigError, match="set its pixel type to 8 or 16 bits"):
        democam("Property,Camera,PixelType,32bit")


def test_a_stop_leaves_nothing_running(democam: Democam) -> None:
    microscope = democam()
    take(microscope, 5)
    core: Any = microscope._core
    assert not core.isSequenceRunning()


class Renumbered:
    """A core whose frames bear other numbers, as those of old cores after an overflow, or of drivers that lose some."""

    def __init__(self, core: Any, numbers: dict[int, int]) -> None:
        self._core, self._numbers = core, numbers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)

    def popNextImageAndMD(self, fix: bool = True) -> Any:
        image, tags = self._core.popNextImageAndMD(fix=fix)
        number = int(tags["ImageNumber"])
        return image, {"ImageNumber": str(self._numbers.get(number, number - 20 if number > 29 else number))}


def test_numbers_that_jump_or_go_back(democam: Democam) -> None:
    """Some are lost where they jump; where they go back, a new sequence begins."""
    microscope = democam()
    core: Any = microscope._core
    losses = Losses()
    stream = CameraStream(Renumbered(core, {5: 6}), losses, 1.0)  # type: ignore[arg-type]
    stop = threading.Event()
    frames: list[Frame] = []
    for frame in stream.frames(stop):
        frames.append(frame)
        if len(frames) == 40:
            break
    first = [f.number for f in frames if f.sequence == 0]
    assert first == [*range(5), 6]
    assert losses.counts()["buffer"] >= 2
    assert {f.sequence for f in frames} >= {0, 1, 2}
    for sequence in range(3):
        numbers = [f.number for f in frames if f.sequence == sequence]
        assert numbers == sorted(set(numbers))
    assert frames[-1].sequence >= 2


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="this system has one zone for all")
def test_a_clock_that_is_set_back_an_hour(democam: Democam, monkeypatch: pytest.MonkeyPatch) -> None:
    """The core stamps frames with local time, and an hour less of it is what the end of summer brings."""
    microscope = democam()

    def set_back() -> None:
        monkeypatch.setenv("TZ", "XYZ+1")
        time.tzset()

    monkeypatch.setenv("TZ", "XYZ+0")
    time.tzset()
    try:
        began_s = time.perf_counter()
        frames = take(microscope, 200, at={50: set_back})
    finally:
        monkeypatch.undo()
        time.tzset()
    assert [f.number for f in frames] == list(range(200))
    arrived = np.array([f.arrived_s for f in frames])
    assert began_s < arrived.min()
    assert arrived.max() < time.perf_counter()
    assert set(microscope.losses.counts()) <= {"suspected"}


OBJECTIVES = (
    "Label,Objective,0,Ten",
    "Label,Objective,1,Forty",
    "Property,Objective,State,0",
    "ConfigPixelSize,Res10x,Objective,Label,Ten",
    "PixelSize_um,Res10x,1.0",
    "ConfigPixelSize,Res40x,Objective,Label,Forty",
    "PixelSize_um,Res40x,0.25",
)


def test_frames_through_another_objective_are_left_out(
    democam: Democam, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = DEVICES.replace("Device,XY", "Device,Objective,DemoCamera,DObjective\nDevice,XY")
    monkeypatch.setattr("tests.acquire.conftest.DEVICES", devices)
    microscope = democam(*OBJECTIVES, pixel_size_um=None)
    core: Any = microscope._core
    assert microscope.info.objective == "Res10x"
    sentences: list[str | None] = []

    def change() -> None:
        core.setProperty("Objective", "State", "1")
        threading.Thread(target=put_back).start()

    def put_back() -> None:
        while microscope.trouble is None:
            time.sleep(0.001)
        sentences.append(microscope.trouble)
        core.setProperty("Objective", "State", "0")

    stop = threading.Event()
    before_s, gaps = time.perf_counter(), []
    for n, frame in enumerate(microscope.frames(stop)):
        if n == 20:
            change()
        gaps.append(frame.arrived_s - before_s)
        before_s = frame.arrived_s
        if "objective" in microscope.losses.counts():
            stop.set()
    assert max(gaps) > 0.2
    assert "was Res10x and is Res40x now" in str(sentences[0])
    assert isinstance(sentences[0], OtherObjective)
    assert microscope.trouble is None
    monkeypatch.setattr("deblurd.acquire.mmcore.OBJECTIVE_PATIENCE_S", 0.3)
    core.setProperty("Objective", "State", "1")
    with pytest.raises(MicroscopeError, match="put the first one back to go on, or start again"):
        take(microscope, 100_000)


def test_exposures_take_turns_where_the_camera_can(democam: Democam) -> None:
    """DemoCamera's picture is as bright as its exposure is long: what a frame is said to be exposed is what it was."""
    size = "Property,Camera,OnCameraCCDXSize,48", "Property,Camera,OnCameraCCDYSize,64"
    microscope = democam(
        *size,
        "Property,Camera,PixelType,16bit",
        "Property,Camera,UseExposureSequences,Yes",
        turns_ms=(8.0, 2.0, 4.0),
    )
    assert microscope.info.exposure_ms == 8.0
    assert microscope.info.most_turns >= 3
    for sequence in range(2):
        frames = take(microscope, 7)
        assert [f.exposure_ms for f in frames] == [8.0, 2.0, 4.0, 8.0, 2.0, 4.0, 8.0]
        assert {f.sequence for f in frames} == {sequence}
        light = np.array([f.pixels.mean() / f.exposure_ms for f in frames])
        assert np.ptp(light) < 0.02 * light.mean()


def test_frames_of_the_virtual_camera_say_how_long_each_was_exposed(simulated: Simulated) -> None:
    microscope = simulated(hang_s=5.0, exposures_ms=(3.0, 1.0))
    truth = microscope.simulation.truth
    for _ in range(2):
        frames = take(microscope, 9)
        assert {f.exposure_ms for f in frames} == {3.0, 1.0}
        for frame in frames:
            true = truth[frame.sequence, frame.number]
            assert 1000 * (true.exposure_end_s - true.exposure_start_s) == pytest.approx(frame.exposure_ms)


def test_exposures_do_not_take_turns_where_the_camera_cannot(democam: Democam) -> None:
    with pytest.raises(MicroscopeError, match=r"cannot change its exposure.*lane_exposures_ms"):
        democam(turns_ms=(8.0, 2.0))
    with pytest.raises(MicroscopeError, match=r"101 exposures in turn, and can take 100"):
        democam("Property,Camera,UseExposureSequences,Yes", turns_ms=(8.0,) * 101)
