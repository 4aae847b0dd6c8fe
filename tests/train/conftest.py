from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from deblurd.train.recipe import Recipe

Drawing = Callable[[int, tuple[int, int]], NDArray[np.uint8]]

TINY = """
name = "tiny"
version = "0.0.1"
description = "For tests."
[degrade]
field_px = 32
guard_px = 4
blur_px = [1, 8]
[network]
width = 8
blocks = 1
film_width = 4
[fit]
steps = 2
batch = 2
fresh = 1
pool = 4
"""
"""A recipe, as a file has it."""


def drawing(seed: int, shape: tuple[int, int] = (80, 96)) -> NDArray[np.uint8]:
    """(H, W, 3) coloured discs on light ground."""
    rng = np.random.default_rng(seed)
    image = np.full((*shape, 3), 230, dtype=np.uint8)
    for _ in range(shape[0] * shape[1] // 150):
        y, x = (int(v) for v in rng.uniform(0, shape))
        cv2.circle(
            image, (x, y), int(rng.integers(2, 7)), tuple(int(v) for v in rng.integers(40, 200, 3)), -1
        )
    return image


@pytest.fixture
def draw() -> Drawing:
    return drawing


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    """A folder of six slides with an image each, without a manifest."""
    folder = tmp_path / "images"
    for i in range(6):
        (folder / f"slide{i}").mkdir(parents=True)
        cv2.imwrite(str(folder / f"slide{i}" / "a.png"), drawing(i))
    return folder


@pytest.fixture
def recipe() -> Recipe:
    return small_recipe()


@pytest.fixture
def bank(recipe: Recipe) -> Recipe:
    return bank_of(recipe)


def small_recipe() -> Recipe:
    """The smallest training that exercises everything."""
    return Recipe.model_validate(
        {
            "name": "tiny",
            "version": "0.0.1",
            "description": "For tests.",
            "degrade": {"field_px": 32, "guard_px": 4, "blur_px": (1, 8)},
            "network": {"width": 8, "blocks": 1, "film_width": 4},
            "fit": {
                "steps": 6,
                "batch": 2,
                "fresh": 1,
                "pool": 4,
                "warmup": 2,
                "validate_every": 3,
                "checkpoint_every": 2,
            },
        }
    )


def bank_of(recipe: Recipe) -> Recipe:
    """The same with two sub-models."""
    kinds = (
        {"name": "short", "blur_px": (0, 4), "weight": 2.0},
        {"name": "long", "blur_px": (4, 8)},
    )
    return with_network(recipe, kinds=kinds)


def with_network(recipe: Recipe, **changes: object) -> Recipe:
    return Recipe.model_validate(recipe.model_dump() | {"network": recipe.network.model_dump() | changes})
