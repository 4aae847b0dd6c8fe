"""Which way each axis of the stage drove last."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TURNED_UM = 2.0
"""An axis that came back by less may only have been read with noise."""

Floats = NDArray[np.float64]


class Ways:
    """Follows positions (2,), (y, x) um. `now` is (2,) of -1, 0, 1; 0 before an axis has moved."""

    def __init__(self) -> None:
        self.now: Floats = np.zeros(2)
        self._low: Floats | None = None
        self._high: Floats = np.zeros(2)

    def see(self, yx_um: Floats) -> Floats:
        """The next position; returns `now`."""
        if self._low is None:
            self._low = self._high = yx_um
        # the furthest that each axis has come since it turned
        self._low, self._high = np.minimum(self._low, yx_um), np.maximum(self._high, yx_um)
        up, down = yx_um > self._low + TURNED_UM, yx_um < self._high - TURNED_UM
        turned = np.where(up & (self.now <= 0), 1.0, np.where(down & (self.now >= 0), -1.0, 0.0))
        self.now = np.where(turned != 0, turned, self.now)
        self._low = np.where((turned != 0) | (self.now > 0), yx_um, self._low)
        self._high = np.where((turned != 0) | (self.now < 0), yx_um, self._high)
        return self.now
