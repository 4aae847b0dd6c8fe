"""Other stitchers on a folder of tiles; runs under an interpreter that has them, and knows nothing of deblurd.

python peers.py ashlar|multiview-stitcher FOLDER PIXEL_SIZE_UM

Prints JSON: places (k, 2) of the tiles, px, (y, x); place_s, cpu_s: seconds and processor seconds to read and register them; whole_s: with the mosaic written, if it was.
"""

from __future__ import annotations

import csv
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

MAX_SHIFT_PX = 60.0
"""Room for a stage that is off by 20 px (one sigma)."""

SMOOTH_PX = 1.0
"""ASHLAR's filter against noise: without it a third of the overlaps of 64 tiles of H&E are not believed, and the slide falls into nine pieces (7 px RMS for 3)."""


def table(folder: Path) -> tuple[list[Path], Any]:
    with (folder / "tiles.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [folder / row["file"] for row in rows], np.array(
        [[float(row["y_um"]), float(row["x_um"])] for row in rows]
    )


def green(path: Path) -> Any:
    import tifffile

    image = tifffile.imread(path)
    return image[..., 1] if image.ndim == 3 else image


def ashlar(folder: Path, pixel_um: float) -> dict[str, Any]:
    from ashlar import reg

    files, poses_um = table(folder)
    first = green(files[0])

    class Metadata(reg.Metadata):  # type: ignore[misc]
        _num_images = len(files)
        num_channels = 1
        pixel_size = pixel_um
        pixel_dtype = first.dtype

        def tile_position(self, i: int) -> Any:
            return poses_um[i] / pixel_um

        def tile_size(self, i: int) -> Any:
            return np.array(first.shape)

    class Reader(reg.Reader):  # type: ignore[misc]
        metadata = Metadata()

        def read(self, series: int, c: int) -> Any:
            return green(files[series])

    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    aligner = reg.EdgeAligner(
        Reader(), max_shift=MAX_SHIFT_PX * pixel_um, filter_sigma=SMOOTH_PX, do_make_thumbnail=False
    )
    aligner.run()
    place_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    with tempfile.TemporaryDirectory() as out:
        mosaic = reg.Mosaic(aligner, aligner.mosaic_shape)
        reg.PyramidWriter([mosaic], str(Path(out) / "mosaic.ome.tif")).run()
    whole_s = time.perf_counter() - began_s
    return {"places": aligner.positions.tolist(), "place_s": place_s, "cpu_s": cpu_s, "whole_s": whole_s}


def multiview_stitcher(folder: Path, pixel_um: float) -> dict[str, Any]:
    import dask
    from multiview_stitcher import msi_utils, registration
    from multiview_stitcher import spatial_image_utils as si_utils

    files, poses_um = table(folder)
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    views = []
    for path, pose in zip(files, poses_um, strict=True):
        image = si_utils.get_sim_from_array(
            green(path),
            dims=["y", "x"],
            scale={"y": 1.0, "x": 1.0},
            translation={"y": pose[0] / pixel_um, "x": pose[1] / pixel_um},
            transform_key="stage",
        )
        views.append(msi_utils.get_msim_from_sim(image, scale_factors=[]))
    # threads: for so small tiles, processes take longer to start than to work, and their time would not be counted
    with dask.config.set(scheduler="threads"):
        # other choices of pairs and a tolerance for overlaps change nothing or make it worse; without the filter, wrong matches double the error
        found = registration.register(
            views,
            transform_key="stage",
            new_transform_key="registered",
            reg_channel_index=0,
            groupwise_resolution_kwargs={"transform": "translation"},
            pre_registration_pruning_method="keep_axis_aligned",
            post_registration_do_quality_filter=True,
            post_registration_quality_threshold=0.5,
        )
    shifts = np.array([np.asarray(transform).reshape(-1, 3, 3)[0][:2, 2] for transform in found])
    place_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    places = (poses_um / pixel_um + shifts).tolist()
    return {"places": places, "place_s": place_s, "cpu_s": cpu_s, "whole_s": None}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    tool = {"ashlar": ashlar, "multiview-stitcher": multiview_stitcher}[sys.argv[1]]
    print(json.dumps(tool(Path(sys.argv[2]), float(sys.argv[3]))))
