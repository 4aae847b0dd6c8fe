"""``deblurd collect``: pairs of pictures to train on."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_words(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--config", type=Path, required=True, metavar="FILE", help="of the microscope, as for a run")
    add("--output", type=Path, required=True, metavar="DIR", help="new folder for the pairs")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--at",
        type=float,
        nargs=2,
        action="append",
        default=[],
        metavar=("X_UM", "Y_UM"),
        help="a place, and as often as you like; where the stage stands if absent",
    )
    where.add_argument("--places", type=int, metavar="N", help="that many over the area of [scan]")
    add(
        "--blur-px",
        type=float,
        nargs="*",
        default=[5.0, 10.0, 20.0],
        metavar="F",
        help="levels of motion, each along x and y, there and back (5 10 20)",
    )
    add(
        "--defocus-um",
        type=float,
        nargs="*",
        default=[-8.0, -4.0, -2.0, 2.0, 4.0, 8.0],
        metavar="F",
        help="planes, from the focus (-8 -4 -2 2 4 8)",
    )


def run(options: argparse.Namespace) -> None:
    from rich.console import Console

    from deblurd import config
    from deblurd.collect.collector import Plan, collect, plan_over
    from deblurd.console import count_bar
    from deblurd.host.signals import stop_on_signals

    settings = config.load(options.config)
    plan = Plan((), options.blur_px, options.defocus_um)
    stop = stop_on_signals()
    with count_bar(Console(stderr=True), "collecting") as on_progress:
        report = collect(
            settings,
            options.output,
            lambda microscope: plan_over(plan, microscope, settings, options.at, options.places),
            on_progress,
            stop,
        )
    for note in report.notes:
        print(f"Note: {note}")
    print(
        f"{report.folder}: {report.places} places, {report.moving} frames in motion, {report.defocused} out of focus; "
        f"{report.unlike} left out, because where they lie on the sharp one could not be told"
    )
