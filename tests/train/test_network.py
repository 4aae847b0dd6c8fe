from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the trainer's extra is not installed")

from deblurd.train.network import (  # noqa: E402
    Bank,
    EncoderDecoder,
    Network,
    build,
    features,
    halo_px,
    kinds_of,
    sub_models,
)
from deblurd.train.recipe import NetworkRecipe  # noqa: E402

TINY = NetworkRecipe(width=8, blocks=2, film_width=4)
KINDS = ("residual", "encoder-decoder", "hourglass", "autoencoder")


def tiny(kind: str, **changes: Any) -> NetworkRecipe:
    return NetworkRecipe.model_validate({"kind": kind, "width": 8, "blocks": 1, "film_width": 4} | changes)


def trained_like(recipe: NetworkRecipe) -> Network | Bank:
    """Random weights everywhere, also where a fresh network has zeros."""
    torch.manual_seed(0)
    network = build(recipe)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_network_returns_the_estimate(kind: str) -> None:
    recipe = tiny(kind, levels=1)
    blurred, estimate = torch.rand(2, 2, 3, 16, 24)
    assert torch.equal(build(recipe)(blurred, estimate, torch.rand(2, 2)), estimate)


@pytest.mark.parametrize("kind", KINDS)
def test_a_motion_and_its_reverse_are_the_same(kind: str) -> None:
    network = trained_like(tiny(kind))
    blurred, estimate = torch.rand(2, 1, 3, 16, 16)
    motion = torch.tensor([[3.0, -7.0]])
    with torch.no_grad():
        there, back = network(blurred, estimate, motion), network(blurred, estimate, -motion)
        across = network(blurred, estimate, motion.flip(1))
    assert there.shape == estimate.shape
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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("changes", [{"blocks": 1}, {"blocks": 2, "levels": 1}, {"blocks": 5, "levels": 1}])
def test_nothing_beyond_the_halo_matters(kind: str, changes: dict[str, int]) -> None:
    recipe = tiny(kind, **changes)
    network, halo, stride = trained_like(recipe), halo_px(recipe), recipe.stride_px
    assert halo % stride == 0
    size = 2 * (halo + stride)
    blurred, estimate = torch.rand(2, 1, 3, size, size)
    blurred.requires_grad_()
    cell = slice(halo + stride, halo + 2 * stride)
    network(blurred, estimate, torch.tensor([[2.0, 9.0]]))[..., cell, cell].sum().backward()
    assert blurred.grad is not None
    touched = torch.nonzero(blurred.grad[0].abs().sum(dim=0))
    assert int(touched.min()) >= cell.start - halo
    assert int(touched.max()) < cell.stop + halo
    assert int(touched.min()) < cell.start - halo // 3  # and it is not far too large


@pytest.mark.parametrize("kind", ["encoder-decoder", "hourglass", "autoencoder"])
def test_each_level_halves_the_size_once_more(kind: str) -> None:
    recipe = tiny(kind, levels=3)
    assert recipe.stride_px == 32
    images = torch.rand(1, 3, 32, 64)
    assert trained_like(recipe)(images, images, torch.ones(1, 2)).shape == images.shape


@pytest.mark.parametrize(("kind", "around"), [("encoder-decoder", True), ("autoencoder", False)])
def test_the_autoencoder_has_no_way_around_its_smallest_scale(kind: str, around: bool) -> None:
    network = trained_like(tiny(kind))
    assert isinstance(network, EncoderDecoder)
    motion = torch.ones(1, 2)
    with torch.no_grad():
        for parameter in network.up.parameters():
            parameter.zero_()  # nothing comes back up from below
        one, other = (network(x, x, motion) - x for x in torch.rand(2, 1, 3, 32, 32))
    assert torch.allclose(one, other, atol=1e-6) is not around


@pytest.fixture
def bank() -> NetworkRecipe:
    return tiny(
        "residual",
        kinds=(
            {"name": "short", "blur_px": (0, 8)},
            {"name": "long-x", "blur_px": (8, 48), "angle_deg": (-45, 45)},
            {"name": "long-y", "blur_px": (8, 48), "angle_deg": (45, 135)},
        ),
    )


def test_a_bank_sends_each_image_through_the_sub_model_of_its_motion(bank: NetworkRecipe) -> None:
    network = trained_like(bank)
    motion = torch.tensor([[0.0, 30.0], [1.0, 2.0], [-30.0, 0.0], [2.0, 20.0], [0.0, 0.0]])
    assert kinds_of(motion, bank.kinds).tolist() == [1, 0, 2, 1, 0]
    blurred, estimate = torch.rand(2, 5, 3, 16, 20)
    with torch.no_grad():
        together = network(blurred, estimate, motion)
        alone = [
            sub_models(network)[k](blurred[i : i + 1], estimate[i : i + 1], motion[i : i + 1])
            for i, k in enumerate((1, 0, 2, 1, 0))
        ]
    assert torch.allclose(together, torch.cat(alone), atol=1e-6)


def test_a_single_network_is_a_bank_of_one() -> None:
    network = build(TINY)
    assert sub_models(network) == [network]
    assert kinds_of(torch.rand(3, 2), TINY.kinds).tolist() == [0, 0, 0]


def test_the_fast_network_has_its_promised_size() -> None:
    count = sum(p.numel() for p in build(NetworkRecipe()).parameters())
    assert 200_000 < count < 300_000
    assert halo_px(NetworkRecipe()) == 36
