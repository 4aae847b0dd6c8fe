"""How good a model is, beside doing nothing, the Wiener filter and Richardson-Lucy, all told the same motion.

An image is blurred whole and cut afterwards, so that nobody knows what lies beyond the border; then the border is left out.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from deblurd import light
from deblurd.deblur.deblurrer import Deblurrer
from deblurd.deblur.model import find_model
from deblurd.deblur.wiener import wiener
from deblurd.errors import NoInputError
from deblurd.frames import MotionVector, Pixels, Pose, Tile
from deblurd.kernel import reblur
from deblurd.train.dataset import Images
from deblurd.train.degrade import expose, turned

FULL_WELL_E = 10000.0
READ_NOISE_E = 5.0
RICHARDSON_LUCY_STEPS = 120
WRONG_LENGTH, WRONG_ANGLE_DEG = 1.1, 5.0
"""A gross tracking error, to see that the model does no harm."""

METHODS = ("identity", "wiener", "richardson_lucy", "model", "model_wrong_motion")


@dataclass(frozen=True, slots=True)
class Score:
    """One method on one field. known: the model learnt from other images of this family."""

    image: str
    family: str
    known: bool
    level_px: float
    angle_deg: float
    method: str
    psnr_db: float
    ssim: float


class Model:
    """A model folder, run as the daemon runs it: with its gate, the steps back to the measured pixels and the check."""

    def __init__(self, folder: Path) -> None:
        """Raises NoInputError where there is no model in `folder`, ModelError where it cannot be loaded."""
        if not (folder / "manifest.json").is_file():
            raise NoInputError(f"There is no model in {folder}: name a folder that holds manifest.json.")
        found = find_model(str(folder))
        self.manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text("utf-8"))
        self.nsr = found.nsr
        self._deblurrer = Deblurrer(found, encoding="srgb", device="cpu")

    def restore(self, pixels: Pixels, motion: MotionVector) -> light.Image:
        """(H, W, 3) uint8 to (H, W, 3) sRGB-encoded, full scale 1; the pixels themselves where the gate or the check keeps them."""
        tile = Tile(0, 0, 0, Pose(0.0, 0.0, 0.0), motion, 1.0, pixels.shape, "")
        return np.asarray(self._deblurrer.deblur([(tile, pixels)])[0].pixels / np.float32(255), np.float32)


def richardson_lucy(blurred: light.Image, motion: MotionVector, steps: int) -> light.Image:
    """Richardson (1972) and Lucy (1974), in linear light, starting from the blurred image."""
    reverse = MotionVector(motion.dy, motion.dx, -motion.bend_dy, -motion.bend_dx)
    observed = np.maximum(blurred, 1e-5)
    sharp = observed
    for _ in range(steps):
        ratio = np.asarray(observed / np.maximum(reblur(sharp, motion), 1e-5), dtype=np.float32)
        sharp = sharp * reblur(ratio, reverse)
    return sharp


def evaluate(
    model: Model,
    images: Images,
    levels_px: Sequence[float],
    angles_deg: Sequence[float],
    field_px: int,
    fields: int,
    seed: int = 0,
) -> Iterator[list[Score]]:
    """Scores of all methods for each field, level and angle; a list for each, as they come.

    fields: of each image at most so many, those with the strongest contrast. Angles turn from +x towards +y.
    """
    families = {row["name"] for row in model.manifest["training"]["data"]}
    rng = np.random.default_rng(seed)
    for entry, pixels in zip(images.entries, images.pixels, strict=True):
        for number, sharp in enumerate(best_fields(pixels, field_px, fields)):
            for level in levels_px:
                for angle in angles_deg:
                    scored = _score_field(model, sharp, level, angle, rng)
                    yield [
                        Score(
                            f"{entry.file}#{number}",
                            entry.family,
                            entry.family in families,
                            level,
                            angle,
                            *row,
                        )
                        for row in scored
                    ]


def best_fields(pixels: NDArray[np.uint8], size: int, count: int) -> list[NDArray[np.uint8]]:
    """Up to `count` separate squares of at most `size` px with the greatest standard deviation."""
    size_y, size_x = (min(size, n) for n in pixels.shape[:2])
    starts = [
        (y, x)
        for y in range(0, pixels.shape[0] - size_y + 1, size_y)
        for x in range(0, pixels.shape[1] - size_x + 1, size_x)
    ]
    found = [pixels[y : y + size_y, x : x + size_x] for y, x in starts]
    return sorted(found, key=lambda f: -float(f.std()))[:count]


def _score_field(
    model: Model, sharp: NDArray[np.uint8], level: float, angle_deg: float, rng: np.random.Generator
) -> list[tuple[str, float, float]]:
    angle = math.radians(angle_deg)
    motion = MotionVector(level * math.sin(angle), level * math.cos(angle))
    margin, border = math.ceil(level / 2) + 2, max(8, math.ceil(level / 2))
    scene = reblur(light.to_linear(sharp, "srgb"), motion)[margin:-margin, margin:-margin]
    pixels = light.from_linear(expose(scene, FULL_WELL_E, READ_NOISE_E, rng), np.uint8, "srgb")
    blurred = light.to_linear(pixels, "srgb")
    wrong = turned(motion, WRONG_LENGTH, WRONG_ANGLE_DEG)
    restored = {
        "identity": light.encode(blurred),
        "wiener": light.encode(wiener(blurred, motion, model.nsr)),
        "richardson_lucy": light.encode(richardson_lucy(blurred, motion, RICHARDSON_LUCY_STEPS)),
        "model": model.restore(pixels, motion),
        "model_wrong_motion": model.restore(pixels, wrong),
    }
    cut = margin + border
    truth = sharp[cut:-cut, cut:-cut]
    scores = []
    for method, image in restored.items():
        inner = image[border:-border, border:-border]
        result = np.rint(np.clip(inner, 0, 1) * 255).astype(np.uint8)
        scores.append((method, psnr_db(truth, result), ssim(truth, result)))
    return scores


def psnr_db(truth: NDArray[np.uint8], result: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of 8-bit images; at most 60, where nothing can be seen any more."""
    error = float(np.mean((truth.astype(np.float64) - result) ** 2))
    return 10 * math.log10(255**2 / max(error, 255**2 * 1e-6))


def ssim(truth: NDArray[np.uint8], result: NDArray[np.uint8]) -> float:
    """Structural similarity (Wang et al. 2004): Gaussian of 1.5 px, data range 255, mean of the channels."""
    return float(
        structural_similarity(  # type: ignore[no-untyped-call]
            truth,
            result,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
            channel_axis=2,
        )
    )


def summarise(scores: Sequence[Score]) -> list[dict[str, Any]]:
    """Means over images for each family, level and angle: a row with PSNR and SSIM of every method."""
    cells: dict[tuple[str, bool, float, float], dict[str, list[Score]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for score in scores:
        cells[score.family, score.known, score.level_px, score.angle_deg][score.method].append(score)
    return [
        {
            "family": family,
            "known": known,
            "level_px": level,
            "angle_deg": angle,
            "images": len(methods["identity"]),
            "psnr_db": {
                m: round(float(np.mean([s.psnr_db for s in found])), 2) for m, found in methods.items()
            },
            "ssim": {m: round(float(np.mean([s.ssim for s in found])), 4) for m, found in methods.items()},
        }
        for (family, known, level, angle), methods in sorted(cells.items())
    ]


def worst_loss_db(scores: Sequence[Score], method: str) -> float:
    """How far the method fell behind its input on the image where it did worst, dB; negative if it never did."""
    identity = {(s.image, s.level_px, s.angle_deg): s.psnr_db for s in scores if s.method == "identity"}
    return max(identity[s.image, s.level_px, s.angle_deg] - s.psnr_db for s in scores if s.method == method)


def conditions(field_px: int, fields: int) -> str:
    """A sentence on how the figures came about."""
    return (
        f"Up to {fields} field(s) of {field_px} px of each held-out image; {FULL_WELL_E:.0f} electrons at full scale, "
        f"{READ_NOISE_E:.0f} of read noise, 8-bit sRGB; border left out; Richardson-Lucy with {RICHARDSON_LUCY_STEPS} steps; "
        f"wrong motion: {100 * (WRONG_LENGTH - 1):.0f} % too long and {WRONG_ANGLE_DEG:.0f} degrees off."
    )


def write_scores(scores: Sequence[Score], path: Path) -> None:
    """Every score as a row of a CSV file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Score.__slots__)
        writer.writerows([getattr(s, name) for name in Score.__slots__] for s in scores)
