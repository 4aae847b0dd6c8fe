"""Tiles cut from a known picture give the picture back, whatever the camera's turn and the order of arrival."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from deblurd.errors import OutputError
from deblurd.frames import DeblurredTile, Place
from deblurd.geometry import PixelToStage
from deblurd.mosaic import store as store_module
from deblurd.mosaic.canvas import MIDDLE
from deblurd.mosaic.store import MosaicStore
from deblurd.mosaic.writer import MosaicSummary, MosaicWriter

SIDE = 160
PIXEL_UM = 0.5


def picture(height: int, width: int, channels: int = 3, seed: int = 1) -> NDArray[np.uint8]:
    """Smooth enough to be resampled without loss, with something to see everywhere."""
    rng = np.random.default_rng(seed)
    image = cv2.GaussianBlur(rng.normal(0, 1, (height, width, channels)).astype(np.float32), (0, 0), 2.5)
    image = image.reshape(height, width, channels)
    return np.asarray(np.clip(128 + 45 * image / image.std(), 0, 255), dtype=np.uint8)


def view(image: NDArray[Any], centre_px: NDArray[np.float64], affine: PixelToStage) -> NDArray[Any]:
    """What a camera sees that is turned by `affine` and stands over `centre_px`, (y, x), of the picture."""
    r = affine.rotation
    half = (SIDE - 1) / 2
    start = centre_px - r @ np.array([half, half])
    matrix = np.array([[r[1, 1], r[1, 0], start[1]], [r[0, 1], r[0, 0], start[0]]])
    flags = cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP
    seen = cv2.warpAffine(image, matrix, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(seen)


class Scan:
    """A grid of views over a picture, with their places."""

    def __init__(
        self, affine: PixelToStage, shift: float = 0.0, channels: int = 3, dtype: str = "uint8"
    ) -> None:
        self.affine = affine
        self.image: NDArray[Any] = picture(420, 500, channels)
        if dtype == "uint16":
            self.image = self.image.astype(np.uint16) * 257
        if channels == 1:
            self.image = self.image[..., 0]
        ys, xs = np.arange(90, 340, 110) + shift, np.arange(90, 420, 105) + shift / 2
        self.centres = [np.array(c, dtype=np.float64) for c in itertools.product(ys, xs)]
        self.tiles = [view(self.image, centre, affine) for centre in self.centres]
        inverse = np.linalg.inv(affine.rotation)
        self.places = [
            Place(float(y), float(x), 0.1) for y, x in (inverse @ centre for centre in self.centres)
        ]

    def writer(self, folder: Path, **options: Any) -> MosaicWriter:
        folder.mkdir(exist_ok=True)
        return MosaicWriter(
            folder / "mosaic.ome.zarr",
            name="test",
            affine=self.affine,
            tile_shape=self.tiles[0].shape,
            dtype=self.tiles[0].dtype,
            encoding="srgb",
            sources=["raw", "fast"],
            fetch=lambda i: DeblurredTile(i, self.tiles[i], 1 + i % 2, "deblur", 1.0),
            shard_px=512,
            **options,
        )

    def paint(self, folder: Path, order: Sequence[int] | None = None) -> MosaicSummary:
        writer = self.writer(folder)
        for index in order if order is not None else range(len(self.tiles)):
            writer.place(index, self.places[index])
        return writer.finish([])

    def compare(self, folder: Path) -> float:
        """PSNR (dB) of the mosaic against the picture, border left out."""
        image, origin = read(folder)
        y, x = (round(float(v)) for v in origin)
        image = image[max(-y, 0) :, max(-x, 0) :]
        truth = self.image[max(y, 0) :, max(x, 0) :].reshape(
            *self.image[max(y, 0) :, max(x, 0) :].shape[:2], -1
        )
        h, w = min(len(image), len(truth)), min(image.shape[1], truth.shape[1])
        a, b = image[:h, :w], truth[:h, :w]
        inside = (
            cv2.erode((a.max(axis=2) > 0).astype(np.uint8), np.ones((25, 25), np.uint8), borderValue=0) > 0
        )
        error = a[inside].astype(np.float64) - b[inside].astype(np.float64)
        full = float(np.iinfo(image.dtype).max)
        return float(10 * np.log10(full**2 / max(float(np.mean(error**2)), 1e-9)))


def read(folder: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Level 0 as (h, w, c), and where its first pixel lies, (y, x) px."""
    group = zarr.open_group(str(folder / "mosaic.ome.zarr"), mode="r")
    ome: Any = group.attrs["ome"]
    translation = ome["multiscales"][0]["datasets"][0]["coordinateTransformations"][1]["translation"]
    level: Any = group["0"]
    return np.moveaxis(np.asarray(level[:]), 0, 2), np.array(translation[1:]) / PIXEL_UM


def turned(rotation_deg: float, mirrored: bool) -> PixelToStage:
    return PixelToStage.from_scale(PIXEL_UM, rotation_deg, mirrored)


@pytest.mark.parametrize("rotation_deg", [0.0, 90.0, 180.0, 270.0, 1.5, 88.7])
@pytest.mark.parametrize("mirrored", [False, True])
def test_every_turn_of_the_camera_gives_the_slides_own_orientation(
    tmp_path: Path, rotation_deg: float, mirrored: bool
) -> None:
    scan = Scan(turned(rotation_deg, mirrored))
    scan.paint(tmp_path)
    assert scan.compare(tmp_path) > 40


@pytest.mark.parametrize("shift", [0.0, 0.37, 0.5])
def test_tiles_between_pixels_give_the_picture_back(tmp_path: Path, shift: float) -> None:
    scan = Scan(turned(0, False), shift)
    scan.paint(tmp_path)

    assert scan.compare(tmp_path) > 50


@pytest.mark.parametrize(("channels", "dtype"), [(1, "uint8"), (1, "uint16"), (3, "uint16")])
def test_mono_and_16_bit_come_through(tmp_path: Path, channels: int, dtype: str) -> None:
    scan = Scan(turned(0, False), 0.25, channels, dtype)
    scan.paint(tmp_path)
    assert read(tmp_path)[0].dtype == dtype
    assert read(tmp_path)[0].shape[2] == channels
    assert scan.compare(tmp_path) > 40


def arrays(folder: Path) -> dict[str, NDArray[Any]]:
    """Every array of a mosaic: shards may hold their chunks in any order, so files are not compared."""
    root = folder / "mosaic.ome.zarr"
    levels = [path.parent for path in root.rglob("zarr.json") if path.parent.name.isdigit()]
    found: dict[str, Any] = {
        str(path.relative_to(root)): zarr.open_array(str(path), mode="r") for path in levels
    }
    return {name: np.asarray(array[:]) for name, array in found.items()}


def test_the_order_of_arrival_does_not_matter(tmp_path: Path) -> None:
    scan = Scan(turned(1.5, False), 0.3)
    n = len(scan.tiles)
    orders = [list(range(n)), [0, *reversed(range(1, n))]]
    for i, order in enumerate(orders):
        scan.paint(tmp_path / str(i), order)
    one, other = arrays(tmp_path / "0"), arrays(tmp_path / "1")
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_a_tile_that_moved_is_painted_as_if_it_had_always_been_there(tmp_path: Path) -> None:
    scan = Scan(turned(0, False), 0.3)
    scan.paint(tmp_path / "straight")
    writer = scan.writer(tmp_path / "moved", refresh_s=0.001)
    for index, place in enumerate(scan.places):
        wrong = Place(place.y_px + 3.2 * (index > 0), place.x_px - 2.1 * (index > 0), 5.0)
        writer.place(index, wrong)
        while writer.render_due(1e9):
            pass
    for index, place in enumerate(scan.places):
        writer.place(index, place)
    writer.finish([])
    assert np.array_equal(read(tmp_path / "straight")[0], read(tmp_path / "moved")[0])


def test_far_islands_and_negative_coordinates_cost_no_more_than_their_tiles(tmp_path: Path) -> None:
    scan = Scan(turned(0, False))
    writer = scan.writer(tmp_path)
    # an even number of pixels has its centre between two of them
    writer.place(0, Place(0.5, 0.5, 0.1))
    writer.place(1, Place(-4999.5, -6999.5, 0.1))
    summary = writer.finish([])
    assert summary.height_px == pytest.approx(5000 + SIDE, abs=2)
    assert summary.width_px == pytest.approx(7000 + SIDE, abs=2)
    assert summary.covered == pytest.approx(2 * SIDE**2 / (5160 * 7160), rel=0.05)
    image, origin = read(tmp_path)
    assert origin.tolist() == [-5000 - SIDE / 2 + 1, -7000 - SIDE / 2 + 1]
    assert np.array_equal(image[:SIDE, :SIDE], scan.tiles[1])
    assert sum(p.is_file() for p in (tmp_path / "mosaic.ome.zarr" / "0" / "c").rglob("*")) <= 8


def test_readers_see_a_valid_mosaic_while_it_grows(tmp_path: Path) -> None:
    scan = Scan(turned(0, False))
    writer = scan.writer(tmp_path, refresh_s=0.001)
    writer.place(0, scan.places[0])
    growing: Any = zarr.open_group(str(tmp_path / "mosaic.ome.zarr"), mode="r")
    assert growing.attrs["deblurd"]["state"] == "growing"
    while writer.render_due(1e9):
        pass
    middle = growing["0"].shape[1] // 2
    assert growing["0"][:, middle : middle + 200, middle : middle + 200].any()
    writer.finish([])
    assert zarr.open_group(str(tmp_path / "mosaic.ome.zarr")).attrs["deblurd"] == {
        "state": "final",
        "research_use_only": True,
    }


def test_a_tile_of_which_the_place_is_not_sure_lies_under_all_others(tmp_path: Path) -> None:
    scan = Scan(turned(0, False))
    wrong = len(scan.tiles)
    scan.tiles.append(255 - scan.tiles[0])
    sure, unsure = scan.places[0], Place(scan.places[0].y_px, scan.places[0].x_px, 40.0)
    scan.places.append(sure)
    scan.paint(tmp_path / "blended")
    assert scan.compare(tmp_path / "blended") < 30
    scan.places[wrong] = unsure
    scan.paint(tmp_path / "under")
    assert scan.compare(tmp_path / "under") > 45
    # and where it is surer later, it is painted with the others
    writer = scan.writer(tmp_path / "later")
    for index, place in enumerate(scan.places):
        writer.place(index, place)
    while writer.render_due(math.inf):
        pass
    writer.place(wrong, sure)
    writer.finish([])
    assert scan.compare(tmp_path / "later") == scan.compare(tmp_path / "blended")


def test_provenance_says_where_every_pixel_came_from(tmp_path: Path) -> None:
    scan = Scan(turned(0, False))
    scan.paint(tmp_path)
    group = zarr.open_group(str(tmp_path / "mosaic.ome.zarr"), mode="r")
    source: Any = group["labels/source/0"]
    values, image = np.asarray(source[:]), np.asarray(group["0"][:])  # type: ignore[index]
    assert set(np.unique(values)) - {0} == {1, 2}
    assert np.array_equal(values == 0, image.max(axis=0) == 0)
    label: Any = group["labels/source"].attrs["ome"]
    assert [p["source"] for p in label["image-label"]["properties"]] == ["none", "raw", "fast"]


def test_levels_are_means_and_lie_where_they_should(tmp_path: Path) -> None:
    scan = Scan(turned(0, False))
    writer = scan.writer(tmp_path)
    for index, place in enumerate(scan.places):
        writer.place(index, Place(place.y_px * 6, place.x_px * 6, 0.1))
    writer.finish([])
    group: Any = zarr.open_group(str(tmp_path / "mosaic.ome.zarr"), mode="r")
    datasets = group.attrs["ome"]["multiscales"][0]["datasets"]
    assert len(datasets) >= 2
    fine, coarse = (np.asarray(group[d["path"]][:]).astype(float) for d in datasets[:2])
    h, w = fine.shape[1] // 2, fine.shape[2] // 2
    mean = fine[:, : 2 * h, : 2 * w].reshape(3, h, 2, w, 2).mean(axis=(2, 4))
    assert np.abs(mean - coarse[:, :h, :w]).max() <= 1
    first, second = (np.array(d["coordinateTransformations"][1]["translation"]) for d in datasets[:2])
    assert second - first == pytest.approx([0, PIXEL_UM / 2, PIXEL_UM / 2])


@pytest.mark.parametrize("begin", [0, 5, 11])
@pytest.mark.parametrize("links", [True, False])
def test_a_large_mosaic_begins_with_a_shard_and_equals_the_small_one_that_begins_with_a_pixel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: int, links: bool
) -> None:
    scan = Scan(turned(0, False))
    # four times as far apart, so that the mosaic has shards to cut off on every side, and places without any
    scan.places = [Place(4 * place.y_px, 4 * place.x_px, 0.1) for place in scan.places]
    order = [begin, *(n for n in range(len(scan.tiles)) if n != begin)]
    scan.paint(tmp_path / "small", order)
    small, at = read(tmp_path / "small")
    assert (small[0].max(axis=1) > 0).any()
    assert (small[:, 0].max(axis=1) > 0).any()

    monkeypatch.setattr(store_module, "FEW_SHARDS", 0)
    if not links:
        monkeypatch.setattr(Path, "hardlink_to", no_links)
    scan.paint(tmp_path / "large", order)
    large, before = read(tmp_path / "large")
    y, x = np.round(at - before).astype(int)
    assert min(y, x) >= 0
    assert max(y, x) < 512
    assert np.array_equal(large[y:, x:], small)
    assert not large[:y].any()
    assert not large[:, :x].any()
    assert not list(tmp_path.glob("*/*.part"))


def no_links(self: Path, target: Path) -> None:
    raise OSError(95, "Operation not supported")


def test_the_levels_of_a_large_mosaic_are_those_of_its_finest_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "FEW_SHARDS", 0)
    scan = Scan(turned(0, False))
    writer = scan.writer(tmp_path)
    for n, index in enumerate([7, *(n for n in range(len(scan.tiles)) if n != 7)]):
        place = scan.places[index]
        writer.place(n, Place(place.y_px * 60, place.x_px * 60, 0.1))
    summary = writer.finish([])
    group: Any = zarr.open_group(str(tmp_path / "mosaic.ome.zarr"), mode="r")
    levels = [np.moveaxis(np.asarray(group[f"{n}"][:]), 0, 2) for n in range(6)]
    labels = [np.asarray(group[f"labels/source/{n}"][:]) for n in range(6)]
    assert levels[0].shape[:2] == (summary.height_px, summary.width_px)
    for fine, coarse, source, smaller in zip(levels, levels[1:], labels, labels[1:], strict=False):
        assert coarse.shape[:2] == tuple(-(-n // 2) for n in fine.shape[:2])
        padded = np.pad(fine, [(0, n % 2) for n in fine.shape[:2]] + [(0, 0)])
        size = (coarse.shape[1], coarse.shape[0])
        assert np.array_equal(cv2.resize(padded, size, interpolation=cv2.INTER_AREA), coarse)
        assert np.array_equal(source[::2, ::2], smaller)


def test_a_folder_that_cannot_be_written_is_said_in_one_sentence(tmp_path: Path) -> None:
    scan = Scan(turned(0, False))
    writer = scan.writer(tmp_path)
    (tmp_path / "mosaic.ome.zarr").write_text("a file in the way")
    with pytest.raises(OutputError, match="make room or give the folder back"):
        writer.place(0, scan.places[0])


def test_no_tiles_make_no_mosaic(tmp_path: Path) -> None:
    assert Scan(turned(0, False)).writer(tmp_path).finish([]).height_px == 0


@pytest.mark.skipif(os.name == "nt", reason="the system's limit on files is POSIX's")
def test_a_disk_that_takes_no_more_is_an_error_of_the_output(tmp_path: Path) -> None:
    import resource

    store = MosaicStore(
        tmp_path / "mosaic.ome.zarr", name="m", channels=3, dtype=np.dtype(np.uint8), pixel_size_um=0.5,
        chunk_px=128, shard_px=512, sources=["raw", "fast"],
    )  # fmt: skip
    store.create(np.zeros(2))
    shard = MIDDLE // 512, MIDDLE // 512
    pixels = np.random.default_rng(1).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # files may grow no more, which the system says as it says that the disk is full
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OutputError, match="make room or give the folder back"):
            store.write_finer(shard, pixels, np.ones((512, 512), np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    store.merge(shard, store.write_finer(shard, pixels, np.ones((512, 512), np.uint8)))
