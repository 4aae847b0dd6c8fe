"""What the folders tell of their slides."""

from __future__ import annotations

from pathlib import Path

import pytest

from deblurd.cli import main
from deblurd.errors import NoInputError
from deblurd.host.lock import output_lock
from deblurd.record.journal import Journal
from deblurd.slides.catalog import entry, slides
from deblurd.slides.folder import SlideFolder


def bare(output: Path, name: str, **manifest: object) -> SlideFolder:
    slide = SlideFolder(output / name.split("_")[0] / name)
    slide.path.mkdir(parents=True)
    slide.write_manifest(manifest)
    return slide


def test_slides_come_in_the_order_of_their_making(tmp_path: Path) -> None:
    names = ["b_20260102T000000Z", "b_20260102T000000Z-2", "b_20260102T000000Z-10", "a_20260103T000000Z"]
    for name in reversed(names):
        bare(tmp_path, name, state="done", acknowledged=3)
    (tmp_path / "b" / "notes").mkdir()
    (tmp_path / "b" / "before_after.png").write_bytes(b"")
    found = list(slides(tmp_path))
    assert [each.folder.name for each in found] == names
    assert {(each.state, each.tiles) for each in found} == {("done", 3)}
    with pytest.raises(NoInputError, match="there is no folder"):
        list(slides(tmp_path / "nowhere"))


def test_a_slide_grows_while_somebody_holds_the_folder(slide: SlideFolder) -> None:
    output = slide.path.parent.parent
    slide.write_manifest({"state": "growing"})
    with output_lock(output):
        assert [each.state for each in slides(output)] == ["growing"]
    [found] = slides(output)
    assert found.state == "interrupted"
    assert found.tiles == Journal(slide.journal).count()


def test_what_cannot_be_read_says_why(slide: SlideFolder) -> None:
    slide.write_manifest({"state": "sleeping"})
    assert (entry(slide).state, entry(slide).note) == (
        "unreadable",
        "slide.json has the unknown state 'sleeping'",
    )
    slide.write_manifest({"state": "growing"})
    slide.journal.write_bytes(b"no journal " * 100)
    found = entry(slide)
    assert (found.state, found.tiles) == ("interrupted", None)
    assert "not a whole journal" in found.note


def test_tables_are_for_people(slide: SlideFolder, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in slide.path.rglob("*") if path.is_file()}
    output = slide.path.parent.parent
    assert main(["slides", "list", "--output", str(output)]) == 0
    assert main(["slides", "show", str(slide.path)]) == 0
    printed = capsys.readouterr().out
    for words in ("done", "fast 0.", "in the mosaic", "area done", "on CPU", "For research use only".lower()):
        assert words in printed
    assert {path: path.read_bytes() for path in slide.path.rglob("*") if path.is_file()} == before
    empty = output / "empty"
    empty.mkdir()
    assert main(["slides", "list", "--output", str(empty)]) == 0
    assert "There is no slide below" in capsys.readouterr().out
    assert main(["slides", "show", str(empty)]) == 66
    assert "not a slide folder" in capsys.readouterr().err


def test_a_configuration_names_the_folder(slide: SlideFolder, capsys: pytest.CaptureFixture[str]) -> None:
    output = slide.path.parent.parent
    file = output / "deblurd.toml"
    file.write_text('[microscope]\nbackend = "simulator"\n[mosaic]\noutput = "."\n')
    assert main(["slides", "list", "--config", str(file)]) == 0
    assert "done" in capsys.readouterr().out
    assert main(["slides", "list", "--config", str(file), "--output", "x"]) == 64
