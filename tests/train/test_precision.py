"""Fewer bits only where they are faster and cost next to nothing; otherwise the file stays as it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

pytest.importorskip("onnxscript", reason="the trainer's extra is not installed")

from deblurd.deblur.deblurrer import Deblurrer
from deblurd.deblur.model import find_model
from deblurd.errors import DataError, ModelError
from deblurd.frames import MotionVector, Pose, Tile
from deblurd.light import to_linear
from deblurd.train import precision
from deblurd.train.dataset import Images
from deblurd.train.degrade import Example, degrade
from deblurd.train.export import export
from deblurd.train.precision import held_out_examples, lower
from deblurd.train.recipe import DegradeRecipe, Recipe

Drawing = Callable[[int, tuple[int, int]], NDArray[np.uint8]]
FAST = Path(__file__).parents[2] / "models" / "fast" / "model.onnx"


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return Path(shutil.copy(FAST, tmp_path / "model.onnx"))


@pytest.fixture
def examples(draw: Drawing) -> list[Example]:
    recipe = DegradeRecipe(field_px=64, guard_px=16, blur_px=(1, 12))
    rng = np.random.default_rng(0)
    scene = [to_linear(draw(i, (recipe.scene_px, recipe.scene_px)), "srgb") for i in range(4)]
    return [degrade(scene[i % 4], MotionVector(0, 3 + i), recipe, rng) for i in range(8)]


@pytest.fixture
def is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a shared machine measures is no matter of a test."""
    monkeypatch.setattr(precision, "_speed", lambda *_: 1.5)


@pytest.mark.usefixtures("is_faster")
def test_int8_takes_the_layers_that_bear_it(network: Path, examples: list[Example]) -> None:
    report = lower(network, "int8", examples, threads=1)
    assert report["loss_db"] <= 0.05
    assert (report["speed"], report["on"]) == (1.5, "CPUExecutionProvider")
    assert 1 <= len(report["layers"]) <= 8
    assert network.stat().st_size < FAST.stat().st_size


@pytest.mark.parametrize(
    ("most_loss", "speed", "complaint"),
    [(0.05, 0.9, "brings nothing"), (-1.0, 1.5, "Not one layer")],
)
def test_a_network_that_gains_nothing_is_left_alone(
    network: Path,
    examples: list[Example],
    monkeypatch: pytest.MonkeyPatch,
    most_loss: float,
    speed: float,
    complaint: str,
) -> None:
    monkeypatch.setattr(precision, "MOST_LOSS_DB", most_loss)
    monkeypatch.setattr(precision, "_speed", lambda *_: speed)
    with pytest.raises(ModelError, match=complaint):
        lower(network, "int8", examples[:2], threads=1)
    assert network.read_bytes() == FAST.read_bytes()


def test_fp16_is_refused_without_a_gpu(
    network: Path, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "providers_for", lambda _: ["CPUExecutionProvider"])
    with pytest.raises(ModelError, match="for a GPU"):
        lower(network, "fp16", examples, threads=1)
    assert network.read_bytes() == FAST.read_bytes()


@pytest.mark.usefixtures("is_faster")
def test_fp16_keeps_its_inputs_outputs_and_numbers(
    network: Path, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    class OnAGpu(onnxruntime.InferenceSession):  # type: ignore[misc]
        def get_providers(self) -> list[str]:
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "InferenceSession", OnAGpu)
    report = lower(network, "fp16", examples, threads=1)
    assert abs(report["loss_db"]) < 0.01
    assert network.stat().st_size < 0.6 * FAST.stat().st_size
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    assert {i.type for i in (*session.get_inputs(), *session.get_outputs())} == {"tensor(float)"}


def test_examples_are_of_held_out_images_and_of_the_sub_model_s_blur(bank: Recipe, slides: Path) -> None:
    long = bank.network.kinds[1]
    examples = held_out_examples(slides, bank, long)
    assert len(examples) == precision.EXAMPLES
    assert all(np.hypot(*e.motion) > 3.9 for e in examples)


@pytest.mark.usefixtures("is_faster")
def test_a_model_in_int8_says_so_and_runs(
    bank: Recipe, slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    from deblurd.train.trainer import Trainer

    monkeypatch.setattr(precision, "EXAMPLES", 4)
    state: dict[str, Any] = Trainer(bank, Images(), torch.device("cpu")).state()
    folder = export(state, tmp_path / "models", "int8", slides)
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    assert set(manifest["training"]["precision"]) == {"short.onnx", "long.onnx"}
    assert "| short.onnx | int8 | " in (folder / "README.md").read_text("utf-8")
    raw = np.random.default_rng(0).integers(0, 255, (64, 72, 3), dtype=np.uint8)
    tile = Tile(0, 0, 0, Pose(0, 0, 0), MotionVector(0, 3), 1, raw.shape, "")
    deblurrer = Deblurrer(find_model(str(folder)), encoding="srgb", device="cpu", threads=1)
    assert deblurrer.deblur([(tile, raw)])[0].pixels.shape == raw.shape
    deblurrer.close()

    monkeypatch.setattr(precision, "MOST_LOSS_DB", -1.0)
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(ModelError):
        export(state, tmp_path / "models", "int8", slides)
    with pytest.raises(DataError, match="wide and high"):
        export(state | {"recipe": _too_large(state)}, tmp_path / "models", "int8", slides)
    assert (folder / "manifest.json").read_bytes() == before
    assert list((tmp_path / "models").iterdir()) == [folder]


def _too_large(state: dict[str, Any]) -> dict[str, Any]:
    recipe: dict[str, Any] = state["recipe"]
    return recipe | {"degrade": recipe["degrade"] | {"field_px": 512}}
