"""``deblurd photons`` and ``deblurd scan plan``: what camera and light can do, and the best way to use them."""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from deblurd.errors import DataError, UsageError

if TYPE_CHECKING:
    from deblurd.acquire.microscope import MicroscopeInfo
    from deblurd.fuse.spectrum import Specimen
    from deblurd.photon.transfer import PhotonTransfer
    from deblurd.scan.plan import Conditions, Plan

log = logging.getLogger(__name__)

P = TypeVar("P", bound=argparse.ArgumentParser)


def add_photons(parser: argparse.ArgumentParser) -> None:
    """What follows ``deblurd photons``."""
    parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="from `deblurd config init`"
    )


def add_scan(action: Callable[[str, Any, str], P]) -> None:
    """The actions of the group ``deblurd scan``. action: makes a parser from a name, what it runs, and a line of help."""
    words = action(
        "plan",
        scan_plan,
        "compare the ways to scan an area, with time and expected quality, and name the best",
    )
    add = words.add_argument
    add(
        "--area-mm",
        type=float,
        nargs=2,
        required=True,
        metavar=("W", "H"),
        help="width and height of the area",
    )
    wanted = words.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--time-s", type=float, metavar="F", help="what the scan may take")
    wanted.add_argument("--psnr-db", type=float, metavar="F", help="how good it has to be, in dB")
    add(
        "--config",
        type=Path,
        metavar="FILE",
        help="microscope to ask for what is not given here; measure its camera with `deblurd photons` first",
    )
    add("--fov-px", type=int, nargs=2, metavar=("H", "W"), help="height and width of a frame")
    add("--pixel-size-um", type=float, metavar="F", help="of the camera on the slide")
    add("--fps", type=float, metavar="F", default=30.0, help="frames per second (%(default)g)")
    add("--light", type=float, metavar="E_PER_MS", help="electrons of a white pixel per ms")
    add("--read-noise-e", type=float, metavar="F", help="electrons; 4 if nobody knows")
    add("--full-well-e", type=float, metavar="F", help="electrons at saturation; 20000 if nobody knows")
    add("--overlap", type=float, default=0.2, metavar="F", help="of neighbouring lanes (%(default)g)")
    add("--settle-s", type=float, default=0.25, metavar="F", help="of a stage that stops (%(default)g)")
    add(
        "--stage-um-s", type=float, default=20_000.0, metavar="F", help="top speed of the stage (%(default)g)"
    )
    add(
        "--sequenced",
        action="store_true",
        help="the camera can change its exposure from frame to frame; with --config it is asked",
    )
    add("--image", type=Path, metavar="FILE", help="a sharp image of such a specimen; crisp H&E if absent")


def photons(options: argparse.Namespace) -> None:
    """Measures the camera, and prints what it found."""
    from deblurd import config
    from deblurd.photon.run import measure_camera

    settings = config.load(options.config)
    try:
        info, found = measure_camera(settings)
    except DataError as err:
        raise DataError(f"{err}. Until then scans are planned for {SAFE}") from err
    print(f"{info.camera}: {found.sentence()} (give or take {100 * found.error:.0f} %)")


SAFE = "a camera of 20000 e- with 4 e- of read noise, and exposures alike"
"""What is assumed where nothing was measured."""


def scan_plan(options: argparse.Namespace) -> None:
    """Prints a table of plans, the best first."""
    from rich.console import Console

    from deblurd.scan.plan import plan

    conditions, notes = _conditions(options)
    plans = plan(conditions, options.time_s, options.psnr_db)
    for note in notes:
        print(note)
    Console().print(_table(plans, conditions))
    best = plans[0]
    if not best.is_possible:
        raise UsageError(f"no way of scanning is possible: {best.advice(conditions.pixel_size_um)}")
    print(f"Best: {best.advice(conditions.pixel_size_um)}.")
    for line in best.settings():
        print(f"  {line}")


def _table(plans: list[Plan], conditions: Conditions) -> Any:
    from rich.table import Column, Table

    columns = ("speed, um/s", "exposure, ms", "blur, px", "frames a place", "time, s", "expected, dB")
    table = Table(
        Column("plan", no_wrap=True),
        *(Column(name, justify="right") for name in columns),
        Column("", overflow="fold"),
    )
    for each in plans:
        if not each.is_possible:
            table.add_row(each.way, *[""] * len(columns), each.why_not)
            continue
        table.add_row(
            each.way,
            "stops" if each.way == "stop" else f"{each.speed_um_s:.0f}",
            " / ".join(f"{ms:.3g}" for ms in each.exposures_ms),
            " / ".join(f"{px:.1f}" for px in each.blur_px(conditions.pixel_size_um)),
            f"{each.views:.1f}",
            f"{each.scan_s:.1f}",
            f"{each.psnr_db:.1f}",
            "",
        )
    return table


def _conditions(options: argparse.Namespace) -> tuple[Conditions, list[str]]:
    """What is given, what is known of the microscope, and what has to be assumed, which the sentences say."""
    from deblurd.scan.plan import Conditions

    notes: list[str] = []
    fov_px, size_um, transfer = options.fov_px, options.pixel_size_um, None
    takes_turns = options.sequenced
    if options.config is not None:
        info, transfer = _asked(options.config)
        fov_px, size_um = fov_px or info.shape[:2], size_um or info.affine.pixel_size_um
        takes_turns = info.most_turns >= 2
        if options.sequenced and not takes_turns:
            raise UsageError(
                f"{info.camera} was said to be --sequenced, but Micro-Manager says that it cannot change its exposure from frame to frame: leave "
                "--sequenced away, or switch such sequences on in the camera's properties"
            )
    if fov_px is None or size_um is None:
        raise UsageError(
            "the field is not known: give --fov-px and --pixel-size-um, or --config of a microscope"
        )
    if min(fov_px) < 64 or not 0.02 <= options.overlap <= 0.9 or not options.settle_s >= 0:
        raise UsageError(
            "the field must have 64 px at least, the overlap lie between 0.02 and 0.9, and the settling time not be negative"
        )
    light, read_e, full_e = options.light, options.read_noise_e, options.full_well_e
    if transfer is not None:
        light, read_e, full_e = (
            light or transfer.light_e_ms,
            _or(read_e, transfer.read_e),
            full_e or transfer.full_scale_e,
        )
    elif read_e is None or full_e is None:
        notes.append(f"The camera was not measured; assumed is {SAFE}: measure it with `deblurd photons`.")
    if light is None:
        raise UsageError(
            "the light is not known: give --light in electrons per ms, or measure it with `deblurd photons` and give --config"
        )
    specimen = _specimen(options.image)
    conditions = Conditions(
        area_mm=(options.area_mm[0], options.area_mm[1]),
        fov_px=(fov_px[0], fov_px[1]),
        pixel_size_um=size_um,
        frames_per_s=options.fps,
        light_e_ms=light,
        read_e=_or(read_e, 4.0),
        full_e=full_e or 20_000.0,
        overlap=options.overlap,
        settle_s=options.settle_s,
        stage_um_s=options.stage_um_s,
        can_alternate=takes_turns and (transfer is not None or None not in (read_e, full_e)),
    )
    return (conditions if specimen is None else replace(conditions, specimen=specimen)), notes


def _or(value: float | None, other: float) -> float:
    if value is not None and not (math.isfinite(value) and value >= 0):
        raise UsageError(f"the read noise is {value:g}, but must be a number from 0")
    return other if value is None else value


def _asked(file: Path) -> tuple[MicroscopeInfo, PhotonTransfer | None]:
    from deblurd import config
    from deblurd.acquire import open_microscope
    from deblurd.photon.kept import KeptTransfers

    settings = config.load(file)
    microscope = open_microscope(settings.at_one_exposure)
    try:
        info = microscope.info
    finally:
        microscope.close()
    return info, KeptTransfers(settings.mosaic.output).get(info)


def _specimen(image: Path | None) -> Specimen | None:
    if image is None:
        return None
    from deblurd.fuse.spectrum import measure_specimen
    from deblurd.imagefiles import read_image
    from deblurd.light import to_linear

    pixels = read_image(image)
    return measure_specimen([to_linear(pixels[..., :3] if pixels.ndim == 3 else pixels, "srgb")])
