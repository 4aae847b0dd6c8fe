"""One training: examples, steps, the running average of the weights, and what was measured on the way."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from deblurd import light
from deblurd.deblur.model import Model
from deblurd.errors import DataError
from deblurd.frames import MotionVector
from deblurd.train.checkpoint import check_network
from deblurd.train.dataset import Images
from deblurd.train.degrade import Example, Field, captured_example, degrade, draw_example
from deblurd.train.network import build, kinds_of
from deblurd.train.ranks import ALONE, Ranks
from deblurd.train.recipe import DegradeRecipe, KindRecipe, Recipe
from deblurd.train.start import start_from

VALIDATION_LEVELS_PX = (5.0, 10.0, 20.0, 40.0)
VALIDATION_DEFOCUS_PX = (0.0, 1.0, 2.0, 3.0)
VALIDATION_EXAMPLES = 24


@dataclass(slots=True)
class History:
    """What was measured on the way. Each row of `gains`: step, then dB over the blurred input at each kind of blur."""

    losses: list[tuple[int, float]] = field(default_factory=list)
    gains: list[list[float]] = field(default_factory=list)


class Trainer:
    """The state of one training. Each step's examples follow from seed and step alone, so resuming changes nothing."""

    def __init__(self, recipe: Recipe, images: Images, device: torch.device, ranks: Ranks = ALONE) -> None:
        self.recipe, self.images, self.device, self.ranks = recipe, images, device, ranks
        self.weights = images.sampling_weights()
        self.network = build(recipe.network).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = AveragedModel(self.network, avg_fn=self._averaged)
        # squares are remembered for 100 steps, not 1000: a wide network once met a steep batch with the small squares of long before
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=recipe.fit.learning_rate, betas=(0.9, 0.99), weight_decay=1e-4
        )
        self.pool: deque[Example] = deque(maxlen=recipe.fit.pool)
        self.history = History()
        self.step = 0
        self.started_from: dict[str, Any] | None = None
        self._smooth_loss = self._usual_norm = math.nan

    def fresh_examples(self, step: int) -> list[Example]:
        """The newly degraded fields of one step."""
        rng = self._rng(0, step + self.recipe.fit.pool)
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
        rng = self._rng(1, self.step)
        chosen = [self.pool[i] for i in rng.integers(0, len(self.pool), fit.batch)]
        blurred, estimate, sharp, motion = batch([e.turned(rng) for e in chosen], self.device)
        for group in self.optimiser.param_groups:
            group["lr"] = fit.learning_rate * self._schedule()
        mixed = self.step < fit.mixed_share * fit.steps
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=mixed):
            restored = self.network(blurred, estimate, motion)
        kinds = kinds_of(motion, self.recipe.network.kinds)
        loss = common_loss(rms_error(restored.float(), sharp), kinds, self.recipe.network.kinds)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.ranks.share_gradients(self.network.parameters())
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

    def validate(self, examples: dict[str, list[Example]]) -> list[float]:
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
            "started_from": self.started_from,
            "provenance": self.images.provenance(),
        }

    def start_from(self, model: Model) -> None:
        """Begin with a model's weights in place of random ones. ModelError where they do not fit."""
        start_from(self.network, self.recipe.network, model)
        self.average.module.load_state_dict(self.network.state_dict())
        self.started_from = model.identity

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
        self.started_from = checkpoint["started_from"]
        self.step = checkpoint["step"]

    def _rng(self, *what: int) -> np.random.Generator:
        """The same whenever asked for the same; another one in each of the processes that train together."""
        own = [self.ranks.rank] if self.ranks.rank else []
        return np.random.default_rng([self.recipe.seed, *what, *own])

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


def common_loss(errors: Tensor, chosen: Tensor, kinds: Sequence[KindRecipe]) -> Tensor:
    """The weighted mean of the sub-models' losses, each the mean of `errors` (N,) of its own examples; those without any do not count."""
    if not kinds:
        return errors.mean()
    present = [k for k in range(len(kinds)) if bool((chosen == k).any())]
    losses = torch.stack([kinds[k].weight * errors[chosen == k].mean() for k in present])
    return losses.sum() / sum(kinds[k].weight for k in present)


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


def validation_set(images: Images, recipe: Recipe) -> dict[str, list[Example]]:
    """Fixed examples of held-out images for each level within the recipe's range, in many directions; of defocus too, if it is learnt."""
    settings: DegradeRecipe = recipe.degrade
    weights: NDArray[np.float64] = images.sampling_weights()
    low, high = settings.blur_px
    levels = [x for x in VALIDATION_LEVELS_PX if low <= x <= high] or [high]
    blurs = {f"{level:g} px": (level, 0.0) for level in levels}
    if settings.rest_share:
        sigmas = [x for x in VALIDATION_DEFOCUS_PX if x <= settings.defocus_px]
        blurs |= {f"defocus {sigma:g} px": (0.0, sigma) for sigma in sigmas}
    rng = np.random.default_rng([recipe.seed, 2])
    size = settings.scene_px
    examples: dict[str, list[Example]] = {}
    for name, (level, sigma) in blurs.items():
        examples[name] = []
        for i in range(VALIDATION_EXAMPLES):
            pixels = images.pixels[rng.choice(len(images.pixels), p=weights)]
            y, x = rng.integers(0, np.array(pixels.shape[:2]) - size + 1)
            scene = light.to_linear(pixels[y : y + size, x : x + size], "srgb")
            angle = math.pi / 2 * i if i % 2 else math.pi * i / VALIDATION_EXAMPLES
            motion = MotionVector(level * math.sin(angle), level * math.cos(angle))
            examples[name].append(degrade(scene, motion, settings, rng, sigma))
    if images.captured:
        chosen = rng.choice(list(images.captured), VALIDATION_EXAMPLES)
        examples["captured"] = [
            captured_example(images.pixels[i], *images.captured[int(i)], settings, rng) for i in chosen
        ]
    return examples
