"""Tiles that are fused from all recorded frames that see them, while a slide grows and when it is done.

With scan.observations above 1 more frames are recorded than the mosaic is made of. Those that would have been chosen anyhow are its tiles; the others are
their companions. Which are which follows from the recorded poses alone, so that a slide worked through again comes to the same. So does what is made of
them: a tile that was fused early is fused again where better places or a better gain make a difference.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deblurd.deblur.consistency import residual
from deblurd.deblur.noise import noise_sigma
from deblurd.frames import DeblurredTile, Encoding, Pixels, Place, Tile
from deblurd.fuse.fuser import Fused, Fuser, Noise
from deblurd.fuse.near import Near
from deblurd.fuse.views import LIGHT_CHANGED, NO_AREA, View
from deblurd.geometry import PixelToStage
from deblurd.light import from_linear, luminance_of, to_linear
from deblurd.track.choose import TileChooser, grade

log = logging.getLogger(__name__)

MOST_OBSERVATIONS = 60
FIRST_SOURCE = 3
"""Provenance of a tile that was fused from two frames; one more for each frame more, up to `MOST_OBSERVATIONS`."""

_LEFT_BEHIND = 1.3
"""When the newest frame is so many fields away, no further one of this lane will see a tile."""

_MUST_GAIN = 0.97
"""A fused tile takes the place of one deblurred alone where its square error may be expected to be so much smaller."""

_LEAST_OVERLAP = 0.1
_MOVED_PX = 0.02
"""Fused again where a frame has moved by more against the tile: less is lost in the noise."""

_HALF_SHARP_PX = 20.0


def source_names(model: str) -> list[str]:
    """Names of provenance ids from 1 on."""
    return ["raw", model, *(f"fused from {n} frames" for n in range(2, MOST_OBSERVATIONS + 1))]


def source_of(observations: float) -> int:
    """The provenance id of a tile that so many frames went into."""
    return FIRST_SOURCE - 2 + min(max(round(observations), 2), MOST_OBSERVATIONS)


@dataclass(frozen=True, slots=True)
class _Made:
    """What a fused tile was made with: places (n, 2) of the frames against its own, and the gain of the light."""

    partners: tuple[int, ...]
    offsets_px: NDArray[np.float64]
    gain: NDArray[np.float32] | None

    def is_like(self, other: _Made) -> bool:
        return (
            self.partners == other.partners
            and (self.gain is None) == (other.gain is None)
            and (self.gain is None or other.gain is None or np.array_equal(self.gain, other.gain))
            and bool((np.abs(self.offsets_px - other.offsets_px) <= _MOVED_PX).all())
        )


class Companions:
    """Which frames see which tile. `add`, `move` and `last` from one thread; `fuse` from any, several at once.

    read: raw pixels by number. observations: of settings; with 1 every frame is a tile. fuses: whether tiles are fused, with their companions and with one
    another; None where there are companions. left_out: frames that were not used for a tile, by why; notes: what else was odd about which frames.
    """

    def __init__(
        self,
        affine: PixelToStage,
        shape: tuple[int, ...],
        overlap: float,
        read: Callable[[int], Pixels],
        encoding: Encoding,
        observations: int,
        noise: Noise | None = None,
        fuses: bool | None = None,
    ) -> None:
        self._chooses = observations > 1
        self.is_on = self._chooses if fuses is None else fuses
        self.left_out: dict[str, set[int]] = {}
        self.notes: dict[str, set[int]] = {}
        self._observations: dict[int, float] = {}
        self._chooser = TileChooser(affine, shape, overlap)
        self._size = np.array(shape[:2], dtype=np.float64)
        self._read, self._encoding, self._noise = read, encoding, noise
        self._tiles: dict[int, Tile] = {}
        self._keys: dict[int, Tile] = {}
        self._waiting: set[int] = set()
        self._near = Near(self._size)
        self._before: Tile | None = None
        self._made: dict[int, _Made] = {}
        self._lock = threading.Lock()

    def add(self, tile: Tile, place: Place) -> list[Tile]:
        """The next recorded frame, and where it seems to lie; returns those, it or the one before, that are tiles of the mosaic."""
        self._tiles[tile.index] = tile
        if self.is_on:
            self._near.add(tile.index, place)
        if not self._chooses:
            return [self._key(tile)]
        choice = self._chooser.see(tile.pose, grade(tile.motion))
        before, self._before = self._before, tile
        if choice == "before" and before is not None:
            return [self._key(before)]
        return [self._key(tile)] if choice == "this" else []

    def last(self) -> list[Tile]:
        """No frame follows."""
        if self._chooses and self._chooser.last() and self._before is not None:
            return [self._key(self._before)]
        return []

    def move(self, places: Mapping[int, Place]) -> None:
        """Better places."""
        if self.is_on:
            self._near.move(list(self._tiles), places)

    def left_behind(self, at_px: NDArray[np.float64], places: Mapping[int, Place]) -> list[int]:
        """Tiles that the stage, now at `at_px`, has left behind since the last call."""
        gone = [
            index
            for index in self._waiting
            if index in places
            and bool((np.abs(places[index].yx_px - at_px) > _LEFT_BEHIND * self._size).any())
        ]
        self._waiting -= set(gone)
        return gone

    @property
    def passed_over(self) -> int:
        """Frames that the mosaic does not need by themselves, as far as is known."""
        return len(self._tiles) - len(self._keys)

    def shows(self, index: int) -> bool:
        """Whether a frame is a tile of the mosaic, as far as is known."""
        return index in self._keys

    @property
    def observations_mean(self) -> float:
        """Frames that a pixel of a tile was made of, on average."""
        seen = [self._observations.get(index, 1.0) for index in self._keys]
        return float(np.mean(seen)) if seen else 1.0

    @property
    def keys(self) -> list[int]:
        """The tiles of the mosaic."""
        return sorted(self._keys)

    def stale(self, places: Mapping[int, Place], gain: NDArray[np.float32] | None) -> list[int]:
        """Tiles that were not fused yet, or that would come out otherwise by now."""
        keys = [i for i in self.keys if i in places]
        return [
            i for i in keys if i not in self._made or not self._made[i].is_like(self._making(i, places, gain))
        ]

    def fuse(
        self,
        index: int,
        places: Mapping[int, Place],
        gain: NDArray[np.float32] | None,
        alone: DeblurredTile,
        limit: float,
    ) -> DeblurredTile | None:
        """The tile from all frames that see it; None where it is best as it is. gain: of the light over the field. alone: deblurred by itself, with pixels.
        limit: how far, in units of its noise, the result blurred again may be from the raw tile."""
        making = self._making(index, places, gain)
        partners = making.partners
        with self._lock:
            self._made[index] = making
            self._observations.pop(index, None)
        key = self._keys[index]
        if alone.gate == "blank" or not partners:
            return None
        fuser = Fuser(self._read, self._encoding, gain, self._noise)
        at = places[index].yx_px
        views = [self._view(self._tiles[i], places[i], at) for i in partners]
        # what the model gave up on says nothing that the frame itself does not
        known = alone.pixels if alone.gate == "deblur" else None
        fused = fuser.fuse(self._view(key, places[index], at), views, known)
        if fused is None:
            return None
        self._note(index, fused)
        if alone.gate == "deblur" and fused.noise**2 > _MUST_GAIN * fused.single_noise**2:
            return None
        return self._painted(key, fused, views, gain, alone, limit)

    def _key(self, tile: Tile) -> Tile:
        self._keys[tile.index] = tile
        if self.is_on:
            self._waiting.add(tile.index)
        return tile

    def _making(self, index: int, places: Mapping[int, Place], gain: NDArray[np.float32] | None) -> _Made:
        partners = self._partners(index, places)
        at = places[index].yx_px
        offsets = np.array([places[i].yx_px - at for i in partners]).reshape(-1, 2)
        return _Made(tuple(partners), offsets, gain)

    def _partners(self, index: int, places: Mapping[int, Place]) -> list[int]:
        """Frames that see some of a tile, the nearest first."""
        at = places[index].yx_px
        near = self._near.around(places[index])
        others = np.array([i for i in near if i != index and i in places], dtype=np.intp)
        if not len(others):
            return []
        off = np.abs(np.array([places[int(i)].yx_px for i in others]) - at) / self._size
        shared = np.clip(1 - off, 0, None).prod(axis=1)
        enough = shared > _LEAST_OVERLAP
        order = np.argsort(-shared[enough], kind="stable")
        # in the order in which they came: places that move a little do not change the sums' rounding
        return sorted(int(i) for i in others[enough][order][:MOST_OBSERVATIONS])

    def _view(self, tile: Tile, place: Place, at: NDArray[np.float64]) -> View:
        off = place.yx_px - at
        sigma_px = place.sigma_px if math.isfinite(place.sigma_px) else 1.0
        # only how one compares with another counts: where nobody said, all were exposed alike
        exposure_ms = tile.exposure_ms or 1.0
        return View(tile.index, tile.motion, (float(off[0]), float(off[1])), exposure_ms, min(sigma_px, 1.0))

    def _note(self, index: int, fused: Fused) -> None:
        for number, why in fused.left_out.items():
            log.debug("frame %d is left out of tile %d: %s", number, index, why)
        with self._lock:
            # while it can still be mended
            if LIGHT_CHANGED in fused.notes.values() and LIGHT_CHANGED not in self.notes:
                log.warning("%s", LIGHT_CHANGED)
            for found, kept in ((fused.left_out, self.left_out), (fused.notes, self.notes)):
                for number, why in found.items():
                    if why != NO_AREA:
                        kept.setdefault(why, set()).add(number)

    def _painted(
        self,
        key: Tile,
        fused: Fused,
        views: Sequence[View],
        gain: NDArray[np.float32] | None,
        alone: DeblurredTile,
        limit: float,
    ) -> DeblurredTile | None:
        raw = self._read(key.index)
        light = fused.light
        if gain is not None:
            wide = cv2.resize(gain, light.shape[1::-1], interpolation=cv2.INTER_CUBIC)
            light = np.asarray(light / (wide[..., None] if light.ndim == 3 else wide), np.float32)
        light = np.clip(light, 0, 1)
        seen = luminance_of(to_linear(raw, self._encoding))
        measured = residual(seen, luminance_of(light), key.motion, noise_sigma(seen))
        if measured > limit:
            log.debug("tile %d: fused, it would not explain its own frame (%.2f)", key.index, measured)
            return None
        pixels = from_linear(light, raw.dtype, self._encoding)
        many = fused.observations >= 2
        pixels[~many] = alone.pixels[~many]
        counts = np.clip(fused.observations, 2, MOST_OBSERVATIONS)
        sources = np.where(many, FIRST_SOURCE - 2 + counts, alone.source).astype(np.uint8)
        observations = float(fused.observations.mean())
        with self._lock:
            self._observations[key.index] = observations
        shortest = min(
            v.motion.length_px
            for v in (*views, self._view(key, Place(0, 0, 0), np.zeros(2)))
            if v.motion.is_known
        )
        sharpness = max(alone.sharpness, 1 / (1 + shortest / _HALF_SHARP_PX))
        return DeblurredTile(
            key.index, pixels, source_of(observations), "deblur", measured, sharpness, sources
        )


def fuse_all(
    todo: Sequence[int], work: Callable[[int], DeblurredTile | None]
) -> Iterator[tuple[int, DeblurredTile | None]]:
    """Tiles `todo` with results of `work`, on all cores, in order; few results wait in memory."""
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers, thread_name_prefix="deblurd-fuse") as pool:
        coming = deque(pool.submit(work, index) for index in todo[: 2 * workers])
        for n, index in enumerate(todo):
            result = coming.popleft().result()
            if n + 2 * workers < len(todo):
                coming.append(pool.submit(work, todo[n + 2 * workers]))
            yield index, result
