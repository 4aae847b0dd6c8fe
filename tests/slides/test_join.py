"""Two slides of one specimen become one."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deblurd.cli import main
from deblurd.errors import DataError, OutputError, UsageError
from deblurd.frames import Frame
from deblurd.geometry import PixelToStage
from deblurd.record.journal import Journal
from deblurd.record.raw import RawStore
from deblurd.record.recorder import Recorder
from deblurd.slides.camera import Camera
from deblurd.slides.catalog import slides
from deblurd.slides.folder import SlideFolder
from deblurd.slides.join import UNFINISHED, join
from deblurd.slides.verify import verify


def part_of(slide: SlideFolder, output: Path, wanted: Collection[int], clock_s: float = 0.0) -> SlideFolder:
    """A slide of some tiles of another one, whose clock began `clock_s` earlier; not painted."""
    journal, raw = Journal(slide.journal, read_only=True), RawStore.open(slide.raw)
    part = SlideFolder.create(output, "part")
    recorder = Recorder(part.path, raw.shape, raw.dtype)
    recorder.journal.set_slide("camera", journal.slide("camera"))
    for tile in journal.tiles():
        if tile.index in wanted:
            pose = replace(tile.pose, t_s=tile.pose.t_s + clock_s)
            frame = Frame(raw.read(tile.index), tile.number, pose.t_s, tile.exposure_ms)
            recorder.record([(frame, replace(tile, pose=pose))])
    recorder.close()
    journal.close()
    content = {key: value for key, value in slide.read_manifest().items() if key != "schema"}
    part.write_manifest(content | {"slide_id": "part", "state": "growing"})
    return part


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def halves(slide: SlideFolder, tmp_path: Path) -> tuple[SlideFolder, SlideFolder]:
    count = Journal(slide.journal).count()
    first = part_of(slide, tmp_path / "a", range(count // 2))
    return first, part_of(slide, tmp_path / "b", range(count // 2, count), clock_s=-1e4)


def test_the_halves_of_a_slide_give_the_slide_and_stay_as_they_are(
    slide: SlideFolder,
    halves: tuple[SlideFolder, SlideFolder],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = files(tmp_path)
    output = tmp_path / "joined"
    words = ["slides", "join", *(str(half.path) for half in halves), "--output", str(output)]
    assert main(words) == 0
    assert {path: data for path, data in files(tmp_path).items() if output not in path.parents} == before
    [found] = slides(output)
    whole, joined = Journal(slide.journal), Journal(found.folder.journal)
    assert (found.state, found.tiles) == ("done", whole.count())
    assert f"{found.folder.path}: {whole.count()} tiles" in capsys.readouterr().out
    assert found.manifest["joined_from"] == [str(half.path) for half in halves]
    times = [tile.pose.t_s for tile in joined.tiles()]
    assert times == sorted(times)
    assert len({(tile.sequence, tile.number) for tile in joined.tiles()}) == whole.count()
    places = [np.array([p.yx_px for _, p in sorted(journal.places().items())]) for journal in (whole, joined)]
    assert float(np.abs(places[0] - places[1]).max()) < 0.5
    assert verify(found.folder)[2] == []
    assert not (output / UNFINISHED).exists()


def test_a_damaged_tile_is_not_taken_over(halves: tuple[SlideFolder, SlideFolder], tmp_path: Path) -> None:
    first, second = halves
    (second.raw / "c.1.0.0.0").write_bytes(b"short")
    joined, left_out = join(first, second, tmp_path / "joined")
    assert left_out == [f"tile 1 of {second.name}"]
    journals = [Journal(folder.journal) for folder in (first, second, joined)]
    assert journals[2].count() == journals[0].count() + journals[1].count() - 1


def test_what_cannot_be_joined_says_why(
    halves: tuple[SlideFolder, SlideFolder], slide: SlideFolder, tmp_path: Path
) -> None:
    first, second = halves
    output = tmp_path / "joined"
    with pytest.raises(UsageError, match="name two slides"):
        join(first, SlideFolder(first.path / ".." / first.name), output)
    journal = Journal(second.journal)
    camera = Camera.from_json(journal.slide("camera"))
    coarse = PixelToStage(camera.affine.matrix * 1.01)
    others = {
        "different pixels": replace(camera, affine=coarse),
        "encoding srgb and linear": replace(camera, encoding="linear"),
        "shape": replace(camera, shape=(256, 250, 3)),
        "data type": replace(camera, dtype="uint16"),
    }
    for words, other in others.items():
        journal.set_slide("camera", other.to_json())
        with pytest.raises(DataError, match=words):
            join(first, second, output)
    journal.close()
    with pytest.raises(DataError, match="holds no tile"):
        join(first, part_of(slide, tmp_path / "none", ()), output)
    assert not output.exists() or list(output.iterdir()) == []


def test_a_disk_that_refuses_leaves_nothing_behind(
    halves: tuple[SlideFolder, SlideFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OutputError("the disk is full")

    output = tmp_path / "joined"
    # as a kill in the middle leaves it: swept by the next join, and never taken for a slide
    shutil.copytree(halves[0].path, output / UNFINISHED)
    assert list(slides(output)) == []
    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "record", refuse)
        with pytest.raises(OutputError, match="full"):
            join(*halves, output)
    assert list(output.iterdir()) == []
    assert join(*halves, output)[1] == []
