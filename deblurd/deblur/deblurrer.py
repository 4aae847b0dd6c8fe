"""From raw tiles to clean ones: gate, deconvolution, network, check."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from deblurd.deblur.consistency import unexplained
from deblurd.deblur.defocus import defocus_px
from deblurd.deblur.engine import Device, Engine, providers_for
from deblurd.deblur.gate import gate, gate_by_motion, lost_in_noise
from deblurd.deblur.model import Model, ModelFile
from deblurd.deblur.noise import fine_contrast, noise_sigma, noise_to_signal
from deblurd.deblur.wiener import wiener
from deblurd.frames import DeblurredTile, Encoding, Gate, MotionVector, Pixels, Tile
from deblurd.kernel import reblur
from deblurd.light import Image, decode, encode, from_linear, luminance_of, to_linear

log = logging.getLogger(__name__)

_FAITHFUL_BELOW_PX = 4.0
_FAITHFUL_NSR = 0.05
_FAITHFUL_NOISE = 200.0
"""A step back to the measured pixels, at a ratio of noise to signal that rises with the square of the noise; for short motions only. It gains 0.8, 0.3 and 0.15 dB at 1.2, 2 and
3 px. A second one loses as soon as the motion is a little wrong; a frame out of focus has two: they gain up to 1.5 dB at a sigma of 1 px. From 5 px on such steps change 0.03 dB in
the mean where the motion is right, and where it is wrong by 10 % and 5 degrees they take up to 1.3 dB from crisp slides: they explain the pixels by a kernel that is not the true one.
"""

_DOUBTED = 0.2
"""Over so much below the limit of what may be left unexplained, the raw pixels are mixed in, more and more: where the motion is wrong, both are wrong in different places, and
their mixture is nearer to the truth than either."""

_IN_FOCUS_PX = 0.5
"""Sigma of a defocus that is not worth a network's word: a frame at rest with less stays raw."""

_GAUSSIAN_AS_BOX = math.sqrt(12)
"""Length of a motion that blurs as much as a defocus of sigma 1, by its variance."""

_NO_MOTION = MotionVector(0.0, 0.0)

_UNSEEN: Image = np.empty((0, 0), np.float32)
"""Stands for the light of a tile that is not looked at."""


@dataclass(slots=True)
class _Job:
    """A tile on its way through."""

    tile: Tile
    raw: Pixels
    linear: Image
    luminance: Image
    noise: float
    gate: Gate
    sharp: Image | None = None
    defocus_px: float = 0.0


class Deblurrer:
    """Takes motion blur (and defocus, if that is what the model is for) out of tiles. Results do not depend on how tiles are put into batches.

    encoding: what the camera's values mean. pixel_size_um: for a word of warning only. flat_field: relative illumination (H, W[, C]) float32 that the
    raw pixels are divided by, or None. source_id: of the model in the mosaic's provenance.
    Raises ModelError where the model cannot be loaded.
    """

    def __init__(
        self,
        model: Model,
        *,
        encoding: Encoding,
        pixel_size_um: float | None = None,
        device: Device = "auto",
        threads: int = 0,
        batch: int = 4,
        sharp_below_px: float = 0.7,
        consistency_limit: float = 0.7,
        flat_field: Image | None = None,
        source_id: int = 2,
    ) -> None:
        self._model, self._encoding, self._batch = model, encoding, batch
        self._sharp_below_px, self._limit = sharp_below_px, consistency_limit
        self._flat_field, self._source_id = flat_field, source_id
        self._engines: dict[str, Engine] = {}
        manifest = model.manifest
        if manifest is not None and model.folder is not None:
            gpu = len(providers_for(device)) > 1
            for file in manifest.files:
                self._engines[file.file] = Engine(
                    model.folder / file.on(gpu).file,
                    device=device,
                    threads=threads,
                    stride=manifest.stride,
                    halo_px=manifest.halo_px,
                )
        self._workers = ThreadPoolExecutor(
            min(batch, threads or os.cpu_count() or 1), thread_name_prefix="deblurd-deblur-worker"
        )
        if pixel_size_um is not None and (warning := model.check_pixel_size(pixel_size_um)):
            log.warning("%s", warning)

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def model_id(self) -> dict[str, Any]:
        """Name, version and sha256 of the model."""
        return self._model.identity

    @property
    def providers(self) -> list[str]:
        """What the networks run on, in ONNX Runtime's words; empty without a network."""
        return sorted({provider for engine in self._engines.values() for provider in engine.providers})

    @property
    def engine_name(self) -> str:
        """For people: "TensorRT", "CUDA", "CPU", or "no network"."""
        if not self._engines:
            return "no network"
        names = {"TensorrtExecutionProvider": "TensorRT", "CUDAExecutionProvider": "CUDA"}
        return next((name for provider, name in names.items() if provider in self.providers), "CPU")

    @property
    def blur_range_px(self) -> tuple[float, float]:
        return self._model.blur_range_px

    def deblur(self, tiles: Sequence[tuple[Tile, Pixels]]) -> list[DeblurredTile]:
        """One result for each tile, in order; raw: (H, W) or (H, W, 3), uint8 or uint16."""
        jobs = list(self._workers.map(self._prepare, tiles))
        todo = [job for job in jobs if job.gate == "deblur"]
        for start in range(0, len(todo), self._batch):
            self._sharpen(todo[start : start + self._batch])
        return list(self._workers.map(self._result, jobs))

    def close(self) -> None:
        self._workers.shutdown()

    def __enter__(self) -> Deblurrer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prepare(self, item: tuple[Tile, Pixels]) -> _Job:
        tile, raw = item
        sharp_below_px = 0.0 if self._model.takes_defocus else self._sharp_below_px
        if (told := gate_by_motion(tile.motion, sharp_below_px)) is not None:
            return _Job(tile, raw, _UNSEEN, _UNSEEN, 0.0, told)
        linear = to_linear(raw, self._encoding)
        if self._flat_field is not None:
            linear = linear / self._flat_field
        luminance = luminance_of(linear)
        noise = noise_sigma(luminance)
        way: Gate = gate(luminance, tile.motion, noise, sharp_below_px, self._model.blur_range_px)
        if way == "deblur" and not self._model.takes_defocus and lost_in_noise(luminance, tile.motion, noise):
            way = "sharp"
        job = _Job(tile, raw, linear, luminance, noise, way)
        if way == "deblur":
            nsr = noise_to_signal(luminance, noise, tile.motion.length_px, *self._model.nsr)
            job.sharp = wiener(linear, tile.motion, nsr)
        return job

    def _sharpen(self, jobs: list[_Job]) -> None:
        """Replaces the Wiener estimates of `jobs` by what the network makes of them."""
        groups: dict[tuple[str, tuple[int, ...]], list[_Job]] = {}
        if not self._engines:
            return
        for job in jobs:
            file: ModelFile = self._model.file_for(job.tile.motion)
            groups.setdefault((file.file, job.linear.shape), []).append(job)
        for (name, shape), group in groups.items():
            blurred = np.stack([_planes(encode(job.linear)) for job in group])
            estimate = np.stack([_planes(encode(job.sharp)) for job in group if job.sharp is not None])
            motion = np.array([[job.tile.motion.dy, job.tile.motion.dx] for job in group], np.float32)
            sharp = self._engines[name].run(blurred, estimate, motion)
            for job, planes in zip(group, sharp, strict=True):
                job.sharp = _from_planes(planes, shape)

    def _result(self, job: _Job) -> DeblurredTile:
        measured = float("nan")
        if job.gate == "deblur" and job.sharp is not None:
            if not np.isfinite(job.sharp).all():
                measured = float("inf")
            else:
                light = decode(job.sharp) if self._engines else np.clip(job.sharp, 0, 1)
                if self._model.takes_defocus:
                    job.defocus_px = defocus_px(job.luminance, luminance_of(light), job.tile.motion)
                    if job.defocus_px < _IN_FOCUS_PX and job.tile.motion.length_px < self._sharp_below_px:
                        return DeblurredTile(job.tile.index, job.raw, 1, "sharp", measured)
                measured = _unexplained(light, job)
                short = job.tile.motion.length_px < _FAITHFUL_BELOW_PX
                # a frame at rest: nobody told its kernel, which the result itself shows, and so a step back by it cannot mislead the check
                at_rest = job.tile.motion.length_px < self._sharp_below_px
                if self._engines and (at_rest or (short and measured <= self._limit)):
                    light = _faithful(light, job)
                    measured = _unexplained(light, job)
            # a tile of which nothing can be compared (all saturated) holds nothing to deblur either
            if measured <= self._limit:
                doubt = min(max(1 - (self._limit - measured) / _DOUBTED, 0.0), 1.0)
                if doubt:
                    light = light + np.float32(doubt) * (job.linear - light)
                if self._flat_field is not None:
                    light = light * self._flat_field
                pixels = from_linear(light, job.raw.dtype, self._encoding)
                return DeblurredTile(
                    job.tile.index,
                    pixels,
                    self._source_id,
                    "deblur",
                    measured,
                    _sharpness(job, 20.0),
                )
            job.gate = "inconsistent"
        job.sharp = None
        return DeblurredTile(job.tile.index, job.raw, 1, job.gate, measured, _sharpness(job, 2.0))


def _unexplained(light: Image, job: _Job) -> float:
    return unexplained(job.luminance, luminance_of(light), job.tile.motion, job.noise, job.defocus_px)


def _faithful(light: Image, job: _Job) -> Image:
    """What a network made of a tile, brought nearer to what was measured: plus the sharpened rest that it leaves unexplained.

    A projected, preconditioned step of gradient descent (Landweber 1951) on the difference from the raw tile, with light held to 0..1.
    """
    noise_ratio = job.noise / max(fine_contrast(job.luminance), 1e-6)
    nsr = _FAITHFUL_NSR + _FAITHFUL_NOISE * noise_ratio**2
    for _ in range(2 if job.defocus_px else 1):
        rest = job.linear - reblur(light, job.tile.motion, job.defocus_px)
        # a defocus is only gone back against by its adjoint: its inverse would be mostly noise
        step = reblur(wiener(rest, job.tile.motion, nsr), _NO_MOTION, job.defocus_px)
        light = np.clip(light + step, 0, 1)
    return np.asarray(light, np.float32)


def _sharpness(job: _Job, half_px: float) -> float:
    """1 for a tile at rest and in focus, one half at a blur of `half_px`; 0.05 where the motion is not known."""
    if not job.tile.motion.is_known:
        return 0.05
    return 1.0 / (1.0 + math.hypot(job.tile.motion.length_px, _GAUSSIAN_AS_BOX * job.defocus_px) / half_px)


def _planes(encoded: Image) -> Image:
    """(H, W) or (H, W, 3) to (3, H, W)."""
    if encoded.ndim == 2:
        return np.broadcast_to(encoded, (3, *encoded.shape))
    return np.ascontiguousarray(np.moveaxis(encoded, 2, 0))


def _from_planes(planes: Image, shape: tuple[int, ...]) -> Image:
    """(3, H, W) back to `shape`; the mean of the three for mono."""
    if len(shape) == 2:
        return np.asarray(planes.mean(axis=0), dtype=np.float32)
    return np.ascontiguousarray(np.moveaxis(planes, 0, 2))
