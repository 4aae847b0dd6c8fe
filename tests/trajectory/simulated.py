"""Series whose truth is known: objects that diffuse, swim straight, or run and tumble; that appear, vanish and cross."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deblurd.frames import MotionVector
from deblurd.kernel import reblur

Kind = Literal["brownian", "directed", "run-and-tumble"]

SUBSTEPS = 24
"""Places of an object during one exposure."""

BACKGROUND, CONTRAST = 0.5, 0.2
"""Of light of full scale 1: of the field, and of an object at rest."""


@dataclass(frozen=True)
class Simulated:
    """frames: uint16 (H, W), linear light. truth: rows of object, frame, y, x px (the mean over the exposure), of what lies in the field."""

    frames: list[NDArray[np.uint16]]
    truth: NDArray[np.float64]
    fps: float
    exposure_ms: float
    motion: MotionVector


def simulate(
    kind: Kind,
    objects: int,
    *,
    frames: int = 40,
    side_px: int = 512,
    snr: float = 5.0,
    own_blur_px: float = 0.0,
    stage_blur_px: tuple[float, float] = (0.0, 0.0),
    step_px: float = 2.0,
    sigma_px: float = 2.0,
    exposed: float = 0.5,
    dark: bool = True,
    seed: int = 0,
) -> Simulated:
    """Gaussian objects of `sigma_px` with white noise: the contrast of an object at rest over the noise is `snr`.

    own_blur_px: how far an object that swims travels during the exposure, which is the share `exposed` of the interval; of a diffusing one nothing is
    asked. step_px: of diffusion, standard deviation along an axis from frame to frame; of the others where own_blur_px is 0. stage_blur_px: (dy, dx) of the whole image.
    """
    rng = np.random.default_rng(seed)
    paths = _paths(rng, kind, objects, frames, side_px, own_blur_px / exposed or step_px, step_px)
    inside = max(int(SUBSTEPS * exposed), 1)
    motion = MotionVector(*stage_blur_px)
    images, truth = [], []
    noise = CONTRAST / snr
    for frame in range(frames):
        light = np.zeros((side_px, side_px))
        for index, path in enumerate(paths):
            steps = path[frame * SUBSTEPS : frame * SUBSTEPS + inside]
            if not np.isfinite(steps).all():
                continue
            y, x = steps.mean(axis=0)
            if 0 <= y < side_px and 0 <= x < side_px:
                truth.append((index, frame, y, x))
            _draw(light, steps, sigma_px)
        light = BACKGROUND + (-1 if dark else 1) * CONTRAST * light
        if motion.length_px:
            light = reblur(light.astype(np.float32), motion).astype(np.float64)
        light += rng.normal(0, noise, light.shape)
        images.append(np.clip(np.rint(light * 65535), 0, 65535).astype(np.uint16))
    return Simulated(images, np.array(truth).reshape(-1, 4), 10.0, 1000 * exposed / 10.0, motion)


def _paths(
    rng: np.random.Generator,
    kind: Kind,
    objects: int,
    frames: int,
    side_px: int,
    step_px: float,
    diffusion_px: float,
) -> list[NDArray[np.float64]]:
    """Of each object, (frames x SUBSTEPS, 2) px; nan where it is not there."""
    count = frames * SUBSTEPS
    found = []
    for _ in range(objects):
        if kind == "brownian":
            steps = rng.normal(0, diffusion_px / np.sqrt(SUBSTEPS), (count, 2))
        else:
            angle = np.full(count, rng.uniform(0, 2 * np.pi))
            if kind == "run-and-tumble":
                # a tumble every 8 frames on the mean
                angle += np.cumsum(
                    (rng.random(count) < 1 / (8 * SUBSTEPS)) * rng.uniform(-np.pi, np.pi, count)
                )
            steps = step_px / SUBSTEPS * np.stack([np.sin(angle), np.cos(angle)], axis=1)
        path = np.cumsum(steps, axis=0)
        # each is in the field at some moment, fast ones only for a while
        path += rng.uniform(0, side_px, 2) - path[rng.integers(count)]
        if rng.random() < 0.3:
            path[: SUBSTEPS * rng.integers(frames // 2 + 1)] = np.nan
        elif rng.random() < 0.3:
            path[SUBSTEPS * rng.integers((frames + 1) // 2, frames + 1) :] = np.nan
        found.append(path)
    return found


def _draw(light: NDArray[np.float64], steps: NDArray[np.float64], sigma_px: float) -> None:
    reach = 5 * sigma_px
    low = np.maximum(np.floor(steps.min(axis=0) - reach).astype(int), 0)
    high = np.minimum(np.ceil(steps.max(axis=0) + reach).astype(int) + 1, light.shape)
    if (high <= low).any():
        return
    along: list[Any] = [
        np.exp(-0.5 * ((np.arange(low[axis], high[axis])[None, :] - steps[:, axis, None]) / sigma_px) ** 2)
        for axis in (0, 1)
    ]
    light[low[0] : high[0], low[1] : high[1]] += np.einsum("sy,sx->yx", *along) / len(steps)
