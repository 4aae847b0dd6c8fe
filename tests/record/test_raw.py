"""The store of raw tiles, on a real disk, read by zarr-python too."""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from deblurd.errors import DataError, NoInputError, OutputError
from deblurd.frames import Pixels
from deblurd.record.raw import GROWTH, RawStore


def picture(shape: tuple[int, ...], dtype: str, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    color=st.booleans(),
    dtype=st.sampled_from(["uint8", "uint16"]),
    index=st.integers(0, 3 * GROWTH),
)
def test_what_is_written_comes_back_here_and_in_zarr_python(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, color: bool, dtype: str, index: int
) -> None:
    path = tmp_path_factory.mktemp("raw") / "raw.zarr"
    tile = picture((height, width, 3) if color else (height, width), dtype, index)
    store = RawStore.create(path, tile.shape, dtype)
    store.write(index, tile)
    store.sync([index])
    for reader in (store, RawStore.open(path)):
        np.testing.assert_array_equal(reader.read(index), tile)
        assert reader.read(index).dtype == tile.dtype
    array = zarr.open_array(str(path), mode="r")
    assert isinstance(array, zarr.Array)
    np.testing.assert_array_equal(np.asarray(array[index]).reshape(tile.shape), tile)
    assert store.capacity % GROWTH == 0


def test_trim_leaves_the_rows_that_count_and_no_stray_files(tmp_path: Path) -> None:
    store = RawStore.create(tmp_path / "raw.zarr", (8, 9), "uint16")
    for index in range(5):
        store.write(index, picture((8, 9), "uint16", index))
    (store.path / "c.9.0.0.0.part").write_bytes(b"half a ti")
    (store.path / "zarr.0123.partial").write_bytes(b"{")
    store.trim(3)
    assert sorted(p.name for p in store.path.iterdir()) == [*(f"c.{i}.0.0.0" for i in range(3)), "zarr.json"]
    assert zarr.open_array(str(store.path), mode="r").shape == (3, 8, 9, 1)
    store.write(3, picture((8, 9), "uint16"))
    assert store.capacity == GROWTH


def test_threads_may_write_and_read_different_rows(tmp_path: Path) -> None:
    store = RawStore.create(tmp_path / "raw.zarr", (16, 16, 3), "uint8")

    def there_and_back(index: int) -> bool:
        tile = picture((16, 16, 3), "uint8", index)
        store.write(index, tile)
        return bool(np.array_equal(store.read(index), tile))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(there_and_back, range(0, 4 * GROWTH, 37)))


def test_a_row_that_is_missing_or_cut_short_is_named(tmp_path: Path) -> None:
    store = RawStore.create(tmp_path / "raw.zarr", (8, 8), "uint8")
    store.write(0, picture((8, 8), "uint8"))
    os.truncate(store.path / "c.0.0.0.0", 63)
    with pytest.raises(DataError, match=r"tile 0 is cut short .*63 of 64 bytes"):
        store.read(0)
    with pytest.raises(DataError, match="tile 1 is missing"):
        store.read(1)
    with pytest.raises(OutputError, match="cannot bring tiles to the disk"):
        store.sync([1])


@pytest.mark.parametrize("wrong", [picture((8, 9), "uint8"), picture((8, 8), "uint16")])
def test_another_shape_or_dtype_is_refused(tmp_path: Path, wrong: Pixels) -> None:
    store = RawStore.create(tmp_path / "raw.zarr", (8, 8), "uint8")
    with pytest.raises(DataError, match="does not fit"):
        store.write(0, wrong)


def test_an_existing_array_is_never_overwritten(tmp_path: Path) -> None:
    RawStore.create(tmp_path / "raw.zarr", (8, 8), "uint8").write(0, picture((8, 8), "uint8"))
    with pytest.raises(OutputError, match="cannot create"):
        RawStore.create(tmp_path / "raw.zarr", (8, 8), "uint8")
    assert RawStore.open(tmp_path / "raw.zarr").read(0).shape == (8, 8)


def test_create_where_a_file_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "slide").write_text("not a folder")
    with pytest.raises(OutputError, match="cannot create"):
        RawStore.create(tmp_path / "slide" / "raw.zarr", (8, 8), "uint8")


def test_open_says_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "raw.zarr"
    with pytest.raises(NoInputError, match="holds no tiles"):
        RawStore.open(path)
    RawStore.create(path, (8, 8), "uint8")
    metadata = (path / "zarr.json").read_text()
    (path / "zarr.json").write_text(metadata[: len(metadata) // 2])
    with pytest.raises(DataError, match="broken"):
        RawStore.open(path)
    other = json.loads(metadata)
    del other["attributes"]["mono"]
    (path / "zarr.json").write_text(json.dumps(other))
    with pytest.raises(DataError, match="broken"):
        RawStore.open(path)
    other = json.loads(metadata)
    other["chunk_grid"]["configuration"]["chunk_shape"] = [1, 4, 8, 1]
    (path / "zarr.json").write_text(json.dumps(other))
    with pytest.raises(DataError, match="another kind"):
        RawStore.open(path)


def test_folder_taken_away_and_given_back(tmp_path: Path) -> None:
    store = RawStore.create(tmp_path / "raw.zarr", (8, 8), "uint8")
    tile = picture((8, 8), "uint8")
    shutil.move(store.path, tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="give the folder back"):
        store.write(0, tile)
    with pytest.raises(OutputError, match="cannot trim"):
        store.trim(0)
    shutil.move(tmp_path / "elsewhere", store.path)
    store.write(0, tile)
    np.testing.assert_array_equal(store.read(0), tile)
