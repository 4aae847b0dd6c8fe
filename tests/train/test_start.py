from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch", reason="the trainer's extra is not installed")

from torch import Tensor, nn  # noqa: E402

from deblurd.deblur.model import Model, find_model  # noqa: E402
from deblurd.errors import ModelError  # noqa: E402
from deblurd.train.dataset import Images  # noqa: E402
from deblurd.train.export import export  # noqa: E402
from deblurd.train.network import build  # noqa: E402
from deblurd.train.recipe import NetworkRecipe, Recipe  # noqa: E402
from deblurd.train.start import start_from  # noqa: E402
from deblurd.train.trainer import Trainer  # noqa: E402
from tests.train.conftest import with_network  # noqa: E402

SAME = 1e-4
"""What processors differ by, in how they sum; it is also what an export may differ by. Another weight makes a hundred times as much."""


def taught(recipe: Recipe) -> Trainer:
    """A trainer whose every weight is something of its own."""
    trainer = Trainer(recipe, Images(), torch.device("cpu"))
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in trainer.network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    trainer.average.module.load_state_dict(trainer.network.state_dict())
    return trainer


def exported(recipe: Recipe, folder: Path) -> tuple[Trainer, Model]:
    trainer = taught(recipe)
    return trainer, find_model(str(export(trainer.state(), folder)))


def answers(network: nn.Module) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    blurred, estimate = torch.rand(2, 2, 3, 32, 32, generator=rng)
    with torch.no_grad():
        result: Tensor = network(blurred, estimate, torch.tensor([[0.0, 3.0], [6.0, 1.0]]))
    return result


@pytest.mark.parametrize("kind", ["residual", "encoder-decoder", "hourglass"])
def test_a_training_begins_with_what_the_model_does(recipe: Recipe, tmp_path: Path, kind: str) -> None:
    shape = with_network(recipe, kind=kind, levels=1)
    trainer, model = exported(shape, tmp_path)
    begun = Trainer(shape, Images(), torch.device("cpu"))
    begun.start_from(model)
    assert torch.allclose(answers(begun.network), answers(trainer.network), atol=SAME)
    assert torch.allclose(answers(begun.average.module), answers(trainer.network), atol=SAME)
    assert begun.state()["started_from"]["sha256"] == model.identity["sha256"]


def test_a_mirrored_model_treats_all_reflections_alike_and_may_be_begun_with(
    recipe: Recipe, tmp_path: Path
) -> None:
    shape = with_network(recipe, mirrored=True)
    trainer, model = exported(shape, tmp_path)
    assert model.folder is not None
    session = onnxruntime.InferenceSession(model.folder / "model.onnx", providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    blurred, estimate = rng.random((2, 1, 3, 32, 48), dtype=np.float32)

    def of(blurred: Any, estimate: Any, motion: list[float]) -> Any:
        feed = {"blurred": blurred, "estimate": estimate, "motion": np.array([motion], np.float32)}
        return session.run(None, feed)[0]

    upright = of(blurred, estimate, [3, 5])
    mirrored = of(blurred[:, :, ::-1].copy(), estimate[:, :, ::-1].copy(), [-3, 5])
    assert np.allclose(mirrored[:, :, ::-1], upright, atol=SAME)
    begun = Trainer(shape, Images(), torch.device("cpu"))
    begun.start_from(model)
    assert torch.allclose(answers(begun.network), answers(trainer.network), atol=SAME)


@pytest.mark.parametrize("kind", ["residual", "encoder-decoder", "autoencoder"])
def test_a_deeper_network_begins_as_the_shallow_one(recipe: Recipe, tmp_path: Path, kind: str) -> None:
    trainer, model = exported(with_network(recipe, kind=kind, levels=1), tmp_path)
    deeper = with_network(recipe, kind=kind, levels=1, blocks=3).network
    larger = build(deeper)
    start_from(larger, deeper, model)
    assert torch.allclose(answers(larger), answers(trainer.network), atol=SAME)


def test_every_member_of_a_bank_begins_as_the_single_model(
    recipe: Recipe, bank: Recipe, tmp_path: Path
) -> None:
    trainer, model = exported(recipe, tmp_path)
    members = build(bank.network)
    start_from(members, bank.network, model)
    assert torch.allclose(answers(members), answers(trainer.network), atol=SAME)


def test_a_bank_begins_with_a_bank(bank: Recipe, tmp_path: Path) -> None:
    trainer, model = exported(bank, tmp_path)
    members = build(bank.network)
    start_from(members, bank.network, model)
    assert torch.allclose(answers(members), answers(trainer.network), atol=SAME)


def _begin(recipe: NetworkRecipe, model: Model) -> None:
    start_from(build(recipe), recipe, model)


def test_a_model_that_does_not_fit_is_refused(recipe: Recipe, bank: Recipe, tmp_path: Path) -> None:
    model = exported(with_network(recipe, blocks=2), tmp_path / "one")[1]
    pair = exported(bank, tmp_path / "two")[1]
    with pytest.raises(ModelError, match="use the kind and width"):
        _begin(with_network(recipe, width=16).network, model)
    with pytest.raises(ModelError, match="use the kind and width"):  # fewer blocks than the model
        _begin(recipe.network, model)
    with pytest.raises(ModelError, match="use the kind and width"):
        _begin(with_network(recipe, kind="hourglass", levels=2).network, model)
    with pytest.raises(ModelError, match="2 sub-models and the recipe 1"):
        _begin(recipe.network, pair)
    with pytest.raises(ModelError, match="no network to start from"):
        _begin(recipe.network, find_model("wiener"))
    with pytest.raises(ModelError, match="no network to start from"):
        _begin(recipe.network, replace(model, manifest=None))
