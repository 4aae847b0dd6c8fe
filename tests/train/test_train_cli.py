from __future__ import annotations

import builtins
import json
import tomllib
from pathlib import Path
from typing import Any

import cv2
import pytest

from deblurd.deblur.model import find_model
from deblurd.train import cli
from deblurd.train.cli import main
from deblurd.train.dataset import MANIFEST
from tests.train.conftest import TINY, Drawing

LONG = TINY.replace("steps = 2", "steps = 500")


def test_from_a_recipe_to_a_measured_model(
    slides: Path, tmp_path: Path, draw: Drawing, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxscript", reason="the trainer's extra is not installed")
    (tmp_path / "tiny.toml").write_text(LONG, "utf-8")
    run, models = tmp_path / "run", tmp_path / "models"
    images = ["--images", str(slides)]
    assert (
        main(["fit", "--recipe", str(tmp_path / "tiny.toml"), *images, "--output", str(run), "--steps", "3"])
        == 0
    )
    assert main(["export", "--checkpoint", str(run / "checkpoint.pt"), "--models", str(models)]) == 0
    report = tmp_path / "report.json"
    arguments = [
        "evaluate",
        "--model",
        str(models / "tiny"),
        *images,
        "--split",
        "train",
        "--blur",
        "4",
        "--angle",
        "0",
    ]
    assert main([*arguments, "--limit", "2", "--report", str(report), "--record"]) == 0
    quality = json.loads(report.read_text("utf-8"))
    assert {"identity", "wiener", "richardson_lucy", "model"} <= set(quality["rows"][0]["psnr_db"])
    assert report.with_suffix(".csv").is_file()
    assert report.with_suffix(".png").is_file()
    manifest = json.loads((models / "tiny" / "manifest.json").read_text("utf-8"))
    assert manifest["quality"] == quality
    assert quality["command"] in (models / "tiny" / "README.md").read_text("utf-8")
    assert "| Richardson-Lucy |" in capsys.readouterr().out
    assert main([*arguments, "--fields", "2", "--no-rivals", "--record"]) == 0
    widely = json.loads((models / "tiny" / "manifest.json").read_text("utf-8"))["quality"]
    assert widely.pop("all_images")["harm"]["model"]["results"] >= quality["harm"]["model"]["results"]
    assert widely == quality
    assert "### On all images" in (models / "tiny" / "README.md").read_text("utf-8")


def exit_code_and_sentence(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(list(arguments))
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["fit", "--recipe", "nonesuch", "--images", "x", "--output", "y"], 66, "no recipe"),
        (["fit", "--recipe", "fast", "--images", "nowhere", "--output", "y"], 66, "no folder"),
        (["fit", "--recipe", "fast", "--images", "x", "--output", "y", "--device", "abacus"], 64, "abacus"),
        (["export", "--checkpoint", "nowhere.pt"], 66, "no checkpoint"),
        (["evaluate", "--model", "nowhere", "--images", "x"], 66, "no model"),
        (["evaluate", "--model", "./nowhere", "--images", "x"], 66, "no model"),
        (["evaluate", "--model", "wiener", "--images", "x"], 66, "no model"),
        (["evaluate", "--model", "fast", "--images", "nowhere"], 66, "no folder"),
    ],
)
def test_mistakes_are_one_sentence_and_an_exit_code(
    arguments: list[str],
    code: int,
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("torch", reason="the trainer's extra is not installed")
    monkeypatch.chdir(tmp_path)
    got, text = exit_code_and_sentence(capsys, *arguments)
    assert got == code
    assert sentence in text
    assert "Traceback" not in text
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [["--blur", "-3"], ["--blur", "nan"], ["--angle", "inf"], ["--defocus", "-1"], ["--limit", "0"]],
)
def test_what_cannot_be_measured_at_is_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "--model", "models/fast", "--images", "x", *arguments])
    assert arguments[1] in capsys.readouterr().err


def test_a_report_without_a_folder_is_refused_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, report = str(find_model("fast").folder), str(tmp_path / "nowhere" / "report.json")
    code, text = exit_code_and_sentence(
        capsys, "evaluate", "--model", model, "--images", str(tmp_path), "--report", report
    )
    assert (code, "no folder" in text) == (73, True)


def test_without_pytorch_it_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = builtins.__import__

    def without_torch(name: str, *rest: Any, **more: Any) -> Any:
        if name == "torch":
            raise ModuleNotFoundError(name)
        return original(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    got, text = exit_code_and_sentence(capsys, "export", "--checkpoint", "x.pt")
    assert got == 64
    assert "deblurd[train]" in text


def test_ctrl_c_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_export", stopped)
    assert exit_code_and_sentence(capsys, "export", "--checkpoint", "x.pt")[0] == 130


def test_only_test_images_are_enough_to_evaluate(slides: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (slides / MANIFEST).write_text("file\tlicence\tsplit\nslide0/a.png\tCC0\ttest\n", "utf-8")
    fast = Path(__file__).parents[2] / "models" / "fast"
    arguments = ["evaluate", "--model", str(fast), "--images", str(slides), "--blur", "3", "--angle", "0"]
    assert main(arguments) == 0
    assert cv2.imread(str(slides / "slide0" / "a.png")) is not None


def test_the_script_is_declared() -> None:
    with (Path(__file__).parents[2] / "pyproject.toml").open("rb") as file:
        assert tomllib.load(file)["project"]["scripts"]["deblurd-train"] == "deblurd.train.cli:main"


def test_numbers_must_be_positive(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--recipe", "fast", "--images", "x", "--output", "y", "--threads", "0"])
    assert "not positive" in capsys.readouterr().err
