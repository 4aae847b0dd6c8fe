"""The disk guard speaks before the disk is full."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deblurd.errors import OutputError
from deblurd.host.disk import DiskGuard, free_bytes


def test_free_bytes_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    free = free_bytes(tmp_path / "a" / "b")
    assert free == pytest.approx(shutil.disk_usage(tmp_path).free, abs=1 << 30)


def test_a_relative_path_is_measured_where_this_process_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert free_bytes(Path("not-there")) > 0


def test_the_guard_is_quiet_above_its_floor(tmp_path: Path) -> None:
    assert DiskGuard(tmp_path, floor_mb=0).check() > 0


def test_the_guard_says_how_little_is_left_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"only \d+ MB are free for .*delete or move old slides") as err:
        DiskGuard(tmp_path, floor_mb=10**9).check()
    assert err.value.exit_code == 73


def test_a_disk_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: Any) -> Any:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(shutil, "disk_usage", gone)
    with pytest.raises(OutputError, match="does not answer"):
        DiskGuard(tmp_path).check()


def test_after_it_was_full_there_must_be_a_little_more_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_mb = 1000

    def usage(_: Any) -> Any:
        return SimpleNamespace(free=free_mb * 1_000_000)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    guard = DiskGuard(tmp_path, floor_mb=500)
    assert guard.trouble is None
    free_mb = 499
    assert "only 499 MB are free" in str(guard.trouble)
    free_mb = 520
    assert "520 MB are free again" in str(guard.trouble)
    free_mb = 560
    assert guard.trouble is None
    free_mb = 520
    assert guard.trouble is None
