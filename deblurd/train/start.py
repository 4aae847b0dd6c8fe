"""To go on from a model that is there: one's own slides added to a shipped model, or a deeper network grown from it."""

from __future__ import annotations

from itertools import groupby, zip_longest
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from pydantic import ValidationError
from torch import Tensor

from deblurd.deblur.model import Model
from deblurd.errors import ModelError
from deblurd.train.network import Bank, Block, Network, sub_models
from deblurd.train.recipe import NetworkRecipe

Weights = dict[str, Tensor]


def start_from(network: Network | Bank, recipe: NetworkRecipe, model: Model) -> None:
    """Put the weights of a model's files into `network`, made by `recipe`, which then does what the model does.

    A bank may start from a single model, and a network may have more blocks at each scale than the model: those begin as identities.
    Raises ModelError where the model has no network, another number of files, or layers of another kind.
    """
    if model.manifest is None or model.folder is None:
        raise ModelError(
            f"The model {model.name} has no network to start from: name a model folder, or leave --start out."
        )
    members, files = sub_models(network), [model.folder / file.file for file in model.manifest.files]
    if len(files) not in (1, len(members)):
        raise ModelError(
            f"{model.name} has {len(files)} sub-models and the recipe {len(members)}: start from a model with one or as many."
        )
    try:
        old = NetworkRecipe.model_validate(model.manifest.training["recipe"]["network"])
        for i, member in enumerate(members):
            _fill(member, _runs(type(member), recipe), _read(files[i % len(files)]), _runs(type(member), old))
    except (KeyError, ValueError, RuntimeError, ValidationError) as err:
        raise ModelError(
            f"The recipe's network cannot begin with the weights of {model.name} ({str(err).splitlines()[0]}): use the kind and width of "
            "network that it was made with, or leave --start out."
        ) from err


def _runs(kind: type[Network], recipe: NetworkRecipe) -> list[list[int]]:
    """The numbers of the blocks, those of one scale that follow one another together."""
    numbered = enumerate(kind.plan(recipe))
    return [[number for number, _ in run] for _, run in groupby(numbered, key=lambda each: each[1])]


def _read(path: Path) -> Weights:
    tensors = onnx.load(path).graph.initializer
    # those of a mirrored model lie one module deeper
    return {
        t.name.removeprefix("network."): torch.from_numpy(numpy_helper.to_array(t).copy()) for t in tensors
    }


@torch.no_grad()
def _fill(network: Network, runs: list[list[int]], found: Weights, old_runs: list[list[int]]) -> None:
    """KeyError, ValueError or RuntimeError where something does not fit."""
    pairs = [pair for run in zip(runs, old_runs, strict=True) for pair in zip_longest(*run)]
    for name, own in network.named_parameters():
        if not name.startswith(("blocks.", "film.2.")):
            _put(own, found[name], name)
    blocks = [block for block in network.blocks if isinstance(block, Block)]
    sizes = [2 * block.first.out_channels for block in blocks]
    new_rows = {name: torch.split(part, sizes) for name, part in network.film[2].named_parameters()}
    old_sizes = [2 * len(found[f"blocks.{n}.first.weight"]) for run in old_runs for n in run]
    for new, old in pairs:
        if new is None:
            raise ValueError("it has fewer blocks")
        for name, own in blocks[new].named_parameters():
            if old is not None:
                _put(own, found[f"blocks.{old}.{name}"], f"blocks.{new}.{name}")
            elif name.startswith("second."):
                own.zero_()
        for name, parts in new_rows.items():
            if old is not None:
                _put(parts[new], torch.split(found[f"film.2.{name}"], old_sizes)[old], f"film.2.{name}")
            else:
                parts[new].zero_()


def _put(own: Tensor, stored: Tensor, name: str) -> None:
    if own.shape != stored.shape or own.dtype != stored.dtype:
        raise ValueError(f"{name} is {tuple(own.shape)} in the recipe and {tuple(stored.shape)} in the model")
    own.copy_(stored)
