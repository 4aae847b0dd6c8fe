"""Folders of tiles, good and bad, become slides or a sentence."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile

from deblurd import cli
from deblurd.errors import DataError, DeblurdError, NoInputError
from deblurd.geometry import PixelToStage
from deblurd.host import logs
from deblurd.imagefiles import read_image
from deblurd.mosaic.reader import MosaicReader
from deblurd.record.journal import Journal
from deblurd.record.raw import RawStore
from deblurd.slides.states import NEXT
from deblurd.stitch import Stitched, stitch_folder
from deblurd.tileset import read_tileset
from tests.benchmarks.scan_sets import Scan, ScanSet, make, write_tiles

SMALL = ScanSet(
    rows=3, columns=3, tile_px=256, overlap=0.25, stage_sigma_px=4.0, drift_px=4.0, vignetting=0.05, noise=2.0
)
PIXEL_UM = SMALL.pixel_size_um
MONO_16 = SMALL.but(dtype="uint16", color=False)


@pytest.fixture(scope="module")
def scan() -> Scan:
    return make(SMALL)


@pytest.fixture
def tiles(scan: Scan, tmp_path: Path) -> Path:
    return write_tiles(scan, tmp_path / "tiles")


def stitch(folder: Path, **options: Any) -> Stitched:
    return stitch_folder(folder, folder.parent / "out", **{"pixel_size_um": PIXEL_UM, **options})


def positions(stitched: Stitched) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    with stitched.positions.open(encoding="utf-8", newline="") as file:
        return {r["file"]: np.array([float(r["y_px"]), float(r["x_px"])]) for r in csv.DictReader(file)}


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def table(folder: Path, change: Callable[[list[str]], list[str]]) -> None:
    path = folder / "tiles.csv"
    lines = change(path.read_text(encoding="utf-8").splitlines())
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def cell(line: int, column: int, text: str) -> Callable[[list[str]], list[str]]:
    def change(lines: list[str]) -> list[str]:
        cells = lines[line].split(",")
        cells[column] = text
        return [*lines[:line], ",".join(cells), *lines[line + 1 :]]

    return change


# --- good input ---


@pytest.mark.parametrize(
    ("scan_set", "suffix"),
    [
        (SMALL, ".png"),
        (SMALL, ".tif"),
        (SMALL, ".webp"),
        (SMALL, ".jpg"),
        (SMALL.but(color=False), ".png"),
        (MONO_16, ".png"),
        (MONO_16, ".tif"),
    ],
)
def test_a_folder_becomes_a_slide_like_any_other(tmp_path: Path, scan_set: ScanSet, suffix: str) -> None:
    scan = make(scan_set)
    folder = write_tiles(scan, tmp_path / "tiles", suffix)
    before = hashes(folder)
    stitched = stitch(folder)
    assert hashes(folder) == before
    assert stitched.notes == ()
    slide = stitched.finished.folder
    manifest = slide.read_manifest()
    assert manifest["state"] == "done"
    assert manifest["research_use_only"] is True
    assert manifest["tiles"] == manifest["acknowledged"] == len(scan.tiles)
    assert slide.thumbnail.is_file()
    raw = RawStore.open(slide.raw)
    for tile in Journal(slide.journal).tiles():
        assert np.array_equal(raw.read(tile.index), read_image(folder / f"tile_{tile.index:05d}{suffix}"))
    found = positions(stitched)
    assert list(found) == [f"tile_{n:05d}{suffix}" for n in range(len(scan.tiles))]
    assert scan.errors_px(np.array(list(found.values()))).max() < 0.3
    assert not list(slide.path.rglob("*.part"))
    states = [kind for _, _, kind, _ in Journal(slide.journal).events() if kind in NEXT]
    assert states == ["scanning", "closing", "done"]


def test_positions_are_where_the_tiles_lie_in_the_mosaic(tiles: Path, scan: Scan) -> None:
    stitched = stitch(tiles)
    mosaic = MosaicReader(stitched.finished.folder.mosaic)
    assert mosaic.state == "final"
    assert mosaic.pixel_size_um == PIXEL_UM
    _, height, width = mosaic.shapes[0]
    image = mosaic.read(0, 0, 0, height, width).astype(np.float32)
    for name, (y, x) in positions(stitched).items():
        tile = read_image(tiles / name).astype(np.float32)
        corner = y - (len(tile) - 1) / 2, x - (len(tile) - 1) / 2
        matrix = np.array([[1.0, 0, corner[1]], [0, 1, corner[0]]])
        seen = cv2.warpAffine(image, matrix, (256, 256), flags=cv2.WARP_INVERSE_MAP | cv2.INTER_CUBIC)
        inside = slice(16, -16)
        a, b = (cv2.GaussianBlur(v[inside, inside, 1], (0, 0), 1.0) for v in (tile, seen))
        # one step of Lucas and Kanade from where the tile should be to where it is
        slope = np.stack([axis.ravel() for axis in np.gradient(b)], axis=1)
        off = np.linalg.lstsq(slope, ((a - a.mean()) - (b - b.mean())).ravel(), rcond=None)[0]
        assert np.abs(off).max() < 0.1, name


def test_neither_vignetting_nor_a_flickering_lamp_leaves_a_seam(tmp_path: Path) -> None:
    """Less than half a grey level of step, in the mean, where tiles meet; against the same tiles in even light."""
    even = ScanSet(
        rows=4, columns=4, tile_px=384, overlap=0.2, rotation_deg=0.0, scale=1.0, noise=1.0, vignetting=0.0
    )
    mosaics = []
    for scan_set in (even, even.but(vignetting=0.2, flicker=0.03)):
        stitched = stitch(write_tiles(make(scan_set), tmp_path / f"{scan_set.flicker}" / "tiles"))
        mosaic = MosaicReader(stitched.finished.folder.mosaic)
        _, height, width = mosaic.shapes[0]
        mosaics.append(mosaic.read(0, 0, 0, height, width)[:1200, :1200].astype(np.float32).mean(axis=2))
    plain, seen = mosaics
    seen = seen * (plain.mean() / seen.mean())  # how bright the lamp is as a whole, nobody knows
    seen = cv2.GaussianBlur(seen - plain, (0, 0), 2.0)
    steps = []
    for edge in (round(n * 384 * 0.8) + side for n in (1, 2, 3) for side in (0, 77)):
        for turned in (seen, seen.T):
            inside, outside = turned[:800, edge + 4 : edge + 10], turned[:800, edge - 10 : edge - 4]
            steps.append(np.abs(inside.mean(axis=1) - outside.mean(axis=1)).mean())
    assert np.mean(steps) < 0.5


def test_the_stages_zero_is_kept(tiles: Path, scan: Scan) -> None:
    stitched = stitch(tiles)
    mosaic = MosaicReader(stitched.finished.folder.mosaic)
    found = np.array(list(positions(stitched).values())) * PIXEL_UM + mosaic.origin_um
    poses = np.array([tile.pose.yx_um for tile in scan.tiles])
    # readings are noisy, and drift from one end of the scan to the other
    assert np.abs((found - poses).mean(axis=0)).max() < 10 * PIXEL_UM


def test_motion_is_velocity_times_exposure_against_the_stage(tmp_path: Path) -> None:
    folder = write_tiles(make(SMALL.but(blur_px=12.0)), tmp_path / "tiles")
    rows = read_tileset(folder)
    affine = PixelToStage.from_scale(PIXEL_UM)
    motions = [tile.motion for _, tile in rows.frames(affine)]
    # lanes run forth, back and forth; the image the other way
    assert [round(m.dx, 3) for m in motions] == [-12.0] * 3 + [12.0] * 3 + [-12.0] * 3
    stitched = stitch(folder, model="wiener")
    assert stitched.finished.gates == {"deblur": 9}
    assert MosaicReader(stitched.finished.folder.mosaic).name == stitched.finished.folder.name


def test_without_velocity_tiles_are_sharp(tiles: Path) -> None:
    table(tiles, lambda lines: [",".join(line.split(",")[:3]) for line in lines])
    assert stitch(tiles, model="wiener").finished.gates == {"sharp": 9}


def test_spaces_a_byte_order_mark_and_other_columns_do_no_harm(tiles: Path) -> None:
    path = tiles / "tiles.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    lines = [line.replace(",", " , ") + (", who" if n == 0 else ", me") for n, line in enumerate(lines)]
    path.write_text("\n\n".join(lines), encoding="utf-8-sig")
    assert len(read_tileset(tiles).rows) == 9


def test_rows_are_taken_in_the_order_of_time(tiles: Path) -> None:
    table(tiles, lambda lines: [lines[0], *reversed(lines[1:])])
    assert [row.file for row in read_tileset(tiles).rows] == [f"tile_{n:05d}.png" for n in range(9)]


def test_the_overlap_follows_from_the_positions(tiles: Path) -> None:
    overlap = read_tileset(tiles).overlap(PIXEL_UM)
    assert overlap == pytest.approx(SMALL.overlap, abs=0.03)


def test_a_tiff_may_say_its_pixel_size(tmp_path: Path) -> None:
    scan = make(MONO_16.but(rows=1, columns=2))
    folder = write_tiles(scan, tmp_path / "tiles", ".tif")
    for tile, pixels in zip(scan.tiles, scan.pixels, strict=True):
        tifffile.imwrite(
            folder / f"tile_{tile.index:05d}.tif", pixels, resolution=(2e4, 2e4), resolutionunit="CENTIMETER"
        )
    mosaic = stitch(folder, pixel_size_um=None).finished.folder.mosaic
    assert MosaicReader(mosaic).pixel_size_um == pytest.approx(0.5)


def test_progress_reaches_the_end(tiles: Path) -> None:
    seen: list[tuple[int, int]] = []
    stitch(tiles, on_progress=lambda painted, of: seen.append((painted, of)))
    assert seen[-1] == (9, 9)


def test_a_slide_is_never_overwritten(tiles: Path) -> None:
    first = stitch(tiles).finished.folder.path
    before = hashes(first)
    second = stitch(tiles).finished.folder.path
    assert second != first
    assert hashes(first) == before


def test_stopped_early_the_mosaic_of_what_was_read_is_finished(tiles: Path) -> None:
    stop = threading.Event()
    stitched = stitch(tiles, on_progress=lambda *_: stop.set(), stop=stop)
    assert stitched.finished.tiles == 1
    assert stitched.finished.folder.read_manifest()["reason"] == "stopped"
    assert stitched.notes == ("stopped after 1 of 9 tiles",)
    assert list(positions(stitched)) == ["tile_00000.png"]


def test_an_image_that_vanishes_meanwhile_leaves_an_incomplete_slide_that_says_so(tiles: Path) -> None:
    last = tiles / "tile_00008.png"
    with pytest.raises(DataError, match=r"tile_00008\.png cannot be read"):
        stitch(tiles, on_progress=lambda *_: last.unlink(missing_ok=True))
    (manifest,) = (tiles.parent / "out").rglob("slide.json")
    said = json.loads(manifest.read_text(encoding="utf-8"))
    assert (said["state"], said["acknowledged"]) == ("incomplete", 8)
    assert "tile_00008.png" in said["reason"]


# --- fallbacks that are stated ---


def test_one_tile_is_a_mosaic(tiles: Path) -> None:
    table(tiles, lambda lines: lines[:2])
    stitched = stitch(tiles)
    assert stitched.notes == ()
    assert stitched.finished.mosaic is not None
    assert stitched.finished.mosaic.covered * (stitched.finished.mosaic.height_px**2) >= 0.98 * 256**2
    assert stitched.finished.folder.read_manifest()["loop_closure_px"] is None


def test_tiles_that_do_not_overlap_are_placed_by_the_stage(tiles: Path, scan: Scan) -> None:
    def apart(lines: list[str]) -> list[str]:
        rows = [line.split(",") for line in lines[1:]]
        for n, row in enumerate(rows):
            row[1:3] = str(200.0 * (n % 3)), str(200.0 * (n // 3))
        return [lines[0], *(",".join(row) for row in rows)]

    table(tiles, apart)
    stitched = stitch(tiles)
    assert any("all 9 tiles" in note and "stage alone" in note for note in stitched.notes)
    found = np.array(list(positions(stitched).values()))
    wanted = np.array([[n // 3, n % 3] for n in range(9)]) * 200.0 / PIXEL_UM
    assert np.abs((found - found[0]) - wanted).max() < 0.01


def test_duplicate_positions_are_both_used(tiles: Path, scan: Scan) -> None:
    shutil.copy(tiles / "tile_00004.png", tiles / "again.png")
    table(tiles, lambda lines: [*lines, lines[5].replace("tile_00004.png", "again.png")])
    stitched = stitch(tiles)
    assert any("tile_00004.png and again.png have the same position" in note for note in stitched.notes)
    found = positions(stitched)
    assert np.abs(found["again.png"] - found["tile_00004.png"]).max() < 0.3
    assert stitched.finished.tiles == 10


def test_alpha_is_left_out(tiles: Path) -> None:
    path = tiles / "tile_00003.png"
    image = cv2.imread(str(path))
    assert image is not None
    assert cv2.imwrite(str(path), np.dstack([image, np.full(image.shape[:2], 255, np.uint8)]))
    stitched = stitch(tiles)
    assert stitched.notes == ("the alpha channel of tile_00003.png is left out",)
    assert np.array_equal(RawStore.open(stitched.finished.folder.raw).read(3), image[..., ::-1])


def test_half_a_motion_is_none(tiles: Path) -> None:
    table(tiles, cell(2, 4, ""))
    notes = read_tileset(tiles).notes
    assert len(notes) == 1
    assert notes[0].startswith("tile_00001.png count")


# --- bad input ---


def _small(folder: Path) -> None:
    assert cv2.imwrite(str(folder / "tile_00004.png"), np.zeros((128, 256, 3), np.uint8))


def _grey(folder: Path) -> None:
    assert cv2.imwrite(str(folder / "tile_00004.png"), np.zeros((256, 256), np.uint8))


def _deep(folder: Path) -> None:
    assert cv2.imwrite(str(folder / "tile_00004.png"), np.zeros((256, 256, 3), np.uint16))


def _all_tiny(folder: Path) -> None:
    for path in folder.glob("*.png"):
        assert cv2.imwrite(str(path), np.zeros((20, 20), np.uint8))


def _cut(folder: Path) -> None:
    path = folder / "tile_00004.png"
    path.write_bytes(path.read_bytes()[:-100])


def _no_images(folder: Path) -> None:
    for path in folder.glob("*.png"):
        path.unlink()


def _stack(folder: Path) -> None:
    tifffile.imwrite(folder / "stack.tif", np.zeros((5, 256, 256), np.uint8), photometric="minisblack")
    table(folder, cell(1, 0, "stack.tif"))


BAD: list[tuple[str, Callable[[Path], Any], type[DeblurdError], str]] = [
    ("a missing file", lambda f: (f / "tile_00004.png").unlink(), NoInputError, "names tile_00004.png"),
    (
        "many missing files",
        _no_images,
        NoInputError,
        "and 4 more, not there",
    ),
    ("no table", lambda f: (f / "tiles.csv").unlink(), NoInputError, "tiles.csv is not there"),
    ("no folder", shutil.rmtree, NoInputError, "is not a folder"),
    ("nan", lambda f: table(f, cell(3, 1, "nan")), DataError, "line 4: x_um is 'nan'"),
    ("infinity", lambda f: table(f, cell(3, 2, "-inf")), DataError, "line 4: y_um is '-inf'"),
    ("a word", lambda f: table(f, cell(3, 2, "left")), DataError, "line 4: y_um is 'left'"),
    ("an empty cell", lambda f: table(f, cell(3, 2, "")), DataError, "line 4, is not whole"),
    ("no name", lambda f: table(f, cell(3, 0, "")), DataError, "line 4, is not whole"),
    (
        "a short line",
        lambda f: table(f, lambda lines: [*lines, "tile_00000.png"]),
        DataError,
        "line 11, is not whole",
    ),
    ("some times", lambda f: table(f, cell(3, 3, "")), DataError, "line 4, has no t_s"),
    ("a negative exposure", lambda f: table(f, cell(3, 4, "-1")), DataError, "exposure_ms is '-1'"),
    ("no tile", lambda f: table(f, lambda lines: lines[:1]), DataError, "has no tiles"),
    (
        "an empty table",
        lambda f: (f / "tiles.csv").write_bytes(b""),
        DataError,
        "no column file and no column",
    ),
    ("a binary table", lambda f: (f / "tiles.csv").write_bytes(b"\xff\xfe\x00"), DataError, "not a table"),
    (
        "a missing column",
        lambda f: table(f, lambda lines: [lines[0].replace("x_um,", "x_mm,"), *lines[1:]]),
        DataError,
        "no column x_um",
    ),
    (
        "a file twice",
        lambda f: table(f, cell(3, 0, "tile_00000.png")),
        DataError,
        "tile_00000.png in lines 2 and 4",
    ),
    (
        "one position for all",
        lambda f: table(
            f, lambda lines: [lines[0], *(f"{line.split(',')[0]},1,2,0,,," for line in lines[1:])]
        ),
        DataError,
        "all 9 tiles at the same position",
    ),
    ("far away", lambda f: table(f, cell(3, 1, "1e12")), DataError, "px from the first one"),
    ("0 bytes", lambda f: (f / "tile_00004.png").write_bytes(b""), DataError, "tile_00004.png is empty"),
    ("no image", lambda f: (f / "tile_00004.png").write_bytes(b"x" * 99), DataError, "not an image"),
    ("cut short", _cut, DataError, "may be cut short"),
    ("mixed shapes", _small, DataError, "256 x 128 px, 8 bit, RGB and tile_00000.png is 256 x 256 px"),
    ("mixed colour", _grey, DataError, "8 bit, grey and tile_00000.png"),
    ("mixed depth", _deep, DataError, "16 bit, RGB and tile_00000.png"),
    ("tiny", _all_tiny, DataError, "64 px a side"),
    ("a stack", _stack, DataError, "holds 5 images"),
]


@pytest.mark.parametrize(("spoil", "error", "said"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_input_is_one_sentence_and_nothing_is_written(
    tiles: Path, spoil: Callable[[Path], Any], error: type[DeblurdError], said: str
) -> None:
    spoil(tiles)
    with pytest.raises(error) as caught:
        stitch(tiles)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code in (65, 66)
    assert not (tiles.parent / "out").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--pixel-size-um", "nan"], 64, "must be positive"),
        (["--pixel-size-um", "0"], 64, "must be positive"),
        ([], 64, "give --pixel-size-um"),
        (["--pixel-size-um", "0.5", "--overlap", "2"], 64, "between 0.02 and 0.9"),
        (["--pixel-size-um", "0.5", "--model", "fats"], 66, "there is no model 'fats'"),
    ],
)
def test_the_command_complains_in_one_sentence(
    tiles: Path,
    words: list[str],
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logs, "configure", lambda verbose: None)
    out = tiles.parent / "out"
    assert cli.main(["stitch", str(tiles), "--output", str(out), *words]) == code
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_the_command_says_what_came_of_it(
    tiles: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "configure", lambda verbose: None)
    out = tiles.parent / "out"
    assert cli.main(["stitch", str(tiles), "--output", str(out), "--pixel-size-um", "0.5"]) == 0
    (slide,) = (out / "tiles").iterdir()
    assert f"{slide}: 9 tiles, " in capsys.readouterr().out


def test_an_output_that_is_a_file_is_refused(tiles: Path) -> None:
    (tiles.parent / "out").write_text("mine")
    with pytest.raises(DeblurdError, match="cannot write into the output folder"):
        stitch(tiles)
    assert (tiles.parent / "out").read_text() == "mine"
