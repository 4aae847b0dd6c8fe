"""``deblurd run`` and ``deblurd scan run``: the daemon, until it is stopped, or until an area is done."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from deblurd.errors import UsageError

if TYPE_CHECKING:
    from deblurd.daemon import Report
    from deblurd.settings import Settings

P = TypeVar("P", bound=argparse.ArgumentParser)


def add_words(parser: argparse.ArgumentParser) -> None:
    """What follows ``deblurd run``."""
    parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="from `deblurd config init`"
    )


def add_scan(action: Callable[[str, Any, str], P]) -> None:
    """The action ``deblurd scan run``. action: makes a parser from a name, what it runs, and a line of help."""
    words = action("run", scan_run, "drive over an area, make its mosaic, and end")
    add_words(words)
    where = words.add_mutually_exclusive_group()
    add = where.add_argument
    add("--area-mm", type=float, nargs=2, metavar=("W", "H"), help="width and height, from where it begins")
    add(
        "--corners-um",
        type=float,
        nargs=4,
        metavar=("X", "Y", "X", "Y"),
        help="two opposite corners on the stage",
    )
    add("--plan", type=Path, metavar="FILE", help="a grid or polygon of useq-schema, in JSON")
    add("--tissue", action="store_true", help="until there is no more tissue")
    words.add_argument(
        "--start-um",
        type=float,
        nargs=2,
        metavar=("X", "Y"),
        help="middle of the first field; where the stage stands if neither this nor the configuration says it",
    )
    words.add_argument(
        "--speed-um-s",
        type=float,
        metavar="F",
        help="along the lanes; the largest that model, exposure and camera allow if nobody says it",
    )
    words.add_argument("--stops", action="store_true", help="stop at each field: the reference")


def run(options: argparse.Namespace) -> None:
    """Makes a mosaic of every slide, until it is stopped."""
    from deblurd import config

    _run(config.load(options.config), options.config)


def scan_run(options: argparse.Namespace) -> None:
    """Drives over what is said here, or else in the configuration."""
    from deblurd import config

    settings = config.load(options.config)
    report = _run(settings.model_copy(update={"scan": _scan_settings(settings, options)}), options.config)
    if report.scan_s > 0:
        print(f"The scan took {report.scan_s:.1f} s.")


def _scan_settings(settings: Settings, options: argparse.Namespace) -> Any:
    from pydantic import ValidationError

    from deblurd.settings import ScanSettings

    asked: dict[str, Any] = {name: getattr(options, name) for name in ("start_um", "speed_um_s")}
    area = {"area_mm": options.area_mm, "polygon_um": None, "plan": options.plan}
    if options.corners_um is not None:
        x0, y0, x1, y1 = options.corners_um
        area["polygon_um"] = ((x0, y0), (x1, y1))
    asked = {name: value for name, value in asked.items() if value is not None}
    if options.tissue or any(value is not None for value in area.values()):
        asked |= area
    if options.stops or settings.scan.mode == "watch":
        asked["mode"] = "stop_and_stare" if options.stops else "serpentine"
    try:
        return ScanSettings.model_validate(settings.scan.model_dump(exclude_unset=True) | asked)
    except ValidationError as err:
        first = err.errors()[0]
        option = f"--{str(first['loc'][0]).replace('_', '-')}"
        raise UsageError(
            f"{option} is {first['input']}, but {first['msg'][:1].lower()}{first['msg'][1:]}"
        ) from err


def _run(settings: Settings, file: Path) -> Report:
    from deblurd import health
    from deblurd.console import live_status
    from deblurd.daemon import Daemon
    from deblurd.host.disk import DiskGuard
    from deblurd.host.signals import hangups, stop_on_signals
    from deblurd.page import open_page
    from deblurd.resume import resuming
    from deblurd.service import Service

    stop = stop_on_signals()
    daemon = Daemon(settings)
    try:
        with (
            health.watched("main"),
            open_page(daemon) as page,
            Service(daemon, file, lambda: page.view.status().sentence, stop, hangups()),
            resuming(
                settings.mosaic.output,
                lambda sentence: print(sentence, flush=True),
                stop,
                DiskGuard(settings.mosaic.output, settings.mosaic.least_free_mb),
            ),
            live_status() as on_status,
        ):
            if page.url is not None:
                print(f"The page is at {page.url}", flush=True)
            daemon.run(on_status, stop)
    finally:
        daemon.close()
        # also after an error, what was recorded is kept; but where it came before the first frame, it says all
        if daemon.report.frames or sys.exception() is None:
            _print_slides(daemon.report)
    return daemon.report


def _print_slides(report: Report) -> None:
    for slide in report.slides:
        print(f"{slide.folder.path}: {slide.tiles} tiles")
    lost = ", ".join(f"{cause} {count}" for cause, count in report.lost.items() if count)
    print(f"{report.frames} frames, lost: {lost or 'none'}")
    if not report.slides:
        print("No slide was begun: nothing new came under the objective.")
