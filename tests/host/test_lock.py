"""Two daemons never write into one output folder, and a dead one leaves it free."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from deblurd.errors import LockedError, OutputError
from deblurd.host.lock import HOLDER_NAME, is_held, output_lock

HOLD = """
import sys
from pathlib import Path
from deblurd.host.lock import output_lock
lock = output_lock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_the_second_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    with (
        output_lock(tmp_path),
        pytest.raises(LockedError, match=rf"process {os.getpid()}, started 20") as err,
    ):
        output_lock(tmp_path).acquire()
    assert err.value.exit_code == 75
    assert str(tmp_path) in str(err.value)


def test_it_is_free_again_after_release_and_release_is_harmless_twice(tmp_path: Path) -> None:
    lock = output_lock(tmp_path)
    lock.acquire()
    lock.release()
    lock.release()
    assert not (tmp_path / HOLDER_NAME).exists()
    with output_lock(tmp_path):
        pass


def test_whether_it_is_held_can_be_asked_without_taking_it(tmp_path: Path) -> None:
    assert not is_held(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with output_lock(tmp_path):
        assert is_held(tmp_path)
    assert not is_held(tmp_path)


def test_another_thread_may_release_what_this_one_took(tmp_path: Path) -> None:
    lock = output_lock(tmp_path)
    lock.acquire()
    thread = threading.Thread(target=lock.release)
    thread.start()
    thread.join()
    with output_lock(tmp_path):
        pass


def test_a_killed_process_leaves_the_folder_free(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match=f"process {other.pid},"):
            output_lock(tmp_path).acquire()
        other.kill()
        other.wait(30)
        with output_lock(tmp_path):
            assert f"process {os.getpid()}," in (tmp_path / HOLDER_NAME).read_text()


def test_a_holder_that_left_no_word_is_still_a_holder(tmp_path: Path) -> None:
    with output_lock(tmp_path):
        (tmp_path / HOLDER_NAME).unlink()
        with pytest.raises(LockedError, match="process unknown"):
            output_lock(tmp_path).acquire()


def test_the_folder_is_created(tmp_path: Path) -> None:
    with output_lock(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write into the output folder") as err:
        output_lock(tmp_path / "file").acquire()
    assert err.value.exit_code == 73


def test_a_folder_in_place_of_the_holders_note_gives_the_lock_back(tmp_path: Path) -> None:
    (tmp_path / HOLDER_NAME).mkdir()
    with pytest.raises(OutputError, match="choose a folder"):
        output_lock(tmp_path).acquire()
    (tmp_path / HOLDER_NAME).rmdir()
    with output_lock(tmp_path):
        pass
