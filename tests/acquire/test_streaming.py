"""Frames out of real cores: all of them, in the right shape and colours, and every loss under its cause."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from deblurd.acquire.microscope import Microscope
from deblurd.errors import ConfigError, MicroscopeError
from deblurd.frames import Frame
from tests.acquire.conftest import Democam, Simulated


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
        threading.Thread(target=until_noticed).start()

    def until_noticed() -> None:
        while not microscope.losses.counts():
            time.sleep(1e-4)
        faults.camera_raises = False

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
    microscope = simulated()
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
