from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from rich.console import Console

torch = pytest.importorskip("torch", reason="the trainer's extra is not installed")
pytest.importorskip("onnxscript", reason="the trainer's extra is not installed")

from deblurd.deblur.deblurrer import Deblurrer  # noqa: E402
from deblurd.deblur.model import find_model  # noqa: E402
from deblurd.errors import ModelError, OutputError  # noqa: E402
from deblurd.frames import MotionVector, Pose, Tile  # noqa: E402
from deblurd.train import export as exporting  # noqa: E402
from deblurd.train.checkpoint import load_checkpoint  # noqa: E402
from deblurd.train.dataset import Images  # noqa: E402
from deblurd.train.export import averaged_network, export, recipe_of  # noqa: E402
from deblurd.train.fit import fit  # noqa: E402
from deblurd.train.network import sub_models  # noqa: E402
from deblurd.train.recipe import Recipe  # noqa: E402
from deblurd.train.trainer import Trainer  # noqa: E402
from tests.train.conftest import with_network  # noqa: E402


@pytest.fixture
def checkpoint(recipe: Recipe, slides: Path, tmp_path: Path) -> dict[str, Any]:
    return load_checkpoint(fit(recipe, slides, tmp_path / "run", "cpu", 1, Console(file=io.StringIO())))


def test_the_model_folder_is_what_the_engine_expects(checkpoint: dict[str, Any], tmp_path: Path) -> None:
    folder = export(checkpoint, tmp_path / "models")
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "manifest.json", "model.onnx"]
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    assert manifest["schema"] == 1
    assert manifest["name"] == "tiny"
    assert manifest["files"][0]["sha256"] == hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    assert manifest["blur_range_px"] == [1, 8]
    assert manifest["training"]["steps"] == 6
    assert all(row["licence"] for row in manifest["training"]["data"])
    assert Recipe.model_validate(manifest["training"]["recipe"]).name == "tiny"
    assert "Not measured yet" in (folder / "README.md").read_text("utf-8")
    assert list((tmp_path / "models").iterdir()) == [folder]


def test_no_file_tells_of_the_machine_that_made_it(checkpoint: dict[str, Any], tmp_path: Path) -> None:
    made = export(checkpoint, tmp_path / "models")
    shipped = Path(__file__).parents[2] / "models"
    files = [made / "model.onnx", *shipped.glob("*/*.onnx")]
    assert len(files) > 2
    for file in files:
        assert b"network.py" not in file.read_bytes(), file


def test_onnx_gives_the_network_s_numbers_at_any_size(checkpoint: dict[str, Any], tmp_path: Path) -> None:
    folder = export(checkpoint, tmp_path / "models")
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    assert [(i.name, i.shape[1:2]) for i in session.get_inputs()] == [
        ("blurred", [3]),
        ("estimate", [3]),
        ("motion", [2]),
    ]
    network = averaged_network(checkpoint, recipe_of(checkpoint))
    rng = np.random.default_rng(1)
    for count, height, width in ((1, 4, 4), (2, 40, 100)):
        images = rng.random((2, count, 3, height, width), dtype=np.float32)
        motion = rng.uniform(-30, 30, (count, 2)).astype(np.float32)
        (got,) = session.run(None, {"blurred": images[0], "estimate": images[1], "motion": motion})
        with torch.no_grad():
            wanted = network(
                torch.from_numpy(images[0]), torch.from_numpy(images[1]), torch.from_numpy(motion)
            )
        assert got == pytest.approx(wanted.numpy(), abs=1e-5)


@pytest.mark.parametrize("kind", ["encoder-decoder", "hourglass", "autoencoder"])
def test_every_kind_of_network_is_exported_with_its_own_numbers(
    recipe: Recipe, kind: str, tmp_path: Path
) -> None:
    other = with_network(recipe, kind=kind, levels=1)
    torch.manual_seed(0)
    trainer = Trainer(other, Images(), torch.device("cpu"))
    with torch.no_grad():
        for parameter in trainer.average.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    folder = export(trainer.state(), tmp_path / "models")  # refuses numbers that differ
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    assert (manifest["stride"], manifest["halo_px"] % 8) == (8, 0)
    raw = np.random.default_rng(0).integers(0, 255, (83, 91, 3), dtype=np.uint8)
    motion = MotionVector(0, 5)
    tile = Tile(0, 0, 0, Pose(0, 0, 0), motion, 1, raw.shape, "")
    deblurrer = Deblurrer(find_model(str(folder)), encoding="srgb", device="cpu", threads=1)
    assert deblurrer.deblur([(tile, raw)])[0].pixels.shape == raw.shape
    deblurrer.close()


def test_a_bank_has_a_file_for_each_sub_model(bank: Recipe, slides: Path, tmp_path: Path) -> None:
    path = fit(bank, slides, tmp_path / "run", "cpu", 1, Console(file=io.StringIO()))
    folder = export(load_checkpoint(path), tmp_path / "models")
    assert sorted(p.name for p in folder.glob("*.onnx")) == ["long.onnx", "short.onnx"]
    found = find_model(str(folder))
    assert found.manifest is not None
    assert found.manifest.kind == "bank"
    assert [file.blur_px for file in found.manifest.files] == [(0, 4), (4, 8)]
    assert found.file_for(MotionVector(0, 7)).file == "long.onnx"
    network = averaged_network(load_checkpoint(path), bank)
    assert (folder / "long.onnx").read_bytes() != (folder / "short.onnx").read_bytes()
    images = np.random.default_rng(1).random((2, 1, 3, 16, 16), dtype=np.float32)
    for length in (2.0, 7.0):
        motion = np.array([[0, length]], np.float32)
        name = found.file_for(MotionVector(0, length)).file
        session = onnxruntime.InferenceSession(folder / name, providers=["CPUExecutionProvider"])
        (got,) = session.run(None, {"blurred": images[0], "estimate": images[1], "motion": motion})
        with torch.no_grad():
            wanted = network(*(torch.from_numpy(x) for x in (*images, motion)))
        assert got == pytest.approx(wanted.numpy(), abs=1e-4)


def test_a_model_for_defocus_says_so(recipe: Recipe, slides: Path, tmp_path: Path) -> None:
    changes = {"rest_share": 0.5, "defocus_share": 0.8, "defocus_px": 2.0}
    other = Recipe.model_validate(recipe.model_dump() | {"degrade": recipe.degrade.model_dump() | changes})
    path = fit(other, slides, tmp_path / "run", "cpu", 1, Console(file=io.StringIO()))
    found = find_model(str(export(load_checkpoint(path), tmp_path / "models")))
    assert found.takes_defocus
    assert found.blur_range_px == (0, 8)
    assert found.manifest is not None
    assert found.manifest.defocus_px == 2


def test_a_new_export_replaces_the_old_one(checkpoint: dict[str, Any], tmp_path: Path) -> None:
    old = tmp_path / "models" / "tiny"
    old.mkdir(parents=True)
    (old / "left-over.txt").write_text("x", "utf-8")
    export(checkpoint, tmp_path / "models")
    assert sorted(p.name for p in old.iterdir()) == ["README.md", "manifest.json", "model.onnx"]
    assert list((tmp_path / "models").iterdir()) == [old]


def test_numbers_that_differ_stop_the_export_and_leave_the_old_model(
    checkpoint: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = export(checkpoint, tmp_path / "models")
    before = (folder / "model.onnx").read_bytes()
    original = exporting.write_onnx

    def wrong(network: Any, path: Path, stride: int) -> None:
        (changed,) = sub_models(averaged_network(checkpoint, recipe_of(checkpoint)))
        with torch.no_grad():
            next(changed.spread.parameters()).add_(0.01)
        original(changed, path, stride)

    monkeypatch.setattr(exporting, "write_onnx", wrong)
    with pytest.raises(ModelError, match="differs from the network"):
        export(checkpoint, tmp_path / "models")
    assert (folder / "model.onnx").read_bytes() == before
    assert list((tmp_path / "models").iterdir()) == [folder]


def test_killed_in_mid_export_leaves_nothing_under_the_name(
    checkpoint: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, "check_numbers", killed)
    with pytest.raises(KeyboardInterrupt):
        export(checkpoint, tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []


def test_a_rename_that_fails_puts_the_old_model_back(
    checkpoint: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = export(checkpoint, tmp_path / "models")
    original = Path.rename

    def stubborn(self: Path, target: Path) -> Path:
        if target == folder and self.name.startswith(".tiny-") and "-old-" not in str(self):
            raise PermissionError("in use")
        return original(self, target)

    monkeypatch.setattr(Path, "rename", stubborn)
    with pytest.raises(OutputError, match="in use"):
        export(checkpoint, tmp_path / "models")
    assert (folder / "model.onnx").is_file()
    assert list((tmp_path / "models").iterdir()) == [folder]


def test_models_that_is_a_file(checkpoint: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "models").write_text("x", "utf-8")
    with pytest.raises(OutputError, match="--models"):
        export(checkpoint, tmp_path / "models")


def test_a_checkpoint_whose_weights_or_recipe_do_not_fit(checkpoint: dict[str, Any], tmp_path: Path) -> None:
    wide = checkpoint["recipe"] | {"network": checkpoint["recipe"]["network"] | {"width": 16}}
    with pytest.raises(ModelError, match="another network"):
        export(checkpoint | {"recipe": wide}, tmp_path / "models")
    with pytest.raises(ModelError, match="another version"):
        export(checkpoint | {"recipe": {"names": 1}}, tmp_path / "models")
