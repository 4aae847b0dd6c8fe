"""A finished mosaic as OME-TIFF: equal pixels, the right metadata, and a sentence where it cannot be."""

from __future__ import annotations

import json
import os
import shutil
import sys
import weakref
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
import zarr

from deblurd import cli, export
from deblurd.errors import DataError, DeblurdError, NoInputError, OutputError, UsageError
from deblurd.export import export_ome_tiff
from deblurd.frames import Pixels
from deblurd.host import logs
from deblurd.mosaic.reader import MosaicReader
from deblurd.stitch import stitch_folder
from tests.benchmarks.scan_sets import ScanSet, make, write_tiles

SCAN = ScanSet(rows=3, columns=4, tile_px=512, stage_sigma_px=4.0, noise=2.0)
KINDS = {
    "rgb": SCAN,
    "grey": SCAN.but(color=False, rows=2, columns=2),
    "grey16": SCAN.but(color=False, dtype="uint16", rows=2, columns=2),
    "rgb16": SCAN.but(dtype="uint16", rows=1, columns=2),
}


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    def stitched(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        tiles = write_tiles(make(KINDS[name]), folder / "tiles")
        return stitch_folder(tiles, folder / "out", pixel_size_um=0.5).finished.folder.path

    return {name: stitched(name) for name in KINDS}


@pytest.fixture
def slide(slides: dict[str, Path]) -> Path:
    return slides["rgb"]


def levels(slide: Path) -> list[Pixels]:
    """(h, w, c) of each level, by zarr alone."""
    group: Any = zarr.open_group(str(slide / "mosaic.ome.zarr"), mode="r")
    datasets = group.attrs["ome"]["multiscales"][0]["datasets"]
    return [np.moveaxis(np.asarray(group[d["path"]][:]), 0, 2) for d in datasets]


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_level_has_the_mosaics_pixels(slides: dict[str, Path], kind: str, tmp_path: Path) -> None:
    path = export_ome_tiff(slides[kind], tmp_path / "a.ome.tif")
    wanted = levels(slides[kind])
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome
        assert tiff.is_bigtiff
        (series,) = tiff.series
        assert series.axes == ("YXS" if kind.startswith("rgb") else "YX")
        assert len(series.levels) == len(wanted)
        for level, pixels in zip(series.levels, wanted, strict=True):
            page = level.keyframe
            assert (page.tilelength, page.tilewidth) == (512, 512)
            assert np.array_equal(level.asarray().reshape(pixels.shape), pixels)
    assert len(wanted) > 1 or kind != "rgb"
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.filterwarnings("ignore")  # bioio's own, of what it will change one day
def test_bioio_reads_the_same(slide: Path, tmp_path: Path) -> None:
    reader = pytest.importorskip("bioio_ome_tiff")
    image = reader.Reader(export_ome_tiff(slide, tmp_path / "a.ome.tif"))
    assert image.physical_pixel_sizes.X == image.physical_pixel_sizes.Y == 0.5
    assert image.channel_names == ["red green blue"]
    # it knows the full resolution only
    assert np.array_equal(image.get_image_data("YXS"), levels(slide)[0])


def test_openslide_reads_the_same(slide: Path, tmp_path: Path) -> None:
    openslide = pytest.importorskip("openslide")
    with openslide.OpenSlide(export_ome_tiff(slide, tmp_path / "a.ome.tif")) as image:
        region = np.asarray(image.read_region((0, 0), 0, image.dimensions))[..., :3]
        assert float(image.properties["openslide.mpp-x"]) == pytest.approx(0.5)
    assert np.array_equal(region, levels(slide)[0])


def test_metadata_says_where_and_how_large(slide: Path, tmp_path: Path) -> None:
    mosaic = MosaicReader(slide / "mosaic.ome.zarr")
    with tifffile.TiffFile(export_ome_tiff(slide, tmp_path / "a.ome.tif")) as tiff:
        assert tiff.ome_metadata is not None
        root = ElementTree.fromstring(tiff.ome_metadata)
        assert str(tiff.pages.first.tags["Software"].value).startswith("deblurd ")
    name = "{http://www.openmicroscopy.org/Schemas/OME/2016-06}"
    (image,) = root.iter(f"{name}Image")
    (pixels,), (channel,), (plane,) = (list(root.iter(name + e)) for e in ("Pixels", "Channel", "Plane"))
    assert image.get("Name") == slide.name
    assert "research use only" in (image.findtext(f"{name}Description") or "")
    assert (pixels.get("PhysicalSizeX"), pixels.get("PhysicalSizeXUnit")) == ("0.5", "µm")
    assert (channel.get("Name"), channel.get("SamplesPerPixel")) == ("red green blue", "3")
    found = float(plane.get("PositionY", "nan")), float(plane.get("PositionX", "nan"))
    assert found == pytest.approx(tuple(mosaic.origin_um))
    assert plane.get("PositionXUnit") == "µm"


def test_memory_does_not_grow_with_the_mosaic(
    slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of some hundred tiles, only those that are being compressed are there at a time."""
    monkeypatch.setattr(export, "TILE_PX", 128)
    monkeypatch.setattr(export, "BUFFER_BYTES", 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    alive, most = 0, 0
    read = MosaicReader.read

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def counted(self: MosaicReader, *window: int) -> Pixels:
        nonlocal alive, most
        pixels = read(self, *window)
        weakref.finalize(pixels, gone)
        alive += 1
        most = max(most, alive)
        return pixels

    monkeypatch.setattr(MosaicReader, "read", counted)
    seen: list[tuple[int, int]] = []
    export_ome_tiff(slide, tmp_path / "a.tif", on_progress=lambda n, of: seen.append((n, of)))
    assert len(seen) > 100
    assert seen == [(n + 1, len(seen)) for n in range(len(seen))]
    assert most <= 8


def test_the_command_writes_beside_the_mosaic_and_never_over_it(
    slides: dict[str, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "configure", lambda verbose: None)
    slide = slides["grey"]
    assert cli.main(["export", str(slide), "--to", "ome-tiff"]) == 0
    path = slide / "mosaic.ome.tif"
    assert capsys.readouterr().out == f"{path}\n"
    before = path.read_bytes()
    assert cli.main(["export", str(slide), "--to", "ome-tiff"]) == OutputError.exit_code
    assert "is there already" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert cli.main(["export", str(slide), "--to", "tiff"]) == UsageError.exit_code


@pytest.mark.parametrize(
    ("target", "error", "said"),
    [
        ("missing/a.tif", OutputError, "cannot be written"),
        ("a.png", UsageError, "does not end in .tif"),
        ("", UsageError, "does not end in .tif"),
    ],
)
def test_a_target_that_cannot_be(
    slide: Path, tmp_path: Path, target: str, error: type[DeblurdError], said: str
) -> None:
    with pytest.raises(error, match=said):
        export_ome_tiff(slide, tmp_path / target)
    assert not list(tmp_path.iterdir())


def test_what_is_no_slide_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere", Path(__file__)):
        with pytest.raises(NoInputError, match="is not a slide folder"):
            export_ome_tiff(path, tmp_path / "a.tif")
    (tmp_path / "journal.sqlite").touch()
    with pytest.raises(NoInputError, match="has no mosaic yet"):
        export_ome_tiff(tmp_path, tmp_path / "a.tif")


def _metadata(slide: Path, tmp_path: Path, change: Any) -> Path:
    """A slide whose mosaic has other metadata than `slide`, and no pixels."""
    content = json.loads((slide / "mosaic.ome.zarr" / "zarr.json").read_text(encoding="utf-8"))
    folder = tmp_path / "slide"
    (folder / "mosaic.ome.zarr").mkdir(parents=True)
    (folder / "journal.sqlite").touch()
    text = change(content)
    (folder / "mosaic.ome.zarr" / "zarr.json").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("change", [lambda c: "{}", lambda c: "{", lambda c: json.dumps(c)])
def test_a_broken_mosaic_is_refused(slide: Path, tmp_path: Path, change: Any) -> None:
    folder = _metadata(slide, tmp_path, change)
    with pytest.raises(DataError, match="is not a whole mosaic"):
        export_ome_tiff(folder, tmp_path / "a.tif")


def test_an_unfinished_slide_is_refused(slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Growing(MosaicReader):
        def __init__(self, path: Path) -> None:
            super().__init__(path)
            self.state = "growing"

    monkeypatch.setattr(export, "MosaicReader", Growing)
    with pytest.raises(DataError, match=r"unfinished \(its mosaic is growing\)"):
        export_ome_tiff(slide, tmp_path / "a.tif")


def test_a_damaged_shard_is_named(slides: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(slides["grey16"], tmp_path / "slide")
    shard = max((folder / "mosaic.ome.zarr" / "0" / "c").rglob("*"), key=lambda p: p.stat().st_size)
    shard.write_bytes(b"x" * shard.stat().st_size)
    with pytest.raises(DataError, match=r"damaged at level 0, row \d+, column \d+"):
        export_ome_tiff(folder, tmp_path / "a.tif")
    assert not list(tmp_path.glob("a.tif*"))


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of a file's size to run into")
def test_a_full_disk_leaves_nothing(slide: Path, tmp_path: Path) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            export_ome_tiff(slide, tmp_path / "a.tif")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())
