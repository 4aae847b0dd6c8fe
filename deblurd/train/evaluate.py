"""How good a model is, beside doing nothing, the Wiener filter and Richardson-Lucy, all told the same motion.

An image is blurred whole and cut afterwards, so that nobody knows what lies beyond the border; then the border is left out. The
model is run as the daemon runs it: with its gate, the steps back to the measured pixels and the check.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np

from deblurd import light
from deblurd.deblur.deblurrer import Deblurrer
from deblurd.deblur.model import WIENER_NSR as TOLD_NOISE
from deblurd.deblur.model import find_model
from deblurd.deblur.noise import noise_sigma, noise_to_signal
from deblurd.errors import NoInputError
from deblurd.frames import DeblurredTile, MotionVector, Pixels, Pose, Tile
from deblurd.train.dataset import Images
from deblurd.train.degrade import expose, turned
from deblurd.train.measures import count_nuclei, gmsd, psnr_db, ssim
from deblurd.train.rivals import WIENER_NSR, Blur, richardson_lucy, wiener_filtered
from deblurd.train.sources import Picture

FULL_WELL_E = 10000.0
READ_NOISE_E = 5.0
RICHARDSON_LUCY_STEPS = 120
WRONG_LENGTH, WRONG_ANGLE_DEG = 1.1, 5.0
"""A gross tracking error, to see that the model does no harm."""

OURS = ("model", "model_wrong_motion")


@dataclass(frozen=True, slots=True)
class Score:
    """One method on one field. known: the model learnt from other images of this family.

    nuclei, invented: seen in the result, and of these such as the truth does not have; nuclei_sharp: those of the truth. kept_raw: the
    gate or the check let the raw pixels stand.
    """

    image: str
    family: str
    known: bool
    level_px: float
    angle_deg: float
    defocus_px: float
    method: str
    psnr_db: float
    ssim: float
    gmsd: float
    nuclei: int
    invented: int
    nuclei_sharp: int
    kept_raw: bool


class Model:
    """A model folder, run as the daemon runs it."""

    def __init__(self, folder: Path) -> None:
        """Raises NoInputError where there is no model in `folder`, ModelError where it cannot be loaded."""
        if not (folder / "manifest.json").is_file():
            raise NoInputError(f"There is no model in {folder}: name a folder that holds manifest.json.")
        found = find_model(str(folder.absolute()))
        self.manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text("utf-8"))
        self.takes_defocus = found.takes_defocus
        self._deblurrer = Deblurrer(found, encoding="srgb", device="cpu")

    def restore(self, pixels: Pixels, motion: MotionVector) -> DeblurredTile:
        """(H, W, 3) uint8, sRGB-encoded; the pixels themselves where the gate or the check keeps them."""
        tile = Tile(0, 0, 0, Pose(0.0, 0.0, 0.0), motion, 1.0, pixels.shape, "")
        return self._deblurrer.deblur([(tile, pixels)])[0]


def evaluate(
    model: Model,
    images: Images,
    blurs: Sequence[Blur],
    field_px: int,
    fields: int,
    seed: int = 0,
    *,
    rivals: bool = True,
) -> Iterator[list[Score]]:
    """Scores of all methods for each field and blur; a list for each, as they come.

    fields: of each image at most so many, those with the strongest contrast. rivals: whether Wiener and Richardson-Lucy are run too, which takes most of the time.
    """
    families = {row["name"] for row in model.manifest["training"]["data"]}
    rng = np.random.default_rng(seed)
    for entry, pixels in zip(images.entries, images.pixels, strict=True):
        for number, sharp in enumerate(best_fields(pixels, field_px, fields)):
            for blur in blurs:
                yield [
                    Score(
                        f"{entry.file}#{number}",
                        entry.family,
                        entry.family in families,
                        blur.level_px,
                        blur.angle_deg,
                        blur.defocus_px,
                        *row,
                    )
                    for row in _score_field(model, sharp, blur, rng, rivals)
                ]


def all_blurs(
    levels_px: Sequence[float], angles_deg: Sequence[float], defocus_px: Sequence[float]
) -> list[Blur]:
    """Every level in every direction with every defocus; a level of 0 has one direction."""
    return [
        Blur(level, angle, sigma)
        for sigma in defocus_px
        for level in levels_px
        for angle in (angles_deg if level else (0.0,))
    ]


def best_fields(pixels: Picture, size: int, count: int) -> list[Picture]:
    """Up to `count` separate squares of at most `size` px with the greatest standard deviation."""
    size_y, size_x = (min(size, n) for n in pixels.shape[:2])
    starts = [
        (y, x)
        for y in range(0, pixels.shape[0] - size_y + 1, size_y)
        for x in range(0, pixels.shape[1] - size_x + 1, size_x)
    ]
    found = [pixels[y : y + size_y, x : x + size_x] for y, x in starts]
    return sorted(found, key=lambda f: -float(f.std()))[:count]


def blurred_field(sharp: Picture, blur: Blur, rng: np.random.Generator) -> tuple[Picture, Picture]:
    """What a camera of `FULL_WELL_E` electrons sees of a field, and what it should see; smaller by what is blurred in from outside."""
    margin = blur.reach_px + 2
    inner = (slice(margin, -margin), slice(margin, -margin))
    scene = blur.of(light.to_linear(sharp, "srgb"))[inner]
    exposed = expose(scene, FULL_WELL_E, READ_NOISE_E, rng)
    return np.asarray(light.from_linear(exposed, np.uint8, "srgb"), np.uint8), sharp[inner]


def _score_field(
    model: Model, sharp: Picture, blur: Blur, rng: np.random.Generator, rivals: bool
) -> list[tuple[Any, ...]]:
    pixels, truth = blurred_field(sharp, blur, rng)
    results: dict[str, tuple[Pixels, bool]] = {"identity": (pixels, False)}
    if rivals:
        results |= {name: (image, False) for name, image in _by_rivals(pixels, blur).items()}
    wrong = turned(blur.motion, WRONG_LENGTH, WRONG_ANGLE_DEG)
    motions = {"model": blur.motion} | ({"model_wrong_motion": wrong} if blur.level_px else {})
    for name, motion in motions.items():
        made = model.restore(pixels, motion)
        results[name] = made.pixels, made.gate != "deblur"
    border = max(8, blur.reach_px)
    inner = (slice(border, -border), slice(border, -border))
    truth = np.ascontiguousarray(truth[inner])
    nuclei_sharp = count_nuclei(truth, truth).seen
    scores = []
    for method, (image, kept_raw) in results.items():
        result = np.ascontiguousarray(image[inner])
        nuclei = count_nuclei(truth, result)
        measured = psnr_db(truth, result), ssim(truth, result), gmsd(truth, result)
        scores.append((method, *measured, nuclei.seen, nuclei.invented, nuclei_sharp, kept_raw))
    return scores


def _by_rivals(pixels: Picture, blur: Blur) -> dict[str, Picture]:
    """What those who are told the very kernel make of it."""
    seen = light.to_linear(pixels, "srgb")
    luminance = light.luminance_of(seen)
    best_nsr = noise_to_signal(luminance, noise_sigma(luminance), blur.level_px, *TOLD_NOISE)
    return {
        "wiener": _picture(wiener_filtered(seen, blur, WIENER_NSR, free_border=False)),
        "wiener_told_noise": _picture(wiener_filtered(seen, blur, best_nsr, free_border=True)),
        "richardson_lucy": _picture(richardson_lucy(seen, blur, RICHARDSON_LUCY_STEPS)),
    }


def _picture(linear: light.Image) -> Picture:
    return np.rint(light.encode(linear) * 255).astype(np.uint8)


def conditions(field_px: int, fields: int, *, rivals: bool) -> str:
    """A sentence on how the figures came about."""
    of_rivals = (
        "Wiener as in the textbook, and as the engine makes it (told the noise, the border left free); "
        f"Richardson-Lucy with {RICHARDSON_LUCY_STEPS} steps; "
    )
    return (
        f"Up to {fields} field(s) of {field_px} px of each held-out image; {FULL_WELL_E:.0f} electrons at full scale, "
        f"{READ_NOISE_E:.0f} of read noise, 8-bit sRGB; border left out; {of_rivals if rivals else ''}"
        f"wrong motion: {100 * (WRONG_LENGTH - 1):.0f} % too long and {WRONG_ANGLE_DEG:.0f} degrees off; this model as the daemon runs it."
    )
