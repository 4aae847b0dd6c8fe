"""Single image files, deblurred with a motion vector that somebody knows."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from deblurd.deblur.deblurrer import Deblurrer
from deblurd.deblur.model import find_model
from deblurd.errors import OutputError, UsageError
from deblurd.frames import DeblurredTile, Encoding, Gate, MotionVector, Pixels, Pose, Tile
from deblurd.imagefiles import read_image

_WORDS: dict[Gate, str] = {
    "deblur": "deblurred",
    "sharp": "left as it was, because there is no blur to take out",
    "blank": "left as it was, because there is nothing to see in it",
    "out_of_range": "left as it was, because the motion is longer than the model can take out",
    "unknown_motion": "left as it was, because the motion is not known",
    "inconsistent": "left as it was, because the result did not explain the image",
}


@dataclass(frozen=True, slots=True)
class ImageResult:
    """What became of one image: its new file, and a sentence for people."""

    path: Path
    output: Path
    gate: Gate
    residual: float
    text: str


def deblur_images(
    paths: Sequence[Path],
    *,
    motion: tuple[float, float],
    encoding: Encoding = "srgb",
    model: str = "fast",
    output: Path,
) -> Iterator[ImageResult]:
    """Deblurs files one after the other into the folder `output`, under their own names.

    motion: travel of the image during the exposure, (dy, dx) px. PNG, TIFF, JPEG and WebP, 8 or 16 bit, grey or colour; an alpha channel is kept
    as it is. Beside each result lies a JSON file that says what was done. Raises UsageError for a motion that cannot be, DataError for a
    file that cannot be read, OutputError where nothing can be written or an input would be overwritten, ModelError.
    """
    dy, dx = motion
    length_px = math.hypot(dy, dx)
    if not math.isfinite(length_px):
        raise UsageError(
            f"the motion {dy:g} {dx:g} is not a number: give its length in y and in x, in pixels"
        )
    found = find_model(model)
    if length_px == 0 and not found.takes_defocus:
        raise UsageError(
            "a motion of 0 0 blurs nothing: give how far the image travelled in y and in x, in pixels"
        )
    longest_px = found.blur_range_px[1]
    if length_px > longest_px:
        raise UsageError(
            f"a motion of {length_px:.1f} px is longer than the model {model} can take out ({longest_px:g} px): "
            "use another model, a shorter exposure or a slower stage"
        )
    deblurrer = Deblurrer(found, encoding=encoding)
    try:
        for path in paths:
            yield _one(path, MotionVector(dy, dx), deblurrer, output)
    finally:
        deblurrer.close()


def _one(path: Path, motion: MotionVector, deblurrer: Deblurrer, output: Path) -> ImageResult:
    image = read_image(path)
    colour, alpha = (
        (image[..., :3], image[..., 3:]) if image.ndim == 3 and image.shape[2] == 4 else (image, None)
    )
    colour = np.ascontiguousarray(colour)
    tile = Tile(0, 0, 0, Pose(0.0, 0.0, 0.0), motion, 1.0, colour.shape, "")
    result = deblurrer.deblur([(tile, colour)])[0]
    pixels = result.pixels if alpha is None else np.concatenate([result.pixels, alpha], axis=2)
    target = output / path.name
    if target.exists() and target.samefile(path):
        raise OutputError(f"{path} would be overwritten by its own result: choose another output folder")
    _write(target, pixels)
    _write_json(target, result, deblurrer, motion)
    return ImageResult(path, target, result.gate, result.residual, f"{target}: {_WORDS[result.gate]}")


def _write(target: Path, pixels: Pixels) -> None:
    """Whole or not at all."""
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA if pixels.shape[2] == 4 else cv2.COLOR_RGB2BGR)
    ok, encoded = cv2.imencode(target.suffix, pixels)
    if not ok:
        raise OutputError(f"{target} cannot be written as {target.suffix}: rename the image to .png")
    _replace(target, encoded.tobytes())


def _write_json(target: Path, result: DeblurredTile, deblurrer: Deblurrer, motion: MotionVector) -> None:
    content = {
        "gate": result.gate,
        "residual": result.residual if math.isfinite(result.residual) else None,
        "motion_px": [motion.dy, motion.dx],
        "model": deblurrer.model_id,
        "research_use_only": True,
    }
    _replace(target.with_name(target.name + ".json"), (json.dumps(content, indent=2) + "\n").encode())


def _replace(target: Path, content: bytes) -> None:
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        part.replace(target)
    except OSError as err:
        with contextlib.suppress(OSError):
            part.unlink()
        raise OutputError(
            f"{target} cannot be written ({err.strerror}): make room or choose another folder"
        ) from err
