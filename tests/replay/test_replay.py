"""Recorded data through the same pipeline, and what is wrong with a recording in one sentence."""

from __future__ import annotations

import gc
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter

from deblurd.acquire import open_microscope
from deblurd.daemon import Daemon, Report
from deblurd.errors import ConfigError, DataError, DeblurdError, MicroscopeError, NoInputError
from deblurd.frames import Frame
from deblurd.page.daemon_view import DaemonView
from deblurd.replay.readers import read_recording
from deblurd.serve.alerts import AlertLog
from deblurd.settings import (
    DeblurSettings,
    MicroscopeSettings,
    MosaicSettings,
    ReplaySettings,
    ScanSettings,
    ServeSettings,
    Settings,
)

PIXEL_UM = 0.5
FIELD_PX = 128
STEP_PX = 96
GRID = [(y, x) for y in range(3) for x in range(4)]


@pytest.fixture(scope="module")
def scene() -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(1)
    light = gaussian_filter(rng.random((400, 500, 3)), (2, 2, 0))
    light = (light - light.min()) / np.ptp(light)
    return np.asarray(60 + 180 * light, np.uint8)


def field(scene: np.ndarray[Any, Any], y: int, x: int) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(scene[y * STEP_PX :, x * STEP_PX :][:FIELD_PX, :FIELD_PX])


def settings_of(recording: Path, output: Path, **replay: Any) -> Settings:
    return Settings(
        microscope=MicroscopeSettings(backend="replay", pixel_size_um=PIXEL_UM),
        replay=ReplaySettings(path=recording, **replay),
        deblur=DeblurSettings(model="raw"),
        mosaic=MosaicSettings(output=output, shading="off"),
        serve=ServeSettings(enabled=False),
    )


Write = Callable[[Path, np.ndarray[Any, Any]], Path]


def as_table(folder: Path, scene: np.ndarray[Any, Any]) -> Path:
    lines = ["file,x_um,y_um,t_s,exposure_ms"]
    for n, (y, x) in enumerate(GRID):
        cv2.imwrite(str(folder / f"{n}.png"), cv2.cvtColor(field(scene, y, x), cv2.COLOR_RGB2BGR))
        lines.append(f"{n}.png,{x * STEP_PX * PIXEL_UM},{y * STEP_PX * PIXEL_UM},{0.05 * n},5")
    (folder / "tiles.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder


def as_ome_tiff(folder: Path, scene: np.ndarray[Any, Any]) -> Path:
    """As Micro-Manager and others save positions: an image for each."""
    path = folder / "positions.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for n, (y, x) in enumerate(GRID):
            plane = {
                "PositionX": [x * STEP_PX * PIXEL_UM / 1000], "PositionXUnit": ["mm"],
                "PositionY": [y * STEP_PX * PIXEL_UM], "PositionYUnit": ["µm"],
                "DeltaT": [50.0 * n], "DeltaTUnit": ["ms"], "ExposureTime": [0.005], "ExposureTimeUnit": ["s"],
            }  # fmt: skip
            tiff.write(field(scene, y, x), photometric="rgb", metadata={"axes": "YXS", "Plane": plane})
    return path


def as_time_series(folder: Path, scene: np.ndarray[Any, Any]) -> Path:
    """One image, a time point for each place."""
    path = folder / "series.ome.tif"
    plane = {
        "PositionX": [x * STEP_PX * PIXEL_UM for _, x in GRID],
        "PositionY": [y * STEP_PX * PIXEL_UM for y, _ in GRID],
        "DeltaT": [0.05 * n for n in range(len(GRID))],
        "ExposureTime": [0.005] * len(GRID),
    }
    stack = np.stack([field(scene, y, x)[..., 0] for y, x in GRID])
    tifffile.imwrite(path, stack, ome=True, metadata={"axes": "TYX", "Plane": plane})
    return path


def as_ndtiff(folder: Path, scene: np.ndarray[Any, Any]) -> Path:
    """As pycromanager saves an acquisition."""
    ndstorage = pytest.importorskip("ndstorage", reason="ndstorage is not installed")
    data = ndstorage.NDTiffDataset(str(folder), name="recorded", summary_metadata={}, writable=True)
    for n, (y, x) in enumerate(GRID):
        tags = {
            "XPosition_um_Intended": x * STEP_PX * PIXEL_UM,
            "YPosition_um_Intended": y * STEP_PX * PIXEL_UM,
            "ElapsedTime-ms": 50.0 * n,
            "Exposure": 5.0,
            "PixelSizeUm": PIXEL_UM,
        }
        data.put_image({"position": n}, np.ascontiguousarray(field(scene, y, x)[..., 0]), tags)
    data.finish()
    data.close()
    return Path(data.path)


# ndstorage leaves files to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("write", [as_table, as_ome_tiff, as_time_series, as_ndtiff])
def test_a_recording_becomes_a_mosaic(tmp_path: Path, scene: np.ndarray[Any, Any], write: Write) -> None:
    (tmp_path / "in").mkdir()
    recording = write(tmp_path / "in", scene)
    report = scan(settings_of(recording, tmp_path / "out"))
    (slide,) = report.slides
    assert slide.tiles == len(GRID)
    assert report.lost == {}
    assert slide.mosaic is not None
    # a mosaic may keep a margin
    assert -2 <= slide.mosaic.width_px - (3 * STEP_PX + FIELD_PX) < 64
    assert -2 <= slide.mosaic.height_px - (2 * STEP_PX + FIELD_PX) < 64
    places = np.array([slide.places[n].yx_px for n in range(len(GRID))])
    assert places - places[0] == pytest.approx(np.array(GRID) * STEP_PX, abs=0.2)
    gc.collect()


@pytest.mark.parametrize(("rolling_ms", "observations"), [(None, 1), (10.0, 1), (None, 4)])
def test_nobody_need_have_said_how_long_frames_were_exposed(
    tmp_path: Path, scene: np.ndarray[Any, Any], rolling_ms: float | None, observations: int
) -> None:
    """Nor that the stage moved between two frames of one position: recorded frames measure no camera."""
    rows = ["file,x_um,y_um"]
    for n, (y, x) in enumerate(GRID):
        cv2.imwrite(str(tmp_path / f"{n}.png"), field(scene, y, x)[..., ::-1])
        rows.append(f"{n}.png,{x * STEP_PX * PIXEL_UM},{y * STEP_PX * PIXEL_UM}")
    (tmp_path / "tiles.csv").write_text("\n".join(rows), encoding="utf-8")
    settings = settings_of(tmp_path, tmp_path / "out")
    microscope = settings.microscope.model_copy(update={"rolling_ms": rolling_ms})
    speeds: list[float | None] = []
    daemon = Daemon(
        settings.model_copy(
            update={"microscope": microscope, "scan": ScanSettings(observations=observations)}
        )
    )
    view = DaemonView(daemon, AlertLog())
    try:
        report = daemon.run(lambda status: speeds.append(view.status().speed_limit_um_s), threading.Event())
    finally:
        daemon.close()
    (slide,) = report.slides
    assert slide.failure is None
    assert slide.tiles == len(GRID)
    assert speeds


def test_a_slide_is_scanned_again(tmp_path: Path, scene: np.ndarray[Any, Any]) -> None:
    (tmp_path / "in").mkdir()
    (first,) = scan(settings_of(as_table(tmp_path / "in", scene), tmp_path / "out")).slides
    (again,) = scan(settings_of(first.folder.path, tmp_path / "again")).slides
    assert again.tiles == first.tiles
    before = json.loads(first.folder.manifest.read_text("utf-8"))["microscope"]
    after = json.loads(again.folder.manifest.read_text("utf-8"))["microscope"]
    assert after["affine_um"] == before["affine_um"]
    for index in range(first.tiles):
        assert again.places[index].yx_px - again.places[0].yx_px == pytest.approx(
            first.places[index].yx_px - first.places[0].yx_px, abs=0.2
        )


def test_motion_comes_along(tmp_path: Path, scene: np.ndarray[Any, Any]) -> None:
    """From speeds in a table; from positions and times where the stage is said to have moved."""
    (tmp_path / "in").mkdir()
    path = as_time_series(tmp_path / "in", scene)
    recording = read_recording(path, settings_of(path, tmp_path, moving=True))
    travel_px = STEP_PX / 0.05 * 0.005
    motion = recording.frames[1].motion
    recording.close()
    assert (motion.dy, motion.dx) == pytest.approx((0.0, -travel_px))
    at_rest = read_recording(path, settings_of(path, tmp_path))
    at_rest.close()
    assert at_rest.frames[1].motion.length_px == 0
    as_table(tmp_path / "in", scene)
    table = tmp_path / "in" / "tiles.csv"
    head, *lines = table.read_text("utf-8").splitlines()
    table.write_text(
        "\n".join([f"{head},vx_um_s,vy_um_s", *(f"{line},100,0" for line in lines)]), encoding="utf-8"
    )
    frames = take_all(settings_of(tmp_path / "in", tmp_path))
    assert frames[0].known is not None
    assert frames[0].known[1].dx == pytest.approx(-100 * 0.005 / PIXEL_UM)


def test_the_pace_is_that_of_the_recording(tmp_path: Path, scene: np.ndarray[Any, Any]) -> None:
    as_table(tmp_path, scene)
    recorded_s = 0.05 * (len(GRID) - 1)
    frames = take_all(settings_of(tmp_path, tmp_path, pace="recorded"))
    assert frames[-1].arrived_s - frames[0].arrived_s >= 0.9 * recorded_s
    fast = take_all(settings_of(tmp_path, tmp_path))
    assert [f.number for f in fast] == list(range(len(GRID)))
    assert np.array_equal(fast[5].pixels, field(scene, *GRID[5]))


def test_it_can_be_stopped_and_not_driven(tmp_path: Path, scene: np.ndarray[Any, Any]) -> None:
    microscope = open_microscope(settings_of(as_table(tmp_path, scene), tmp_path, pace="recorded"))
    stop = threading.Event()
    for frame in microscope.frames(stop):
        if frame.number == 3:
            stop.set()
    assert next(microscope.frames(threading.Event())).number == 4
    assert not microscope.is_moving()
    with pytest.raises(MicroscopeError, match="cannot be driven"):
        microscope.move_to_um(0.0, 0.0)


def _nothing(folder: Path) -> Path:
    return folder / "nowhere"


def _empty(folder: Path) -> Path:
    return folder


def _plain_tiff(folder: Path) -> Path:
    tifffile.imwrite(folder / "plain.tif", np.zeros((64, 64), np.uint8))
    return folder / "plain.tif"


def _cut_tiff(folder: Path) -> Path:
    (folder / "cut.ome.tif").write_bytes(b"II*\0\x10")
    return folder / "cut.ome.tif"


def _no_positions(folder: Path) -> Path:
    tifffile.imwrite(
        folder / "a.ome.tif", np.zeros((2, 64, 64), np.uint8), ome=True, metadata={"axes": "TYX"}
    )
    return folder / "a.ome.tif"


def _channels(folder: Path) -> Path:
    tifffile.imwrite(
        folder / "c.ome.tif", np.zeros((2, 64, 64), np.uint8), ome=True, metadata={"axes": "CYX"}
    )
    return folder / "c.ome.tif"


def _untimed(folder: Path) -> Path:
    for n in range(2):
        cv2.imwrite(str(folder / f"{n}.png"), np.zeros((64, 64), np.uint8))
    (folder / "tiles.csv").write_text("file,x_um,y_um\n0.png,0,0\n1.png,20,0\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (_nothing, NoInputError, "is not there: write its path into replay.path"),
        (_empty, NoInputError, "holds no recording"),
        (_plain_tiff, DataError, "no OME metadata"),
        (_cut_tiff, DataError, "not a whole TIFF"),
        (_no_positions, DataError, "says nothing of its plane|where the stage stood"),
        (_channels, DataError, "focus steps or channels"),
        (_untimed, ConfigError, "does not say when each frame was taken"),
    ],
)
def test_a_recording_that_does_not_do(
    tmp_path: Path, make: Callable[[Path], Path], kind: type[DeblurdError], words: str
) -> None:
    with pytest.raises(kind, match=words) as caught:
        open_microscope(settings_of(make(tmp_path), tmp_path, pace="recorded"))
    assert "\n" not in str(caught.value)


def test_a_broken_image_ends_the_scan_and_the_slide_is_kept(
    tmp_path: Path, scene: np.ndarray[Any, Any]
) -> None:
    (tmp_path / "in").mkdir()
    (first,) = scan(settings_of(as_table(tmp_path / "in", scene), tmp_path / "out")).slides
    (first.folder.raw / "c.7.0.0.0").write_bytes(b"cut")
    daemon = Daemon(settings_of(first.folder.path, tmp_path / "again"))
    try:
        with pytest.raises(DataError, match="tile 7 is cut short"):
            daemon.run(lambda status: None, threading.Event())
    finally:
        daemon.close()
    (slide,) = daemon.report.slides
    assert slide.tiles >= 6
    assert "tile 7 is cut short" in json.loads(slide.folder.manifest.read_text("utf-8"))["reason"]


def scan(settings: Settings) -> Report:
    daemon = Daemon(settings)
    try:
        return daemon.run(lambda status: None, threading.Event())
    finally:
        daemon.close()


def take_all(settings: Settings) -> list[Frame]:
    began_s = time.perf_counter()
    frames = list(open_microscope(settings).frames(threading.Event()))
    assert all(frame.arrived_s >= began_s for frame in frames)
    return frames
