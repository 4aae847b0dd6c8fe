"""Processes that train together stay equal, and learn from examples of their own."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the trainer's extra is not installed")

import torch.distributed as dist  # noqa: E402
from torch.multiprocessing.spawn import spawn  # noqa: E402

from deblurd.errors import UsageError  # noqa: E402
from deblurd.train.dataset import Images, list_images, load_images  # noqa: E402
from deblurd.train.ranks import ALONE, Ranks, join, leave  # noqa: E402
from deblurd.train.recipe import Recipe  # noqa: E402
from deblurd.train.trainer import Trainer  # noqa: E402
from tests.train.conftest import bank_of, small_recipe  # noqa: E402

STEPS = 3


def learn(recipe: Recipe, slides: Path, ranks: Ranks) -> Trainer:
    torch.set_num_threads(1)
    torch.manual_seed(recipe.seed)
    images: Images = load_images(
        slides, list_images(slides, recipe.data), "train", recipe.data, recipe.degrade.scene_px
    )
    trainer = Trainer(recipe, images, torch.device("cpu"), ranks)
    trainer.fill_pool()
    for _ in range(STEPS):
        trainer.train_step(trainer.fresh_examples(trainer.step))
    return trainer


def one_of_two(rank: int, slides: Path, folder: Path) -> None:
    """Runs in a process of its own."""
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    trainer = learn(bank_of(small_recipe()), slides, Ranks(rank, 2))
    torch.save(
        {"weights": trainer.average.state_dict(), "seen": trainer.pool[-1].blurred.astype("int32")},
        folder / f"{rank}.pt",
    )
    leave()


@pytest.mark.timeout(180)
def test_two_processes_end_with_the_same_weights_and_saw_other_examples(slides: Path, tmp_path: Path) -> None:
    spawn(one_of_two, args=(slides, tmp_path), nprocs=2)  # type: ignore[no-untyped-call]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in (0, 1))
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name]), name
    assert (first["seen"] != second["seen"]).any()
    alone = learn(bank_of(small_recipe()), slides, ALONE).average.state_dict()
    assert any(not torch.equal(weight, alone[name]) for name, weight in first["weights"].items())


def test_alone_nothing_is_shared() -> None:
    layer = torch.nn.Linear(2, 1)
    layer(torch.ones(1, 2)).sum().backward()
    before = copy.deepcopy([p.grad for p in layer.parameters()])
    ALONE.share_gradients(layer.parameters())
    assert all(torch.equal(p.grad, g) for p, g in zip(layer.parameters(), before, strict=True))


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    device = torch.device("cuda", 1)
    assert join(device) == (ALONE, device)
    leave()


def test_under_torchrun_a_gpu_is_not_chosen_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="say --device cuda"):
        join(torch.device("cuda", 1))
