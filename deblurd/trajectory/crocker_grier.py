"""trackpy's way of finding objects (Crocker and Grier 1996): band-pass, local maxima, centroids."""

from __future__ import annotations

import warnings

import numpy as np
import trackpy

from deblurd.light import Image
from deblurd.trajectory.detect import Points, Wanted

_TOP = 255.0


class TrackpyDetector:
    """`trackpy.locate` at the middle of the size range. The threshold is its `minmass`, on a scale of 0 to 255 per pixel; it finds none by itself."""

    def __init__(self, wanted: Wanted) -> None:
        low, high = wanted.size_px
        self._diameter = max(2 * round((low * high) ** 0.5 / 2) + 1, 3)
        self._minmass = wanted.threshold
        self._dark = wanted.polarity == "dark"

    def find(self, light: Image) -> Points:
        """See `Detector`."""
        if min(light.shape) <= 2 * self._diameter:
            return Points.none()
        with warnings.catch_warnings():
            # trackpy's own, at what pandas means to change
            warnings.simplefilter("ignore", DeprecationWarning)
            found = trackpy.locate(
                _TOP * (1 - light if self._dark else light),
                self._diameter,
                minmass=self._minmass,
                engine="python",
            )
        yx = found[["y", "x"]].to_numpy(dtype=np.float64)
        # a Gaussian's radius of gyration in the plane is sqrt(2) sigma
        return Points(
            yx,
            2 * np.sqrt(2) * found["size"].to_numpy(dtype=np.float64),
            found["signal"].to_numpy(dtype=np.float64),
        )
