"""Frames of another shape or pixel type than at the start: a few are left out, many in a row are somebody's doing."""

from __future__ import annotations

from deblurd.acquire.losses import Losses
from deblurd.errors import MicroscopeError
from deblurd.frames import Pixels

MOST_IN_A_ROW = 10


class ShapeGuard:
    """Knows what `camera` sent at the start: pixels of `shape` and `dtype`, a name of numpy's. Counts in `losses` what it does not let pass."""

    def __init__(self, camera: str, shape: tuple[int, ...], dtype: str, losses: Losses) -> None:
        self._camera, self._shape, self._dtype, self._losses = camera, shape, dtype, losses
        self._in_a_row = 0

    def passes(self, pixels: Pixels) -> bool:
        """Whether they are as at the start. Raises MicroscopeError after MOST_IN_A_ROW that are not."""
        if (pixels.shape, pixels.dtype.name) == (self._shape, self._dtype):
            self._in_a_row = 0
            return True
        self._in_a_row += 1
        what = f"{words(pixels)} in place of {self._shape} {self._dtype}"
        self._losses.add("shape", 1, what)
        if self._in_a_row >= MOST_IN_A_ROW:
            raise MicroscopeError(
                f"{self._camera} now sends {what}, because somebody changed it: undo the change of binning, region or "
                "pixel type, or start again"
            )
        return False


def words(pixels: Pixels) -> str:
    """Shape and pixel type, for people."""
    return f"{pixels.shape} {pixels.dtype.name}"
