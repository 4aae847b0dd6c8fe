"""What is known of how a camera sees a stage: configured, or by the pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deblurd.geometry import PixelToStage

Floats = NDArray[np.float64]

MOST_SCALE_OFF = 0.02
"""A scale that is configured worse than this makes seams that no solve can mend, and belongs to another objective."""

MOST_TURN_DEG = 5.0

KNOWN_AFFINE = 0.003
KNOWN_LAG_S = 1.5e-3
KNOWN_PLAY_UM = 0.5
"""With a larger uncertainty (one standard deviation) nothing is made of it."""


LEAST_ROLLING_MS = 0.3
"""Less shifts no row by half a pixel at usual speeds."""

SURE_ROLLING = 5.0
"""A rolling shutter within so many of its standard deviations is none."""

GOOD_LAG_S = 0.8e-3
"""Better than this the uncertainty, which is taken large, hardly becomes."""


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """How a camera truly sees a stage. All of two are (y, x), along the stage's axes.

    lag_s: at the time t of a frame, as believed, the stage stood where its readings say for t + lag_s. play_um: an axis that drove
    backwards stands so far ahead of its readings; forwards it stands where they say. The sigmas (one standard deviation) are inf where
    the frames told nothing; affine_sigma is relative. row_s: from the exposure of a row to that of the next one, of a rolling shutter. sightings: pairs of frames that this rests on, rms_px: what they leave unexplained.
    """

    affine: PixelToStage
    lag_s: Floats
    play_um: Floats
    affine_sigma: Floats
    lag_sigma_s: Floats
    play_sigma_um: Floats
    sightings: int = 0
    rms_px: float = 0.0
    row_s: float = 0.0
    row_sigma_s: float = math.inf

    @classmethod
    def configured(cls, affine: PixelToStage) -> Calibration:
        """Before a picture was looked at."""
        unknown = np.full(2, math.inf)
        return cls(affine, np.zeros(2), np.zeros(2), unknown, unknown, unknown)

    @property
    def inverse(self) -> Floats:
        """(2, 2) pixels per um."""
        return np.asarray(np.linalg.inv(self.affine.matrix), dtype=np.float64)

    @property
    def is_known(self) -> bool:
        """Whether both the affine and the lags rest on pictures."""
        return bool((self.affine_sigma < KNOWN_AFFINE).all() and (self.lag_sigma_s < KNOWN_LAG_S).all())

    @property
    def is_good(self) -> bool:
        """Whether more frames would make it little better."""
        return self.is_known and bool((self.lag_sigma_s < GOOD_LAG_S).all())

    def rolling_ms(self, height: int) -> float:
        """From the exposure of the first row of a frame of that height to that of the last; 0 where that is not sure, or too short to show."""
        found_ms, unsure_ms = self._rows(height)
        return found_ms if abs(found_ms) > unsure_ms else 0.0

    def with_lag(self, lag_s: Floats) -> Calibration:
        """The same for a clock that is set otherwise."""
        return replace(self, lag_s=lag_s)

    def disagreement(self, configured: PixelToStage) -> str | None:
        """What is wrong with the configured affine, in a sentence; None where the rest is small, or not known yet."""
        if not (self.affine_sigma < KNOWN_AFFINE).all():
            return None
        if self.affine.is_mirrored != configured.is_mirrored:
            seen, told = (
                "as in a mirror" if m else "unmirrored"
                for m in (self.affine.is_mirrored, configured.is_mirrored)
            )
            return (
                f"the camera sees the slide {seen}, but is configured to see it {told}: change [microscope] mirrored, or the pixel-size "
                "calibration of the Micro-Manager configuration"
            )
        ratio = self.affine.pixel_size_um / configured.pixel_size_um
        if abs(ratio - 1) > MOST_SCALE_OFF:
            return (
                f"a pixel is {self.affine.pixel_size_um:.4g} um by the pictures, but {configured.pixel_size_um:.4g} um as configured: change "
                "[microscope] pixel_size_um, or choose the pixel-size preset of the objective that is in use"
            )
        turn_deg = turn_between_deg(configured, self.affine)
        if abs(turn_deg) > MOST_TURN_DEG:
            return (
                f"the camera is turned by {turn_deg:.1f} degrees against its configuration: change [microscope] rotation_deg, or turn "
                "the camera"
            )
        return None

    def other_rolling(self, height: int, used_ms: float, is_told: bool) -> str | None:
        """What is wrong with the rolling shutter that frames are straightened by, in a sentence; None where it is right, or nobody knows. is_told: whether it
        stands in the configuration."""
        found_ms, unsure_ms = self._rows(height)
        if not abs(found_ms - used_ms) > unsure_ms:
            return None
        then = (
            "change [microscope] rolling_ms, or leave it out"
            if is_told
            else "it is put right from the next slide on"
        )
        return (
            f"the rows of a frame are exposed {found_ms:.1f} ms apart from first to last, as the pictures show, and not {used_ms:g} ms: {then}, since fields are "
            "skewed where the stage moves"
        )

    def _rows(self, height: int) -> tuple[float, float]:
        """The time from the first row to the last, and what it has to differ by from another one to show and to be sure, ms. Frames of which nobody knows yet
        when they were exposed tell their speeds, and so this, too badly."""
        found_ms, sigma_ms = (1000 * value * (height - 1) for value in (self.row_s, self.row_sigma_s))
        timed = bool((self.lag_sigma_s < KNOWN_LAG_S).any())
        return found_ms, max(LEAST_ROLLING_MS, SURE_ROLLING * sigma_ms) if timed else math.inf

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; inf becomes null."""
        return {
            "affine_um": self.affine.matrix.tolist(),
            "lag_s": self.lag_s.tolist(),
            "play_um": self.play_um.tolist(),
            "affine_sigma": _plain(self.affine_sigma),
            "lag_sigma_s": _plain(self.lag_sigma_s),
            "play_sigma_um": _plain(self.play_sigma_um),
            "sightings": self.sightings,
            "rms_px": self.rms_px,
            "row_s": self.row_s,
            "row_sigma_s": self.row_sigma_s if math.isfinite(self.row_sigma_s) else None,
        }

    @classmethod
    def from_dict(cls, kept: dict[str, Any]) -> Calibration:
        """Raises KeyError, TypeError or ValueError where it is not one."""
        affine = np.array(kept["affine_um"], dtype=np.float64)
        lag, play = (np.array(kept[key], dtype=np.float64) for key in ("lag_s", "play_um"))
        sigmas = [
            np.array([math.inf if v is None else float(v) for v in kept[key]])
            for key in ("affine_sigma", "lag_sigma_s", "play_sigma_um")
        ]
        # one from before rolling shutters were looked for has neither
        row_s, row_sigma_s = float(kept.get("row_s", 0.0)), kept.get("row_sigma_s")
        whole = np.concatenate([affine.ravel(), lag, play, [row_s]])
        if affine.shape != (2, 2) or any(v.shape != (2,) for v in (lag, play, *sigmas)):
            raise ValueError("values are missing")
        if not np.isfinite(whole).all() or np.linalg.det(affine) == 0:
            raise ValueError("values make no sense")
        return cls(
            PixelToStage(affine),
            lag,
            play,
            sigmas[0],
            sigmas[1],
            sigmas[2],
            int(kept["sightings"]),
            float(kept["rms_px"]),
            row_s,
            math.inf if row_sigma_s is None else float(row_sigma_s),
        )


def _plain(values: Floats) -> list[float | None]:
    return [float(v) if math.isfinite(v) else None for v in values]


def turn_between_deg(a: PixelToStage, b: PixelToStage) -> float:
    """The turn that leads from camera `a` to camera `b` of the same handedness, -180 to 180 degrees."""
    turn = b.matrix @ np.linalg.inv(a.matrix)
    return math.degrees(math.atan2(turn[0, 1] - turn[1, 0], turn[0, 0] + turn[1, 1]))
