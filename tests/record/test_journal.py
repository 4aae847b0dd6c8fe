"""The journal: what goes in comes out, from any thread, and a broken file is named."""

from __future__ import annotations

import math
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deblurd.errors import DataError, OutputError
from deblurd.frames import DeblurredTile, MotionVector, Place, Pose, Tile
from deblurd.record.journal import Journal

finite = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def a_tile(draw: st.DrawFn) -> Tile:
    pose = Pose(draw(finite), draw(finite), draw(finite), draw(st.none() | finite), draw(st.floats(0, 1e6)))
    sigma = draw(st.floats(0, 1e6) | st.just(math.inf))
    motion = MotionVector(draw(finite), draw(finite), draw(finite), draw(finite), sigma)
    return Tile(
        0, draw(st.integers(0, 9)), draw(st.integers(0, 2**40)), pose, motion, draw(finite), (8, 8), "now"
    )


def tile(index: int, shape: tuple[int, ...] = (8, 9, 3)) -> Tile:
    return Tile(index, 1, 10 * index, Pose(0.5, 1.0, 2.0), MotionVector(3.0, 4.0), 5.0, shape, "2026-01-01")


@settings(max_examples=20, deadline=None)
@given(st.lists(a_tile(), min_size=1, max_size=5))
def test_tiles_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, given: list[Tile]) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.sqlite"
    tiles = [one.with_index(n) for n, one in enumerate(given)]
    journal = Journal(path)
    journal.add(tiles, [7] * len(tiles))
    journal.close()
    again = Journal(path)
    assert again.tiles() == tiles
    assert again.crcs() == dict.fromkeys(range(len(tiles)), 7)
    assert (again.count(), again.next_index()) == (len(tiles), len(tiles))
    again.close()


def test_motion_that_is_not_known_comes_back_unknown(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    unknown = MotionVector(math.nan, math.nan, sigma_px=math.inf)
    journal.add([Tile(0, 0, 0, Pose(0, 0, 0), unknown, 1.0, (4, 4), "now")], [0])
    [back] = journal.tiles()
    assert not back.motion.is_known
    assert math.isnan(back.motion.dy)
    assert math.isinf(back.motion.sigma_px)


def test_places_and_results_are_added_to_the_rows(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    journal.add([tile(0), tile(1)], [1, 2])
    assert journal.places() == {}
    journal.set_places({1: Place(10.5, -20.25, 0.1)})
    result = DeblurredTile(0, np.zeros((8, 9, 3), np.uint8), 2, "deblur", 1.1, 0.8)
    journal.set_deblurred([result], "fast 1.0")
    assert journal.places() == {1: Place(10.5, -20.25, 0.1)}
    first, second = journal.rows()
    assert (first["gate"], first["source"], first["model"]) == ("deblur", 2, "fast 1.0")
    assert (first["residual"], first["sharpness"], first["place_y_px"]) == (1.1, 0.8, None)
    assert (second["gate"], second["place_x_px"], second["crc32"]) == (None, -20.25, 2)


def test_add_is_all_or_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    journal.add([tile(0)], [1])
    with pytest.raises(DataError, match="UNIQUE"):
        journal.add([tile(1), tile(0)], [1, 1])
    assert journal.count() == 1
    journal.add([], [])
    journal.add([tile(1)], [1])
    assert [t.index for t in journal.tiles()] == [0, 1]


def test_slide_keys_and_events(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    journal.set_slide("camera", "{}")
    journal.set_slide("camera", '{"name": "demo"}')
    assert journal.slide("camera") == '{"name": "demo"}'
    assert journal.slide("affine", "none") == "none"
    with pytest.raises(DataError, match="does not say the slide's affine"):
        journal.slide("affine")
    journal.event("begin", "first tile")
    journal.event("end", "stopped")
    assert [(kind, text) for _, _, kind, text in journal.events()] == [
        ("begin", "first tile"),
        ("end", "stopped"),
    ]


def test_any_thread_may_use_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")

    def work(n: int) -> None:
        journal.add([tile(n)], [n])
        journal.set_places({n: Place(n, n, 0.0)})
        assert journal.count() > 0

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(40)))
    assert journal.crcs() == {n: n for n in range(40)}
    assert len(journal.places()) == 40


def filled(path: Path) -> Path:
    journal = Journal(path)
    journal.add([tile(n) for n in range(500)], list(range(500)))
    journal.close()
    return path


def test_a_journal_cut_short_is_named_and_left_alone(tmp_path: Path) -> None:
    path = filled(tmp_path / "journal.sqlite")
    for size in (path.stat().st_size - 100, path.stat().st_size - 5000, 10_000, 100, 0):
        os.truncate(path, size)
        with pytest.raises(DataError, match=r"journal\.sqlite"):
            Journal(path)
        assert path.stat().st_size == size


def test_a_file_that_is_no_journal_is_named(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_text("dear diary, " * 1000)
    with pytest.raises(DataError, match="not a whole journal"):
        Journal(path)


def test_a_journal_of_another_schema_is_refused(tmp_path: Path) -> None:
    path = filled(tmp_path / "journal.sqlite")
    connection = sqlite3.connect(path)
    connection.execute("UPDATE slide SET value = '99' WHERE key = 'schema'")
    connection.commit()
    connection.close()
    with pytest.raises(DataError, match="schema 99"):
        Journal(path)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="give the folder back"):
        Journal(tmp_path / "nowhere" / "journal.sqlite")


def test_a_reader_opened_while_it_grows(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    journal.add([tile(0)], [0])
    connection = sqlite3.connect(f"file:{tmp_path / 'journal.sqlite'}?mode=ro", uri=True)
    assert connection.execute("SELECT count(*) FROM tiles").fetchone() == (1,)
    journal.add([tile(1)], [0])
    assert connection.execute("SELECT count(*) FROM tiles").fetchone() == (2,)
    connection.close()


def test_a_reader_writes_nothing_even_beside_a_journal_at_work(tmp_path: Path) -> None:
    path = filled(tmp_path / "journal.sqlite")
    before = path.read_bytes()
    reader = Journal(path, read_only=True)
    assert reader.count() == len(reader.tiles()) > 0
    with pytest.raises(OutputError, match="readonly"):
        reader.event("test", "is not to be written")
    reader.close()
    assert path.read_bytes() == before
    writer = Journal(path)
    reader = Journal(path, read_only=True)
    count = reader.count()
    writer.add([tile(writer.next_index())], [0])
    assert reader.count() == count + 1
    reader.close()
    writer.close()
    assert [p.name for p in tmp_path.iterdir()] == ["journal.sqlite"]
    with pytest.raises(OutputError, match="cannot open"):
        Journal(tmp_path / "nowhere.sqlite", read_only=True)
    assert not (tmp_path / "nowhere.sqlite").exists()


def test_results_are_forgotten_and_tiles_are_not(tmp_path: Path) -> None:
    journal = Journal(filled(tmp_path / "journal.sqlite"))
    tiles, crcs = journal.tiles(), journal.crcs()
    journal.set_places({0: Place(1.0, 2.0, 0.1)})
    journal.set_slide("gain", "[[1.0]]")
    journal.set_slide("camera", "{}")
    journal.forget_results()
    assert (journal.tiles(), journal.crcs()) == (tiles, crcs)
    assert journal.places() == {}
    assert (journal.slide("gain", ""), journal.slide("camera")) == ("", "{}")
    assert {row["gate"] for row in journal.rows()} == {None}
    journal.close()


def test_a_journal_killed_before_its_schema_is_not_held_by_who_looked_at_it(tmp_path: Path) -> None:
    path, seen = tmp_path / "journal.sqlite", tmp_path / "killed" / "journal.sqlite"
    writer = sqlite3.connect(path)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("CREATE TABLE slide (key TEXT PRIMARY KEY, value TEXT)")
    writer.commit()
    seen.parent.mkdir()
    for part in list(tmp_path.glob("journal.sqlite*")):
        seen.with_name(part.name).write_bytes(part.read_bytes())
    writer.close()
    with pytest.raises(DataError, match="not the journal of a whole slide") as caught:
        Journal(seen, read_only=True)
    journal = Journal(seen)
    assert journal.count() == 0
    journal.close()
    assert [each.name for each in seen.parent.iterdir()] == ["journal.sqlite"]
    assert caught is not None
