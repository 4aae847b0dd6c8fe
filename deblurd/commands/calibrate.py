"""``deblurd calibrate``: how the camera sees the stage."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="of the microscope, as for a run"
    )


def run(options: argparse.Namespace) -> None:
    """Moves the stage by half a field there and back, and prints what was found; a run begins with it from now on."""
    from rich.console import Console

    from deblurd import config
    from deblurd.calibrate.run import calibrate
    from deblurd.console import count_bar
    from deblurd.host.signals import stop_on_signals

    settings = config.load(options.config)
    stop = stop_on_signals()
    with count_bar(Console(stderr=True), "frames") as on_frame:
        found = calibrate(settings, on_frame, stop)
    for line in found.lines():
        print(line)
    print(f"kept in {found.path}")
