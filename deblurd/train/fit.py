"""Teaching: examples in, checkpoints and a curve out; stop it at any time, and it goes on where it was."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from deblurd.deblur.model import find_model
from deblurd.errors import OutputError, UsageError
from deblurd.train.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from deblurd.train.dataset import check_trainable, list_images, load_images, usable_pairs
from deblurd.train.ranks import join, leave
from deblurd.train.recipe import Recipe
from deblurd.train.trainer import History, Trainer, validation_set


def fit(
    recipe: Recipe,
    images: Path,
    output: Path,
    device: str,
    threads: int,
    console: Console,
    start: str | None = None,
) -> Path:
    """Train the recipe's network on the images of a folder; returns the checkpoint's path.

    Under torchrun, one of several processes, of which the first saves. A checkpoint that lies in `output` is continued. start: as in the recipe, and in its place. Raises
    NoInputError or DataError for the images, ModelError for a checkpoint or a model of another network, OutputError if `output` cannot be written.
    """
    ranks, where = join(usable_device(device))
    console = console if ranks.is_first else Console(quiet=True)
    torch.set_num_threads(threads)
    torch.manual_seed(recipe.seed)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise OutputError(f"{output} cannot be created ({err}): choose another --output.") from err
    entries = usable_pairs(list_images(images, recipe.data), recipe.degrade)
    check_trainable(images, entries)
    least = recipe.degrade.scene_px
    train = load_images(images, entries, "train", recipe.data, least)
    held_out = load_images(images, entries, "val", recipe.data, least)
    for name in (*train.skipped, *held_out.skipped):
        console.print(f"[yellow]{name} holds no sharp image of at least {least} px: not used.")
    console.print(f"{len(train.pixels)} images to learn from, {len(held_out.pixels)} held out.")
    trainer = Trainer(recipe, train, where, ranks)
    if (output / CHECKPOINT).is_file():
        trainer.resume(load_checkpoint(output / CHECKPOINT))
        console.print(f"Going on from step {trainer.step}.")
    elif beginning := start or recipe.fit.start:
        trainer.start_from(find_model(beginning))
        console.print(f"Starting from the weights of {beginning}.")
    validation = validation_set(held_out, recipe)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress, ThreadPoolExecutor(1) as background:
        task = progress.add_task("training", total=recipe.fit.steps, completed=trainer.step)
        trainer.fill_pool()
        coming = background.submit(trainer.fresh_examples, trainer.step)
        while trainer.step < recipe.fit.steps:
            fresh = coming.result()
            coming = background.submit(trainer.fresh_examples, trainer.step + 1)
            loss = trainer.train_step(fresh)
            progress.update(task, advance=1, description=f"training, error {loss:.4f}")
            last = trainer.step == recipe.fit.steps
            if not ranks.is_first:
                continue
            if last or trainer.step % recipe.fit.validate_every == 0:
                gains = trainer.validate(validation)
                trainer.history.gains.append([trainer.step, *gains])
                console.print(
                    f"step {trainer.step}: {_named(validation, gains)} dB over the input, training error {loss:.4f}"
                )
                draw_curve(trainer.history, list(validation), output / "curve.png")
            if last or trainer.step % recipe.fit.checkpoint_every == 0:
                save_checkpoint(trainer.state(), output / CHECKPOINT)
    leave()
    return output / CHECKPOINT


def usable_device(name: str) -> torch.device:
    """The device of that name. UsageError if this machine, or this build of PyTorch, has none."""
    try:
        device = torch.device(name)
    except RuntimeError as err:
        raise UsageError(f"{name} is not a device: use cpu, cuda or cuda:N.") from err
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and not torch.cuda.is_available()):
        raise UsageError(f"PyTorch finds no {name} here: use --device cpu, or install its CUDA build.")
    return device


def draw_curve(history: History, names: Sequence[str], path: Path) -> None:
    """A picture of the error, and of the gain over the input, against the steps; names: of the kinds of blur."""
    from matplotlib.figure import Figure  # slow to import, and only needed here

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    if history.losses:
        steps, losses = zip(*history.losses, strict=True)
        left.plot(steps, losses)
    left.set(xlabel="step", ylabel="training error, RMS")
    rows = np.array(history.gains)
    for column, name in enumerate(names, 1):
        right.plot(rows[:, 0], rows[:, column], label=name)
    right.set(xlabel="step", ylabel="held out: dB over the input")
    right.legend()
    try:
        figure.savefig(path)
    except OSError as err:
        raise OutputError(f"{path} cannot be written ({err}): free some space and start again.") from err


def _named(names: Iterable[str], gains: list[float]) -> str:
    return ", ".join(f"{name} {gain:+.2f}" for name, gain in zip(names, gains, strict=True))
