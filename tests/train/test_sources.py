"""Mosaics, slides and captured pairs are learnt from as image files are."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from deblurd.errors import DataError
from deblurd.frames import MotionVector, Pose, Tile
from deblurd.geometry import PixelToStage
from deblurd.record.journal import Journal
from deblurd.record.raw import RawStore
from deblurd.slides.camera import Camera
from deblurd.train import sources
from deblurd.train.dataset import Entry, list_images, load_images, usable_pairs
from deblurd.train.degrade import draw_example
from deblurd.train.recipe import DataRecipe, DegradeRecipe
from deblurd.train.sources import find, pictures, read_pairs

Drawing = Callable[[int, tuple[int, int]], NDArray[np.uint8]]
PLAIN = DataRecipe()
UNKNOWN = MotionVector(np.nan, np.nan, sigma_px=np.inf)


def write_mosaic(
    path: Path, levels: Sequence[NDArray[np.generic]], axes: str = "cyx", old: bool = False
) -> None:
    multiscale = {
        "axes": [{"name": name} for name in axes],
        "datasets": [{"path": str(n)} for n in range(len(levels))],
    }
    attributes: Any = {"multiscales": [multiscale]} if old else {"ome": {"multiscales": [multiscale]}}
    group = zarr.open_group(str(path), mode="w", attributes=attributes)
    for n, level in enumerate(levels):
        group.create_array(str(n), data=level)


def write_slide(
    path: Path, motions: Sequence[MotionVector], pixels: NDArray[np.uint8], encoding: str
) -> None:
    path.mkdir(parents=True)
    raw = RawStore.create(path / "raw.zarr", pixels.shape, pixels.dtype)
    journal = Journal(path / "journal.sqlite")
    camera = Camera(pixels.shape, "uint8", encoding, PixelToStage(0.5 * np.eye(2)), 5.0)  # type: ignore[arg-type]
    journal.set_slide("camera", camera.to_json())
    pose = Pose(0.0, 0.0, 0.0)
    tiles = [Tile(i, 0, i, pose, m, 5.0, pixels.shape, "utc") for i, m in enumerate(motions)]
    for tile in tiles:
        raw.write(tile.index, pixels)
    journal.add(tiles, [0] * len(tiles))
    journal.close()


def write_pairs(folder: Path, rows: Sequence[dict[str, object]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "pairs.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize("axes", ["cyx", "yxc", "tczyx"])
@pytest.mark.parametrize("old", [False, True])
def test_a_mosaic_with_any_axes_gives_its_blocks(
    tmp_path: Path, draw: Drawing, axes: str, old: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "BLOCK_PX", 64)
    whole = np.full((160, 200, 3), 240, np.uint8)
    whole[64:128, 128:192] = draw(1, (64, 64))
    order = [axes.replace("t", "").replace("z", "").index(name) for name in "yxc"]
    levels = [
        np.transpose(image, np.argsort(order)) for image in (whole, np.ascontiguousarray(whole[::2, ::2]))
    ]
    if axes == "tczyx":
        levels = [level[None, :, None] for level in levels]
    write_mosaic(tmp_path / "a.ome.zarr", levels, axes, old)
    (block,) = pictures(tmp_path / "a.ome.zarr")  # the others are empty
    assert np.array_equal(block, whole[64:128, 128:192])


def test_a_grey_16_bit_mosaic_becomes_rgb_of_8_bit(tmp_path: Path, draw: Drawing) -> None:
    grey = draw(2, (80, 96))[..., 0]
    write_mosaic(tmp_path / "a.ome.zarr", [grey.astype(np.uint16) * 257], "yx")
    (picture,) = pictures(tmp_path / "a.ome.zarr")
    assert np.array_equal(picture, np.repeat(grey[..., None], 3, axis=2))


def test_broken_mosaics_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.ome.zarr").mkdir()
    write_mosaic(tmp_path / "float.ome.zarr", [np.zeros((8, 9), np.float32)], "yx")
    write_mosaic(tmp_path / "five.ome.zarr", [np.zeros((5, 8, 9), np.uint8)])
    for path in tmp_path.iterdir():
        with pytest.raises(DataError, match=rf"{path.name} cannot be read as an OME-Zarr"):
            pictures(path)


def test_a_slide_gives_the_frames_taken_at_rest_as_srgb(tmp_path: Path) -> None:
    grey = np.full((40, 50), 55, np.uint8)
    motions = [MotionVector(0, 9), MotionVector(0, 0.2), UNKNOWN, MotionVector(0.1, 0)]
    write_slide(tmp_path / "s" / "s_1", motions, grey, "linear")
    found = pictures(tmp_path / "s" / "s_1")
    assert [p.shape for p in found] == [(40, 50, 3)] * 2
    assert np.unique(found[0]).tolist() == [128]  # a fifth of full scale, as sRGB has it
    write_slide(tmp_path / "moving", motions[:1], grey, "linear")
    assert pictures(tmp_path / "moving") == []


def test_a_broken_slide_is_named(tmp_path: Path) -> None:
    write_slide(tmp_path / "s", [MotionVector(0, 0)], np.zeros((8, 9), np.uint8), "srgb")
    (tmp_path / "s" / "journal.sqlite").write_bytes(b"this is no journal, whatever its name says" * 99)
    with pytest.raises(DataError, match="s cannot be learnt from: "):
        pictures(tmp_path / "s")


def test_each_source_is_found_once_and_is_a_group_of_its_own(tmp_path: Path, draw: Drawing) -> None:
    write_mosaic(tmp_path / "m1.ome.zarr", [draw(0, (70, 70)).transpose(2, 0, 1)])
    write_slide(tmp_path / "slide7" / "slide7_1", [MotionVector(0, 0)] * 2, draw(1, (70, 70)), "srgb")
    (tmp_path / "plain").mkdir()
    cv2.imwrite(str(tmp_path / "plain" / "a.png"), draw(2, (70, 70)))
    capture = tmp_path / "capture"
    for name in ("p0", "p1"):
        (capture / name).mkdir(parents=True)
        for file in ("sharp", "moved0", "moved1"):
            cv2.imwrite(str(capture / name / f"{file}.png"), draw(3, (70, 70)))
    rows: list[dict[str, object]] = [
        {"sharp": f"{p}/sharp.png", "blurred": f"{p}/moved{n}.png", "dy": 0, "dx": 5, "group": p}
        for p in ("p0", "p1")
        for n in (0, 1)
    ]
    write_pairs(capture, rows)
    assert [p.relative_to(tmp_path).as_posix() for p in find(tmp_path)] == [
        "capture/pairs.csv",
        "m1.ome.zarr",
        "plain/a.png",
        "slide7/slide7_1",
    ]
    entries = list_images(tmp_path, PLAIN)
    assert sorted((e.file, e.group) for e in entries) == [
        ("capture/p0/sharp.png", "p0"),
        ("capture/p0/sharp.png", "p0"),
        ("capture/p1/sharp.png", "p1"),
        ("capture/p1/sharp.png", "p1"),
        ("m1.ome.zarr", "m1.ome.zarr"),
        ("plain/a.png", "plain"),
        ("slide7/slide7_1", "slide7"),
    ]
    images = load_images(
        tmp_path, [Entry(e.file, "x", "train", e.group, e.pair) for e in entries], "train", PLAIN, 64
    )
    assert len(images.pixels) == 8  # two frames of the slide
    assert len(images.captured) == 4
    assert len({id(images.pixels[i]) for i in images.captured}) == 2  # a sharp frame is kept once
    assert all(len(digest) == 64 for digest in images.sha256)


@pytest.fixture
def captured(tmp_path: Path, draw: Drawing) -> Path:
    sharp = draw(0, (80, 96))
    cv2.imwrite(str(tmp_path / "sharp.png"), sharp[..., ::-1])
    cv2.imwrite(str(tmp_path / "moved.png"), cv2.blur(sharp, (5, 1))[..., ::-1])
    return tmp_path


def test_a_captured_pair_is_learnt_from_as_it_is(captured: Path) -> None:
    write_pairs(captured, [{"blurred": "moved.png", "sharp": "sharp.png", "dy": 0, "dx": 5}])
    (entry,) = list_images(captured, PLAIN)
    images = load_images(captured, [Entry(entry.file, "x", "train", "g", entry.pair)], "train", PLAIN, 40)
    recipe = DegradeRecipe(field_px=32, guard_px=4, length_jitter=0, angle_jitter_deg=0, gross_share=0)
    example = draw_example(images, np.ones(1), recipe, np.random.default_rng(0))
    assert example.motion.tolist() == [0, 5]
    assert example.sharp.shape == (32, 32, 3)
    again = cv2.blur(example.sharp, (5, 1))[4:-4, 4:-4].astype(float)
    assert np.abs(again - example.blurred[4:-4, 4:-4]).mean() < 300  # of 65535


def test_pairs_are_used_where_the_recipe_teaches_their_motion() -> None:
    def entry(length: float) -> Entry:
        pair = sources.Captured("b", "s", MotionVector(0, length), "g")
        return Entry("s", "x", "train", "g", pair)

    entries = [entry(0.2), entry(5), entry(60), Entry("a.png", "x", "train", "h")]
    assert usable_pairs(entries, DegradeRecipe()) == [entries[1], entries[3]]
    assert usable_pairs(entries, DegradeRecipe(rest_share=0.5)) == [entries[0], entries[1], entries[3]]


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([{"blurred": "moved.png", "sharp": "sharp.png", "dy": 1}], r"lacks the column.*'dx'"),
        ([{"blurred": "moved.png", "sharp": "sharp.png", "dy": "fast", "dx": 1}], "row 2: could not convert"),
        (
            [{"blurred": "moved.png", "sharp": "sharp.png", "dy": "nan", "dx": 1}],
            "row 2: the motion must be finite",
        ),
    ],
)
def test_a_broken_list_of_pairs_is_named(
    captured: Path, rows: list[dict[str, object]], complaint: str
) -> None:
    write_pairs(captured, rows)
    with pytest.raises(DataError, match=complaint):
        read_pairs(captured, "pairs.csv")


def test_pairs_of_unlike_size_or_without_a_file_are_named(captured: Path) -> None:
    cv2.imwrite(str(captured / "small.png"), np.zeros((60, 60, 3), np.uint8))
    for blurred, complaint in (
        ("small.png", "capture the pair again"),
        ("gone.png", "gone.png cannot be read"),
    ):
        pair = sources.Captured(blurred, "sharp.png", MotionVector(0, 5), "g")
        with pytest.raises(DataError, match=complaint):
            load_images(captured, [Entry("sharp.png", "x", "train", "g", pair)], "train", PLAIN, 40)
