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

import onnx
from onnx import numpy_helper

from deblurd.deblur.deblurrer import Deblurrer
from deblurd.deblur.model import find_model
from deblurd.errors import DataError, ModelError
from deblurd.frames import MotionVector, Pose, Tile
from deblurd.light import to_linear
from deblurd.train import precision
from deblurd.train.dataset import Images
from deblurd.train.degrade import Example, degrade
from deblurd.train.export import add_precision, export
from deblurd.train.precision import held_out_examples, lower
from deblurd.train.recipe import DegradeRecipe, Recipe
from tests.train.conftest import bank_of, small_recipe

Drawing = Callable[[int, tuple[int, int]], NDArray[np.uint8]]
FAST = Path(__file__).parents[2] / "models" / "fast" / "model.onnx"


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return Path(shutil.copy(FAST, tmp_path / "model.onnx"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank of two small networks, as `export` makes it."""
    torch = pytest.importorskip("torch")
    from deblurd.train.trainer import Trainer

    state: dict[str, Any] = Trainer(bank_of(small_recipe()), Images(), torch.device("cpu")).state()
    return export(state, tmp_path_factory.mktemp("models"))


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "models" / exported.name))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "lowered.onnx"


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
def test_int8_takes_the_layers_that_bear_it(network: Path, target: Path, examples: list[Example]) -> None:
    model = onnx.load(network)
    convolutions = {node.input[1]: node.name for node in model.graph.node if node.op_type == "Conv"}
    one_channel_drowns_the_others(model, block=0)
    onnx.save(model, network)
    report = lower(network, target, "int8", examples, threads=1)
    assert report["loss_db"] <= 0.05
    assert (report["speed"], report["on"]) == (1.5, "CPUExecutionProvider")
    assert convolutions["blocks.0.second.weight"] not in report["layers"]
    assert len(convolutions) / 2 < len(report["layers"]) < len(convolutions)
    assert set(report["layers"]) < set(convolutions.values())
    assert target.stat().st_size < network.stat().st_size / 2
    before, after = (
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]) for path in (network, target)
    )
    kinds = [node.op_type for node in onnx.load(target).graph.node]
    assert kinds.count("QuantizeLinear") >= len(report["layers"])
    feed = precision._feed(examples[0])
    assert np.abs(before.run(None, feed)[0] - after.run(None, feed)[0]).mean() < 0.01


def one_channel_drowns_the_others(model: onnx.ModelProto, block: int, times: float = 1000.0) -> None:
    """The same numbers in fp32, but what the block's second convolution is given fills no single scale of 8 bits any more."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    width = weights[f"blocks.{block}.first.bias"].dims[0]
    shift = width  # its row in film.2, after the block's scales; earlier blocks would come before both
    for name, rows, factor in (
        (f"blocks.{block}.first.weight", 0, times),
        (f"blocks.{block}.first.bias", 0, times),
        ("film.2.weight", shift, times),
        ("film.2.bias", shift, times),
        (f"blocks.{block}.second.weight", (slice(None), 0), 1 / times),
    ):
        array = numpy_helper.to_array(weights[name]).copy()
        array[rows] *= factor
        weights[name].CopyFrom(numpy_helper.from_array(array, name))


@pytest.mark.parametrize(
    ("most_loss", "speed", "complaint"),
    [(0.05, 0.9, "brings nothing"), (-1.0, 1.5, "Not one layer")],
)
def test_a_network_that_gains_nothing_stays_as_it_is(
    folder: Path,
    target: Path,
    examples: list[Example],
    monkeypatch: pytest.MonkeyPatch,
    most_loss: float,
    speed: float,
    complaint: str,
) -> None:
    monkeypatch.setattr(precision, "MOST_LOSS_DB", most_loss)
    monkeypatch.setattr(precision, "_speed", lambda *_: speed)
    with pytest.raises(ModelError, match=complaint):
        lower(folder / "short.onnx", target, "int8", examples[:2], threads=1)
    assert not target.exists()


def test_fp16_is_refused_without_a_gpu(
    network: Path, target: Path, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "providers_for", lambda _: ["CPUExecutionProvider"])
    with pytest.raises(ModelError, match="for a GPU"):
        lower(network, target, "fp16", examples, threads=1)
    assert not target.exists()


@pytest.mark.usefixtures("is_faster")
def test_fp16_keeps_its_inputs_outputs_and_numbers(
    network: Path, target: Path, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    class OnAGpu(onnxruntime.InferenceSession):  # type: ignore[misc]
        def get_providers(self) -> list[str]:
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "InferenceSession", OnAGpu)
    report = lower(network, target, "fp16", examples, threads=1)
    assert abs(report["loss_db"]) < 0.01
    assert target.stat().st_size < 0.6 * FAST.stat().st_size
    session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
    assert {i.type for i in (*session.get_inputs(), *session.get_outputs())} == {"tensor(float)"}


def test_examples_are_of_held_out_images_and_of_the_sub_model_s_blur(bank: Recipe, slides: Path) -> None:
    long = bank.network.kinds[1]
    examples = held_out_examples(slides, bank, long)
    assert len(examples) == precision.EXAMPLES
    assert all(np.hypot(*e.motion) > 3.9 for e in examples)


@pytest.mark.usefixtures("is_faster")
def test_a_model_in_int8_says_so_and_runs(
    folder: Path, slides: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "EXAMPLES", 4)
    add_precision(find_model(str(folder)), "int8", slides)
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    assert set(manifest["training"]["precision"]) == {"short.int8.onnx", "long.int8.onnx"}
    assert "| short.int8.onnx | int8 | " in (folder / "README.md").read_text("utf-8")
    raw = np.random.default_rng(0).integers(0, 255, (64, 72, 3), dtype=np.uint8)
    tile = Tile(0, 0, 0, Pose(0, 0, 0), MotionVector(0, 3), 1, raw.shape, "")
    found = find_model(str(folder))
    assert len(found.identity["sha256"]) == 4
    (folder / "short.onnx").write_bytes(b"")  # on a CPU nobody looks into it any more
    deblurrer = Deblurrer(found, encoding="srgb", device="cpu", threads=1)
    assert deblurrer.deblur([(tile, raw)])[0].pixels.shape == raw.shape
    deblurrer.close()


def test_what_cannot_be_lowered_stays_as_it_was(
    folder: Path, slides: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(precision, "EXAMPLES", 4)
    monkeypatch.setattr(precision, "MOST_LOSS_DB", -1.0)
    model = find_model(str(folder))
    with pytest.raises(ModelError, match="it stays in fp32"):
        add_precision(model, "int8", slides)
    with pytest.raises(ModelError, match="has no network"):
        add_precision(find_model("wiener"), "int8", slides)
    manifest = json.loads(before["manifest.json"])
    manifest["training"]["recipe"]["degrade"]["field_px"] = 512
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(DataError, match="wide and high"):
        add_precision(model, "int8", slides)
    (folder / "manifest.json").write_bytes(before["manifest.json"])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert list(folder.parent.iterdir()) == [folder]
