"""What is wrong with the input is said in one sentence, with an exit code, and nothing half-written lies under models/."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest

pytest.importorskip("onnxscript", reason="the trainer's extra is not installed")

from deblurd.train import export as exporting
from deblurd.train.cli import main
from tests.train.conftest import TINY, Drawing

Fit = Callable[..., tuple[int, str]]
FAST = Path(__file__).parents[2] / "models" / "fast"


@pytest.fixture
def fit(slides: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Fit:
    """Trains for two steps; gives the exit code and the complaint."""

    def run(text: str = TINY, images: Path = slides) -> tuple[int, str]:
        (tmp_path / "tiny.toml").write_text(text, "utf-8")
        words = [
            "--recipe",
            str(tmp_path / "tiny.toml"),
            "--images",
            str(images),
            "--output",
            str(tmp_path / "run"),
        ]
        code = main(["fit", *words])
        return code, capsys.readouterr().err

    return run


def export(tmp_path: Path, *more: str) -> int:
    return main(
        [
            "export",
            "--checkpoint",
            str(tmp_path / "run" / "checkpoint.pt"),
            "--models",
            str(tmp_path / "models"),
            *more,
        ]
    )


def test_folders_that_cannot_be_learnt_from(fit: Fit, slides: Path, tmp_path: Path, draw: Drawing) -> None:
    empty, one, small, corrupt = (tmp_path / name for name in ("empty", "one", "small", "corrupt"))
    for folder in (empty, one / "slide", small):
        folder.mkdir(parents=True)
    for n in range(3):
        cv2.imwrite(str(one / "slide" / f"{n}.png"), draw(n, (80, 80)))
        cv2.imwrite(str(small / f"{n}.png"), draw(n, (30, 80)))
    shutil.copytree(slides, corrupt)
    for n in range(6):
        (corrupt / f"slide{n}" / "a.png").write_bytes((slides / f"slide{n}" / "a.png").read_bytes()[:200])
    for folder, code, complaint in (
        (empty, 66, "holds no images"),
        (one, 65, "1 group(s), not enough to train and to validate on"),
        (small, 65, "at least 52 px wide and high"),
        (corrupt, 65, "is not an image, or broken"),
    ):
        got, said = fit(images=folder)
        assert got == code
        assert complaint in said
        assert said.count("\n") == 1
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_recipes_and_checkpoints_that_do_not_fit(fit: Fit, tmp_path: Path) -> None:
    got, said = fit(TINY + "stepz = 3\n")
    assert (got, said.count("\n")) == (78, 1)
    assert "unknown key fit.stepz" in said
    assert fit() == (0, "")
    kept = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    for changed in (
        TINY.replace("width = 8", "width = 12"),
        TINY.replace("[fit]", '[[network.kinds]]\nname = "a"\nblur_px = [1, 9]\n[fit]'),
    ):
        got, said = fit(changed)
        assert got == 66
        assert "another network" in said
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == kept


def full_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("step", ["write_onnx", "write_model", "replace_folder"])
@pytest.mark.parametrize("there_before", [False, True])
def test_a_disk_that_fills_up_in_an_export_leaves_models_as_it_was(
    fit: Fit,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    step: str,
    there_before: bool,
) -> None:
    assert fit() == (0, "")
    models = tmp_path / "models"
    if there_before:
        assert export(tmp_path) == 0
    before = {path: path.read_bytes() for path in models.rglob("*") if path.is_file()}
    monkeypatch.setattr(exporting, step, full_disk)
    capsys.readouterr()
    assert export(tmp_path) == 73
    said = capsys.readouterr().err
    assert "No space left on device" in said
    assert said.count("\n") == 1
    assert {path: path.read_bytes() for path in models.rglob("*") if path.is_file()} == before
    assert [path.name for path in models.iterdir()] == (["tiny"] if there_before else [])


def test_a_disk_that_fills_up_while_figures_are_recorded_leaves_the_model_as_it_was(
    slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "fast"
    shutil.copytree(FAST, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    original = Path.write_bytes

    def full(self: Path, content: bytes) -> int:
        if self.name == "manifest.json.part":
            original(self, content[:99])
            full_disk()
        return original(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    words = ["--model", str(folder), "--images", str(slides), "--split", "train", "--limit", "1"]
    assert main(["evaluate", *words, "--blur", "3", "--angle", "0", "--record"]) == 73
    assert "No space left on device" in capsys.readouterr().err
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_another_precision_has_to_be_measured(
    fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit() == (0, "")
    assert export(tmp_path, "--precision", "int8") == 64
    assert "add --images" in capsys.readouterr().err
    assert main(["export", "--model", str(FAST)]) == 64
    assert "add --precision" in capsys.readouterr().err
    assert not (tmp_path / "models").exists()


def test_a_manifest_that_names_a_missing_or_altered_file(
    slides: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "models" / "fast"
    shutil.copytree(FAST, folder)
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    first = manifest["files"][0]
    for name, complaint in (
        ("gone.onnx", "gone.onnx cannot be read"),
        ("README.md", "is not the file that manifest.json describes"),
    ):
        manifest["files"] = [first | {"file": name}]
        (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
        before = sorted(folder.iterdir())
        assert main(["evaluate", "--model", str(folder), "--images", str(slides), "--record"]) == 66
        said = capsys.readouterr().err
        assert complaint in said
        assert said.count("\n") == 1
        assert sorted(folder.iterdir()) == before
