from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the trainer's extra is not installed")

from deblurd.train.network import STRIDE, Network, features, halo_px  # noqa: E402
from deblurd.train.recipe import NetworkRecipe  # noqa: E402

TINY = NetworkRecipe(width=8, blocks=2, film_width=4)


def trained_like(recipe: NetworkRecipe) -> Network:
    """Random weights everywhere, also where a fresh network has zeros."""
    torch.manual_seed(0)
    network = Network(recipe)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()


def test_a_fresh_network_returns_the_estimate() -> None:
    blurred, estimate = torch.rand(2, 2, 3, 16, 20)
    assert torch.equal(Network(TINY)(blurred, estimate, torch.rand(2, 2)), estimate)


def test_a_motion_and_its_reverse_are_the_same() -> None:
    network = trained_like(TINY)
    blurred, estimate = torch.rand(2, 1, 3, 16, 16)
    motion = torch.tensor([[3.0, -7.0]])
    with torch.no_grad():
        there, back = network(blurred, estimate, motion), network(blurred, estimate, -motion)
        across = network(blurred, estimate, motion.flip(1))
    assert torch.equal(there, back)
    assert not torch.allclose(there, across)


def test_features_are_finite_bounded_and_smooth_at_rest() -> None:
    motion = torch.tensor([[0.0, 0.0], [0.0, 1e-4], [60.0, 0.0], [0.0, 60.0], [42.0, 42.0]])
    got = features(motion)
    assert got.shape == (5, 4)
    assert bool(torch.isfinite(got).all())
    assert float(got.abs().max()) < 3
    assert torch.allclose(got[0], got[1], atol=1e-3)
    assert got[2, 2] == pytest.approx(-1, abs=1e-3)
    assert got[3, 2] == pytest.approx(1, abs=1e-3)
    assert got[4, 3] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("blocks", [1, 2, 5])
def test_nothing_beyond_the_halo_matters(blocks: int) -> None:
    recipe = NetworkRecipe(width=8, blocks=blocks, film_width=4)
    network, halo = trained_like(recipe), halo_px(recipe)
    assert halo % STRIDE == 0
    size = 2 * halo + 32
    images = torch.rand(2, 1, 3, size, size)
    changed = images.clone()
    middle = slice(halo, size - halo)
    changed[..., : size // 2 - 16 - halo, :] = 0.0
    mask = torch.ones(size, size, dtype=torch.bool)
    mask[size // 2 - 16 - halo : size // 2 + 16 + halo, size // 2 - 16 - halo : size // 2 + 16 + halo] = False
    changed = torch.where(mask, torch.rand(2, 1, 3, size, size), images)
    motion = torch.tensor([[2.0, 9.0]])
    with torch.no_grad():
        before, after = (network(*x, motion)[..., middle, middle] for x in (images, changed))
    assert torch.equal(before, after)


def test_the_fast_network_has_its_promised_size() -> None:
    count = sum(p.numel() for p in Network(NetworkRecipe()).parameters())
    assert 200_000 < count < 300_000
    assert halo_px(NetworkRecipe()) == 36
