"""``deblurd slides``: looking after slides that were scanned."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from deblurd.errors import DataError, UsageError

P = TypeVar("P", bound=argparse.ArgumentParser)

DEFAULT_OUTPUT = Path("deblurd-slides")


def add_actions(action: Callable[[str, Any, str], P]) -> None:
    """The actions of the group. action: makes a parser from a name, what it runs, and a line of help."""
    where = action("list", _list, "the slides of an output folder, and how they ended")
    _output_words(where, "folder that holds the slides")
    action("show", _show, "what is known of a slide").add_argument("slide", **_SLIDE)
    action("verify", _verify, "read every tile and the mosaic, and say what is wrong").add_argument(
        "slide", **_SLIDE
    )
    resume = action("resume", _resume, "make the mosaic of an interrupted slide from what was recorded")
    resume.add_argument("slide", **_SLIDE)
    resume.add_argument(
        "--config", type=Path, metavar="FILE", help="whose model and mosaic count in place of the slide's own"
    )
    repaint = action("repaint", _repaint, "make the mosaic anew with another model, or of the raw tiles")
    repaint.add_argument("slide", **_SLIDE)
    repaint.add_argument("--model", required=True, metavar="NAME", help='a model, "wiener" or "raw"')
    repaint.add_argument(
        "--order",
        choices=("deblur-first", "stitch-first"),
        default="deblur-first",
        help="stitch-first puts the raw tiles together and deblurs the whole mosaic after (%(default)s)",
    )
    repaint.add_argument(
        "--fuse",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="make each tile of all recorded frames that see it, or of one alone; as before if absent",
    )
    join = action("join", _join, "make one new slide of the tiles of two; both stay as they are")
    join.add_argument("first", **_SLIDE)
    join.add_argument("second", **_SLIDE)
    join.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder that gets the new slide; that of the first if absent",
    )


_SLIDE: dict[str, Any] = {"type": Path, "metavar": "SLIDE", "help": "folder of a slide"}


def _output_words(parser: argparse.ArgumentParser, text: str) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--output", type=Path, default=DEFAULT_OUTPUT, metavar="DIR", help=f"{text} (%(default)s)"
    )
    where.add_argument("--config", type=Path, metavar="FILE", help="the configuration that names it")


def _list(options: argparse.Namespace) -> None:
    from rich.console import Console

    from deblurd import config
    from deblurd.console import slides_table
    from deblurd.slides.catalog import slides

    output = options.output if options.config is None else config.load(options.config).mosaic.output
    found = list(slides(output))
    if not found:
        print(f"There is no slide below {output}.")
        return
    Console().print(slides_table(found))


def _show(options: argparse.Namespace) -> None:
    from rich.console import Console

    from deblurd.console import slide_table
    from deblurd.slides.catalog import entry

    Console().print(slide_table(entry(_slide(options.slide))))


def _verify(options: argparse.Namespace) -> int:
    from rich.console import Console

    from deblurd.console import count_bar
    from deblurd.slides.verify import verify

    with count_bar(Console(stderr=True), "reading") as on_progress:
        tiles, shards, faults = verify(_slide(options.slide), on_progress)
    for fault in faults:
        print(fault)
    verdict = f"{len(faults)} faults" if faults else "whole"
    print(f"{options.slide}: {verdict} ({tiles} raw tiles and {shards} parts of the mosaic read)")
    return DataError.exit_code if faults else 0


def _resume(options: argparse.Namespace) -> None:
    from deblurd import config

    settings = None if options.config is None else config.load(options.config)
    if settings is None and _is_done(options.slide):
        print(f"{options.slide} is done already: `deblurd slides repaint` makes its mosaic anew")
        return
    _paint(options.slide, settings=settings)


def _repaint(options: argparse.Namespace) -> None:
    if options.order == "stitch-first":
        if options.fuse:
            raise UsageError("stitch-first deblurs the mosaic as a whole: leave out --fuse, or --order")
        _stitch_first(options.slide, options.model)
    else:
        _paint(options.slide, model=options.model, fuses=options.fuse)


def _stitch_first(path: Path, model: str) -> None:
    from rich.console import Console

    from deblurd.console import count_bar
    from deblurd.host.lock import output_lock
    from deblurd.pipeline import describe_gates
    from deblurd.stitch_first import stitch_first

    folder = _slide(path)
    with (
        output_lock(folder.path.parent.parent),
        count_bar(Console(stderr=True), "deblurring") as on_progress,
    ):
        gates = stitch_first(folder, model, on_progress)
    print(f"{folder.path}: {sum(gates.values())} tiles, stitched first, then {describe_gates(gates)}")


def _join(options: argparse.Namespace) -> None:
    from rich.console import Console

    from deblurd.console import count_bar
    from deblurd.host.disk import DiskGuard
    from deblurd.host.lock import output_lock
    from deblurd.slides.join import join

    first, second = _slide(options.first), _slide(options.second)
    output = options.output or first.path.parent.parent
    with output_lock(output):
        DiskGuard(output).check()
        with count_bar(Console(stderr=True), "joining") as on_progress:
            joined, left_out = join(first, second, output, on_progress)
    for each in left_out:
        print(f"Left out, because its raw pixels are damaged: {each}")
    _paint(joined.path)


def _paint(path: Path, **choices: Any) -> None:
    from rich.console import Console

    from deblurd.console import count_bar
    from deblurd.host.lock import output_lock
    from deblurd.pipeline import describe_fusion, describe_gates
    from deblurd.resume import resume

    folder = _slide(path)
    with (
        output_lock(folder.path.parent.parent),
        count_bar(Console(stderr=True), "painting") as on_progress,
    ):
        finished, damaged = resume(folder, on_progress=on_progress, **choices)
    if damaged:
        print(f"Left out, because their raw pixels are damaged: tiles {', '.join(map(str, damaged))}")
    fused = f"; {describe_fusion(finished.to_manifest(''))}" if finished.fused else ""
    print(f"{folder.path}: {finished.tiles} tiles, {describe_gates(finished.gates)}{fused}")


def _slide(path: Path) -> Any:
    from deblurd.errors import NoInputError
    from deblurd.slides.folder import SlideFolder

    folder = SlideFolder(path.absolute())
    if not folder.exists:
        raise NoInputError(
            f"{path} is not a slide folder (it has no journal.sqlite): name a slide's own folder"
        )
    return folder


def _is_done(path: Path) -> bool:
    """Whether nothing is left to do: ended, with a mosaic that was closed."""
    from deblurd.errors import NoInputError
    from deblurd.mosaic.reader import MosaicReader
    from deblurd.slides.catalog import entry

    found = entry(_slide(path))
    if found.state != "done":
        return False
    try:
        return found.tiles == 0 or MosaicReader(found.folder.mosaic).state == "final"
    except (NoInputError, DataError):
        return False
