"""Slides from files, and generated ones."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from deblurd.errors import DataError, NoInputError
from deblurd.simulator.slide import most_to_see_um, open_slide
from deblurd.simulator.tissue import EMPTY_GLASS, Tissue

SVS = Path(__file__).parents[3] / "shared" / "data" / "openslide-cc0" / "CMU-1-Small-Region.svs"


def _picture(dtype: type = np.uint8, channels: int = 3) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    top = np.iinfo(dtype).max
    shape = (40, 60, channels) if channels > 1 else (40, 60)
    return np.random.default_rng(1).integers(0, top + 1, shape).astype(dtype)


def test_a_png_is_read_as_it_is_and_glass_lies_around_it(tmp_path: Path) -> None:
    picture = _picture()
    Image.fromarray(picture).save(tmp_path / "a.png")
    slide = open_slide(tmp_path / "a.png")
    assert slide.pixel_size_um == 0.5
    assert slide.size_um == (30.0, 20.0)
    np.testing.assert_array_equal(slide.region(0, 0, 40, 60), picture)
    around = slide.region(-2, 50, 50, 20)
    np.testing.assert_array_equal(around[2:42, :10], picture[:, 50:])
    assert (around[:2] == EMPTY_GLASS).all()
    assert (around[42:] == EMPTY_GLASS).all()
    assert (around[:, 10:] == EMPTY_GLASS).all()
    assert (slide.region(500, 500, 4, 4) == EMPTY_GLASS).all()


def test_the_pixel_size_is_the_files_unless_one_is_given(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", _picture(), resolution=(40000, 40000), resolutionunit="CENTIMETER")
    assert open_slide(tmp_path / "a.tif").pixel_size_um == pytest.approx(0.25)
    assert open_slide(tmp_path / "a.tif", 0.7).pixel_size_um == 0.7
    tifffile.imwrite(tmp_path / "b.ome.tif", _picture(), metadata={"axes": "YXS", "PhysicalSizeX": 0.325})
    assert open_slide(tmp_path / "b.ome.tif").pixel_size_um == pytest.approx(0.325)
    tifffile.imwrite(tmp_path / "print.tif", _picture(), resolution=(72, 72), resolutionunit="INCH")
    assert open_slide(tmp_path / "print.tif").pixel_size_um == 0.5
    Image.fromarray(_picture()).save(tmp_path / "a.png", dpi=(50800, 50800))
    assert open_slide(tmp_path / "a.png").pixel_size_um == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_and_grey_become_eight_bit_rgb(tmp_path: Path, suffix: str) -> None:
    grey = _picture(np.uint16, 1)
    assert cv2.imwrite(str(tmp_path / f"grey.{suffix}"), grey)
    seen = open_slide(tmp_path / f"grey.{suffix}").region(0, 0, 40, 60)
    np.testing.assert_array_equal(seen, np.repeat((grey // 257).astype(np.uint8)[..., None], 3, axis=2))


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate"])
def test_compressed_tiffs_are_read(tmp_path: Path, compression: str) -> None:
    Image.fromarray(_picture()).save(tmp_path / "a.tif", compression=compression)
    np.testing.assert_array_equal(open_slide(tmp_path / "a.tif").region(0, 0, 40, 60), _picture())


def test_a_truncated_compressed_tiff_is_said(tmp_path: Path) -> None:
    Image.fromarray(_picture()).save(tmp_path / "a.tif", compression="tiff_lzw")
    whole = (tmp_path / "a.tif").read_bytes()
    data = bytearray(whole)
    data[8 : len(whole) // 2] = bytes(len(whole) // 2 - 8)
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.tif cannot be"):
        open_slide(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_transparent_parts_show_glass(tmp_path: Path, suffix: str) -> None:
    picture = np.zeros((8, 8, 4), np.uint8)
    picture[:, 4:, 3] = 255
    Image.fromarray(picture).save(tmp_path / f"a.{suffix}")
    seen = open_slide(tmp_path / f"a.{suffix}").region(0, 0, 8, 8)
    assert (seen[:, :4] == EMPTY_GLASS).all()
    assert (seen[:, 4:] == 0).all()


def test_one_pixel_is_a_slide(tmp_path: Path) -> None:
    Image.fromarray(np.full((1, 1, 3), 7, np.uint8)).save(tmp_path / "a.png")
    assert open_slide(tmp_path / "a.png").region(-1, -1, 3, 3)[1, 1].tolist() == [7, 7, 7]


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match=r"no slide image .*nowhere\.png"):
        open_slide(tmp_path / "nowhere.png")


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_a_truncated_image_is_said(tmp_path: Path, suffix: str) -> None:
    whole, half = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    Image.fromarray(np.repeat(_picture(), 8, axis=0)).save(whole)
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"b\.{suffix} cannot be"):
        open_slide(half)


@pytest.mark.parametrize("name", ["notes.txt", "notes.png", "notes.tif", "notes.svs"])
def test_no_image_is_said(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("no image at all")
    with pytest.raises(DataError, match="cannot be read as an image"):
        open_slide(tmp_path / name)


def test_a_stack_of_floats_is_said(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((40, 60), np.float32))
    with pytest.raises(DataError, match="grey or RGB image of 8 or 16 bit"):
        open_slide(tmp_path / "a.tif")


@pytest.mark.skipif(not SVS.is_file(), reason="the real slide is not here")
def test_a_scanners_file_is_read_by_openslide() -> None:
    slide = open_slide(SVS)
    assert slide.shape == (2967, 2220)
    assert slide.pixel_size_um == pytest.approx(0.499)
    whole = slide.region(500, 500, 600, 600)
    np.testing.assert_array_equal(whole[100:200, 50:80], slide.region(600, 550, 100, 30))
    assert whole.std() > 10


def test_tissue_is_the_same_for_the_same_seed_however_it_is_cut() -> None:
    tissue, again, other = (Tissue((1500, 2000), 0.5, seed) for seed in (5, 5, 6))
    whole = tissue.read(600, 800, 300, 400).astype(int)
    parts = [[again.read(600 + y, 800 + x, 150, 200) for x in (0, 200)] for y in (0, 150)]
    assert np.abs(whole - np.block([[[p] for p in row] for row in parts]).reshape(whole.shape)).max() <= 1
    assert np.abs(whole - other.read(600, 800, 300, 400)).mean() > 10


def test_tissue_has_empty_glass_dark_nuclei_pink_stroma_and_detail() -> None:
    slide = open_slide(None, 0.5, seed=2, size_mm=(1.5, 1.0))
    assert slide.shape == (2000, 3000)
    assert (slide.region(0, 0, 32, 32) == EMPTY_GLASS).all()
    image = slide.region(500, 700, 1000, 1400)
    flat = image.reshape(-1, 3).astype(int)
    nuclei = (flat[:, 0] < 110) & (flat[:, 2] > flat[:, 0])
    stroma = (flat[:, 0] > 190) & (flat[:, 1] < 190)
    assert 0.02 < nuclei.mean() < 0.4
    assert stroma.mean() > 0.2
    assert flat.max() == EMPTY_GLASS
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    assert (grey - cv2.GaussianBlur(grey, (0, 0), 1.0)).std() > 2.5  # detail of a pixel or two
    empty = (slide.region(0, 0, 2000, 3000) == EMPTY_GLASS).all(axis=2).mean()
    assert 0.1 < empty < 0.5


def test_the_pixel_size_changes_the_sampling_and_not_the_tissue() -> None:
    fine, coarse = (
        Tissue((n, n), um, 4).read(n // 2, n // 2, n // 5, n // 5) for n, um in ((4000, 0.25), (2000, 0.5))
    )
    halved = cv2.resize(fine, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    a, b = (cv2.GaussianBlur(p, (0, 0), 6).astype(float) for p in (halved, coarse))
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.8


def test_memory_of_generated_tissue_is_bounded() -> None:
    slide = open_slide(None, 0.5, seed=1, size_mm=(500.0, 400.0))
    assert slide.shape == (800_000, 1_000_000)
    assert slide.region(400_000, 500_000, 64, 64).shape == (64, 64, 3)


def test_a_part_is_where_most_is_to_be_seen(tmp_path: Path) -> None:
    picture = np.full((400, 600, 3), EMPTY_GLASS, np.uint8)
    picture[230:330, 380:540] = np.random.default_rng(2).integers(0, 255, (100, 160, 3))
    Image.fromarray(picture).save(tmp_path / "a.png")
    slide = open_slide(tmp_path / "a.png", 0.5)
    x_um, y_um = most_to_see_um(slide, (100.0, 60.0))
    assert 2 * x_um < 400
    assert 2 * x_um + 200 > 520
    assert 2 * y_um < 250
    assert 2 * y_um + 120 > 310
    assert most_to_see_um(slide, (900.0, 900.0)) == (0.0, 0.0)
