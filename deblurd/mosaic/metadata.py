"""What a mosaic says of itself: OME-Zarr 0.5 groups and arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, ShardingCodec
from zarr.core.chunk_grids import RegularChunkGrid
from zarr.core.chunk_key_encodings import DefaultChunkKeyEncoding
from zarr.core.dtype import get_data_type_from_native_dtype
from zarr.core.group import GroupMetadata
from zarr.core.metadata import ArrayV3Metadata

from deblurd.mosaic.shards import CODEC

LABEL = "labels/source"

_COLOURS = ("FF0000", "00FF00", "0000FF")


@dataclass(frozen=True, slots=True)
class About:
    """A mosaic's name, number of channels, dtype, size of a pixel and names of provenance ids 1, 2, ..."""

    name: str
    channels: int
    dtype: np.dtype[Any]
    pixel_size_um: float
    sources: list[str]

    def groups(self, origin_um: NDArray[np.float64], levels: int, state: str) -> dict[str, Any]:
        """Of each group by its path. origin_um: of the first pixel, (y, x). state: what becomes of the mosaic: "growing" or "final"."""
        top = float(np.iinfo(self.dtype).max)
        colours = _COLOURS if self.channels == 3 else ("FFFFFF",)
        names = ("red", "green", "blue") if self.channels == 3 else ("grey",)
        image = {
            "ome": {
                "version": "0.5",
                "multiscales": [self._multiscale("cyx", origin_um, levels)],
                "omero": {
                    "channels": [
                        {
                            "label": label,
                            "color": colour,
                            "active": True,
                            "window": {"min": 0.0, "max": top, "start": 0.0, "end": top},
                        }
                        for label, colour in zip(names, colours, strict=True)
                    ],
                    "rdefs": {"model": "color"},
                },
            },
            "deblurd": {"state": state, "research_use_only": True},
        }
        shades = [[0, 0, 0, 0], [128, 128, 128, 255], [0, 160, 90, 255], [60, 90, 200, 255]]
        values = list(enumerate(["none", *self.sources]))
        source = {
            "ome": {
                "version": "0.5",
                "multiscales": [self._multiscale("yx", origin_um, levels)],
                "image-label": {
                    "colors": [{"label-value": i, "rgba": shades[min(i, 3)]} for i, _ in values],
                    "properties": [{"label-value": i, "source": source} for i, source in values],
                    "source": {"image": "../../"},
                },
            }
        }
        of: dict[str, dict[str, Any]] = {
            "": image,
            "labels": {"ome": {"version": "0.5", "labels": ["source"]}},
            LABEL: source,
        }
        return {path: GroupMetadata(attributes) for path, attributes in of.items()}

    def _multiscale(self, axes: str, origin_um: NDArray[np.float64], levels: int) -> dict[str, Any]:
        lead_scale, lead_shift = ([1.0], [0.0]) if axes[0] == "c" else ([], [])
        datasets = []
        for level in range(levels):
            scale = self.pixel_size_um * 2**level
            # the middle of 2**n pixels lies (2**n - 1) / 2 pixels behind the middle of the first
            shift = origin_um + self.pixel_size_um * (2**level - 1) / 2
            datasets.append(
                {
                    "path": f"{level}",
                    "coordinateTransformations": [
                        {"type": "scale", "scale": [*lead_scale, scale, scale]},
                        {
                            "type": "translation",
                            "translation": [*lead_shift, float(shift[0]), float(shift[1])],
                        },
                    ],
                }
            )
        return {
            "name": self.name,
            "type": "mean" if axes[0] == "c" else "nearest",
            "axes": [
                {"name": "c", "type": "channel"}
                if axis == "c"
                else {"name": axis, "type": "space", "unit": "micrometer"}
                for axis in axes
            ],
            "datasets": datasets,
        }


def array_metadata(
    shape: tuple[int, ...], shard: tuple[int, ...], chunk: tuple[int, ...], dtype: np.dtype[Any]
) -> ArrayV3Metadata:
    """Of an array (c, y, x) or (y, x), filled with 0, whose shards `mosaic.shards` writes."""
    return ArrayV3Metadata(
        shape=shape,
        data_type=get_data_type_from_native_dtype(dtype),
        chunk_grid=RegularChunkGrid(chunk_shape=shard),
        chunk_key_encoding=DefaultChunkKeyEncoding(),
        fill_value=0,
        codecs=[ShardingCodec(chunk_shape=chunk, codecs=[BytesCodec(), CODEC])],
        attributes={},
        dimension_names="cyx"[-len(shape) :],
        storage_transformers=(),
    )
