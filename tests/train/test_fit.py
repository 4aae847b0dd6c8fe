from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rich.console import Console

torch = pytest.importorskip("torch", reason="the trainer's extra is not installed")

from deblurd.errors import DataError, ModelError, NoInputError, OutputError, UsageError  # noqa: E402
from deblurd.train import fit as fitting  # noqa: E402
from deblurd.train.checkpoint import CHECKPOINT, check_network, load_checkpoint, save_checkpoint  # noqa: E402
from deblurd.train.dataset import Images  # noqa: E402
from deblurd.train.fit import fit, usable_device  # noqa: E402
from deblurd.train.recipe import Recipe  # noqa: E402
from deblurd.train.trainer import History, Trainer, common_loss  # noqa: E402


def run(recipe: Recipe, images: Path, output: Path) -> dict[str, Any]:
    return load_checkpoint(fit(recipe, images, output, "cpu", 1, Console(file=io.StringIO())))


def same_weights(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(torch.equal(a["average"][k], b["average"][k]) for k in a["average"])


def with_fit(recipe: Recipe, **changes: object) -> Recipe:
    return Recipe.model_validate(recipe.model_dump() | {"fit": recipe.fit.model_dump() | changes})


def test_a_training_leaves_checkpoint_curve_and_history(recipe: Recipe, slides: Path, tmp_path: Path) -> None:
    state = run(recipe, slides, tmp_path / "run")
    assert state["step"] == 6
    assert [row[0] for row in state["gains"]] == [3, 6]
    assert {row["name"] for row in state["provenance"]} <= {f"slide{i}" for i in range(6)}
    assert cv2.imread(str(tmp_path / "run" / "curve.png")) is not None
    assert [p.name for p in (tmp_path / "run").glob("*.part")] == []


def test_it_learns(recipe: Recipe, slides: Path, tmp_path: Path) -> None:
    longer = with_fit(
        recipe, steps=120, batch=4, pool=16, learning_rate=5e-3, validate_every=40, checkpoint_every=120
    )
    state = run(longer, slides, tmp_path / "run")
    first, *_, last = (row[1] for row in state["gains"])
    assert last > first


def test_a_bank_is_trained_together(bank: Recipe, slides: Path, tmp_path: Path) -> None:
    state = run(with_fit(bank, steps=12, checkpoint_every=12), slides, tmp_path / "run")
    fresh = Trainer(bank, Images(), torch.device("cpu"))
    for member in ("members.0", "members.1"):
        name = f"{member}.spread.weight"
        assert not torch.equal(state["network"][name], fresh.network.state_dict()[name])


def test_a_training_for_defocus_is_validated_on_it(recipe: Recipe, slides: Path, tmp_path: Path) -> None:
    changes = {"rest_share": 0.5, "defocus_share": 0.8, "defocus_px": 2.0, "disc_max": 0.9}
    other = Recipe.model_validate(recipe.model_dump() | {"degrade": recipe.degrade.model_dump() | changes})
    state = run(other, slides, tmp_path / "run")
    assert [len(row) for row in state["gains"]] == [1 + 1 + 3] * 2  # step, 5 px, defocus of 0, 1 and 2 px


def test_captured_pairs_are_learnt_and_validated_on(recipe: Recipe, slides: Path, tmp_path: Path) -> None:
    rows = "".join(f"slide{i}/a.png,slide{i}/a.png,0,{3 + i},{i}\n" for i in range(6))
    (slides / "pairs.csv").write_text("blurred,sharp,dy,dx,group\n" + rows, "utf-8")
    state = run(recipe, slides, tmp_path / "run")
    assert [len(row) for row in state["gains"]] == [1 + 1 + 1] * 2  # step, 5 px, captured


def test_the_common_loss_is_the_weighted_mean_of_the_sub_models_losses(bank: Recipe) -> None:
    kinds = bank.network.kinds
    errors, chosen = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 0, 1])
    assert float(common_loss(errors, chosen, kinds)) == pytest.approx((2 * 1.5 + 1 * 3) / 3)
    assert float(common_loss(errors[:2], chosen[:2], kinds)) == pytest.approx(1.5)  # only one has examples
    assert float(common_loss(errors, chosen, ())) == pytest.approx(2)


def test_the_seed_decides(recipe: Recipe, slides: Path, tmp_path: Path) -> None:
    one, two = (run(recipe, slides, tmp_path / name) for name in ("one", "two"))
    other = run(recipe.model_copy(update={"seed": 9}), slides, tmp_path / "other")
    assert same_weights(one, two)
    assert not same_weights(one, other)


def test_a_killed_training_goes_on_as_if_nothing_had_happened(
    recipe: Recipe, slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(recipe, slides, tmp_path / "whole")
    original: Callable[..., float] = Trainer.train_step

    def killed(self: Trainer, fresh: list[Any]) -> float:
        if self.step == 5:
            raise KeyboardInterrupt
        return original(self, fresh)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", killed)
        with pytest.raises(KeyboardInterrupt):
            run(recipe, slides, tmp_path / "broken")
    assert load_checkpoint(tmp_path / "broken" / CHECKPOINT)["step"] == 4
    assert same_weights(run(recipe, slides, tmp_path / "broken"), whole)


def test_a_checkpoint_from_before_banks_still_fits(recipe: Recipe, slides: Path, tmp_path: Path) -> None:
    state = run(recipe, slides, tmp_path / "run")
    for key in ("kinds", "levels"):
        del state["recipe"]["network"][key]
    check_network(state, recipe)


def test_a_finished_training_is_left_alone(recipe: Recipe, slides: Path, tmp_path: Path) -> None:
    first = run(recipe, slides, tmp_path / "run")
    assert same_weights(first, run(recipe, slides, tmp_path / "run"))


@pytest.mark.parametrize(
    "error", [OSError("No space left on device"), RuntimeError("PytorchStreamWriter failed")]
)
def test_a_disk_full_in_mid_save_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    path = tmp_path / CHECKPOINT
    save_checkpoint({"recipe": {}, "step": 1, "average": {}}, path)

    def half(state: object, file: io.BufferedWriter) -> None:
        file.write(b"half")
        raise error

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OutputError, match="free some space"):
        save_checkpoint({"recipe": {}, "step": 2, "average": {}}, path)
    assert load_checkpoint(path)["step"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_killed_in_mid_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / CHECKPOINT
    save_checkpoint({"recipe": {}, "step": 1, "average": {}}, path)

    def killed(state: object, file: io.BufferedWriter) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint({"recipe": {}, "step": 2, "average": {}}, path)
    assert load_checkpoint(path)["step"] == 1
    save_checkpoint({"recipe": {}, "step": 3, "average": {}}, path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_of_another_network(recipe: Recipe, slides: Path, tmp_path: Path) -> None:
    run(recipe, slides, tmp_path / "run")
    wider = Recipe.model_validate(recipe.model_dump() | {"network": {"width": 16, "blocks": 1}})
    with pytest.raises(ModelError, match="another network"):
        run(wider, slides, tmp_path / "run")


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04 cut short"])
def test_something_else_where_the_checkpoint_should_be(tmp_path: Path, content: bytes) -> None:
    (tmp_path / CHECKPOINT).write_bytes(content)
    with pytest.raises(ModelError, match="not a checkpoint"):
        load_checkpoint(tmp_path / CHECKPOINT)


def test_a_torch_file_that_is_no_checkpoint(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, tmp_path / CHECKPOINT)
    with pytest.raises(ModelError, match="not a checkpoint"):
        load_checkpoint(tmp_path / CHECKPOINT)


def test_no_checkpoint_and_no_images(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="run deblurd-train fit"):
        load_checkpoint(tmp_path / CHECKPOINT)
    with pytest.raises(NoInputError, match="no folder"):
        run(recipe, tmp_path / "nowhere", tmp_path / "run")


def test_images_smaller_than_a_scene(recipe: Recipe, slides: Path, tmp_path: Path) -> None:
    bigger = Recipe.model_validate(recipe.model_dump() | {"degrade": {"field_px": 256}})
    with pytest.raises(DataError, match="wide and high"):
        run(bigger, slides, tmp_path / "run")


def test_an_output_that_is_a_file(recipe: Recipe, slides: Path, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("x", "utf-8")
    with pytest.raises(OutputError, match="--output"):
        run(recipe, slides, tmp_path / "run")


def test_a_picture_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"curve\.png"):
        fitting.draw_curve(History([(1, 0.5)], [[1, 0.1]]), ["5 px"], tmp_path / "nowhere" / "curve.png")


@pytest.mark.parametrize("name", ["gpu", "meta", "cuda:99x"])
def test_devices_that_do_not_exist(name: str) -> None:
    with pytest.raises(UsageError):
        usable_device(name)


def test_a_loss_that_is_not_a_number_stops_the_training(recipe: Recipe, slides: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="learning_rate"), np.errstate(all="ignore"):
        run(with_fit(recipe, learning_rate=1e30, warmup=0), slides, tmp_path / "run")
