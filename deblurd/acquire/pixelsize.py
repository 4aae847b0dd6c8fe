"""Which affine lies between camera pixels and stage micrometres: the .cfg's word, checked, or the user's."""

from __future__ import annotations

import math

import numpy as np
from pymmcore_plus import CMMCorePlus

from deblurd.errors import ConfigError
from deblurd.geometry import PixelToStage

_SCALE_TOLERANCE = 0.02
_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)

_CALIBRATE = "run Micro-Manager's Pixel Calibrator"


def pixel_to_stage(
    core: CMMCorePlus, pixel_size_um: float | None, rotation_deg: float | None, mirrored: bool | None
) -> PixelToStage:
    """The affine of `core`, with what is given here in its place.

    A core without a calibrated affine says identity even where its pixel size is not 1, so that identity is believed only with pixel
    size 1, or where the user gives the size. Raises ConfigError where size or turn stay unknown or contradict each other.
    """
    affine = tuple(float(value) for value in core.getPixelSizeAffine())
    size_um = float(core.getPixelSizeUm()) if pixel_size_um is None else pixel_size_um
    if not (math.isfinite(size_um) and size_um > 0):
        raise ConfigError(
            "the pixel size is not known, because no pixel-size preset of the .cfg fits the objective in place: "
            "add one in Micro-Manager's Pixel Size Calibration, or set microscope.pixel_size_um"
        )
    if rotation_deg is not None and pixel_size_um is not None:
        return PixelToStage.from_scale(size_um, rotation_deg, bool(mirrored))
    if affine == _IDENTITY and size_um != 1.0 and pixel_size_um is None and rotation_deg is None:
        raise ConfigError(
            f"the .cfg has a pixel size of {size_um:g} um but no affine transform, so the camera's turn is not known: "
            f"{_CALIBRATE}, or set microscope.rotation_deg (0 if the camera is straight)"
        )
    found = _usable(affine)
    overridden = not (pixel_size_um is None and rotation_deg is None and mirrored is None)
    if overridden:
        turn_deg, flipped = (0.0, False) if found is None else _turn_and_flip(found)
        return PixelToStage.from_scale(
            size_um,
            turn_deg if rotation_deg is None else rotation_deg,
            flipped if mirrored is None else mirrored,
        )
    if found is None:
        raise ConfigError(
            f"the affine transform {affine} of the .cfg is of no use, because it maps the image to a line: "
            f"{_CALIBRATE} again, or set microscope.pixel_size_um"
        )
    if abs(found.pixel_size_um / size_um - 1) > _SCALE_TOLERANCE:
        raise ConfigError(
            f"the .cfg contradicts itself, because its pixel size is {size_um:g} um and its affine transform has "
            f"{found.pixel_size_um:g} um per pixel: {_CALIBRATE} again, or set microscope.pixel_size_um"
        )
    return found


def _usable(affine: tuple[float, ...]) -> PixelToStage | None:
    if not all(map(math.isfinite, affine)) or abs(affine[0] * affine[4] - affine[1] * affine[3]) < 1e-12:
        return None
    return PixelToStage.from_micromanager(affine)


def _turn_and_flip(affine: PixelToStage) -> tuple[float, bool]:
    """Rotation in degrees and mirroring, as `PixelToStage.from_scale` takes them."""
    along_y = affine.matrix[:, 0]
    return float(np.degrees(np.arctan2(-along_y[1], along_y[0]))), affine.is_mirrored
