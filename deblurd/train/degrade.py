"""From a sharp image to what the camera of a moving stage would have given, and the engine's estimate of it.

Blur adds up in linear light along the path; then come photon noise, read noise and quantisation. The estimate is
made with a motion vector that is as wrong as a tracker's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from deblurd import light
from deblurd.deblur.noise import noise_sigma, noise_to_signal
from deblurd.deblur.wiener import wiener
from deblurd.frames import Encoding, MotionVector
from deblurd.kernel import reblur
from deblurd.train.dataset import Images
from deblurd.train.recipe import AT_REST_PX, DegradeRecipe

Field = NDArray[np.uint16]
"""(H, W, 3), sRGB-encoded, full scale 65535: less memory than float32, and no visible quantisation."""

_SUPERSAMPLING = 8


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """What the network is given, and what it should make of it. motion: (2,) float32, (dy, dx) px as tracked."""

    blurred: Field
    estimate: Field
    sharp: Field
    motion: NDArray[np.float32]

    def turned(self, rng: np.random.Generator) -> Example:
        """In one of the eight orientations, drawn at random."""
        transpose, flip_y, flip_x = rng.integers(0, 2, 3, dtype=bool)

        def turn(image: Field) -> Field:
            image = image.transpose(1, 0, 2) if transpose else image
            return image[:: -1 if flip_y else 1, :: -1 if flip_x else 1]

        dy, dx = self.motion[::-1] if transpose else self.motion
        motion = np.array([-dy if flip_y else dy, -dx if flip_x else dx], dtype=np.float32)
        return Example(turn(self.blurred), turn(self.estimate), turn(self.sharp), motion)


def draw_motion(recipe: DegradeRecipe, rng: np.random.Generator) -> MotionVector:
    """A motion of a random level and direction."""
    low, high = recipe.blur_px
    if recipe.rest_share and rng.random() < recipe.rest_share:
        length = rng.uniform(0, AT_REST_PX)
    elif rng.random() < recipe.long_share:
        length = rng.uniform(low + (high - low) / 3, high)
    else:
        length = math.exp(rng.uniform(math.log(low), math.log(high)))
    angle = rng.uniform(-math.pi, math.pi)
    if rng.random() < recipe.axis_share:
        angle = round(angle / (math.pi / 2)) * math.pi / 2
    dy, dx = length * math.sin(angle), length * math.cos(angle)
    bend = rng.uniform(-recipe.bend_max, recipe.bend_max) if rng.random() < recipe.bend_share else 0.0
    return MotionVector(dy, dx, bend * dy, bend * dx)


def as_tracked(motion: MotionVector, recipe: DegradeRecipe, rng: np.random.Generator) -> MotionVector:
    """The motion with a tracker's error."""
    if rng.random() < recipe.gross_share:
        scale = 1 + rng.uniform(-recipe.gross_length, recipe.gross_length)
        turn = rng.uniform(-recipe.gross_angle_deg, recipe.gross_angle_deg)
    else:
        scale = 1 + recipe.length_jitter * float(np.clip(rng.normal(), -3, 3))
        turn = recipe.angle_jitter_deg * rng.normal()
    return turned(motion, scale, turn)


def turned(motion: MotionVector, scale: float, turn_deg: float) -> MotionVector:
    """The motion made longer by `scale` and turned from +x towards +y."""
    c, s = scale * math.cos(math.radians(turn_deg)), scale * math.sin(math.radians(turn_deg))
    return replace(
        motion,
        dy=c * motion.dy + s * motion.dx,
        dx=c * motion.dx - s * motion.dy,
        bend_dy=c * motion.bend_dy + s * motion.bend_dx,
        bend_dx=c * motion.bend_dx - s * motion.bend_dy,
    )


def expose(
    linear: light.Image, full_well_e: float, read_noise_e: float, rng: np.random.Generator
) -> light.Image:
    """Photon and read noise of a camera whose full scale is `full_well_e` electrons; same shape, not clipped."""
    electrons = rng.poisson(np.clip(linear, 0, None) * full_well_e).astype(np.float32)
    electrons += rng.standard_normal(linear.shape, dtype=np.float32) * np.float32(read_noise_e)
    return electrons / np.float32(full_well_e)


def draw_example(
    images: Images, weights: NDArray[np.float64], recipe: DegradeRecipe, rng: np.random.Generator
) -> Example:
    """Cut a field out of a random image and degrade it at random; of a captured pair, take it as it is."""
    index = rng.choice(len(images.pixels), p=weights)
    pixels, captured = images.pixels[index], images.captured.get(int(index))
    if captured is not None:
        return captured_example(pixels, *captured, recipe, rng)
    size = recipe.scene_px
    if rng.random() < recipe.shrink_share:
        size = int(min(size * rng.uniform(1, recipe.shrink_max), *pixels.shape[:2]))
    y, x = rng.integers(0, np.array(pixels.shape[:2]) - size + 1)
    field = pixels[y : y + size, x : x + size]
    if size > recipe.scene_px:
        field = cv2.resize(field, (recipe.scene_px, recipe.scene_px), interpolation=cv2.INTER_AREA).astype(
            np.uint8
        )
    scene = light.decode(_recoloured(field, recipe, rng))
    return degrade(scene, draw_motion(recipe, rng), recipe, rng)


def captured_example(
    sharp: NDArray[np.uint8],
    blurred: NDArray[np.uint8],
    motion: MotionVector,
    recipe: DegradeRecipe,
    rng: np.random.Generator,
) -> Example:
    """A random field of a captured pair (H, W, 3); only the estimate and the tracker's error are added."""
    size = recipe.field_px + 2 * recipe.guard_px
    y, x = rng.integers(0, np.array(sharp.shape[:2]) - size + 1)
    field = (slice(y, y + size), slice(x, x + size))
    seen, target = (light.to_linear(image[field], "srgb") for image in (blurred, sharp))
    return _example(seen, target, as_tracked(motion, recipe, rng), recipe)


def degrade(
    scene: light.Image,
    motion: MotionVector,
    recipe: DegradeRecipe,
    rng: np.random.Generator,
    defocus_px: float | None = None,
) -> Example:
    """Blur a linear scene (H, W, 3) by `motion`, add noise, and estimate. defocus_px: sigma; None draws it.

    The example is `margin_px` + `guard_px` smaller on each side: no border of the scene, and little of the estimate's, is learnt from.
    """
    if rng.random() < recipe.soft_share:
        scene = _softened(scene, rng.uniform(0.3, max(0.3, recipe.soft_px)))
    if defocus_px is None and rng.random() < recipe.defocus_share:
        defocus_px = rng.uniform(0.3, max(0.3, recipe.defocus_px))
    disc = rng.uniform(0, recipe.disc_max) if recipe.disc_max else 0.0
    m = recipe.margin_px
    seen = reblur(defocused(scene, defocus_px or 0.0, disc), motion)[m:-m, m:-m]
    full_well, read_noise = (
        math.exp(rng.uniform(*np.log(r))) for r in (recipe.full_well_e, recipe.read_noise_e)
    )
    exposed = expose(seen, full_well, read_noise, rng)
    encoding: Encoding = "linear" if rng.random() < recipe.linear_share else "srgb"
    blurred = light.to_linear(light.from_linear(exposed, np.uint8, encoding), encoding)
    return _example(blurred, scene[m:-m, m:-m], as_tracked(motion, recipe, rng), recipe)


def _example(
    blurred: light.Image, target: light.Image, tracked: MotionVector, recipe: DegradeRecipe
) -> Example:
    """With its estimate, and without the border where that suffers."""
    luminance = light.luminance_of(blurred)
    noise = noise_sigma(luminance)
    nsr = noise_to_signal(luminance, noise, tracked.length_px, recipe.nsr, recipe.nsr_of_noise)
    estimate = wiener(blurred, tracked, nsr)
    vector = np.array([tracked.dy, tracked.dx], dtype=np.float32)
    inner = slice(recipe.guard_px, -recipe.guard_px or None)
    blurred, estimate, target = (np.ascontiguousarray(x[inner, inner]) for x in (blurred, estimate, target))
    return Example(_packed(blurred), _packed(estimate), _packed(target), vector)


def defocused(linear: light.Image, sigma_px: float, disc: float) -> light.Image:
    """(H, W) or (H, W, 3) as a microscope out of focus shows it: a disc by geometrical optics (Stokseth 1969), softened by diffraction to its rim.

    sigma_px: standard deviation of the whole along each axis. disc: the disc's share of its variance, 0 (a Gaussian) to 1. A sigma of 0 blurs nothing.
    """
    gaussian_px, radius_px = sigma_px * math.sqrt(1 - disc), 2 * sigma_px * math.sqrt(disc)
    if radius_px > 0.5:
        linear = np.asarray(
            cv2.filter2D(linear, cv2.CV_32F, _disc(radius_px), borderType=cv2.BORDER_REFLECT), np.float32
        )
    return _softened(linear, gaussian_px) if gaussian_px > 0.05 else linear


def _disc(radius_px: float) -> NDArray[np.float32]:
    """A disc as a kernel of odd sides and sum 1; each pixel holds the share of it that the disc covers."""
    half = math.ceil(radius_px)
    fine = (np.arange((2 * half + 1) * _SUPERSAMPLING) + 0.5) / _SUPERSAMPLING - half - 0.5
    inside = (fine[:, None] ** 2 + fine**2 <= radius_px**2).astype(np.float32)
    kernel = inside.reshape(2 * half + 1, _SUPERSAMPLING, 2 * half + 1, _SUPERSAMPLING).sum(axis=(1, 3))
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)


def _packed(linear: light.Image) -> Field:
    return np.asarray(light.encode(linear) * 65535 + 0.5, dtype=np.uint16)


def _softened(linear: light.Image, sigma_px: float) -> light.Image:
    blurred = cv2.GaussianBlur(linear, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT)
    return np.asarray(blurred, dtype=np.float32)


def _recoloured(pixels: NDArray[np.uint8], recipe: DegradeRecipe, rng: np.random.Generator) -> light.Image:
    """Another stain, lamp or camera: a gamma for each channel, their order changed, or no colour at all."""
    image = pixels.astype(np.float32) / 255
    if rng.random() < recipe.grey_share:
        image = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    image = image[..., rng.permutation(3)] if rng.random() < 0.25 else image
    gamma = np.exp(rng.uniform(-recipe.colour, recipe.colour, 3)).astype(np.float32)
    return np.asarray(image**gamma, dtype=np.float32)
