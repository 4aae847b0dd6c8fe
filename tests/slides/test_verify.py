"""Harm that was done to a finished slide is found."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from deblurd.cli import main
from deblurd.errors import DataError
from deblurd.slides.folder import SlideFolder
from deblurd.slides.verify import verify


def shards(array: Path) -> list[Path]:
    return sorted(path for path in (array / "c").rglob("*") if path.is_file())


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    # behind the index of chunks, in their middle
    for n in range(len(data) // 3, len(data) // 3 + 200):
        data[n] ^= 0xFF
    path.write_bytes(bytes(data))


def cut_table(slide: SlideFolder) -> None:
    table = slide.mosaic / "tables" / "tiles" / "table.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))


def gap(slide: SlideFolder) -> None:
    with closing(sqlite3.connect(slide.journal)) as connection, connection:
        connection.execute("DELETE FROM tiles WHERE tile = 1")


HARM: dict[str, tuple[Callable[[SlideFolder], object], str]] = {
    "a raw tile altered": (lambda s: flip(s.raw / "c.1.0.0.0"), "tile 1 are not what was recorded; the tile is in the mosaic"),
    "a shard torn": (lambda s: tear(shards(s.mosaic / "0")[0]), "the mosaic is damaged at level 0"),
    "a chunk altered": (lambda s: flip(shards(s.mosaic / "0")[0]), "the mosaic is damaged at level 0"),
    "provenance torn": (lambda s: tear(shards(s.mosaic / "labels/source/0")[0]), "the mosaic is damaged at level 0"),
    "provenance lost": (lambda s: shutil.rmtree(s.mosaic / "labels/source/0/c"), "nothing where tile 0 lies"),
    "a tile missing from the table": (cut_table, "tiles in its table"),
    "no table": (lambda s: shutil.rmtree(s.mosaic / "tables"), "table of tiles cannot be read"),
    "no mosaic": (lambda s: shutil.rmtree(s.mosaic), "has no mosaic yet"),
    "half of a mosaic": (lambda s: shutil.rmtree(s.mosaic / "0"), "is not a whole mosaic"),
    "a tile missing from the journal": (gap, "the journal has gaps"),
    "not ended": (lambda s: s.write_manifest({"state": "growing"}), "the slide is growing"),
}  # fmt: skip


def test_a_whole_slide_is_whole_and_stays_untouched(
    slide: SlideFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in slide.path.rglob("*") if path.is_file()}
    assert main(["slides", "verify", str(slide.path)]) == 0
    assert "whole (" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in slide.path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("harm", HARM)
def test_harm_is_named(slide: SlideFolder, harm: str, capsys: pytest.CaptureFixture[str]) -> None:
    do, sentence = HARM[harm]
    do(slide)
    assert main(["slides", "verify", str(slide.path)]) == 65
    assert sentence in capsys.readouterr().out


def test_a_journal_cut_short_says_so(slide: SlideFolder) -> None:
    tear(slide.journal)
    with pytest.raises(DataError, match="restore it from a backup"):
        verify(slide)
