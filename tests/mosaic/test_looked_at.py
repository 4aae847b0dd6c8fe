"""Somebody looks at a mosaic while it is trimmed: he sees what was there or nothing, and no error. Or takes its folder away: nothing is put in its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deblurd.errors import OutputError
from deblurd.mosaic import writer as writer_module
from deblurd.mosaic.canvas import MIDDLE
from deblurd.mosaic.reader import MosaicReader
from deblurd.mosaic.store import LEVELS, MosaicStore
from deblurd.mosaic.writer import MosaicWriter
from deblurd.page.mosaics import StoredMosaics, live_tile
from tests.mosaic.test_mosaic import Scan, turned

TILE_PX = 256
STEPS = ("_levels", "_labels")


class LookedAt(MosaicStore):
    """Before each step of being replaced by its trimmed self, somebody asks for parts near and far, at every level."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in STEPS and getattr(self, "_labels", None):
            looks.append(look(self))
        super().__setattr__(name, value)


looks: list[int] = []


def look(store: MosaicStore) -> int:
    """How many parts were seen; each has pixels and provenance of the same size, or makes a picture of nothing."""
    seen = 0
    for level in range(LEVELS):
        middle = (MIDDLE >> level) // TILE_PX
        for row, column in ((middle - 1, middle), (middle, middle), (0, 0)):
            found = store.peek(level, row * TILE_PX, column * TILE_PX, TILE_PX)
            if found is not None:
                seen += 1
                assert found[0].shape == (TILE_PX, TILE_PX, 3)
                assert found[1].shape == (TILE_PX, TILE_PX)
            assert live_tile(store, 255, level, row, column) is not None
    return seen


def test_parts_that_are_asked_for_while_it_is_trimmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks.clear()
    monkeypatch.setattr(writer_module, "MosaicStore", LookedAt)
    scan = Scan(turned(0.0, False))
    scan.paint(tmp_path)
    assert len(looks) >= len(STEPS)
    assert looks[0] > 0


def test_a_mosaic_that_is_opened_while_another_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = Scan(turned(0.0, False))
    scan.paint(tmp_path / "final")
    growing = scan.writer(tmp_path / "growing")
    growing.place(0, scan.places[0])
    growing.render_due(np.inf)
    path = tmp_path / "growing" / "mosaic.ome.zarr"
    read_text, said = Path.read_text, list[str]()

    def read_and_replace(file: Path, *args: Any, **options: Any) -> str:
        """The first word is of the mosaic that grows; when its levels are opened, they are gone."""
        text = read_text(file, *args, **options)
        if file == path / "zarr.json" and not said:
            said.append(text)
            path.rename(tmp_path / "before")
            (tmp_path / "final" / "mosaic.ome.zarr").rename(path)
        return text

    monkeypatch.setattr(Path, "read_text", read_and_replace)
    described = StoredMosaics().describe(path, None)
    assert said
    assert described is not None
    assert described.levels == len(MosaicReader(path).shapes) < LEVELS


def go_on(writer: MosaicWriter, scan: Scan, when: str) -> None:
    if when == "before the first tile":
        writer.place(0, scan.places[0])
    elif when == "while it grows":
        writer.render_due(np.inf)
    else:
        writer.finish([])


@pytest.mark.parametrize("when", ["before the first tile", "while it grows", "before the end"])
def test_where_the_folder_was_taken_away_there_is_no_new_one(tmp_path: Path, when: str) -> None:
    scan, folder = Scan(turned(0.0, False)), tmp_path / "slide"
    writer = scan.writer(folder)
    if when != "before the first tile":
        for index, place in enumerate(scan.places):
            writer.place(index, place)
    if when == "before the end":
        while writer.render_due(np.inf):
            pass
        writer.store.flush()
    folder.rename(tmp_path / "aside")
    with pytest.raises(OutputError, match="give the folder back"):
        go_on(writer, scan, when)
    assert not folder.exists()
    (tmp_path / "aside").rename(folder)
    if when != "before the first tile":
        writer.finish([])
        assert scan.compare(folder) > 30
