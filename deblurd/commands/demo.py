"""``deblurd demo``: the whole way on a virtual slide, and how good it was."""

from __future__ import annotations

import argparse
from pathlib import Path

from deblurd.host.disk import make_folder
from deblurd.simulator.options import DemoOptions


def add_words(parser: argparse.ArgumentParser) -> None:
    default = DemoOptions()
    add = parser.add_argument
    add("--slide", type=Path, metavar="IMAGE", help="PNG, TIFF or SVS; generated tissue if absent")
    add(
        "--pixel-size-um",
        type=float,
        metavar="F",
        help="of the camera on the slide; the image's own, else 0.5",
    )
    add(
        "--area-mm",
        type=float,
        nargs=2,
        metavar=("W", "H"),
        help="width and height to scan, of an image where most is to be seen; the whole slide if absent",
    )
    add(
        "--fov-px",
        type=int,
        default=default.fov_px,
        metavar="N",
        help="side of the camera's field (%(default)s)",
    )
    add("--overlap", type=float, default=default.overlap, metavar="F", help="share of a tile (%(default)s)")
    add("--exposure-ms", type=float, default=default.exposure_ms, metavar="F", help="(%(default)s)")
    add("--speed-um-s", type=float, metavar="F", help="of the stage; or say --blur-px")
    add(
        "--blur-px",
        type=float,
        metavar="F",
        help="travel of the image during an exposure, which sets the speed",
    )
    add(
        "--latency-ms",
        type=float,
        metavar="F",
        help="from the end of an exposure to the frame's arrival, for deblurd to find out; 15, which it knows, if absent",
    )
    add(
        "--rolling-ms",
        type=float,
        default=default.rolling_ms,
        metavar="F",
        help="a rolling shutter: from a frame's first row to its last; told to deblurd, unless it is to find the latency out (%(default)s)",
    )
    add("--jitter-ms", type=float, default=default.jitter_ms, metavar="F", help="of arrival (%(default)s)")
    add("--backlash-um", type=float, default=default.backlash_um, metavar="F", help="(%(default)s)")
    add(
        "--stage-read-ms",
        type=float,
        default=default.stage_read_ms,
        metavar="F",
        help="how long a reading of the stage takes; serial ones 20 to 50 (%(default)s)",
    )
    add("--stage-skew", action="store_true", help="the stage's x is read before its y")
    add(
        "--rotation-deg",
        type=float,
        default=default.rotation_deg,
        metavar="F",
        help="turn of the camera (%(default)s)",
    )
    add(
        "--plan",
        choices=("stop", "single", "lanes", "alternate", "burst", "cross", "auto"),
        help="how to scan, with speed and exposure chosen for light and time; auto: the best of them",
    )
    add(
        "--scan-s",
        type=float,
        metavar="F",
        help="time of a plan; half of what stopping at every field takes if absent",
    )
    add(
        "--light",
        type=float,
        default=default.light_e_ms,
        metavar="E_PER_MS",
        help="electrons of a white pixel per ms, for a plan (%(default)g)",
    )
    add(
        "--fps",
        type=float,
        metavar="F",
        help="frames of the camera per second; as many as it takes, for a plan 30, if absent",
    )
    add("--model", default=default.model, metavar="NAME", help='or "wiener", "raw" (%(default)s)')
    add("--seed", type=int, default=default.seed, metavar="N", help="of tissue and noise (%(default)s)")
    add("--output", type=Path, default=default.output, metavar="DIR", help="(%(default)s)")
    add("--report", type=Path, metavar="FILE.json", help="write the figures here too")


def run(options: argparse.Namespace) -> None:
    demo = DemoOptions(
        slide=options.slide,
        pixel_size_um=options.pixel_size_um,
        area_mm=None if options.area_mm is None else tuple(options.area_mm),
        fov_px=options.fov_px,
        overlap=options.overlap,
        exposure_ms=options.exposure_ms,
        speed_um_s=options.speed_um_s,
        blur_px=options.blur_px,
        latency_ms=options.latency_ms,
        rolling_ms=options.rolling_ms,
        jitter_ms=options.jitter_ms,
        backlash_um=options.backlash_um,
        stage_read_ms=options.stage_read_ms,
        stage_skew=options.stage_skew,
        rotation_deg=options.rotation_deg,
        plan=options.plan,
        scan_s=options.scan_s,
        light_e_ms=options.light,
        fps=options.fps,
        model=options.model,
        seed=options.seed,
        output=options.output,
        report=options.report,
    )
    if demo.report is not None:
        make_folder(demo.report.absolute().parent)

    from rich.console import Console

    from deblurd.console import live_status, report_table
    from deblurd.host.signals import stop_on_signals
    from deblurd.simulator.demo import run_demo

    stop = stop_on_signals()
    with live_status() as on_status:
        report = run_demo(demo, on_status, stop)
    Console().print(report_table(report))
