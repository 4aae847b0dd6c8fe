"""``deblurd deblur``, ``stitch`` and ``export``: from files to files, without a microscope."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from deblurd.errors import NoInputError, UsageError
from deblurd.host.disk import make_folder


def add_deblur(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("images", type=Path, nargs="+", metavar="IMAGE")
    add(
        "--motion",
        type=float,
        nargs=2,
        required=True,
        metavar=("DY", "DX"),
        help="travel of the image during the exposure, in pixels, down and right",
    )
    add(
        "--encoding",
        choices=("srgb", "linear"),
        default="srgb",
        help="what a pixel value means (%(default)s)",
    )
    add("--model", default="fast", metavar="NAME", help='or "wiener" (%(default)s)')
    add("--output", type=Path, required=True, metavar="DIR", help="folder for the results")


def deblur(options: argparse.Namespace) -> None:
    dy, dx = options.motion
    if not (math.isfinite(dy) and math.isfinite(dx)):
        raise UsageError(
            f"--motion is {dy:g} {dx:g}, but must be two finite numbers of pixels, down and right"
        )
    for path in options.images:
        if not path.is_file():
            raise NoInputError(f"the image {path} is not there: give the paths of image files")
    make_folder(options.output)

    from deblurd.deblur.images import deblur_images

    for result in deblur_images(
        options.images, motion=(dy, dx), encoding=options.encoding, model=options.model, output=options.output
    ):
        print(result.text)


def add_stitch(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "folder",
        type=Path,
        metavar="FOLDER",
        help="images, and tiles.csv with file,x_um,y_um (of the tile's centre; x right, y down) and maybe "
        "t_s,exposure_ms,vx_um_s,vy_um_s",
    )
    add("--output", type=Path, required=True, metavar="DIR", help="folder that gets the slide's folder")
    add(
        "--pixel-size-um",
        type=float,
        metavar="F",
        help="of the camera on the slide; what TIFFs say if absent",
    )
    add(
        "--model", default="raw", metavar="NAME", help='takes blur out; "raw" takes nothing out (%(default)s)'
    )
    add("--overlap", type=float, metavar="F", help="share of a tile; by the positions if absent")
    add(
        "--encoding",
        choices=("srgb", "linear"),
        help="what a pixel value means; if absent, srgb for 8 bit and linear for 16",
    )


def stitch(options: argparse.Namespace) -> None:
    from rich.console import Console

    from deblurd.console import count_bar
    from deblurd.host.signals import stop_on_signals
    from deblurd.stitch import stitch_folder

    stop = stop_on_signals()
    with count_bar(Console(stderr=True), "stitching") as on_progress:
        stitched = stitch_folder(
            options.folder,
            options.output,
            pixel_size_um=options.pixel_size_um,
            model=options.model,
            overlap=options.overlap,
            encoding=options.encoding,
            on_progress=on_progress,
            stop=stop,
        )
    finished = stitched.finished
    for note in stitched.notes:
        print(f"Note: {note}")
    size = "" if finished.mosaic is None else f", {finished.mosaic.width_px} x {finished.mosaic.height_px} px"
    print(f"{finished.folder.path}: {finished.tiles} tiles{size}, in {finished.seconds:.1f} s")


def add_export(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("slide", type=Path, metavar="SLIDE", help="the slide's folder")
    add(
        "--to",
        choices=("ome-tiff",),
        required=True,
        help="ome-tiff: tiled, with its pyramid, every pixel kept",
    )
    add("--output", type=Path, metavar="FILE", help="mosaic.ome.tif in the slide's folder if absent")


def export(options: argparse.Namespace) -> None:
    from rich.console import Console

    from deblurd.console import count_bar
    from deblurd.export import export_ome_tiff

    with count_bar(Console(stderr=True), "exporting") as on_progress:
        path = export_ome_tiff(options.slide, options.output, on_progress=on_progress)
    print(path)
