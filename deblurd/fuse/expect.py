"""The quality that a set of views can give, before any is taken: the formula behind the plan.

The mean square error of the best linear estimate (`joint.py`) is the mean over all frequencies of

``1 / (1 / S + sum_i |K_i|^2 / w_i)``

with everything known beforehand: the spectrum of the specimen, the motion of each view (and so its kernel K_i), its light (and so its noise), and
how well places and kernels will be known. In linear light; the slope of the sRGB curve makes it an error of encoded values, as PSNR is measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deblurd.frames import MotionVector
from deblurd.fuse.joint import frequencies, mean_over
from deblurd.fuse.spectrum import Floats, Specimen
from deblurd.kernel import motion_transfer

_GRID = 128
_OFF = 0.01
"""How a kernel's error is taken: the change of its transfer function for a motion longer by so much of itself."""


@dataclass(frozen=True, slots=True)
class View:
    """One exposure of a place. electrons: of a white pixel, in that exposure. read_e: standard deviation of the read noise, electrons."""

    motion: MotionVector
    electrons: float
    read_e: float = 0.0


@dataclass(frozen=True, slots=True)
class Known:
    """How well things will be known. place_px: scatter of the places, each axis. length: relative error of the motions' lengths. steps: counts
    between black and white, for the rounding; 0 for none."""

    place_px: float = 0.1
    length: float = 0.01
    steps: int = 255

    @property
    def rounding(self) -> float:
        """Variance of the rounding, in encoded values."""
        return 1 / 12 / self.steps**2 if self.steps else 0.0


def view_variance(view: View, specimen: Specimen, known: Known) -> float:
    """Variance of the noise of one view, white squared: of photons, of reading, of rounding."""
    photons = (specimen.level * view.electrons + view.read_e**2) / max(view.electrons, 1e-9) ** 2
    return photons + known.rounding / specimen.steepness


def expected_psnr_db(views: Sequence[View], specimen: Specimen, known: Known) -> float:
    """PSNR of the fused estimate of `views` in dB against full scale, encoded values. Views with one motion are fused as their mean, as `stack.py` does."""
    return -10 * math.log10(expected_errors([views], specimen, known)[-1])


def expected_errors(groups: Sequence[Sequence[View]], specimen: Specimen, known: Known) -> list[float]:
    """Mean square error, encoded values, of what is made of the first group of views, of the first two, and so on."""
    frequency = frequencies((_GRID, _GRID))
    power, total = specimen.spectrum.power(frequency), specimen.spectrum.inverse(frequency)
    off = power * (2 * math.pi * frequency) ** 2 * known.place_px**2
    views = [view for group in groups for view in group]
    kernels = {motion: _kernel(motion, known.length) for motion in {view.motion for view in views}}
    errors = []
    for group in groups:
        for view in group:
            seen, wrong = kernels[view.motion]
            # one view alone cannot be off its own place
            lies_off = off * seen if len(views) > 1 else 0.0
            total = total + seen / (view_variance(view, specimen, known) + lies_off + power * wrong)
        error = mean_over(1 / np.maximum(total, 1e-12), frequency)
        errors.append(error * specimen.steepness + known.rounding)
    return errors


def raw_error(view: View, specimen: Specimen, known: Known) -> tuple[float, float]:
    """Of one view as it is: what its blur took, light squared, and its mean square error, encoded values."""
    frequency = frequencies((_GRID, _GRID))
    left = motion_transfer(view.motion, (_GRID, _GRID))
    taken = mean_over(specimen.spectrum.power(frequency) * np.abs(1 - left) ** 2, frequency)
    return taken, (taken + view_variance(view, specimen, known)) * specimen.steepness


def _kernel(motion: MotionVector, length_error: float) -> tuple[Floats, Floats]:
    """|K|^2, and the mean square of what an error of the motion's length changes in K."""
    transfer = motion_transfer(motion, (_GRID, _GRID))
    longer = MotionVector(
        motion.dy * (1 + _OFF), motion.dx * (1 + _OFF), motion.bend_dy, motion.bend_dx, motion.sigma_px
    )
    change = (motion_transfer(longer, (_GRID, _GRID)) - transfer) / _OFF * length_error
    return np.abs(transfer) ** 2, np.abs(change) ** 2
