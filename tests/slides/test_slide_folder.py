"""The slide's folder: never one that exists, a manifest that is whole or not there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from deblurd.errors import DataError, NoInputError, OutputError
from deblurd.slides.folder import SlideFolder


def test_two_slides_of_one_second_get_two_folders(tmp_path: Path) -> None:
    folders = {SlideFolder.create(tmp_path, "S-1").path for _ in range(4)}
    assert len(folders) == 4
    assert all(path.parent == tmp_path / "S-1" for path in folders)


def test_the_manifest_comes_back_as_written_and_leaves_no_part(tmp_path: Path) -> None:
    folder = SlideFolder.create(tmp_path, "S-1")
    folder.write_manifest({"tiles": 3, "state": "done"})
    folder.write_manifest({"tiles": 4, "state": "done"})
    assert folder.read_manifest()["tiles"] == 4
    assert [p.name for p in folder.path.iterdir()] == ["slide.json"]


@pytest.mark.parametrize(("text", "error"), [(None, NoInputError), ("{", DataError), ("[1]", DataError)])
def test_a_missing_or_broken_manifest_is_named(
    tmp_path: Path, text: str | None, error: type[Exception]
) -> None:
    folder = SlideFolder.create(tmp_path, "S-1")
    if text is not None:
        folder.manifest.write_text(text)
    with pytest.raises(error, match=r"slide\.json"):
        folder.read_manifest()


def test_a_folder_without_a_journal_is_no_slide(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="not a slide folder"):
        SlideFolder.open(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="a file in place of a folder has another error there")
def test_an_output_that_cannot_hold_folders_is_refused(tmp_path: Path) -> None:
    (tmp_path / "S-1").write_text("a file, not a folder")
    with pytest.raises(OutputError, match="cannot create the slide folder"):
        SlideFolder.create(tmp_path, "S-1")
