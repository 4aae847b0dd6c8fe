"""The networks: a correction of the Wiener estimate, steered by the motion vector.

For each pixel they also decide how far to go back to the blurred image: where there is little but noise to gain, the Wiener estimate is
the worse of the two, and a narrow network could not carry the blurred image through by itself.
Pixels are gathered into patches of 4 px by one strided convolution, so that the dense 3x3 convolutions run at a sixteenth
of the image's size, where a CPU is fastest. The motion enters as a scale and shift of every block's
channels (FiLM, Perez et al. 2018). The kinds of network differ in what lies between that input layer and the prediction layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from deblurd.deblur.model import nearest_kind
from deblurd.frames import MotionVector
from deblurd.train.recipe import STRIDE, KindRecipe, NetworkRecipe

Steps = Iterator[Callable[[Tensor], Tensor]]
"""The blocks in their order, each already told the motion."""


class Network(nn.Module):
    """(blurred, estimate, motion) -> sharp: a chain of residual blocks at one scale.

    Images (N, 3, H, W) sRGB-encoded, H and W multiples of the recipe's stride_px; motion (N, 2) px.
    """

    def __init__(self, recipe: NetworkRecipe) -> None:
        super().__init__()
        widths = [width for width, _ in self.plan(recipe)]
        first = recipe.width
        self.gather = nn.Conv2d(6, first, recipe.patch_px, STRIDE, (recipe.patch_px - STRIDE) // 2)
        self.blocks = nn.ModuleList(Block(width) for width in widths)
        steer = nn.Linear(recipe.film_width, 2 * sum(widths))
        self.film = nn.Sequential(nn.Linear(4, recipe.film_width), nn.ReLU(), steer)
        self.spread = nn.Conv2d(first, 4 * STRIDE**2, 3, padding=1)
        self._split = [width for width in widths for _ in range(2)]
        for parameter in (*steer.parameters(), *self.spread.parameters()):  # starts as the estimate itself
            nn.init.zeros_(parameter)

    @staticmethod
    def plan(recipe: NetworkRecipe) -> list[tuple[int, int]]:
        """(width, scale) of each block, in the order of `body`; at scale s the image is 4 * 2**s times smaller."""
        return [(recipe.width, 0)] * recipe.blocks

    def forward(self, blurred: Tensor, estimate: Tensor, motion: Tensor) -> Tensor:
        x = self.gather(torch.cat([blurred, estimate], dim=1) - 0.5)
        films = self.film(features(motion))[:, :, None, None].split(self._split, dim=1)
        steps = (
            partial(block, scale=films[2 * i], shift=films[2 * i + 1]) for i, block in enumerate(self.blocks)
        )
        out: Tensor = nn.functional.pixel_shuffle(self.spread(self.body(x, steps)), STRIDE)
        correction, trust = out[:, :3], out[:, 3:]
        return estimate + trust * (blurred - estimate) + correction

    def body(self, x: Tensor, steps: Steps) -> Tensor:
        """(N, width, h, w) to the same shape, by all steps in turn."""
        for step in steps:
            x = step(x)
        return x


class EncoderDecoder(Network):
    """Encoder and decoder joined at every scale (U-Net, Ronneberger et al. 2015); joined by a sum, and twice as wide at each halving."""

    joined: ClassVar[bool] = True

    def __init__(self, recipe: NetworkRecipe) -> None:
        super().__init__(recipe)
        self._blocks, self._levels = recipe.blocks, recipe.levels
        widths = [recipe.width * 2**i for i in range(recipe.levels + 1)]
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 2, 2) for fine, coarse in pairs)
        self.up = nn.ModuleList(nn.Conv2d(coarse, 4 * fine, 1) for fine, coarse in pairs)

    @staticmethod
    def plan(recipe: NetworkRecipe) -> list[tuple[int, int]]:
        scales = [*range(recipe.levels + 1), *reversed(range(recipe.levels))]
        return [(recipe.width * 2**scale, scale) for scale in scales for _ in range(recipe.blocks)]

    def body(self, x: Tensor, steps: Steps) -> Tensor:
        return self._at(0, x, steps)

    def _at(self, scale: int, x: Tensor, steps: Steps) -> Tensor:
        for _ in range(self._blocks):
            x = next(steps)(x)
        if scale == self._levels:
            return x
        below = self._at(scale + 1, self.down[scale](x), steps)
        above = nn.functional.pixel_shuffle(self.up[scale](below), 2)
        x = x + above if self.joined else above
        for _ in range(self._blocks):
            x = next(steps)(x)
        return x


class Autoencoder(EncoderDecoder):
    """Everything has to pass the smallest scale: encoder and decoder are not joined."""

    joined = False


class Hourglass(Network):
    """Hourglasses in a row (Newell et al. 2016): one width, a block beside each scale, and sums on the way back up."""

    def __init__(self, recipe: NetworkRecipe) -> None:
        super().__init__(recipe)
        self._number, self._levels = recipe.blocks, recipe.levels

    @staticmethod
    def plan(recipe: NetworkRecipe) -> list[tuple[int, int]]:
        return [(recipe.width, scale) for _ in range(recipe.blocks) for scale in range(recipe.levels + 1)]

    def body(self, x: Tensor, steps: Steps) -> Tensor:
        for _ in range(self._number):
            x = self._at(0, x, steps)
        return x

    def _at(self, scale: int, x: Tensor, steps: Steps) -> Tensor:
        beside = next(steps)(x)
        if scale == self._levels:
            return beside
        below = self._at(scale + 1, nn.functional.avg_pool2d(x, 2), steps)
        return beside + nn.functional.interpolate(below, scale_factor=2.0, mode="nearest")


class Bank(nn.Module):
    """Parallel sub-models, one for each kind of blur; each image goes through the one that its motion belongs to."""

    def __init__(self, recipe: NetworkRecipe) -> None:
        super().__init__()
        self.kinds = recipe.kinds
        self.members = nn.ModuleList(_ARCHITECTURES[recipe.kind](recipe) for _ in recipe.kinds)

    def forward(self, blurred: Tensor, estimate: Tensor, motion: Tensor) -> Tensor:
        chosen = kinds_of(motion, self.kinds)
        places = [torch.nonzero(chosen == k)[:, 0] for k in range(len(self.kinds))]
        parts = [
            member(blurred[place], estimate[place], motion[place])
            for member, place in zip(self.members, places, strict=True)
            if len(place)
        ]
        return torch.cat(parts)[torch.argsort(torch.cat(places))]


class Mirrored(nn.Module):
    """The mean of what a network makes of an image and of its three mirror images: other errors, of which half cancel out (Timofte et al. 2016)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, blurred: Tensor, estimate: Tensor, motion: Tensor) -> Tensor:
        made = []
        for axes, signs in (([], (1, 1)), ([2], (-1, 1)), ([3], (1, -1)), ([2, 3], (-1, -1))):
            seen = (torch.flip(image, axes) for image in (blurred, estimate))
            made.append(torch.flip(self.network(*seen, motion * motion.new_tensor(signs)), axes))
        return torch.stack(made).mean(dim=0)


_ARCHITECTURES: dict[str, type[Network]] = {
    "residual": Network,
    "encoder-decoder": EncoderDecoder,
    "hourglass": Hourglass,
    "autoencoder": Autoencoder,
}


def build(recipe: NetworkRecipe) -> Network | Bank:
    """A fresh network, which gives its estimate back until it is taught."""
    return Bank(recipe) if recipe.kinds else _ARCHITECTURES[recipe.kind](recipe)


def sub_models(network: Network | Bank) -> list[Network]:
    """The networks of a bank in the order of its recipe's kinds, or the single one."""
    if isinstance(network, Bank):
        return [member for member in network.members if isinstance(member, Network)]
    return [network]


def kinds_of(motion: Tensor, kinds: Sequence[KindRecipe]) -> Tensor:
    """(N, 2) px -> (N,) indices of the sub-models, as the engine would choose; all 0 for a single network."""
    if not kinds:
        return torch.zeros(len(motion), dtype=torch.long, device=motion.device)
    chosen = [nearest_kind(MotionVector(dy, dx), kinds) for dy, dx in motion.tolist()]
    return torch.tensor(chosen, device=motion.device)


class Block(nn.Module):
    """Two convolutions beside an identity; the motion scales and shifts the first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.kaiming_normal_(self.first.weight, nonlinearity="relu")
        nn.init.kaiming_normal_(self.second.weight, nonlinearity="relu")
        with torch.no_grad():
            self.second.weight *= 0.3  # a deep chain of blocks starts near the identity

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        inner = torch.relu(self.first(x) * (1 + scale) + shift)
        out: Tensor = x + self.second(inner)
        return out


def features(motion: Tensor) -> Tensor:
    """(N, 2) px -> (N, 4): the level twice, and twice the angle as a vector, equal for a motion and its reverse."""
    dy, dx = motion[:, 0], motion[:, 1]
    square = dy * dy + dx * dx
    level = torch.sqrt(square + 1e-6)
    return torch.stack(
        [
            level / 32.0,
            torch.log1p(level) / 2.0 - 1.0,
            (dx * dx - dy * dy) / (square + 1.0),
            2.0 * dx * dy / (square + 1.0),
        ],
        dim=1,
    )


def halo_px(recipe: NetworkRecipe) -> int:
    """How far from a pixel the network looks, at most, rounded up to the stride."""
    blocks = sum(2 * (STRIDE << scale) for _, scale in _ARCHITECTURES[recipe.kind].plan(recipe))
    # each way down and up again may move a pixel's influence to the other side of its cell at the smallest scale
    ways = {"residual": 0, "hourglass": recipe.blocks}.get(recipe.kind, 1)
    reach = recipe.patch_px + STRIDE + blocks + 2 * ways * recipe.stride_px
    return -(-reach // recipe.stride_px) * recipe.stride_px
