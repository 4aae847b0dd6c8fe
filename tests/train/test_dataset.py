from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from deblurd.errors import DataError, NoInputError
from deblurd.train.dataset import MANIFEST, Entry, check_trainable, list_images, load_images
from deblurd.train.recipe import DataRecipe
from deblurd.train.sources import read_image

PLAIN = DataRecipe()
HEADER = "file\tlicence\tsplit\tgroup\n"


def write_manifest(folder: Path, *rows: str) -> None:
    (folder / MANIFEST).write_text(HEADER + "".join(r + "\n" for r in rows), "utf-8")


def test_without_a_manifest_each_subfolder_is_a_group_of_one_split(slides: Path) -> None:
    cv2.imwrite(str(slides / "slide0" / "b.png"), np.full((80, 80, 3), 9, dtype=np.uint8))
    entries = list_images(slides, PLAIN)
    assert len(entries) == 7
    assert {"train", "val", "test"} == {e.split for e in entries}
    assert len({e.split for e in entries if e.group == "slide0"}) == 1
    assert entries == list_images(slides, PLAIN)
    check_trainable(slides, entries)


def test_the_manifest_rules(slides: Path) -> None:
    write_manifest(
        slides, "slide0/a.png\tCC0\ttrain\tp1", "slide1/a.png\tMIT\tval\tp2", "slide2/a.png\tMIT\tother\tp3"
    )
    entries = list_images(slides, PLAIN)
    assert entries == [
        Entry("slide0/a.png", "CC0", "train", "p1"),
        Entry("slide1/a.png", "MIT", "val", "p2"),
    ]


def test_an_image_without_a_group_is_one_by_itself(slides: Path) -> None:
    write_manifest(slides, "x/a.png\tCC0\ttrain\t", "x/b.png\tCC0\tval\t")
    assert [e.group for e in list_images(slides, PLAIN)] == ["x/a.png", "x/b.png"]


def test_exclusion_and_columns(slides: Path) -> None:
    recipe = DataRecipe(exclude=("slide[1-5]/*",), keep_columns={"slide0/*": (8, 88)})
    entries = list_images(slides, recipe)
    assert [e.file for e in entries] == ["slide0/a.png"]
    only = Entry(entries[0].file, "CC0", "train", "g")
    assert load_images(slides, [only], "train", recipe, 80).pixels[0].shape == (80, 80, 3)


def test_provenance_has_hashes_and_licences(slides: Path) -> None:
    entries = [Entry("slide0/a.png", "CC0", "train", "g"), Entry("slide1/a.png", "MIT", "train", "h")]
    rows = load_images(slides, entries, "train", PLAIN, 16).provenance()
    assert [(r["name"], r["licence"], r["images"]) for r in rows] == [
        ("slide0", "CC0", 1),
        ("slide1", "MIT", 1),
    ]
    digest = hashlib.sha256((slides / "slide0" / "a.png").read_bytes()).hexdigest()
    assert rows[0]["sha256"] == hashlib.sha256(digest.encode()).hexdigest()


def test_large_families_do_not_drown_small_ones(tmp_path: Path) -> None:
    entries = []
    for family, count in (("big", 9), ("small", 1)):
        (tmp_path / family).mkdir()
        for i in range(count):
            cv2.imwrite(str(tmp_path / family / f"{i}.png"), np.zeros((20, 20, 3), dtype=np.uint8))
            entries.append(Entry(f"{family}/{i}.png", "CC0", "train", f"{family}{i}"))
    weights = load_images(tmp_path, entries, "train", PLAIN, 16).sampling_weights()
    assert weights.sum() == pytest.approx(1)
    assert weights[-1] == pytest.approx(0.25)  # by area it would be 0.1


@pytest.mark.parametrize(("dtype", "value"), [(np.uint8, 77), (np.uint16, 77 * 257)])
@pytest.mark.parametrize("channels", [(), (3,), (4,)])
def test_images_of_any_depth_become_rgb_of_8_bit(
    tmp_path: Path, dtype: type, value: int, channels: tuple[int, ...]
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((20, 24, *channels), value, dtype=dtype))
    pixels = read_image(tmp_path / "a.png")
    assert pixels.shape == (20, 24, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - 77).max() <= 1


def test_colours_are_in_rgb_order(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((20, 24, 3), (255, 0, 0), dtype=np.uint8))  # blue in BGR
    assert read_image(tmp_path / "a.png")[0, 0].tolist() == [0, 0, 255]


def test_no_folder_no_images_nothing_allowed(tmp_path: Path, slides: Path) -> None:
    with pytest.raises(NoInputError, match="no folder"):
        list_images(tmp_path / "nowhere", PLAIN)
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoInputError, match="no images"):
        list_images(tmp_path / "empty", PLAIN)
    with pytest.raises(NoInputError, match="no images"):
        list_images(slides, DataRecipe(exclude=("*",)))


def test_one_group_cannot_be_split(slides: Path) -> None:
    entries = list_images(slides, DataRecipe(exclude=("slide[1-5]/*",)))
    with pytest.raises(DataError, match="1 group"):
        check_trainable(slides, entries)


def test_a_divided_group_is_refused(slides: Path) -> None:
    write_manifest(slides, "x/a.png\tCC0\ttrain\tp1", "x/b.png\tCC0\tval\tp1")
    with pytest.raises(DataError, match="keep each group in one split"):
        list_images(slides, PLAIN)


@pytest.mark.parametrize("text", ["", "file\tsplit\na.png\ttrain\n"])
def test_a_manifest_without_its_columns(slides: Path, text: str) -> None:
    (slides / MANIFEST).write_text(text, "utf-8")
    with pytest.raises(DataError, match="licence"):
        list_images(slides, PLAIN)


def test_images_too_small_are_skipped_and_none_left_is_an_error(slides: Path) -> None:
    cv2.imwrite(str(slides / "slide0" / "a.png"), np.zeros((20, 90, 3), dtype=np.uint8))
    entries = [Entry(f"slide{i}/a.png", "CC0", "train", str(i)) for i in range(2)]
    images = load_images(slides, entries, "train", PLAIN, 64)
    assert images.skipped == ["slide0/a.png"]
    assert len(images.pixels) == 1
    with pytest.raises(DataError, match="at least 200 px"):
        load_images(slides, entries, "train", PLAIN, 200)


@pytest.mark.parametrize("content", [b"", b"not an image", None])
@pytest.mark.parametrize("name", ["a.png", "a.svs"])
def test_broken_and_missing_files_are_named(tmp_path: Path, name: str, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        read_image(tmp_path / name)
