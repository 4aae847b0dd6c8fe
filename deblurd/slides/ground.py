"""What a field shows: tissue or nothing, and whether it is ground that a slide holds already."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from deblurd.deblur.gate import is_blank
from deblurd.deblur.noise import noise_sigma
from deblurd.errors import DeblurdError
from deblurd.frames import Encoding, Pixels, Pose
from deblurd.geometry import PixelToStage
from deblurd.light import luminance_of, to_linear
from deblurd.place.pairwise import prepare, register

LOOK_PX = 512
"""Side of the middle of a field that is looked at: enough to tell tissue from glass, and a few milliseconds."""

_NEIGHBOURS = 3
_SEARCH = 0.2
"""How far around the place that the stage tells, as a share of a field: the glass was not touched."""


def shows_tissue(pixels: Pixels, encoding: Encoding) -> bool:
    """Whether the middle of a field, (H, W) or (H, W, 3), shows any structure."""
    y, x = (max((side - LOOK_PX) // 2, 0) for side in pixels.shape[:2])
    light = luminance_of(to_linear(pixels[y : y + LOOK_PX, x : x + LOOK_PX], encoding))
    return not is_blank(light, noise_sigma(light))


def is_same_ground(
    pixels: Pixels,
    pose: Pose,
    centres_um: Sequence[tuple[float, float]],
    read: Callable[[int], Pixels],
    affine: PixelToStage,
) -> bool:
    """Whether a field shows what the fields of a slide show there: by its pixels, since another glass has other tissue at the same place.

    pose: of the field. centres_um: (y, x) of the slide's fields by index; read: their pixels. False also where no field of the slide
    overlaps it enough to tell.
    """
    if not centres_um:
        return False
    away_um = np.array(centres_um) - pose.yx_um
    new = prepare(pixels)
    for index in np.argsort(np.linalg.norm(away_um, axis=1))[:_NEIGHBOURS]:
        shift = affine.to_pixels(-away_um[index])
        if (np.abs(shift) >= np.array(pixels.shape[:2])).any():
            continue
        try:
            old = prepare(read(int(index)))
        except DeblurdError:
            # damaged on the disk: it tells nothing
            continue
        match = register(old, new, shift, _SEARCH * min(pixels.shape[:2]))
        if match is not None and match.ok:
            return True
    return False
