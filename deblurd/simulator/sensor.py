"""From light to counts: vignetting, photon noise, read noise, encoding."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.special import ndtri

from deblurd.frames import Encoding, Pixels
from deblurd.light import Image, from_linear

_STRIP_ROWS = 64
"""Rows worked on at once, so that what lies between the steps stays in the processor's cache."""


_BRIGHTEST = 1.2
"""Interpolation may overshoot full scale by less than this."""


def _half_normal_table() -> Image:
    """256 equally likely values of a normal distribution with standard deviation 1/2."""
    values = ndtri((np.arange(256) + 0.5) / 256)
    return np.asarray(values / values.std() / 2, dtype=np.float32).reshape(1, 256)


class Sensor:
    """A sensor of `shape` (H, W) or (H, W, 3).

    Noise of variance x + r^2 electrons at x electrons is added as a half standard normal n to the root: ``(sqrt(x + r^2 - 1/8) + n)^2``
    has that variance and, less r^2 + 1/8, the mean x. The root is counted in steps of which full scale has some 65,000, and
    a table goes from steps to counts. The normal values are one random byte each, through a table of 256 quantiles: no tail
    beyond 2.9 standard deviations, but ten times as fast as true ones and, unlike a stored field of noise, never
    the same twice, so that no registration can lock on to it.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        bit_depth: int,
        encoding: Encoding,
        electrons_full_scale: float,
        read_noise_e: float,
        vignetting: float,
        seed: int,
    ) -> None:
        """vignetting: share of the light lost in the corners, growing with the square of the distance."""
        self.shape = shape
        self.dtype = np.dtype(np.uint8 if bit_depth == 8 else np.uint16)
        self._seed = seed
        floor = max(read_noise_e**2 - 0.125, 0.0)
        steps = 65535 / (np.sqrt(_BRIGHTEST * electrons_full_scale + floor) + 1.5)  # to a root of 1
        self._floor = np.float32(floor * steps**2)
        y, x = (np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape[:2])
        fall_off = 1 - vignetting * (y[:, None] ** 2 + x[None, :] ** 2) / 2
        gain = (fall_off * electrons_full_scale * steps**2).astype(np.float32)
        self._gain = np.ascontiguousarray(
            np.broadcast_to(gain[..., None], shape) if len(shape) == 3 else gain
        )
        self._noise = _half_normal_table() * np.float32(steps)
        electrons = (np.arange(65536) / steps) ** 2 - floor - 0.25
        self._counts = from_linear(
            (electrons / electrons_full_scale).astype(np.float32), self.dtype, encoding
        )

    def expose(self, light: Image, sequence: int, number: int) -> Pixels:
        """Counts of `light` (float32, 1 at full scale); the same for the same seed, sequence and number."""
        dice = np.random.SFC64([self._seed, sequence + 1, number])
        pixels = np.empty(self.shape, self.dtype)
        for top in range(0, self.shape[0], _STRIP_ROWS):
            rows = slice(top, min(top + _STRIP_ROWS, self.shape[0]))
            root = light[rows] * self._gain[rows]
            shape, flat = root.shape, root.reshape(len(root), -1)
            flat += self._floor
            cv2.threshold(flat, 0, 0, cv2.THRESH_TOZERO, dst=flat)
            cv2.sqrt(flat, dst=flat)
            thrown = dice.random_raw(flat.size // 8 + 1).view(np.uint8)[: flat.size].reshape(flat.shape)
            steps = cv2.add(flat, cv2.LUT(thrown, self._noise), dtype=cv2.CV_16U)  # rounds, and stops at 0
            pixels[rows] = np.take(self._counts, np.asarray(steps)).reshape(shape)
        return pixels
