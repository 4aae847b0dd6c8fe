"""Others open the mosaic, find it valid, and see the same pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from deblurd.frames import DeblurredTile, Place
from deblurd.geometry import PixelToStage
from deblurd.mosaic.writer import MosaicWriter


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slide") / "mosaic.ome.zarr"
    rng = np.random.default_rng(1)
    tiles = [rng.integers(1, 255, (512, 512, 3), dtype=np.uint8) for _ in range(12)]
    writer = MosaicWriter(
        path,
        name="S-1",
        affine=PixelToStage.from_scale(0.5),
        tile_shape=(512, 512, 3),
        dtype=np.dtype("uint8"),
        encoding="srgb",
        sources=["raw", "fast"],
        fetch=lambda i: DeblurredTile(i, tiles[i], 2, "deblur", 1.0),
    )
    rows = []
    for i in range(12):
        y, x = 256.0 + 400 * (i // 4), 256.0 + 400 * (i % 4)
        writer.place(i, Place(y, x, 0.1))
        rows.append({"tile": i, "place_y_px": y, "place_x_px": x, "gate": "deblur", "residual": 0.9})
    writer.finish(rows)
    return path


@pytest.fixture(scope="module")
def pixels(mosaic: Path) -> NDArray[Any]:
    level: Any = zarr.open_array(str(mosaic / "0"), mode="r")
    image = np.asarray(level[:])
    assert image.shape[0] == 3
    assert image.any()
    return image


def test_yaozarrs_finds_it_valid(mosaic: Path) -> None:
    yaozarrs = pytest.importorskip("yaozarrs")
    yaozarrs.validate_zarr_store(str(mosaic))


def test_ome_zarr_models_finds_it_valid(mosaic: Path) -> None:
    models = pytest.importorskip("ome_zarr_models.v05.image")
    image = models.Image.from_zarr(zarr.open_group(str(mosaic), mode="r"))
    assert image.ome_attributes.multiscales[0].name == "S-1"


def test_tensorstore_sees_the_same_pixels(mosaic: Path, pixels: NDArray[Any]) -> None:
    tensorstore = pytest.importorskip("tensorstore")
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(mosaic / "0")}}
    assert np.array_equal(tensorstore.open(spec).result().read().result(), pixels)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_bioio_sees_the_same_pixels(mosaic: Path, pixels: NDArray[Any]) -> None:
    bioio_ome_zarr = pytest.importorskip("bioio_ome_zarr")
    reader = bioio_ome_zarr.Reader(str(mosaic))
    assert np.array_equal(np.asarray(reader.get_image_data("CYX")), pixels)
    assert reader.physical_pixel_sizes.X == 0.5


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_ome_zarr_py_sees_the_same_pixels(mosaic: Path, pixels: NDArray[Any]) -> None:
    io, reader = pytest.importorskip("ome_zarr.io"), pytest.importorskip("ome_zarr.reader")
    location = io.parse_url(str(mosaic))
    nodes = list(reader.Reader(location)())
    assert np.array_equal(np.asarray(nodes[0].data[0]), pixels)
    assert any("source" in str(node.zarr) for node in nodes)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_napari_ome_zarr_sees_the_same_pixels(mosaic: Path, pixels: NDArray[Any]) -> None:
    napari_ome_zarr = pytest.importorskip("napari_ome_zarr")
    layers = napari_ome_zarr.napari_get_reader(str(mosaic))(str(mosaic))
    images = [layer for layer in layers if len(layer) < 3 or layer[2] == "image"]
    assert np.array_equal(np.asarray(images[0][0][0]), pixels)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_the_table_of_tiles_opens_as_fractals_roi_table(mosaic: Path) -> None:
    ngio = pytest.importorskip("ngio")
    tables = ngio.open_ome_zarr_container(str(mosaic)).list_tables()
    assert "tiles" in tables
    roi = ngio.open_ome_zarr_container(str(mosaic)).get_table("tiles")
    assert len(roi.rois()) == 12


def test_a_thumbnail_lies_beside_it(mosaic: Path) -> None:
    assert (mosaic.parent / "thumbnail.png").read_bytes().startswith(b"\x89PNG")
