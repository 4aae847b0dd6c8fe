from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deblurd.deblur.noise import fine_contrast, noise_sigma, noise_to_signal
from deblurd.deblur.wiener import wiener
from deblurd.frames import MotionVector
from deblurd.kernel import reblur
from deblurd.light import Image


def scene(contrast: float, side: int = 192) -> Image:
    """Blocks of 6 px around a level of 0.5."""
    rng = np.random.default_rng(3)
    blocks = rng.random((side // 6, side // 6), dtype=np.float32)
    return np.asarray(0.5 + contrast * (np.kron(blocks, np.ones((6, 6))) - 0.5), np.float32)


@given(st.floats(0, 0.05), st.floats(0, 60))
def test_more_noise_never_asks_for_a_sharper_filter(noise: float, length_px: float) -> None:
    image = scene(0.4, 48)
    ratios = [noise_to_signal(image, factor * noise, length_px, 0.002, 50.0) for factor in (0.0, 1.0, 2.0)]
    assert ratios == sorted(ratios)
    assert ratios[0] == 0.002
    assert ratios[2] <= 1.0


def test_a_tile_without_contrast_gets_the_highest_ratio() -> None:
    flat = np.full((64, 64), 0.5, np.float32)
    assert fine_contrast(flat) < 1e-6
    assert noise_to_signal(flat, 0.01, 10.0, 0.002, 50.0) == 1.0


def test_the_noise_of_a_blurred_tile_is_found() -> None:
    rng = np.random.default_rng(0)
    blurred = reblur(scene(0.5), MotionVector(0.0, 12.0))
    noisy = blurred + rng.normal(0, 0.004, blurred.shape).astype(np.float32)
    assert 0.003 < noise_sigma(noisy) < 0.006


def test_the_ratio_lies_near_the_best_one_for_dim_and_bright_tiles() -> None:
    """A filter that is told the noise loses at most 2 dB to the best ratio, where a fixed one loses more than 3 on one of the two."""
    motion = MotionVector(0.0, 10.0)
    inside = (slice(20, -20), slice(20, -20))
    worst = {"told": 0.0, "fixed": 0.0}
    for contrast, noise in ((0.8, 0.001), (0.1, 0.008)):
        sharp = scene(contrast)
        rng = np.random.default_rng(1)
        seen = reblur(sharp, motion) + rng.normal(0, noise, sharp.shape).astype(np.float32)

        def loss_db(nsr: float, seen: Image = seen, sharp: Image = sharp) -> float:
            error = wiener(seen, motion, nsr)[inside] - sharp[inside]
            return float(10 * np.log10(np.square(error).mean()))

        best = min(loss_db(nsr) for nsr in np.geomspace(5e-4, 1, 24))
        told = noise_to_signal(seen, noise_sigma(seen), motion.length_px, 0.002, 50.0)
        worst = {
            "told": max(worst["told"], loss_db(told) - best),
            "fixed": max(worst["fixed"], loss_db(0.02) - best),
        }
    assert worst["told"] < 2
    assert worst["fixed"] > 3
