"""Teaching: examples in, checkpoints and a curve out; stop it at any time, and it goes on where it was."""

from __future__ import annotations

import math
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from deblurd import light
from deblurd.errors import DataError, ModelError, NoInputError, OutputError, UsageError
from deblurd.frames import MotionVector
from deblurd.train.dataset import Images, check_trainable, list_images, load_images
from deblurd.train.degrade import Example, Field, degrade, draw_example
from deblurd.train.network import Network
from deblurd.train.recipe import DegradeRecipe, Recipe

CHECKPOINT = "checkpoint.pt"
VALIDATION_LEVELS_PX = (5.0, 10.0, 20.0, 40.0)
VALIDATION_EXAMPLES = 24


@dataclass(slots=True)
class History:
    """What was measured on the way. Each row of `gains`: step, then dB over the blurred input at each level."""

    losses: list[tuple[int, float]] = field(default_factory=list)
    gains: list[list[float]] = field(default_factory=list)


def fit(recipe: Recipe, images: Path, output: Path, device: str, threads: int, console: Console) -> Path:
    """Train the recipe's network on the images of a folder; returns the checkpoint's path.

    A checkpoint that lies in `output` is continued. Raises NoInputError or DataError for the images, ModelError
    for a checkpoint of another network, OutputError if `output` cannot be written.
    """
    where = usable_device(device)
    torch.set_num_threads(threads)
    torch.manual_seed(recipe.seed)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise OutputError(f"{output} cannot be created ({err}): choose another --output.") from err
    entries = list_images(images, recipe.data)
    check_trainable(images, entries)
    least = recipe.degrade.scene_px
    train = load_images(images, entries, "train", recipe.data, least)
    held_out = load_images(images, entries, "val", recipe.data, least)
    for name in (*train.skipped, *held_out.skipped):
        console.print(f"[yellow]{name} is smaller than {least} px: not used.")
    console.print(f"{len(train.pixels)} images to learn from, {len(held_out.pixels)} held out.")
    trainer = Trainer(recipe, train, where)
    if (output / CHECKPOINT).is_file():
        trainer.resume(load_checkpoint(output / CHECKPOINT))
        console.print(f"Going on from step {trainer.step}.")
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
            if last or trainer.step % recipe.fit.validate_every == 0:
                gains = trainer.validate(validation)
                trainer.history.gains.append([trainer.step, *gains])
                console.print(
                    f"step {trainer.step}: {_named(gains)} dB over the input, training error {loss:.4f}"
                )
                draw_curve(trainer.history, output / "curve.png")
            if last or trainer.step % recipe.fit.checkpoint_every == 0:
                save_checkpoint(trainer.state(), output / CHECKPOINT)
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


class Trainer:
    """The state of one training. Each step's examples follow from seed and step alone, so resuming changes nothing."""

    def __init__(self, recipe: Recipe, images: Images, device: torch.device) -> None:
        self.recipe, self.images, self.device = recipe, images, device
        self.weights = images.sampling_weights()
        self.network = Network(recipe.network).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = AveragedModel(self.network, avg_fn=self._averaged)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=recipe.fit.learning_rate, weight_decay=1e-4
        )
        self.pool: deque[Example] = deque(maxlen=recipe.fit.pool)
        self.history = History()
        self.step = 0
        self._smooth_loss = self._usual_norm = math.nan

    def fresh_examples(self, step: int) -> list[Example]:
        """The newly degraded fields of one step."""
        rng = np.random.default_rng([self.recipe.seed, 0, step + self.recipe.fit.pool])
        return [
            draw_example(self.images, self.weights, self.recipe.degrade, rng)
            for _ in range(self.recipe.fit.fresh)
        ]

    def fill_pool(self) -> None:
        """What the steps before this one would have left in the pool, or a pool to start with."""
        for step in range(self.step - -(-self.recipe.fit.pool // self.recipe.fit.fresh), self.step):
            self.pool.extend(self.fresh_examples(step))

    def train_step(self, fresh: list[Example]) -> float:
        """One update on `fresh` and a draw from the pool; returns the running mean of the error."""
        self.pool.extend(fresh)
        fit = self.recipe.fit
        rng = np.random.default_rng([self.recipe.seed, 1, self.step])
        chosen = [self.pool[i] for i in rng.integers(0, len(self.pool), fit.batch)]
        blurred, estimate, sharp, motion = batch([e.turned(rng) for e in chosen], self.device)
        for group in self.optimiser.param_groups:
            group["lr"] = fit.learning_rate * self._schedule()
        mixed = self.step < fit.mixed_share * fit.steps
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=mixed):
            restored = self.network(blurred, estimate, motion)
        loss = rms_error(restored.float(), sharp).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._clip()
        self.optimiser.step()
        self.average.update_parameters(self.network)
        self.step += 1
        value = float(loss.detach())
        if not math.isfinite(value):
            raise DataError(f"The loss is {value} at step {self.step}: lower learning_rate in the recipe.")
        self._smooth_loss = (
            value if math.isnan(self._smooth_loss) else 0.98 * self._smooth_loss + 0.02 * value
        )
        if self.step % 50 == 0:
            self.history.losses.append((self.step, self._smooth_loss))
        return self._smooth_loss

    def validate(self, examples: dict[float, list[Example]]) -> list[float]:
        """Gain of the averaged network over its blurred input, dB, for each level."""
        gains = []
        self.average.eval()
        with torch.no_grad():
            for level in examples.values():
                blurred, estimate, sharp, motion = batch(level, self.device)
                restored = self.average(blurred, estimate, motion)
                before, after = (psnr(rms_error(x, sharp)) for x in (blurred, restored))
                gains.append(float((after - before).mean()))
        return gains

    def state(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "usual_norm": self._usual_norm,
            "losses": self.history.losses,
            "gains": self.history.gains,
            "provenance": self.images.provenance(),
        }

    def resume(self, checkpoint: dict[str, Any]) -> None:
        """Go on from a checkpoint. ModelError if it is of another network."""
        check_network(checkpoint, self.recipe)
        self.network.load_state_dict(checkpoint["network"])
        self.average.load_state_dict(checkpoint["average"])
        self.optimiser.load_state_dict(checkpoint["optimiser"])
        self.history = History(
            [tuple(row) for row in checkpoint["losses"]], [list(row) for row in checkpoint["gains"]]
        )
        self._usual_norm = checkpoint["usual_norm"]
        self.step = checkpoint["step"]

    def _clip(self) -> None:
        """Hold the gradient to twice its usual norm: one odd batch once undid a thousand steps."""
        limit = math.inf if math.isnan(self._usual_norm) else 2 * self._usual_norm
        norm = min(float(torch.nn.utils.clip_grad_norm_(self.network.parameters(), limit)), limit)
        self._usual_norm = norm if math.isnan(self._usual_norm) else 0.98 * self._usual_norm + 0.02 * norm

    def _averaged(self, average: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        """Exponential, but shorter at first, when the network still changes fast."""
        decay = min(self.recipe.fit.averaging, (1.0 + float(count)) / (10.0 + float(count)))
        return torch.lerp(current, average, decay)

    def _schedule(self) -> float:
        """Warm-up, then half a cosine down to a fiftieth."""
        fit = self.recipe.fit
        warm = min(1.0, (self.step + 1) / max(1.0, fit.warmup))
        return warm * (0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * self.step / fit.steps)))


def rms_error(restored: Tensor, sharp: Tensor) -> Tensor:
    """(N,): each image's root mean square error; its gradient is as strong for a slight blur as for a long one.

    (That of the PSNR itself grows without bound for the images that hardly need help, and they ruled the training.)
    """
    return torch.sqrt((restored - sharp).square().mean(dim=(1, 2, 3)) + 1e-7)


def psnr(rms: Tensor) -> Tensor:
    """Peak signal-to-noise ratio, dB, of values in [0, 1]."""
    return -20 * torch.log10(rms)


def batch(examples: list[Example], device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(blurred, estimate, sharp, motion) tensors of examples of one size."""

    def stack(fields: list[Field]) -> Tensor:
        array = np.stack(fields).astype(np.float32) * np.float32(1 / 65535)
        return torch.from_numpy(array).permute(0, 3, 1, 2).to(device)

    return (
        stack([e.blurred for e in examples]),
        stack([e.estimate for e in examples]),
        stack([e.sharp for e in examples]),
        torch.from_numpy(np.stack([e.motion for e in examples])).to(device),
    )


def validation_set(images: Images, recipe: Recipe) -> dict[float, list[Example]]:
    """Fixed examples of held-out images for each level within the recipe's range, in many directions."""
    settings: DegradeRecipe = recipe.degrade
    weights: NDArray[np.float64] = images.sampling_weights()
    low, high = settings.blur_px
    levels = [x for x in VALIDATION_LEVELS_PX if low <= x <= high] or [high]
    rng = np.random.default_rng([recipe.seed, 2])
    size = settings.scene_px
    examples: dict[float, list[Example]] = {}
    for level in levels:
        examples[level] = []
        for i in range(VALIDATION_EXAMPLES):
            pixels = images.pixels[rng.choice(len(images.pixels), p=weights)]
            y, x = rng.integers(0, np.array(pixels.shape[:2]) - size + 1)
            scene = light.to_linear(pixels[y : y + size, x : x + size], "srgb")
            angle = math.pi / 2 * i if i % 2 else math.pi * i / VALIDATION_EXAMPLES
            motion = MotionVector(level * math.sin(angle), level * math.cos(angle))
            examples[level].append(degrade(scene, motion, settings, rng))
    return examples


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write whole or not at all: a kill in the middle leaves the checkpoint before it."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, RuntimeError) as err:
        part.unlink(missing_ok=True)
        raise OutputError(f"{path} cannot be written ({err}): free some space and start again.") from err


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote. NoInputError if there is none, ModelError if it is not one."""
    if not path.is_file():
        raise NoInputError(f"There is no checkpoint {path}: run deblurd-train fit first.")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        _ = state["recipe"], state["step"], state["average"]
    except (RuntimeError, UnpicklingError, EOFError, KeyError, TypeError) as err:
        raise ModelError(f"{path} is not a checkpoint of this trainer: remove it, or name another.") from err
    return state


def check_network(checkpoint: dict[str, Any], recipe: Recipe) -> None:
    """ModelError where the checkpoint is of another network than the recipe's."""
    if checkpoint["recipe"]["network"] != recipe.network.model_dump(mode="json"):
        raise ModelError(
            "The checkpoint is of another network than the recipe's: use its recipe, or another --output."
        )


def draw_curve(history: History, path: Path) -> None:
    """A picture of the error, and of the gain over the input, against the steps."""
    from matplotlib.figure import Figure  # slow to import, and only needed here

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    if history.losses:
        steps, losses = zip(*history.losses, strict=True)
        left.plot(steps, losses)
    left.set(xlabel="step", ylabel="training error, RMS")
    rows = np.array(history.gains)
    for column in range(1, rows.shape[1]):
        right.plot(rows[:, 0], rows[:, column], label=f"level {column}")
    right.set(xlabel="step", ylabel="held out: dB over the input")
    right.legend()
    try:
        figure.savefig(path)
    except OSError as err:
        raise OutputError(f"{path} cannot be written ({err}): free some space and start again.") from err


def _named(gains: list[float]) -> str:
    return " / ".join(f"{gain:+.2f}" for gain in gains)
