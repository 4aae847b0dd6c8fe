"""What the recorder acknowledged is there: after kill -9, a full disk, a folder that went and came back."""

from __future__ import annotations

import errno
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from deblurd.errors import DataError, OutputError
from deblurd.frames import Frame, MotionVector, Pixels, Pose, Tile
from deblurd.record import raw as raw_module
from deblurd.record.journal import Journal
from deblurd.record.raw import RawStore
from deblurd.record.recorder import Recorder, damaged_tiles

SHAPE = (24, 32, 3)


def pixels(number: int) -> Pixels:
    return np.random.default_rng(number).integers(0, 256, SHAPE, dtype=np.uint8)


def item(number: int) -> tuple[Frame, Tile]:
    pose = Pose(0.1 * number, 10.0 * number, -5.0, None, 0.05)
    tile = Tile(-1, 0, number, pose, MotionVector(1.0, 2.0), 5.0, SHAPE, "2026-01-01T00:00:00.000Z")
    return Frame(pixels(number), number, 0.1 * number, 5.0), tile


def test_recorded_tiles_are_acknowledged_in_order(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, SHAPE, "uint8")
    first = recorder.record([item(0), item(1)])
    second = recorder.record([item(7)])
    assert [tile.index for tile in first + second] == [0, 1, 2]
    assert recorder.journal.tiles() == first + second
    np.testing.assert_array_equal(recorder.raw.read(2), pixels(7))
    assert recorder.record([]) == []
    assert damaged_tiles(recorder.raw, recorder.journal) == []
    recorder.close()
    assert RawStore.open(tmp_path / "raw.zarr").capacity == 3


def test_an_existing_slide_goes_on(tmp_path: Path) -> None:
    first = Recorder(tmp_path, SHAPE, "uint8")
    first.record([item(0), item(1)])
    first.close()
    again = Recorder(tmp_path, SHAPE, "uint8")
    assert [tile.index for tile in again.record([item(2)])] == [2]
    assert again.journal.count() == 3
    again.close()
    with pytest.raises(DataError, match="does not fit"):
        Recorder(tmp_path, (24, 33, 3), "uint8")


def test_a_row_that_nobody_refers_to_is_taken_by_the_next_tile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(tmp_path, SHAPE, "uint8")
    with monkeypatch.context() as patch:
        patch.setattr(recorder.journal, "add", _no_space)
        with pytest.raises(OutputError):
            recorder.record([item(0), item(1)])
    assert recorder.journal.count() == 0
    [tile] = recorder.record([item(5)])
    assert tile.index == 0
    np.testing.assert_array_equal(recorder.raw.read(0), pixels(5))
    recorder.close()
    with pytest.raises(DataError, match="missing"):
        recorder.raw.read(1)


def test_verify_names_what_is_no_longer_as_it_was(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, SHAPE, "uint8")
    recorder.record([item(n) for n in range(5)])
    recorder.raw.write(1, pixels(99))
    (tmp_path / "raw.zarr" / "c.3.0.0.0").unlink()
    assert damaged_tiles(recorder.raw, recorder.journal) == [1, 3]


@pytest.mark.parametrize("call", ["fsync_file", "fsync_dir"])
def test_disk_that_fails_to_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    recorder = Recorder(tmp_path, SHAPE, "uint8")
    recorder.record([item(0)])
    with monkeypatch.context() as patch:
        patch.setattr(raw_module, call, _no_space)
        with pytest.raises(OutputError, match="make room"):
            recorder.record([item(1)])
    assert recorder.journal.count() == 1
    assert [tile.index for tile in recorder.record([item(1)])] == [1]


def _no_space(*_: object) -> None:
    raise OutputError(errno.ENOSPC, "no space left on device")


def test_folder_taken_away_and_given_back(tmp_path: Path) -> None:
    slide = tmp_path / "slide"
    slide.mkdir()
    recorder = Recorder(slide, SHAPE, "uint8")
    recorder.record([item(0)])
    shutil.move(slide, tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="give the folder back"):
        recorder.record([item(1)])
    with pytest.raises(OutputError, match="cannot trim"):
        recorder.close()
    shutil.move(tmp_path / "elsewhere", slide)
    assert [tile.index for tile in recorder.record([item(1)])] == [1]
    assert damaged_tiles(recorder.raw, recorder.journal) == []


def test_only_the_journal_taken_away(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, SHAPE, "uint8")
    recorder.record([item(0)])
    recorder.journal.close()
    shutil.move(tmp_path / "journal.sqlite", tmp_path / "elsewhere.sqlite")
    for _ in range(2):
        with pytest.raises(OutputError, match="give the folder back"):
            recorder.record([item(1)])
    assert not (tmp_path / "journal.sqlite").exists()
    shutil.move(tmp_path / "elsewhere.sqlite", tmp_path / "journal.sqlite")
    recorder.record([item(1)])
    assert recorder.journal.count() == 2


def test_bad_frames_are_refused_and_nothing_is_acknowledged(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, SHAPE, "uint8")
    good, (frame, tile) = item(0), item(1)
    cropped = Frame(np.ascontiguousarray(frame.pixels[:-1]), 1, 0.1, 5.0)
    with pytest.raises(DataError, match="does not fit"):
        recorder.record([good, (cropped, tile)])
    lost = Tile(-1, 0, 1, Pose(0.0, float("nan"), 0.0), tile.motion, 5.0, SHAPE, tile.utc)
    with pytest.raises(DataError, match="no finite position"):
        recorder.record([good, (frame, lost)])
    assert recorder.journal.count() == 0


@pytest.mark.skipif(sys.platform == "win32", reason="a folder's mode does not bind there")
def test_folder_that_may_not_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot create"):
        Recorder(Path("/proc/deblurd"), SHAPE, "uint8")


LIMITED = """
import resource, signal, sys
from pathlib import Path
from deblurd.errors import OutputError
from deblurd.record.recorder import Recorder, damaged_tiles
sys.path.insert(0, {here!r})
from test_recorder import SHAPE, item
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
recorder = Recorder(Path({folder!r}), SHAPE, "uint8")
recorder.record([item(0)])
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    recorder.record([item(1), item(2)])
except OutputError as err:
    assert "make room" in str(err), err
else:
    raise SystemExit("not refused")
resource.setrlimit(resource.RLIMIT_FSIZE, ({journal_limit}, resource.RLIM_INFINITY))
try:
    for number in range(1, 400):
        recorder.record([item(number)])
except OutputError as err:
    assert "the journal" in str(err), err
else:
    raise SystemExit("the journal was not refused")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(number, [tile.index for tile in recorder.record([item(number)])][0], damaged_tiles(recorder.raw, recorder.journal))
recorder.close()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of file size there")
def test_files_that_cannot_grow_are_refused_then_retried(tmp_path: Path) -> None:
    """The real write calls fail, first those of the pixels, then those of the journal's log."""
    script = LIMITED.format(here=str(Path(__file__).parent), folder=str(tmp_path), journal_limit=60_000)
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    number, index, *damaged = done.stdout.split()
    assert number == index
    assert damaged == ["[]"]
    with sqlite3.connect(tmp_path / "journal.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM tiles").fetchone() == (int(number) + 1,)
    connection.close()


CHILD = """
import sys
from pathlib import Path
from deblurd.record.recorder import Recorder, damaged_tiles
sys.path.insert(0, {here!r})
from test_recorder import SHAPE, item
recorder = Recorder(Path({folder!r}), SHAPE, "uint8")
number = 0
while True:
    group = [item(number + n) for n in range(1 + number % 4)]
    for tile in recorder.record(group):
        print(tile.index, tile.number, flush=True)
    number += len(group)
"""


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_a_random_moment(tmp_path: Path, seed: int) -> None:
    """Each kill hits another moment of writing; every tile that was printed is there, and the slide goes on."""
    script = CHILD.format(here=str(Path(__file__).parent), folder=str(tmp_path))
    random_s = random.Random(seed)
    acknowledged: dict[int, int] = {}
    for _ in range(2):
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            first = child.stdout.readline()
            timer = threading.Timer(random_s.uniform(0.0, 0.15), child.kill)
            timer.start()
            lines = [first, *child.stdout]
            timer.join()
        acknowledged |= {int(a): int(b) for a, b in (line.split() for line in lines if line.endswith("\n"))}
        recorder = Recorder(tmp_path, SHAPE, "uint8")
        assert damaged_tiles(recorder.raw, recorder.journal) == []
        numbers = {tile.index: tile.number for tile in recorder.journal.tiles()}
        assert list(numbers) == list(range(len(numbers)))
        assert acknowledged.items() <= numbers.items()
        for index, number in numbers.items():
            np.testing.assert_array_equal(recorder.raw.read(index), pixels(number))
        recorder.close()
        assert not list((tmp_path / "raw.zarr").glob("*.part"))
    assert acknowledged


def test_readers_see_acknowledged_tiles_while_recording_goes_on(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, SHAPE, "uint8")
    recorder.record([item(0), item(1)])
    reader, store = Journal(tmp_path / "journal.sqlite"), RawStore.open(tmp_path / "raw.zarr")
    recorder.record([item(2)])
    assert reader.count() == 3
    np.testing.assert_array_equal(store.read(2), pixels(2))
    reader.close()
