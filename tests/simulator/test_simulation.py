"""The virtual microscope through the ordinary API of a real core."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from pymmcore_plus.experimental.unicore import UniMMCore
from scipy.ndimage import convolve, shift

from deblurd.errors import DataError, NoInputError
from deblurd.frames import MotionVector, Pixels
from deblurd.geometry import PixelToStage
from deblurd.kernel import motion_kernel
from deblurd.light import from_linear, to_linear
from deblurd.rolling import straightened
from deblurd.settings import SimulatorSettings
from deblurd.simulator.camera import MISSED, Truth
from deblurd.simulator.optics import Optics
from deblurd.simulator.simulation import CAMERA, FOCUS, XY_STAGE, Simulation, footprint_mb
from deblurd.simulator.stage import SPEED

FOV = (64, 96)
Loader = Callable[..., tuple[UniMMCore, Simulation]]


@pytest.fixture
def load() -> Iterator[Loader]:
    cores = []

    def loader(
        exposure_ms: float | None = 2.0, buffer_mb: int = 8, **changes: Any
    ) -> tuple[UniMMCore, Simulation]:
        values: dict[str, Any] = {
            "fov_px": FOV, "slide_size_mm": (0.6, 0.4), "frames_per_s": 100.0, "latency_ms": 5.0, "stage_read_ms": 0.0,
        }  # fmt: skip
        core = UniMMCore()
        cores.append(core)
        simulation = Simulation.load(core, SimulatorSettings(**(values | changes)), exposure_ms, buffer_mb)
        return core, simulation

    yield loader
    for core in cores:
        core.reset()


def _wait_for(what: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.perf_counter() + seconds
    while not what():
        assert time.perf_counter() < end, "it never happened"
        time.sleep(0.002)


def _frames(core: UniMMCore, count: int) -> list[tuple[Pixels, dict[str, str]]]:
    frames: list[tuple[Pixels, dict[str, str]]] = []
    while len(frames) < count:
        _wait_for(lambda: core.getRemainingImageCount() > 0)
        pixels, metadata = core.popNextImageAndMD()
        frames.append((pixels, dict(metadata)))
    return frames


def _scan(core: UniMMCore, count: int) -> list[tuple[Pixels, dict[str, str]]]:
    core.startSequenceAcquisition(10**9, 0, True)
    frames = _frames(core, count)
    core.stopSequenceAcquisition()
    return frames


def test_the_devices_have_their_roles(load: Loader) -> None:
    core, _ = load(exposure_ms=None)
    assert (core.getCameraDevice(), core.getXYStageDevice(), core.getFocusDevice()) == (
        CAMERA,
        XY_STAGE,
        FOCUS,
    )
    assert core.getExposure() == 5.0
    assert (core.getImageHeight(), core.getImageWidth(), core.getNumberOfComponents()) == (*FOV, 3)


@pytest.mark.parametrize(("rotation", "mirrored"), [(0.0, False), (90.0, True), (1.5, False)])
def test_the_core_tells_the_true_pixel_size_and_affine(load: Loader, rotation: float, mirrored: bool) -> None:
    core, simulation = load(pixel_size_um=0.25, rotation_deg=rotation, mirrored=mirrored)
    assert core.getPixelSizeUm() == pytest.approx(0.25)
    told = PixelToStage.from_micromanager(core.getPixelSizeAffine())
    np.testing.assert_allclose(told.matrix, simulation.true_affine.matrix, atol=1e-12)
    assert simulation.slide.pixel_size_um == 0.25


def test_a_missing_slide_is_said_before_anything_is_loaded(load: Loader) -> None:
    with pytest.raises(NoInputError):
        load(slide="nowhere.png")


@pytest.mark.parametrize(
    ("changes", "shape", "dtype"),
    [({}, (*FOV, 3), np.uint8), ({"color": False}, FOV, np.uint8), ({"bit_depth": 16}, (*FOV, 3), np.uint16)],
)
def test_frames_arrive_in_order_with_their_truth(
    load: Loader, changes: dict[str, Any], shape: tuple[int, ...], dtype: type
) -> None:
    core, simulation = load(**changes)
    frames = _scan(core, 30)
    assert [int(m["ImageNumber"]) for _, m in frames] == list(range(30))
    assert {p.shape for p, _ in frames} == {shape}
    assert {p.dtype for p, _ in frames} == {np.dtype(dtype)}
    for number, (_, metadata) in enumerate(frames):
        truth = simulation.truth[0, number]
        assert (truth.sequence, truth.number) == (0, number)
        assert truth.missed == int(metadata[MISSED])
        assert truth.exposure_end_s - truth.exposure_start_s == pytest.approx(0.002)


def test_exposures_keep_the_beat_and_frames_come_after_the_latency(load: Loader) -> None:
    core, simulation = load(latency_ms=12.0, jitter_ms=0.0)
    _scan(core, 40)
    truth = [simulation.truth[0, i] for i in range(40)]
    beats = np.diff([t.exposure_start_s for t in truth]) / 0.01
    np.testing.assert_allclose(beats, 1 + np.diff([t.missed for t in truth]), atol=1e-6)
    assert min(t.arrived_s - t.exposure_end_s for t in truth) >= 0.012


def test_a_beat_is_never_shorter_than_the_exposure(load: Loader) -> None:
    core, simulation = load(exposure_ms=25.0)
    _scan(core, 4)
    truth = [simulation.truth[0, i] for i in range(4)]
    beats = np.diff([t.exposure_start_s for t in truth]) / 0.025
    np.testing.assert_allclose(beats, np.rint(beats), atol=1e-6)
    assert core.getExposure() == 25.0


def test_exposures_take_turns_on_one_beat(load: Loader) -> None:
    core, simulation = load(frames_per_s=100.0)
    assert core.isExposureSequenceable(CAMERA)
    core.loadExposureSequence(CAMERA, [6.0, 2.0])
    core.startExposureSequence(CAMERA)
    _scan(core, 8)
    core.stopExposureSequence(CAMERA)
    truth = [simulation.truth[0, n] for n in range(8)]
    long_ms = [1000 * (t.exposure_end_s - t.exposure_start_s) for t in truth]
    assert long_ms == pytest.approx([6.0, 2.0] * 4)
    beats = np.diff([t.exposure_start_s for t in truth]) * 100
    assert beats == pytest.approx(np.rint(beats), abs=1e-6)
    _scan(core, 3)
    ended = [simulation.truth[1, n] for n in range(3)]
    assert [t.exposure_end_s - t.exposure_start_s for t in ended] == pytest.approx([0.002] * 3)


def test_sequences_are_counted_and_snaps_are_not(load: Loader) -> None:
    core, simulation = load()
    _scan(core, 3)
    core.snapImage()
    assert core.getImage().shape == (*FOV, 3)
    _scan(core, 3)
    assert {sequence for sequence, _ in simulation.truth} == {0, 1}


def test_the_truth_is_the_stages_own_motion(load: Loader) -> None:
    core, simulation = load(exposure_ms=4.0, rotation_deg=90.0)
    core.setProperty(XY_STAGE, SPEED, 1000)
    core.startSequenceAcquisition(10**9, 0, True)
    core.setXYPosition(300, 100)
    _frames(core, 40)
    core.stopSequenceAcquisition()
    # a frame that a ramp reaches into is bent
    moving = [
        t
        for t in simulation.truth.values()
        if abs(t.end_um[1] - t.start_um[1]) > 3.9 and math.hypot(t.motion.bend_dy, t.motion.bend_dx) < 1e-9
    ]
    assert moving
    for t in moving:
        assert t.end_um[1] - t.start_um[1] == pytest.approx(4.0, abs=1e-6)
        # 4 um in x at 0.5 um: 8 px; the camera is turned by 90 degrees, and the image runs against the stage
        expected = -simulation.true_affine.to_pixels(t.end_um - t.start_um)
        np.testing.assert_allclose([t.motion.dy, t.motion.dx], expected, atol=1e-6)
        assert abs(t.motion.dy) + abs(t.motion.dx) >= 8 - 1e-6
        np.testing.assert_allclose(t.mean_um, (t.start_um + t.end_um) / 2, atol=1e-6)


def test_a_frame_is_the_sharp_view_blurred_by_its_true_motion(load: Loader) -> None:
    """The rooms' own kernel for the true motion, on the slide's own pixels, gives the frame."""
    core, simulation = load(
        exposure_ms=8.0,
        encoding="linear",
        bit_depth=16,
        electrons_full_scale=1e12,
        read_noise_e=0.0,
        vignetting=0.0,
    )
    core.setXYPosition(150.0, 200.0)
    core.waitForDevice(XY_STAGE)
    core.setProperty(XY_STAGE, SPEED, 500)
    core.startSequenceAcquisition(10**9, 0, True)
    core.setXYPosition(420.0, 200.0)
    frames = _frames(core, 25)
    core.stopSequenceAcquisition()

    def at_full_speed(truth: Truth) -> bool:
        return abs(truth.motion.dx + 8.0) < 1e-6

    number = next(n for (_, n), t in simulation.truth.items() if at_full_speed(t) and n < len(frames))
    truth = simulation.truth[0, number]
    y, x = truth.mean_um / 0.5 - (np.array(FOV) - 1) / 2
    part = to_linear(
        simulation.slide.region(math.floor(y) - 20, math.floor(x) - 20, FOV[0] + 40, FOV[1] + 40), "srgb"
    )
    sharp = shift(part[..., 1].astype(float), (math.floor(y) - y, math.floor(x) - x), order=5)
    blurred = convolve(sharp, motion_kernel(truth.motion).astype(float))[20:-20, 20:-20]
    seen = frames[number][0][..., 1] / 65535
    wrong = convolve(sharp, motion_kernel(MotionVector(8.0, 0.0)).astype(float))[20:-20, 20:-20]
    assert np.sqrt(np.mean((seen - blurred) ** 2)) < 0.02
    assert np.sqrt(np.mean((seen - blurred) ** 2)) < 0.25 * np.sqrt(np.mean((seen - wrong) ** 2))


def test_a_move_in_the_middle_of_an_exposure_is_in_the_frame(load: Loader) -> None:
    """The camera renders ahead of time; a new target must still show."""
    core, simulation = load(exposure_ms=150.0, frames_per_s=5.0, latency_ms=0.0, jitter_ms=0.0)
    core.setProperty(XY_STAGE, SPEED, 100)
    core.startSequenceAcquisition(10**9, 0, True)
    _frames(core, 1)
    following = simulation.truth[0, 0].exposure_start_s + 0.2
    _wait_for(lambda: time.perf_counter() > following + 0.05)
    core.setXYPosition(100.0, 0.0)
    _frames(core, 2)
    core.stopSequenceAcquisition()
    paths = [simulation.truth[0, n] for n in (1, 2)]
    started = next(t for t in paths if t.end_um[1] > 0)
    assert started.start_um[1] == 0
    assert started.motion.dx < 0


def test_readings_show_the_commanded_path_with_noise(load: Loader) -> None:
    core, simulation = load(stage_noise_um=0.5, wobble_um=20.0)
    core.setXYPosition(200.0, 100.0)
    core.waitForDevice(XY_STAGE)
    assert not core.deviceBusy(XY_STAGE)
    readings = np.array([core.getXYPosition() for _ in range(400)])
    np.testing.assert_allclose(readings.mean(axis=0), [200.0, 100.0], atol=0.15)
    np.testing.assert_allclose(readings.std(axis=0), 0.5, rtol=0.2)
    _scan(core, 1)
    assert np.abs(simulation.truth[0, 0].mean_um - [100.0, 200.0]).max() > 1.0


def test_a_reading_takes_its_time(load: Loader) -> None:
    core, _ = load(stage_read_ms=20.0)
    start = time.perf_counter()
    core.getXYPosition()
    assert time.perf_counter() - start >= 0.02


def test_the_stage_is_busy_while_it_moves_and_can_be_stopped(load: Loader) -> None:
    core, _ = load(stage_noise_um=0.0)
    core.setProperty(XY_STAGE, SPEED, "50")
    assert float(core.getProperty(XY_STAGE, SPEED)) == 50.0
    core.setXYPosition(10_000.0, 0.0)
    assert core.deviceBusy(XY_STAGE)
    core.stop(XY_STAGE)
    core.waitForDevice(XY_STAGE)
    assert core.getXYPosition()[0] < 1000
    core.home(XY_STAGE)
    core.waitForDevice(XY_STAGE)
    assert core.getXYPosition() == (0.0, 0.0)


def test_impossible_commands_are_refused(load: Loader) -> None:
    core, _ = load()
    with pytest.raises(ValueError, match="finite"):
        core.setXYPosition(math.nan, 0.0)
    with pytest.raises(ValueError, match="finite"):
        core.setPosition(math.inf)
    with pytest.raises(ValueError, match="more than 0"):
        core.setExposure(0.0)
    with pytest.raises(ValueError, match="allowed range"):
        core.setProperty(XY_STAGE, SPEED, 0)
    with pytest.raises(NotImplementedError):
        core.setOriginXY()
    with pytest.raises(NotImplementedError):
        core.setOrigin()


def test_out_of_focus_the_image_is_softer(load: Loader) -> None:
    core, _ = load(electrons_full_scale=1e9, read_noise_e=0.0)
    core.setXYPosition(300.0, 200.0)
    core.waitForDevice(XY_STAGE)
    core.snapImage()
    sharp = core.getImage().astype(float)
    core.setPosition(10.0)
    assert core.getPosition() == 10.0
    core.snapImage()
    soft = core.getImage().astype(float)
    assert np.abs(np.diff(soft, axis=1)).mean() < 0.7 * np.abs(np.diff(sharp, axis=1)).mean()


def test_the_buffer_holds_a_whole_number_of_frames(load: Loader) -> None:
    core, _ = load(fov_px=(50, 70), buffer_mb=1)
    frame = 50 * 70 * 3
    assert core.getBufferTotalCapacity() == (1 << 20) // frame
    assert footprint_mb(frame, 1) * (1 << 20) % frame == 0
    assert footprint_mb(10 << 20, 1) == 20
    count = core.getBufferTotalCapacity() + 5  # once around the ring
    core.startSequenceAcquisition(10**9, 0, True)
    assert [int(m["ImageNumber"]) for _, m in _frames(core, count)] == list(range(count))


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)  # UniCore lets it die there
def test_a_raising_camera_ends_its_sequence(load: Loader) -> None:
    core, simulation = load()
    core.startSequenceAcquisition(10**9, 0, True)
    _frames(core, 2)
    simulation.faults.camera_raises = True
    _wait_for(lambda: not core.isSequenceRunning())
    assert len(_scan(core, 2)) == 2


def test_a_hanging_camera_is_silent_and_does_not_disturb_the_next_sequence(load: Loader) -> None:
    core, simulation = load()
    core.startSequenceAcquisition(10**9, 0, True)
    _frames(core, 2)
    simulation.faults.camera_hangs = True
    _wait_for(lambda: time.perf_counter() > simulation.truth[max(simulation.truth)].arrived_s + 0.1)
    assert core.isSequenceRunning()
    core.stopSequenceAcquisition()  # gives up after 2 s
    assert not core.isSequenceRunning()
    simulation.faults.camera_hangs = False
    numbers = [int(m["ImageNumber"]) for _, m in _scan(core, 20)]
    assert numbers == list(range(20))


def test_frames_of_another_shape_arrive_as_such(load: Loader) -> None:
    core, simulation = load()
    core.startSequenceAcquisition(10**9, 0, True)
    _frames(core, 2)
    simulation.faults.frame_shape = (10, 12, 3)
    _wait_for(lambda: _frames(core, 1)[0][0].shape == (10, 12, 3))


def test_skipped_exposures_leave_a_gap_in_time_and_none_in_the_numbers(load: Loader) -> None:
    core, simulation = load()
    core.startSequenceAcquisition(10**9, 0, True)
    frames = _frames(core, 3)
    simulation.faults.skip_frames = 7
    frames += _frames(core, 10)
    core.stopSequenceAcquisition()
    truth = [simulation.truth[0, n] for n in range(13)]
    assert [int(m["ImageNumber"]) for _, m in frames] == list(range(13))
    beats = np.rint(np.diff([t.exposure_start_s for t in truth]) / 0.01)
    assert beats.max() >= 8
    np.testing.assert_array_equal(beats, 1 + np.diff([t.missed for t in truth]))


def test_a_stage_that_fails_says_so(load: Loader) -> None:
    core, simulation = load()
    simulation.faults.stage_raises = True
    with pytest.raises(RuntimeError, match="does not answer"):
        core.getXYPosition()
    with pytest.raises(RuntimeError, match="does not answer"):
        core.setXYPosition(1.0, 1.0)
    simulation.faults.stage_raises = False
    simulation.faults.position_nan = True
    assert np.isnan(core.getXYPosition()).all()


def test_an_overloaded_camera_leaves_out_whole_beats(load: Loader) -> None:
    core, simulation = load(frames_per_s=2000.0, exposure_ms=0.1, fov_px=(512, 512))
    _scan(core, 10)
    truth = [simulation.truth[0, n] for n in range(10)]
    assert truth[-1].missed > 0
    beats = np.diff([t.exposure_start_s for t in truth]) * 2000
    np.testing.assert_allclose(beats, 1 + np.diff([t.missed for t in truth]), atol=1e-5)


def test_the_same_seed_gives_the_same_pixels(load: Loader) -> None:
    pictures = []
    for seed in (3, 3, 4):
        core, _ = load(seed=seed)
        core.setXYPosition(300.0, 200.0)
        core.waitForDevice(XY_STAGE)
        pictures.append(_scan(core, 2)[1][0])
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])


def test_a_slide_that_breaks_while_it_is_read_stops_the_camera(
    load: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    core, simulation = load()

    def broken(*_: int) -> Pixels:
        raise DataError("The slide cannot be read: it is damaged.")

    monkeypatch.setattr(simulation.slide, "region", broken)
    with pytest.raises(DataError, match="damaged"):
        core.snapImage()


def test_nothing_renders_after_a_reset(load: Loader) -> None:
    core, _ = load()
    core.startSequenceAcquisition(10**9, 0, True)
    _frames(core, 2)
    core.reset()
    assert "virtual sensor" not in {thread.name for thread in threading.enumerate()}


def test_python_ends_well_while_the_camera_still_runs() -> None:
    program = """
from pymmcore_plus.experimental.unicore import UniMMCore
from deblurd.settings import SimulatorSettings
from deblurd.simulator.simulation import Simulation
core = UniMMCore()
simulation = Simulation.load(core, SimulatorSettings(fov_px=(512, 512)))
core.startSequenceAcquisition(10**9, 0, True)
while not simulation.truth:
    pass
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("rolling_ms", [8.0, -8.0])
def test_the_rows_of_a_rolling_shutter_are_exposed_one_after_the_other(
    load: Loader, rolling_ms: float
) -> None:
    core, simulation = load(
        exposure_ms=4.0, rolling_ms=rolling_ms, fov_px=(128, 128), frames_per_s=50.0, latency_ms=10.0, vignetting=0.0,
        electrons_full_scale=1e6, stage_noise_um=0.0,
    )  # fmt: skip
    core.setXYPosition(60.0, 90.0)
    core.waitForDevice(XY_STAGE)
    core.setProperty(XY_STAGE, SPEED, 400.0)
    core.setXYPosition(460.0, 90.0)
    frames = _scan(core, 20)
    rolled, truth = frames[-1][0], simulation.truth[0, 19]
    assert truth.motion.dx == pytest.approx(-3.2)
    steps = np.linspace(truth.start_um, truth.end_um, 33)
    optics = Optics(simulation.slide, simulation.true_affine, (128, 128), color=True)
    at_once = from_linear(optics.light((steps[1:] + steps[:-1]) / 2), np.uint8, "srgb")[16:-16, 16:-16]
    straight = straightened(rolled, truth.motion, rolling_ms / 4.0, 16)
    off, off_before = (
        np.abs(seen.astype(float) - at_once).mean() for seen in (straight, rolled[16:-16, 16:-16])
    )
    assert off < 0.5
    assert off_before > 5 * off
