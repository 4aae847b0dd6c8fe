"""``deblurd trajectories``: objects followed through a series."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from deblurd.errors import UsageError


def add_words(parser: argparse.ArgumentParser) -> None:
    """What follows ``deblurd trajectories``."""
    add = parser.add_argument
    add(
        "source",
        type=Path,
        metavar="SOURCE",
        help="a slide; a folder of images, in order of name or with tiles.csv (file,x_um,y_um,t_s and maybe exposure_ms,vx_um_s,vy_um_s); "
        "a TIFF of many pages; an OME-Zarr with t",
    )
    add("--output", type=Path, required=True, metavar="DIR", help="folder for tables and pictures")
    add(
        "--pixel-size-um",
        type=float,
        metavar="F",
        help="of the camera on the slide; what the source says if absent",
    )
    add(
        "--fps",
        type=float,
        metavar="F",
        help="frames per second, all at an even pace; what the source says if absent",
    )
    add(
        "--exposure-ms",
        type=float,
        metavar="F",
        help="of each frame: takes out the blur of objects that swim; what the source says if absent",
    )
    add(
        "--size-um",
        type=float,
        nargs=2,
        metavar=("MIN", "MAX"),
        help="diameters of the objects; those of what stands out in the first frame if absent",
    )
    add(
        "--polarity",
        choices=("auto", "dark", "bright"),
        default="auto",
        help="of the objects on their ground (%(default)s)",
    )
    add(
        "--threshold",
        type=float,
        metavar="F",
        help="least contrast of an object, in standard deviations of the noise; found by itself if absent",
    )
    add(
        "--detector",
        default="log",
        metavar="NAME",
        help="log, trackpy, one that another package brings, or a file.onnx (%(default)s)",
    )
    add(
        "--max-speed-um-s",
        type=float,
        metavar="F",
        help="how far from where it is expected an object may turn up, per second; found by itself if absent",
    )
    add(
        "--max-gap",
        type=int,
        default=2,
        metavar="N",
        help="frames that an object may be away for and be the same (%(default)s)",
    )
    add("--min-points", type=int, default=3, metavar="N", help="shorter tracks are left out (%(default)s)")
    add(
        "--encoding",
        choices=("srgb", "linear"),
        help="what a pixel value means; if absent, what the source says, else srgb for 8 bit and linear for 16",
    )
    add(
        "--raw", action="store_true", help="take no motion blur out, neither the stage's nor the objects' own"
    )


def trajectories(options: argparse.Namespace) -> None:
    """Follows the objects of one series, and says what came of it."""
    from rich.console import Console

    from deblurd.console import count_bar, report_table
    from deblurd.host.signals import stop_on_signals
    from deblurd.trajectory.sources import Told, open_series

    try:
        from deblurd.trajectory.follow import FollowOptions, follow
    except ModuleNotFoundError as err:
        raise UsageError(f"following objects needs {err.name}: pip install 'deblurd[trajectories]'") from err

    told = Told(options.pixel_size_um, options.fps, options.exposure_ms, options.encoding)
    wanted = FollowOptions(
        None if options.size_um is None else (options.size_um[0], options.size_um[1]),
        options.polarity,
        options.threshold,
        options.detector,
        options.max_speed_um_s,
        options.max_gap,
        options.min_points,
        not options.raw,
    )
    stop = stop_on_signals()
    with (
        open_series(options.source, told) as series,
        count_bar(Console(stderr=True), "following") as on_progress,
    ):
        followed = follow(series, wanted, options.output, on_progress, stop)
    for note in followed.notes:
        print(f"Note: {note}")
    Console().print(
        report_table(
            {"frames": followed.frames} | {key: _short(value) for key, value in followed.summary.items()},
            "trajectories",
        )
    )
    print(
        f"{followed.folder}: {followed.tracks} tracks of {followed.points} points in {followed.frames} frames"
    )


def _short(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else "unknown"
    return value
