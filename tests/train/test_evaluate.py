from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from deblurd import light
from deblurd.errors import ModelError, NoInputError
from deblurd.frames import MotionVector
from deblurd.kernel import reblur
from deblurd.train.card import card, quality_table
from deblurd.train.dataset import Entry, Images
from deblurd.train.evaluate import (
    METHODS,
    Model,
    Score,
    best_fields,
    evaluate,
    psnr_db,
    richardson_lucy,
    ssim,
    summarise,
    worst_loss_db,
    write_scores,
)

Drawing = Callable[[int, tuple[int, int]], NDArray[np.uint8]]

FAST = Path(__file__).parents[2] / "models" / "fast"


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(FAST)


def test_richardson_lucy_sharpens_and_keeps_the_light(draw: Drawing) -> None:
    sharp = light.to_linear(draw(0, (96, 96)), "srgb")
    motion = MotionVector(0, 6, 0, 0.5)
    blurred = reblur(sharp, motion)
    restored = richardson_lucy(blurred, motion, 30)
    assert np.mean((restored - sharp) ** 2) < 0.4 * np.mean((blurred - sharp) ** 2)
    assert restored.mean() == pytest.approx(sharp.mean(), rel=0.01)


def test_measures_of_known_pictures(draw: Drawing) -> None:
    image = draw(0, (64, 64))
    assert psnr_db(image, image) == pytest.approx(60)
    assert ssim(image, image) == pytest.approx(1)
    assert psnr_db(np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 51, np.uint8)) == pytest.approx(
        13.979, abs=1e-3
    )


def test_fields_with_the_strongest_contrast_come_first() -> None:
    pixels = np.full((100, 250, 3), 200, dtype=np.uint8)
    pixels[10:50, 120:180] = 20
    pixels[10:20, 0:9] = 20
    first, second = best_fields(pixels, 100, 2)
    assert first.std() > second.std() > 0
    assert [f.shape for f in best_fields(pixels[:40, :60], 100, 5)] == [(40, 60, 3)]


def test_every_method_is_scored_alike(model: Model, draw: Drawing) -> None:
    images = Images([Entry("bccd/a.png", "MIT", "test", "a")], [draw(0, (120, 130))], ["0"])
    rounds = list(evaluate(model, images, [4.0, 9.0], [0.0, 37.0], 120, 1))
    assert len(rounds) == 4
    scores = [s for found in rounds for s in found]
    assert [s.method for s in rounds[0]] == list(METHODS)
    assert all(s.known and np.isfinite(s.psnr_db) and 0 < s.ssim <= 1 for s in scores)
    rows = summarise(scores)
    assert [(r["level_px"], r["angle_deg"]) for r in rows] == [(4, 0), (4, 37), (9, 0), (9, 37)]
    assert all(r["psnr_db"]["model"] > r["psnr_db"]["identity"] for r in rows)
    assert len(quality_table(rows, "psnr_db", 2)) == 2 + 4


def test_images_of_any_size_are_padded_to_the_stride(model: Model, draw: Drawing) -> None:
    assert model.restore(draw(0, (61, 47)), MotionVector(0, 5)).shape == (61, 47, 3)


def test_the_worst_image_is_found() -> None:
    def score(image: str, method: str, psnr: float) -> Score:
        return Score(image, "f", True, 5, 0, method, psnr, 0.5)

    scores = [
        score("a", "identity", 30),
        score("a", "model", 33),
        score("b", "identity", 40),
        score("b", "model", 39.5),
    ]
    assert worst_loss_db(scores, "model") == pytest.approx(0.5)
    assert worst_loss_db(scores[:2], "model") == pytest.approx(-3)


def test_scores_as_rows(tmp_path: Path) -> None:
    write_scores([Score("a", "f", True, 5, 0, "model", 33.25, 0.9)], tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["method"] == "model"
    assert float(row["psnr_db"]) == 33.25


def test_the_card_of_the_shipped_model_follows_from_its_manifest() -> None:
    manifest = json.loads((FAST / "manifest.json").read_text("utf-8"))
    assert card(manifest) == (FAST / "README.md").read_text("utf-8")


def test_models_that_are_not_there_or_broken(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match=r"manifest\.json"):
        Model(tmp_path)
    shutil.copytree(FAST, tmp_path / "fast")
    (tmp_path / "fast" / "model.onnx").write_bytes(b"not onnx")
    with pytest.raises(ModelError, match=r"models?[/ ].*again|manifest\.json"):
        Model(tmp_path / "fast")
    (tmp_path / "fast" / "model.onnx").unlink()
    with pytest.raises(ModelError, match=r"models?[/ ].*again|manifest\.json"):
        Model(tmp_path / "fast")
    (tmp_path / "fast" / "manifest.json").write_text("{", "utf-8")
    with pytest.raises(ModelError, match=r"models?[/ ].*again|manifest\.json"):
        Model(tmp_path / "fast")
