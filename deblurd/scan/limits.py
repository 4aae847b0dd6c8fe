"""How fast the stage may drive, and what it is that limits it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from deblurd.geometry import PixelToStage

FRAMES_PER_TILE = 2
"""So many frames see a place, at least: one that is lost leaves no gap."""


@dataclass(frozen=True, slots=True)
class SpeedLimit:
    """A speed, um/s, and why not more."""

    speed_um_s: float
    why: str


def speed_limit(
    affine: PixelToStage,
    shape: tuple[int, ...],
    exposure_ms: float,
    *,
    blur_px: float,
    overlap: float,
    frames_per_s: float = 0.0,
    stage_um_s: float = math.inf,
    rows_um_s: float = math.inf,
) -> SpeedLimit:
    """The largest speed at which the model can take the blur out, and no place goes unseen.

    exposure_ms: 0 where nobody said. blur_px: the longest motion that the model is made for. overlap: share of a tile that neighbours have in common. frames_per_s: of the
    camera, 0 where not known yet. stage_um_s: what the stage can. rows_um_s: what the rows of a rolling shutter can be put right for. `speed_um_s` is inf where nothing limits it.
    """
    size_um = affine.pixel_size_um
    limits = [
        SpeedLimit(
            blur_px * size_um / (exposure_ms / 1000) if exposure_ms > 0 else math.inf,
            f"the model takes out up to {blur_px:g} px of blur, which {exposure_ms:g} ms of exposure collect at this speed: expose shorter to go faster",
        ),
        SpeedLimit(stage_um_s, "the stage is no faster"),
        SpeedLimit(
            rows_um_s,
            "the rows of a frame, which are exposed one after the other, would lie too far apart to be put right: a camera that reads them out faster may go faster",
        ),
    ]
    if frames_per_s > 0:
        step_um = (1 - overlap) * min(shape[:2]) * size_um
        limits.append(
            SpeedLimit(
                step_um * frames_per_s / FRAMES_PER_TILE,
                f"the camera sends {frames_per_s:.3g} frames/s, and {FRAMES_PER_TILE} of them are to see each place: let it send more, "
                "or let tiles overlap less, to go faster",
            )
        )
    return least(limits)


def least(limits: Sequence[SpeedLimit]) -> SpeedLimit:
    """The one that counts."""
    return min(limits, key=lambda limit: limit.speed_um_s)
