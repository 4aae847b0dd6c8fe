"""The camera of a slide: what its pixels are, and how frames are straightened where they are read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from deblurd.frames import Encoding, Pixels, Tile
from deblurd.geometry import PixelToStage
from deblurd.record.raw import RawStore
from deblurd.rolling import is_within, speed_within, straightened
from deblurd.track.motion import UNKNOWN


@dataclass(frozen=True, slots=True)
class Camera:
    """What the pixels of a slide are: (H, W) or (H, W, 3) `shape`, dtype, how values follow light, where they lie. full_scale_e, read_e: electrons
    at full scale and the read noise, electrons, as they were measured when the slide began; None, 0 where they were not. rolling_ms: from the exposure of the
    first row of a frame to that of the last, 0 where all are exposed at once; margin_px: what `straight` cuts off on each side of it for that.
    """

    shape: tuple[int, ...]
    dtype: str
    encoding: Encoding
    affine: PixelToStage
    exposure_ms: float
    name: str = ""
    full_scale_e: float | None = None
    read_e: float = 0.0
    rolling_ms: float = 0.0
    margin_px: int = 0

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """Of a frame as the camera gives it, and as it is recorded."""
        height, width = (side + 2 * self.margin_px for side in self.shape[:2])
        return (height, width, *self.shape[2:])

    def rolling(self, rolling_ms: float, margin_px: int) -> Camera:
        """The same camera with another shutter; margin_px: 0 where no frames in motion are to be straightened."""
        height, width, *colours = self.raw_shape
        shape = (height - 2 * margin_px, width - 2 * margin_px, *colours)
        return replace(self, shape=shape, rolling_ms=rolling_ms if margin_px else 0.0, margin_px=margin_px)

    @property
    def most_um_s(self) -> float:
        """The fastest that the stage may move for `straight`; inf where nothing has to be straightened."""
        return 1000 * self.affine.pixel_size_um * speed_within(self.margin_px, self.rolling_ms)

    def straight(self, pixels: Pixels, tile: Tile) -> Pixels:
        """The frame of a tile, of `raw_shape`, as it had looked if all rows had been exposed with the middle one: of `shape`."""
        if self.rolling_ms == 0:
            return pixels
        return straightened(pixels, tile.motion, self._share(tile), self.margin_px)

    def believed(self, tile: Tile) -> Tile:
        """The tile, with unknown motion where it moved too fast for `straight`: such a frame is taken again, or lies under all others."""
        if self.rolling_ms == 0 or is_within(self.raw_shape, self.margin_px, tile.motion, self._share(tile)):
            return tile
        return replace(tile, motion=UNKNOWN)

    def _share(self, tile: Tile) -> float:
        """As of `row_offsets`; 0 where nobody said how long the tile was exposed: it counts as sharp."""
        return self.rolling_ms / tile.exposure_ms if tile.exposure_ms > 0 else 0.0

    def reader(self, raw: RawStore, tiles: Mapping[int, Tile]) -> Callable[[int], Pixels]:
        """Gives the tile of each index, `straight`, from where it was recorded: the one way to the pixels of a slide."""
        if self.rolling_ms == 0:
            return raw.read
        return lambda index: self.straight(raw.read(index), tiles[index])

    def to_json(self) -> str:
        return json.dumps(
            {
                "shape": list(self.shape),
                "dtype": self.dtype,
                "encoding": self.encoding,
                "affine_um": self.affine.matrix.tolist(),
                "exposure_ms": self.exposure_ms,
                "name": self.name,
                "full_scale_e": self.full_scale_e,
                "read_e": self.read_e,
                "rolling_ms": self.rolling_ms,
                "margin_px": self.margin_px,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Camera:
        c = json.loads(text)
        return cls(
            tuple(c["shape"]),
            c["dtype"],
            c["encoding"],
            PixelToStage(np.array(c["affine_um"], dtype=np.float64)),
            c["exposure_ms"],
            c["name"],
            # slides from before there was such a measurement
            c.get("full_scale_e"),
            c.get("read_e", 0.0),
            # and from before rolling shutters were known
            c.get("rolling_ms", 0.0),
            c.get("margin_px", 0),
        )
