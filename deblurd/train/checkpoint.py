"""Checkpoints of a training: written whole or not at all, and refused where they are of something else."""

from __future__ import annotations

import os
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from pydantic import ValidationError

from deblurd.errors import ModelError, NoInputError, OutputError
from deblurd.train.recipe import NetworkRecipe, Recipe

CHECKPOINT = "checkpoint.pt"


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
    try:
        found = NetworkRecipe.model_validate(checkpoint["recipe"]["network"])
        same = found.model_copy(update={"mirrored": recipe.network.mirrored}) == recipe.network
    except ValidationError:
        same = False
    if not same:
        raise ModelError(
            "The checkpoint is of another network than the recipe's: use its recipe, or another --output."
        )
