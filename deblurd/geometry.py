"""Where pixels lie on the slide: the affine between camera pixels and stage micrometres.

Conventions, used everywhere: vectors are (y, x); pixel coordinates are counted from the centre of
the camera image, so pixel (i, j) of an (H, W) image is (i - (H-1)/2, j - (W-1)/2). A specimen point
seen at pixel `p` while the stage stands at `s` lies at ``s + M @ p`` micrometres, the stage position that
would bring it to the centre. A feature therefore moves by ``-inv(M) @ ds`` pixels when the stage
moves by `ds`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class PixelToStage:
    """The linear part M of the camera's affine: ``stage_um = M @ pixel``, both (y, x).

    `matrix` is a (2, 2) float64 array in micrometres per pixel, never singular.
    """

    matrix: Matrix

    @classmethod
    def from_micromanager(cls, affine: tuple[float, ...]) -> PixelToStage:
        """From Micro-Manager's row-major 2x3 ``(a, b, tx, c, d, ty)``, which is in (x, y) order."""
        a, b, _, c, d, _ = affine
        return cls(np.array([[d, c], [b, a]], dtype=np.float64))

    @classmethod
    def from_scale(
        cls, pixel_size_um: float, rotation_deg: float = 0.0, mirrored: bool = False
    ) -> PixelToStage:
        """A camera turned by `rotation_deg` (from +x towards +y on the slide); `mirrored` flips its x axis first."""
        c, s = math.cos(math.radians(rotation_deg)), math.sin(math.radians(rotation_deg))
        flip = -1.0 if mirrored else 1.0
        # columns: where one pixel along y, and one along x, lands on the stage (y, x)
        return cls(pixel_size_um * np.array([[c, s * flip], [-s, c * flip]], dtype=np.float64))

    def to_micromanager(self) -> tuple[float, float, float, float, float, float]:
        """Row-major 2x3 in (x, y) order, as `setPixelSizeAffine` takes it."""
        m = self.matrix
        return (float(m[1, 1]), float(m[1, 0]), 0.0, float(m[0, 1]), float(m[0, 0]), 0.0)

    @property
    def pixel_size_um(self) -> float:
        """Micrometres per pixel: the square root of the area that a pixel covers."""
        return float(math.sqrt(abs(np.linalg.det(self.matrix))))

    @property
    def is_mirrored(self) -> bool:
        """Whether the camera sees the slide as in a mirror."""
        return bool(np.linalg.det(self.matrix) < 0)

    @property
    def rotation(self) -> Matrix:
        """``M / pixel_size_um``: camera pixels to mosaic pixels, (y, x); orthogonal but for a small shear."""
        return self.matrix / self.pixel_size_um

    def field_um(self, shape: tuple[int, ...]) -> tuple[float, float]:
        """Height, width of what a frame (H, W) or (H, W, C) sees, along the stage's axes."""
        y, x = np.abs(self.matrix @ np.diag(shape[:2])).sum(axis=1)
        return float(y), float(x)

    def to_stage(self, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pixels (..., 2) to micrometres (..., 2)."""
        return np.asarray(pixels @ self.matrix.T, dtype=np.float64)

    def to_pixels(self, stage_um: NDArray[np.float64]) -> NDArray[np.float64]:
        """Micrometres (..., 2) to pixels (..., 2)."""
        return np.asarray(stage_um @ np.linalg.inv(self.matrix).T, dtype=np.float64)
