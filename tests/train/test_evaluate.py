from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from deblurd import light
from deblurd.errors import ModelError, NoInputError
from deblurd.frames import MotionVector
from deblurd.train.card import COLUMNS, card, nuclei_table, quality_table
from deblurd.train.dataset import Entry, Images
from deblurd.train.evaluate import Model, Score, all_blurs, best_fields, evaluate
from deblurd.train.measures import psnr_db
from deblurd.train.plots import PANEL_PX, before_and_after, draw_gains, png
from deblurd.train.rivals import Blur, richardson_lucy, wiener_filtered
from deblurd.train.summary import harm, summarise, worst_losses_db, write_scores

Drawing = Callable[[int, tuple[int, int]], NDArray[np.uint8]]

FAST = Path(__file__).parents[2] / "models" / "fast"


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(FAST)


def score(image: str, method: str, psnr: float, level: float = 5) -> Score:
    return Score(image, "f", True, level, 0, 0, method, psnr, 0.5, 0.1, 3, 1, 2, False)


@pytest.mark.parametrize("blur", [Blur(6, 0), Blur(6, 37), Blur(0, 0, 2), Blur(5, 90, 1.5)])
def test_rivals_sharpen_and_keep_the_light(draw: Drawing, blur: Blur) -> None:
    sharp = light.to_linear(draw(0, (96, 96)), "srgb")
    blurred = blur.of(sharp)
    inner = slice(16, -16)
    for restored in (
        richardson_lucy(blurred, blur, 30),
        wiener_filtered(blurred, blur, 0.01, free_border=True),
    ):
        before, after = (np.mean((x - sharp)[inner, inner] ** 2) for x in (blurred, restored))
        assert after < 0.7 * before
        assert restored.mean() == pytest.approx(sharp.mean(), rel=0.01)


def test_every_blur_once() -> None:
    blurs = all_blurs([0, 5], [0, 90], [0, 3])
    assert blurs == [
        Blur(0, 0, 0),
        Blur(5, 0, 0),
        Blur(5, 90, 0),
        Blur(0, 0, 3),
        Blur(5, 0, 3),
        Blur(5, 90, 3),
    ]
    assert [b.reach_px for b in blurs] == [0, 3, 3, 9, 12, 12]


def test_fields_with_the_strongest_contrast_come_first() -> None:
    pixels = np.full((100, 250, 3), 200, dtype=np.uint8)
    pixels[10:50, 120:180] = 20
    pixels[10:20, 0:9] = 20
    first, second = best_fields(pixels, 100, 2)
    assert first.std() > second.std() > 0
    assert [f.shape for f in best_fields(pixels[:40, :60], 100, 5)] == [(40, 60, 3)]


def test_every_method_is_scored_alike(model: Model, draw: Drawing) -> None:
    images = Images([Entry("bccd/a.png", "MIT", "test", "a")], [draw(0, (120, 130))], ["0"])
    rounds = list(evaluate(model, images, all_blurs([4.0, 9.0], [0.0, 37.0], [0.0]), 120, 1))
    assert len(rounds) == 4
    scores = [s for found in rounds for s in found]
    assert [s.method for s in rounds[0]] == list(COLUMNS)
    assert all(s.known and np.isfinite(s.psnr_db) and 0 < s.ssim <= 1 for s in scores)
    rows = summarise(scores)
    assert [(r["level_px"], r["angle_deg"]) for r in rows] == [(4, 0), (4, 37), (9, 0), (9, 37)]
    assert all(r["psnr_db"]["model"] > r["psnr_db"]["identity"] for r in rows)
    assert all(r["gmsd"]["model"] < r["gmsd"]["identity"] for r in rows)
    assert all(r["nuclei_sharp"] > 0 and r["invented"]["model"] <= 1 for r in rows)
    assert all(r["kept_raw"]["model"] == 0 for r in rows)
    assert len(quality_table(rows, "psnr_db", 2)) == 2 + 4
    assert len(nuclei_table(rows)) == 2 + 2


def test_many_images_are_measured_without_the_rivals(model: Model, draw: Drawing) -> None:
    images = Images([Entry("bccd/a.png", "MIT", "test", "a")], [draw(0, (120, 130))], ["0"])
    found = list(evaluate(model, images, [Blur(6)], 120, 1, rivals=False))
    assert [score.method for score in found[0]] == ["identity", "model", "model_wrong_motion"]
    assert set(worst_losses_db(found[0])) == {"model", "model_wrong_motion"}


def test_a_frame_at_rest_is_scored_without_a_wrong_motion(model: Model, draw: Drawing) -> None:
    images = Images([Entry("new/a.png", "MIT", "test", "a")], [draw(0, (120, 130))], ["0"])
    rounds = list(evaluate(model, images, all_blurs([0, 6], [0], [1.5]), 120, 1))
    assert [len(found) for found in rounds] == [5, 6]
    assert all(not s.known and s.defocus_px == 1.5 for s in rounds[0])
    assert next(s for s in rounds[0] if s.method == "model").kept_raw  # this model is not for defocus
    rows = summarise([s for found in rounds for s in found])
    table = quality_table(rows, "psnr_db", 2)
    assert table[2].startswith("| other sources | defocus 1.5 | at rest |")
    assert table[2].endswith("| - |")
    assert table[3].startswith("| other sources | 6, defocus 1.5 | axis |")


def test_images_of_any_size_are_padded_to_the_stride(model: Model, draw: Drawing) -> None:
    assert model.restore(draw(0, (61, 47)), MotionVector(0, 5)).pixels.shape == (61, 47, 3)


def test_the_worst_image_is_found() -> None:
    scores = [
        score("a", "identity", 30),
        score("a", "model", 33),
        score("b", "identity", 40),
        score("b", "model", 39.5),
    ]
    assert worst_losses_db(scores) == {"model": 0.5}
    assert worst_losses_db(scores[:2]) == {"model": -3.0}
    assert harm(scores, "model") == {"results": 2, "behind": 1, "kept_raw": 0, "worst_loss_db": 0.5}


def test_scores_as_rows(tmp_path: Path) -> None:
    write_scores([score("a", "model", 33.25)], tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["method"] == "model"
    assert float(row["psnr_db"]) == 33.25
    assert (row["nuclei"], row["invented"], row["nuclei_sharp"]) == ("3", "1", "2")


def test_gains_as_a_picture(tmp_path: Path) -> None:
    scores = [score("a", m, p, level) for level in (5, 9) for m, p in (("identity", 30), ("model", 33))]
    draw_gains(summarise(scores), tmp_path / "gains.png")
    assert cv2.imread(str(tmp_path / "gains.png")) is not None


def test_a_picture_of_before_and_after_is_only_made_of_what_anybody_may_show(
    model: Model, draw: Drawing
) -> None:
    entries = [Entry("a/a.png", licence, "test", "a") for licence in ("MIT", "CC0 1.0")]
    pixels = [draw(0, (300, 300)), draw(1, (300, 300))]
    assert before_and_after(model, Images(entries[:1], pixels[:1], ["0"]), [Blur(9)]) is None
    picture = before_and_after(model, Images(entries, pixels, ["0", "1"]), [Blur(5), Blur(9)])
    assert picture is not None
    assert abs(picture.shape[0] / picture.shape[1] - 2 / 3) < 0.01
    before, after, truth = (
        picture[PANEL_PX + 4 : 2 * PANEL_PX, x : x + PANEL_PX] for x in (0, PANEL_PX + 4, 2 * (PANEL_PX + 4))
    )
    assert psnr_db(truth[:156], after[:156]) > psnr_db(truth[:156], before[:156]) + 1
    read = cv2.imdecode(np.frombuffer(png(picture), np.uint8), cv2.IMREAD_COLOR)
    assert read is not None
    assert np.array_equal(read[..., ::-1], picture)


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
