"""Devices in a process of their own: what comes through, and what a crash or a hang there costs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from deblurd.acquire import open_microscope
from deblurd.acquire.child import Opener
from deblurd.acquire.isolated import IsolatedMicroscope
from deblurd.acquire.ring import Ring
from deblurd.errors import ConfigError, MicroscopeError
from deblurd.settings import MicroscopeSettings, Settings, SlideSettings
from tests.acquire import crashable
from tests.acquire.conftest import DEVICES, adapters
from tests.acquire.test_streaming import take

pytestmark = pytest.mark.skipif(
    adapters() is None, reason="Micro-Manager's DemoCamera adapter is not on this machine"
)

PATIENCE_S = 1.5

Isolated = Callable[..., IsolatedMicroscope]


def settings_of(tmp_path: Path, *lines: str, slide: str = "slide") -> Settings:
    config = tmp_path / "microscope.cfg"
    config.write_text(DEVICES + "".join(f"{line}\n" for line in lines), encoding="utf-8")
    microscope = MicroscopeSettings(
        config_file=config, adapter_path=adapters(), pixel_size_um=1.0, rotation_deg=0.0, exposure_ms=1.0
    )
    return Settings(microscope=microscope, slide=SlideSettings(name=slide))


@pytest.fixture
def isolated(tmp_path: Path) -> Iterator[Isolated]:
    opened: list[IsolatedMicroscope] = []

    def make(
        *lines: str, opener: Opener = crashable.open_crashable, slide: str = "slide"
    ) -> IsolatedMicroscope:
        settings = settings_of(tmp_path, *lines, slide=slide)
        opened.append(IsolatedMicroscope(opener, settings, patience_s=PATIENCE_S))
        return opened[-1]

    yield make
    for microscope in opened:
        microscope.close()


def test_frames_and_stage_are_as_without_it(tmp_path: Path) -> None:
    settings = settings_of(
        tmp_path, "Property,Camera,PixelType,32bitRGB", "Property,Camera,Mode,Color Test Pattern"
    )
    # slow enough that Micro-Manager's buffer holds what comes while a busy machine looks elsewhere
    unhurried = settings.microscope.model_copy(update={"exposure_ms": 10.0})
    settings = settings.model_copy(update={"microscope": unhurried})
    microscope = open_microscope(settings)
    try:
        assert isinstance(microscope, IsolatedMicroscope)
        assert microscope.pid != os.getpid()
        began_s = time.perf_counter()
        frames = take(microscope, 200)
        assert [f.number for f in frames] == list(range(200))
        arrived_s = [f.arrived_s for f in frames]
        assert began_s < min(arrived_s) < arrived_s[-1] < time.perf_counter()
        assert microscope.info.shape == frames[0].pixels.shape
        microscope.move_to_um(30.0, -40.0)
        while microscope.is_moving():
            pass
        assert microscope.position_um() == pytest.approx((30.0, -40.0), abs=0.02)
        assert microscope.z_um() is None
        again = take(microscope, 5)
        assert [f.number for f in again] == list(range(5))
        assert {f.sequence for f in again} == {1}
    finally:
        microscope.close()
    in_one_process = open_microscope(
        settings.model_copy(update={"microscope": settings.microscope.model_copy(update={"isolated": False})})
    )
    try:
        assert np.array_equal(take(in_one_process, 1)[0].pixels, frames[0].pixels)
    finally:
        in_one_process.close()


def test_micro_manager_s_autofocus_is_asked_where_the_configuration_has_one(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    config = settings.microscope.config_file
    assert config is not None
    for devices, is_there in (
        ("", False),
        ("Device,Z,DemoCamera,DStage\nDevice,AF,DemoCamera,DAutoFocus\n", True),
    ):
        roles = "Property,Core,Focus,Z\nProperty,Core,AutoFocus,AF\n" * is_there
        initialize = "Property,Core,Initialize,1\n"
        config.write_text(DEVICES.replace(initialize, devices + initialize) + roles, encoding="utf-8")
        microscope = open_microscope(settings)
        try:
            if is_there:
                microscope.focus_to_um(7.5)
                # it finds any height sharp
                assert microscope.autofocus_um() == pytest.approx(7.5)
            else:
                with pytest.raises(MicroscopeError, match="no device the role of autofocus"):
                    microscope.autofocus_um()
        finally:
            microscope.close()


def test_an_iterator_of_frames_may_outlive_the_microscope(isolated: Isolated) -> None:
    microscope = isolated()
    frames = microscope.frames(threading.Event())
    next(frames)
    microscope.close()
    # which closes it
    del frames


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (crashable.CRASH_UM, "ended"),
        (crashable.HANG_UM, "move_to_um did not come back"),
        (crashable.FREEZE_UM, "said nothing"),
    ],
)
def test_a_device_that_crashes_or_hangs_costs_frames_and_no_more(
    isolated: Isolated, fault: float, why: str
) -> None:
    microscope = isolated()
    first = microscope.pid
    moves: list[threading.Thread] = []
    refused: list[str] = []

    def go_wrong() -> None:
        def move() -> None:
            with pytest.raises(MicroscopeError) as caught:
                microscope.move_to_um(fault, 0.0)
            refused.append(str(caught.value))

        moves.append(threading.Thread(target=move))
        moves[0].start()

    stop = threading.Event()
    taken: list[int] = []
    for frame in microscope.frames(stop):
        taken.append(frame.sequence)
        if len(taken) == 10:
            go_wrong()
        if frame.sequence == 1:
            stop.set()
    moves[0].join()
    assert refused
    assert "check the devices" in refused[0]
    assert microscope.pid != first
    assert {0, 1} == set(taken)
    assert microscope.losses.counts()["process"] == 1
    (loss,) = (loss for loss in microscope.losses.recent() if loss.cause == "process")
    assert why in loss.detail
    assert microscope.trouble is None
    assert microscope.position_um() == pytest.approx((0.0, 0.0), abs=0.02)


def test_a_move_goes_on_where_the_stage_still_is_on_its_way(isolated: Isolated) -> None:
    """DemoCamera's stage begins at (0, 0) whenever it is opened, as it did here: on its way."""
    microscope = isolated()
    microscope.set_speed_um_s(50.0)
    microscope.move_to_um(0.0, 60.0)
    stop = threading.Event()
    for frame in microscope.frames(stop):
        if frame.sequence == 0 and frame.number == 5:
            kill(microscope)
        elif frame.sequence == 1 and microscope.position_um()[1] > 59.9:
            stop.set()
    assert microscope.losses.counts()["process"] == 1


def test_a_stage_that_has_lost_its_origin_ends_the_scan(isolated: Isolated) -> None:
    microscope = isolated()
    microscope.move_to_um(300.0, 400.0)
    while microscope.is_moving():
        pass
    assert microscope.position_um() == pytest.approx((300.0, 400.0), abs=0.02)
    with pytest.raises(MicroscopeError, match="was at x 400, y 300 um and says x 0, y 0 um"):
        take(microscope, 100_000, at={5: lambda: kill(microscope)})


def test_one_that_crashes_at_each_start_ends_the_scan(
    isolated: Isolated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deblurd.acquire.isolated._GIVE_UP_S", 0.0)
    microscope = isolated(slide=crashable.CRASHES_ON_START)
    with pytest.raises(MicroscopeError, match=r"ended .* while it was opened"):
        take(
            microscope,
            10_000,
            at={5: lambda: os.kill(microscope.pid or 0, signal.SIGTERM), 6: lambda: kill(microscope)},
        )
    assert "it is opened again" in str(microscope.trouble)
    with pytest.raises(MicroscopeError):
        microscope.position_um()


def kill(microscope: IsolatedMicroscope) -> None:
    psutil.Process(microscope.pid).kill()


def test_a_crash_is_said_with_its_signal(isolated: Isolated) -> None:
    microscope = isolated()
    stop = threading.Event()
    for frame in microscope.frames(stop):
        if frame.sequence == 0 and frame.number == 5:
            kill(microscope)
        elif frame.sequence == 1:
            stop.set()
    (loss,) = microscope.losses.recent()[-1:]
    assert "killed by signal 9" in loss.detail or os.name == "nt"


def test_what_it_says_of_a_bad_microscope_is_raised_here(tmp_path: Path, isolated: Isolated) -> None:
    with pytest.raises(MicroscopeError, match=r"^the stage is not there: switch it on, then start again$"):
        isolated(opener=crashable.refuse)
    with pytest.raises(MicroscopeError, match=r"ended .* while it was opened"):
        isolated(opener=crashable.crash)
    with pytest.raises(ConfigError, match="8 or 16 bits"):
        isolated("Property,Camera,PixelType,32bit")


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    """Killed with no chance to say so."""
    settings_of(tmp_path)
    script = f"""
import time
from pathlib import Path
from deblurd.acquire import open_microscope
from tests.acquire.test_isolated import settings_of
if __name__ == "__main__":
    microscope = open_microscope(settings_of(Path({str(tmp_path)!r})))
    microscope.start()
    print(microscope.pid, flush=True)
    time.sleep(60)
"""
    path = tmp_path / "parent.py"
    path.write_text(script, encoding="utf-8")
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": str(root)},
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        child.wait(timeout=30)


def test_a_ring_holds_frames_until_they_are_taken() -> None:
    ring = Ring((2048, 2048), "uint16")
    other = Ring((2048, 2048), "uint16", ring.name)
    full: list[int] = []
    pixels = np.arange(2048 * 2048, dtype=np.uint16).reshape(2048, 2048)

    def take_one() -> None:
        full.append(int(ring.take(len(full) % 8)[0, 1]))

    slots = [other.put(pixels + n, take_one) for n in range(20)]
    assert slots == [n % 8 for n in range(20)]
    assert full == [1 + n for n in range(12)]
    ring.close()
    other.close()
