"""How far out of focus a frame was, read off from what was made of it."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar

from deblurd.frames import MotionVector
from deblurd.kernel import reblur
from deblurd.light import Image

LARGEST_PX = 10.0
"""Nobody's model goes as far; a fit that ends here has found nothing."""

_FIELD_PX = 512


def defocus_px(raw: Image, result: Image, motion: MotionVector) -> float:
    """Sigma of the Gaussian that, after the motion, takes `result` nearest to `raw`; 0 where it needs none.

    raw, result: (H, W) float32 linear light. Nobody tells the focus of a moving slide, but a right result and the raw frame tell it together.
    Only the middle is looked at.
    """
    height, width = raw.shape
    top, left = max(height - _FIELD_PX, 0) // 2, max(width - _FIELD_PX, 0) // 2
    field = (slice(top, top + _FIELD_PX), slice(left, left + _FIELD_PX))
    seen, moved = raw[field], reblur(np.ascontiguousarray(result[field]), motion)
    rest = MotionVector(0.0, 0.0)

    def left_over(sigma_px: float) -> float:
        return float(np.mean(np.square(reblur(moved, rest, sigma_px) - seen), dtype=np.float64))

    found = minimize_scalar(
        left_over, bounds=(0.0, LARGEST_PX), method="bounded", options={"xatol": 0.05, "maxiter": 16}
    )
    return float(found.x) if found.fun < left_over(0.0) else 0.0
