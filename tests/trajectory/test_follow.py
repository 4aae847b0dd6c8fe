"""`deblurd trajectories` from one end to the other, on every kind of source."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import zarr
from scipy.spatial import cKDTree

from deblurd.cli import main
from deblurd.light import Image
from tests.trajectory.conftest import PIXEL_UM, at_rest, read_csv
from tests.trajectory.simulated import Simulated, simulate


@pytest.fixture(scope="module")
def swimmers() -> Simulated:
    return simulate("directed", 6, frames=16, side_px=200, snr=10, step_px=3, seed=7)


def run(source: Path, output: Path, *more: str) -> int:
    return main(["trajectories", str(source), "--output", str(output), *more])


SCALE = ("--pixel-size-um", str(PIXEL_UM), "--fps", "10", "--size-um", "2", "5")


def check_files(output: Path) -> list[dict[str, str]]:
    """Every file is there and whole; the rows of tracks.csv."""
    header = (output / "tracks.csv").read_text("utf-8").splitlines()[0]
    assert header == "track_id,t_s,x_um,y_um,size_um,score"
    rows, summary = read_csv(output / "tracks.csv"), read_csv(output / "summary.csv")
    assert {row["track_id"] for row in rows} == {row["track_id"] for row in summary}
    about = json.loads((output / "trajectories.json").read_text("utf-8"))
    assert about["summary"]["tracks"] == len(summary)
    assert about["summary"]["points"] == len(rows)
    for name in ("tracks.png", "plots.png"):
        assert cv2.imread(str(output / name)) is not None
    assert not list(output.glob("*.part"))
    return rows


def assert_true(rows: list[dict[str, str]], sim: Simulated, fps: float, offset_px: float = 99.5) -> None:
    """The tracks are the truth's, in stage coordinates: pixel 0, 0 of a resting frame lies half a frame up and left of the stage's position."""
    found = np.array([[float(row["t_s"]) * fps, float(row["y_um"]), float(row["x_um"])] for row in rows])
    found[:, 1:] = found[:, 1:] / PIXEL_UM + offset_px
    truth = sim.truth[:, 1:] * [1000, 1, 1]
    away = np.asarray(cKDTree(found * [1000, 1, 1]).query(truth)[0])
    assert (away < 1.5).mean() > 0.85
    assert np.median(away) < 0.3


def test_a_tiff_of_many_pages(
    swimmers: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tifffile.imwrite(tmp_path / "series.tif", np.stack(swimmers.frames), photometric="minisblack")
    assert run(tmp_path / "series.tif", tmp_path / "out", *SCALE) == 0
    assert_true(check_files(tmp_path / "out"), swimmers, 10)
    assert "16 frames" in capsys.readouterr().out
    speeds = [float(row["mean_speed_um_s"]) for row in read_csv(tmp_path / "out" / "summary.csv")]
    # 3 px of 0.5 um a frame, 10 frames a second
    assert np.median(speeds) == pytest.approx(15, rel=0.05)
    assert {row["active"] for row in read_csv(tmp_path / "out" / "summary.csv")} == {"active"}


def test_an_imagej_tiff_tells_its_times_and_pixels(swimmers: Simulated, tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "series.tif",
        np.stack(swimmers.frames),
        imagej=True,
        resolution=(1e4 / PIXEL_UM, 1e4 / PIXEL_UM),
        resolutionunit="CENTIMETER",
        metadata={"axes": "TYX", "finterval": 0.1},
    )
    assert run(tmp_path / "series.tif", tmp_path / "out", "--size-um", "2", "5") == 0
    assert_true(check_files(tmp_path / "out"), swimmers, 10)


@pytest.mark.parametrize("outer", [False, True])
@pytest.mark.parametrize("version", [2, 3])
def test_an_ome_zarr_with_t(swimmers: Simulated, tmp_path: Path, version: int, outer: bool) -> None:
    """outer: the time from frame to frame stands with all levels together."""
    group = zarr.open_group(str(tmp_path / "s.zarr"), mode="w", zarr_format=version)  # type: ignore[arg-type]
    stack = np.stack(swimmers.frames)[:, None]
    array = group.create_array("0", shape=stack.shape, chunks=(1, 1, 100, 100), dtype=stack.dtype)
    array[:] = stack
    axes = [{"name": "t", "type": "time", "unit": "millisecond"}, {"name": "c", "type": "channel"}]
    axes += [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    scale: Any = {"type": "scale", "scale": [1.0 if outer else 100.0, 1.0, PIXEL_UM, PIXEL_UM]}
    multiscales: Any = [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": [scale]}]}]
    if outer:
        multiscales[0]["coordinateTransformations"] = [{"type": "scale", "scale": [100.0, 1.0, 1.0, 1.0]}]
    group.attrs.update(
        {"multiscales": multiscales}
        if version == 2
        else {"ome": {"version": "0.5", "multiscales": multiscales}}
    )
    assert run(tmp_path / "s.zarr", tmp_path / "out", "--size-um", "2", "5") == 0
    assert_true(check_files(tmp_path / "out"), swimmers, 10)


def test_a_moving_stage_makes_no_trajectory(folder: Callable[..., Path], tmp_path: Path) -> None:
    """Objects at rest under a stage that travels 4 um a frame."""
    sim = simulate("brownian", 12, frames=1, side_px=320, snr=10, step_px=0.01, seed=3)
    step_px = 8
    frames = [sim.frames[0][:200, step_px * n : step_px * n + 200] for n in range(10)]
    rows = [{"x_um": 4.0 * n, "y_um": 0, "t_s": n / 10} for n in range(10)]
    assert run(folder(frames, rows), tmp_path / "out", "--pixel-size-um", "0.5", "--size-um", "2", "5") == 0
    summary = read_csv(tmp_path / "out" / "summary.csv")
    assert len(check_files(tmp_path / "out")) > 30
    assert max(float(row["net_um"]) for row in summary) < 0.5
    assert {row["active"] for row in summary} == {"still"}


def test_the_blur_of_a_moving_stage_is_taken_out(folder: Callable[..., Path], tmp_path: Path) -> None:
    sim = simulate("brownian", 25, frames=8, side_px=256, snr=5, stage_blur_px=(0.0, 15.0), seed=5)
    # 15 px of 0.5 um in 50 ms, against the travel of the image
    rows = [row | {"exposure_ms": 50, "vx_um_s": -150, "vy_um_s": 0} for row in at_rest(8)]
    source = folder(sim.frames, rows)
    errors = {}
    for name, more in (("sharp", ()), ("raw", ("--raw",))):
        assert (
            run(
                source,
                tmp_path / name,
                "--pixel-size-um",
                "0.5",
                "--size-um",
                "2",
                "5",
                "--min-points",
                "1",
                *more,
            )
            == 0
        )
        found = np.array(
            [
                [float(r["t_s"]) * 1e4, float(r["y_um"]) * 2 + 127.5, float(r["x_um"]) * 2 + 127.5]
                for r in check_files(tmp_path / name)
            ]
        )
        away = np.asarray(cKDTree(found).query(sim.truth[:, 1:] * [1e3, 1, 1])[0])
        errors[name] = float(np.median(np.minimum(away, 8)))
    assert errors["sharp"] < 0.7 * errors["raw"]


def test_the_blur_of_swimmers_is_taken_out(tmp_path: Path) -> None:
    """With the velocity that they were seen to have."""
    sim = simulate("directed", 15, frames=10, side_px=256, snr=8, own_blur_px=15, seed=8)
    tifffile.imwrite(tmp_path / "s.tif", np.stack(sim.frames), photometric="minisblack")
    errors = {}
    for name, more in (("sharp", ()), ("raw", ("--raw",))):
        exposure = ("--exposure-ms", str(sim.exposure_ms), "--max-speed-um-s", "250")
        assert run(tmp_path / "s.tif", tmp_path / name, *SCALE, *exposure, *more) == 0
        rows = check_files(tmp_path / name)
        assert len({(row["track_id"], row["t_s"]) for row in rows}) == len(rows)
        found = np.array(
            [[float(r["t_s"]) * 1e4, *(float(r[a]) * 2 + 127.5 for a in ("y_um", "x_um"))] for r in rows]
        )
        away = np.asarray(cKDTree(found).query(sim.truth[:, 1:] * [1e3, 1, 1])[0])
        errors[name] = float(np.median(away[away < 8]))
    assert errors["sharp"] < 0.6 * errors["raw"]


def test_images_by_name_ten_after_nine(
    swimmers: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "frames").mkdir()
    for number, frame in enumerate(swimmers.frames):
        cv2.imwrite(str(tmp_path / "frames" / f"f{number}.png"), frame)
    assert run(tmp_path / "frames", tmp_path / "out", *SCALE) == 0
    assert_true(check_files(tmp_path / "out"), swimmers, 10)
    assert "the stage is taken to rest" in capsys.readouterr().out


# --- what is not as it should be ---


def test_one_frame_lists_its_objects(
    swimmers: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tifffile.imwrite(tmp_path / "one.tif", swimmers.frames[0])
    assert run(tmp_path / "one.tif", tmp_path / "out", "--pixel-size-um", "0.5", "--size-um", "2", "5") == 0
    assert len(check_files(tmp_path / "out")) >= 1
    assert "there is one frame, and so nothing to follow" in capsys.readouterr().out
    # nobody knows what they do
    assert {row["active"] for row in read_csv(tmp_path / "out" / "summary.csv")} == {""}
    assert json.loads((tmp_path / "out" / "trajectories.json").read_text("utf-8"))["summary"]["still"] == 0


def test_two_frames_tell_who_swims(swimmers: Simulated, tmp_path: Path) -> None:
    for name, pair in (("swim", swimmers.frames[:3:2]), ("rest", swimmers.frames[:1] * 2)):
        tifffile.imwrite(tmp_path / f"{name}.tif", np.stack(pair), photometric="minisblack")
        assert run(tmp_path / f"{name}.tif", tmp_path / name, *SCALE) == 0
    assert {row["active"] for row in read_csv(tmp_path / "swim" / "summary.csv")} == {"active"}
    assert {row["active"] for row in read_csv(tmp_path / "rest" / "summary.csv")} == {"still"}


@pytest.mark.parametrize("kind", ["empty", "black", "filled", "disc"])
def test_nothing_to_follow_gives_empty_files(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(1)
    frames = np.zeros((5, 128, 128), np.uint16)
    if kind != "black":
        frames += np.clip(rng.normal(30000, 300, frames.shape), 0, 65535).astype(np.uint16)
    if kind == "filled":
        y, x = np.mgrid[0:128, 0:128]
        frames -= (20000 * np.exp(-((y - 64) ** 2 + (x - 64) ** 2) / 90**2)).astype(np.uint16)
    if kind == "disc":
        y, x = np.mgrid[0:128, 0:128]
        frames[:, np.hypot(y - 64, x - 64) < 55] -= 20000
    tifffile.imwrite(tmp_path / "s.tif", frames, photometric="minisblack")
    assert run(tmp_path / "s.tif", tmp_path / "out", *SCALE) == 0
    assert check_files(tmp_path / "out") == []
    assert "were found" in capsys.readouterr().out
    assert run(tmp_path / "s.tif", tmp_path / "out", *SCALE[:4]) == 0
    assert check_files(tmp_path / "out") == []
    # 128 px of 0.5 um
    assert "nothing of 1.5 to 12.8 um (a fifth of the field) stands out" in capsys.readouterr().out


def test_thousands_of_objects(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    places = rng.uniform(0, 700, (3000, 2))
    frames = []
    for _ in range(3):
        light: Image = np.zeros((700, 700), np.float32)
        for y, x in np.rint(places).astype(int) % 700:
            light[y, x] = 1
        light = np.asarray(cv2.GaussianBlur(light, (0, 0), 1.5) * 14, np.float32)
        frames.append(
            np.clip(20000 + 20000 * light + rng.normal(0, 1000, light.shape), 0, 65535).astype(np.uint16)
        )
        places += rng.normal(0, 0.7, places.shape)
    tifffile.imwrite(tmp_path / "s.tif", np.stack(frames), photometric="minisblack")
    assert (
        run(
            tmp_path / "s.tif",
            tmp_path / "out",
            "--pixel-size-um",
            "0.5",
            "--fps",
            "10",
            "--size-um",
            "1.5",
            "3",
        )
        == 0
    )
    assert len(check_files(tmp_path / "out")) > 4000


def test_frames_without_times_are_left_out(
    swimmers: Simulated, folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = at_rest(16)
    rows[3]["t_s"] = rows[9]["t_s"] = ""
    assert run(folder(swimmers.frames, rows), tmp_path / "out", *SCALE[:2], *SCALE[4:]) == 0
    assert "2 frames are left out for want of a time" in capsys.readouterr().out
    assert_times(tmp_path / "out", {n / 10 for n in range(16)} - {0.3, 0.9})


def test_times_that_go_backwards_are_left_out(
    swimmers: Simulated, folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = at_rest(16)
    rows[4]["t_s"], rows[8]["t_s"] = 99.0, 0.05
    assert run(folder(swimmers.frames, rows), tmp_path / "out", *SCALE[:2], *SCALE[4:]) == 0
    assert "the times go backwards" in capsys.readouterr().out
    assert_times(tmp_path / "out", {n / 10 for n in range(16)} - {0.4, 0.8})


def assert_times(output: Path, expected: set[float]) -> None:
    assert {round(float(row["t_s"]), 3) for row in check_files(output)} == expected


def test_frames_of_another_size_are_left_out(
    swimmers: Simulated, folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = list(swimmers.frames)
    frames[5] = frames[5][:100]
    assert run(folder(frames, at_rest(16)), tmp_path / "out", *SCALE[:2], *SCALE[4:]) == 0
    assert "1 frame is left out, of another size" in capsys.readouterr().out
    assert_times(tmp_path / "out", {n / 10 for n in range(16)} - {0.5})


def test_a_frame_that_is_cut_short_is_left_out(
    swimmers: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "frames").mkdir()
    for number, frame in enumerate(swimmers.frames):
        cv2.imwrite(str(tmp_path / "frames" / f"f{number}.png"), frame)
    broken = tmp_path / "frames" / "f6.png"
    broken.write_bytes(broken.read_bytes()[:3000])
    assert run(tmp_path / "frames", tmp_path / "out", *SCALE) == 0
    assert_times(tmp_path / "out", {n / 10 for n in range(16)} - {0.6})
    assert "f6.png" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "code", "text"),
    [
        (("--fps", "10"), 64, "how large its pixels are: give --pixel-size-um"),
        (("--pixel-size-um", "0.5"), 64, "when its frames were taken: give --fps"),
        (("--pixel-size-um", "-1", "--fps", "10"), 64, "--pixel-size-um is -1"),
        (("--pixel-size-um", "0.5", "--fps", "nan"), 64, "--fps is nan"),
        ((*SCALE[:4], "--size-um", "5", "2"), 64, "--size-um is 5 2"),
        ((*SCALE[:4], "--size-um", "0.1", "0.3"), 64, "smaller than 2 pixels"),
        ((*SCALE, "--threshold", "0"), 64, "--threshold is 0"),
        ((*SCALE, "--max-gap", "-1"), 64, "--max-gap"),
        ((*SCALE, "--detector", "lgo"), 64, "did you mean 'log'"),
        ((*SCALE, "--detector", "missing.onnx"), 66, "missing.onnx is not there"),
    ],
)
def test_options_that_make_no_sense(
    more: tuple[str, ...],
    code: int,
    text: str,
    swimmers: Simulated,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tifffile.imwrite(tmp_path / "s.tif", np.stack(swimmers.frames[:3]), photometric="minisblack")
    assert run(tmp_path / "s.tif", tmp_path / "out", *more) == code
    assert text in capsys.readouterr().err
    assert not (tmp_path / "out" / "tracks.csv").exists()


def _text(path: Path) -> Path:
    path.write_text("no image")
    return path


@pytest.mark.parametrize(
    ("make", "code", "text"),
    [
        (lambda p: p / "none", 66, "is not there"),
        (lambda p: p, 66, "holds neither images"),
        (lambda p: _text(p / "a.txt"), 65, "is no series"),
        (lambda p: _text(p / "a.tif"), 65, "is not a whole TIFF"),
    ],
)
def test_sources_that_are_none(
    make: Callable[[Path], Path], code: int, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(make(tmp_path), tmp_path / "out", *SCALE) == code
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ("multiscale", "text"),
    [
        ({"axes": [{"name": "y"}, {"name": "x"}]}, "has no time axis"),
        ({"axes": [{"name": "t"}, {"name": "c"}]}, "has no image axes"),
        ({"axes": [{"name": "t"}]}, "is not an OME-Zarr image"),
        ({}, "is not an OME-Zarr image"),
    ],
)
def test_ome_zarrs_that_are_no_series(
    multiscale: dict[str, Any], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    group = zarr.open_group(str(tmp_path / "s.zarr"), mode="w")
    group.create_array("0", shape=(64, 64), dtype="u2")
    scale = {"type": "scale", "scale": [1.0, 1.0]}
    whole = multiscale | {"datasets": [{"path": "0", "coordinateTransformations": [scale]}]}
    group.attrs.update({"ome": {"version": "0.5", "multiscales": [whole]}})
    assert run(tmp_path / "s.zarr", tmp_path / "out", *SCALE) == 65
    assert text in capsys.readouterr().err


def test_floats_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tifffile.imwrite(tmp_path / "s.tif", np.zeros((4, 64, 64), np.float32), photometric="minisblack")
    assert run(tmp_path / "s.tif", tmp_path / "out", *SCALE) == 65
    assert "only 8 and 16 bit are known" in capsys.readouterr().err


def test_an_output_that_cannot_be_written(
    swimmers: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tifffile.imwrite(tmp_path / "s.tif", np.stack(swimmers.frames[:3]), photometric="minisblack")
    _text(tmp_path / "out")
    assert run(tmp_path / "s.tif", tmp_path / "out", *SCALE) == 73
    assert "cannot be created" in capsys.readouterr().err


# --- a slide, a network, a graph ---


def test_a_slide_that_was_stitched(folder: Callable[..., Path], tmp_path: Path, swimmers: Simulated) -> None:
    rows: list[dict[str, Any]] = [
        {"x_um": 0.1 * (n % 2), "y_um": 0, "t_s": n / 10, "exposure_ms": 5} for n in range(8)
    ]
    source = folder(swimmers.frames[:8], rows)
    assert main(["stitch", str(source), "--output", str(tmp_path / "slides"), "--pixel-size-um", "0.5"]) == 0
    (journal,) = (tmp_path / "slides").glob("*/*/journal.sqlite")
    assert run(journal.parent, tmp_path / "out", "--size-um", "2", "5") == 0
    assert len(check_files(tmp_path / "out")) > 20


def test_an_onnx_detector(swimmers: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    model = darkest_pixel(onnx)
    onnx.save(model, tmp_path / "darkest.onnx")
    tifffile.imwrite(tmp_path / "s.tif", np.stack(swimmers.frames), photometric="minisblack")
    more = ("--detector", str(tmp_path / "darkest.onnx"), "--max-gap", "0", "--min-points", "1")
    assert run(tmp_path / "s.tif", tmp_path / "out", *SCALE, *more) == 0
    rows = check_files(tmp_path / "out")
    assert len(rows) == 16
    for row in rows:
        frame = swimmers.frames[round(float(row["t_s"]) * 10)]
        y, x = (round(float(row[name]) / PIXEL_UM + 99.5) for name in ("y_um", "x_um"))
        assert frame[y, x] == frame.min()
    model.graph.output[0].name = model.graph.node[-1].output[0] = "boxes"
    onnx.save(model, tmp_path / "boxes.onnx")
    assert run(tmp_path / "s.tif", tmp_path / "out", *SCALE, "--detector", str(tmp_path / "boxes.onnx")) == 66
    assert "outputs ['boxes']" in capsys.readouterr().err
    _text(tmp_path / "broken.onnx")
    assert (
        run(tmp_path / "s.tif", tmp_path / "out", *SCALE, "--detector", str(tmp_path / "broken.onnx")) == 66
    )
    assert "could not be loaded by ONNX Runtime" in capsys.readouterr().err


def darkest_pixel(onnx: Any) -> Any:
    """A detector of the darkest pixel of 200 x 200, of diameter 6 and score 1."""
    h, t = onnx.helper, onnx.TensorProto
    constants: dict[str, list[Any]] = {"flat": [-1], "side": [200], "rest": [6.0, 1.0], "row": [1, 4]}
    nodes = [
        h.make_node("Reshape", ["image", "flat"], ["line"]),
        h.make_node("ArgMin", ["line"], ["at"], axis=0, keepdims=1),
        h.make_node("Div", ["at", "side"], ["y"]),
        h.make_node("Mod", ["at", "side"], ["x"]),
        h.make_node("Concat", ["y", "x"], ["yx"], axis=0),
        h.make_node("Cast", ["yx"], ["place"], to=t.FLOAT),
        h.make_node("Concat", ["place", "rest"], ["all"], axis=0),
        h.make_node("Reshape", ["all", "row"], ["detections"]),
    ]
    kept = [
        h.make_tensor(name, t.FLOAT if name == "rest" else t.INT64, [len(values)], values)
        for name, values in constants.items()
    ]
    graph = h.make_graph(
        nodes,
        "darkest",
        [h.make_tensor_value_info("image", t.FLOAT, [1, 1, "h", "w"])],
        [h.make_tensor_value_info("detections", t.FLOAT, ["n", 4])],
        kept,
    )
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)


def test_a_graph_for_other_trackers(swimmers: Simulated, tmp_path: Path) -> None:
    geff = pytest.importorskip("geff", reason="geff is not installed")
    tifffile.imwrite(tmp_path / "s.tif", np.stack(swimmers.frames), photometric="minisblack")
    assert run(tmp_path / "s.tif", tmp_path / "out", *SCALE) == 0
    rows = check_files(tmp_path / "out")
    graph, _ = geff.read(tmp_path / "out" / "tracks.geff")
    tracks = len({row["track_id"] for row in rows})
    assert graph.number_of_nodes() == len(rows)
    assert graph.number_of_edges() == len(rows) - tracks
    assert graph.nodes[0]["x_um"] == pytest.approx(float(rows[0]["x_um"]))
