"""The network: a correction of the Wiener estimate, steered by the motion vector.

For each pixel it also decides how far to go back to the blurred image: where there is little but noise to gain, the Wiener estimate is
the worse of the two, and a narrow network could not carry the blurred image through by itself.
Pixels are gathered into patches of 4 px by one strided convolution, so that the dense 3x3 convolutions run at a sixteenth
of the image's size, where a CPU is fastest. The motion enters as a scale and shift of every block's
channels (FiLM, Perez et al. 2018).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deblurd.train.recipe import NetworkRecipe

STRIDE = 4


class Network(nn.Module):
    """(blurred, estimate, motion) -> sharp; images (N, 3, H, W) sRGB-encoded, H and W multiples of 4, motion (N, 2) px."""

    def __init__(self, recipe: NetworkRecipe) -> None:
        super().__init__()
        width = recipe.width
        self.gather = nn.Conv2d(6, width, recipe.patch_px, STRIDE, (recipe.patch_px - STRIDE) // 2)
        self.blocks = nn.ModuleList(Block(width) for _ in range(recipe.blocks))
        steer = nn.Linear(recipe.film_width, recipe.blocks * 2 * width)
        self.film = nn.Sequential(nn.Linear(4, recipe.film_width), nn.ReLU(), steer)
        self.spread = nn.Conv2d(width, 4 * STRIDE**2, 3, padding=1)
        for parameter in (*steer.parameters(), *self.spread.parameters()):  # starts as the estimate itself
            nn.init.zeros_(parameter)

    def forward(self, blurred: Tensor, estimate: Tensor, motion: Tensor) -> Tensor:
        x = self.gather(torch.cat([blurred, estimate], dim=1) - 0.5)
        films = self.film(features(motion))[:, :, None, None].chunk(2 * len(self.blocks), dim=1)
        for i, block in enumerate(self.blocks):
            x = block(x, films[2 * i], films[2 * i + 1])
        out: Tensor = nn.functional.pixel_shuffle(self.spread(x), STRIDE)
        correction, trust = out[:, :3], out[:, 3:]
        return estimate + trust * (blurred - estimate) + correction


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
    """How far from a pixel the network looks, rounded up to the stride."""
    reach = (2 * recipe.blocks + 1) * STRIDE + recipe.patch_px
    return -(-reach // STRIDE) * STRIDE
