"""What a technician types."""

from __future__ import annotations

import argparse
import difflib
import logging
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from deblurd import __version__, slides_cli
from deblurd.errors import DeblurdError, NoInputError, OutputError, UsageError
from deblurd.host import logs, memory
from deblurd.simulator.options import DemoOptions

if TYPE_CHECKING:
    from deblurd.daemon import Report

log = logging.getLogger(__name__)

# Each command imports what it needs when it runs: `--help` and `config` answer at once.


class Parser(argparse.ArgumentParser):
    """argparse with the exit code of sysexits.h, and a guess at what was meant."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)
        self.commands: dict[str, Parser] = {}
        self._typed: list[str] = []

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._typed = list(args or [])
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}: {self._guess(message)}see `{self.prog} --help`")

    def _guess(self, message: str) -> str:
        if wrong := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message):
            typed, known = [wrong[1]], re.findall(r"[\w-]+", wrong[2])
        else:
            # a misspelt option is also why another one is missing
            texts = [parser.format_help() for parser in self._family()]
            known = [option for text in texts for option in re.findall(r"--[\w-]+", text)]
            options = [word.split("=")[0] for word in self._typed if word.startswith("--")]
            typed = [option for option in options if option not in known]
        near = [guess for word in typed for guess in difflib.get_close_matches(word, known, n=1)]
        return f"did you mean {near[0]!r}? Or " if near else ""

    def _family(self) -> list[Parser]:
        return [self, *(parser for child in self.commands.values() for parser in child._family())]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code, which is that of sysexits.h. Errors are one sentence on stderr."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    verbose = "-v" in arguments or "--verbose" in arguments or bool(os.environ.get("DEBLURD_DEBUG"))
    try:
        options = _parser().parse_args(arguments)
        logs.configure(verbose)
        memory.keep_one_heap()
        code: int = options.run(options) or 0
        print(end="", flush=True)
    except DeblurdError as err:
        traceback = verbose and not isinstance(err, UsageError)
        return _complain(str(err), err.exit_code, err if traceback else None)
    except KeyboardInterrupt:
        return _complain("stopped", 130)
    except BrokenPipeError:
        # whoever read the output has gone, as `head` does; Python would complain once more when it flushes at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as err:
        where = f" {err.filename}" if err.filename else ""
        return _complain(
            f"a file{where} could not be read or written ({err.strerror or err}): check that the disk is there, "
            "has room and lets you write",
            OutputError.exit_code,
            err if verbose else None,
        )
    except Exception as err:  # noqa: BLE001 - the outermost frame: a person gets a sentence in place of a traceback
        return _complain(
            f"this is a bug in deblurd ({type(err).__name__}: {' '.join(str(err).split())}): please report it, "
            + ("with the traceback above" if verbose else "and run with -v for the traceback"),
            DeblurdError.exit_code,
            err if verbose else None,
        )
    return code


def _complain(sentence: str, code: int, err: BaseException | None = None) -> int:
    if err is not None:
        log.error("traceback", exc_info=err)
    print(f"deblurd: {sentence}", file=sys.stderr)
    return code


# --- the commands ---


def _config_init(options: argparse.Namespace) -> None:
    from deblurd import config
    from deblurd.resources import example_config

    text = example_config(options.example) if options.example else config.default_text()
    path: Path = options.file
    try:
        # never over a file that somebody has filled in
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as err:
        raise OutputError(f"{path} is there already: give another name, or delete it first") from err
    except OSError as err:
        raise OutputError(
            f"{path} cannot be written ({err.strerror}): choose a folder that exists and is yours"
        ) from err
    print(f"Wrote {path}: fill it in, then `deblurd config check {path}`")


def _config_check(options: argparse.Namespace) -> None:
    from deblurd import config

    config.load(options.file)
    print(f"{options.file}: OK")


def _config_show(options: argparse.Namespace) -> None:
    from deblurd import config

    print(config.effective_text(config.load(options.file)), end="")


def _config_schema(options: argparse.Namespace) -> None:
    import json

    from deblurd import config

    print(json.dumps(config.schema(), indent=2))


def _run(options: argparse.Namespace) -> None:
    from rich.console import Console

    from deblurd import config
    from deblurd.console import live_status
    from deblurd.daemon import Daemon
    from deblurd.host.signals import stop_on_signals
    from deblurd.resume import resume_all

    settings = config.load(options.config)
    stop = stop_on_signals()
    daemon = Daemon(settings)
    try:
        resume_all(settings.mosaic.output, lambda sentence: print(sentence, flush=True), stop)
        with live_status(Console(stderr=True)) as on_status:
            daemon.run(on_status, stop)
    finally:
        daemon.close()
        # also after an error: what was recorded is kept
        _print_slides(daemon.report)


def _print_slides(report: Report) -> None:
    for slide in report.slides:
        print(f"{slide.folder.path}: {slide.tiles} tiles")
    lost = ", ".join(f"{cause} {count}" for cause, count in report.lost.items() if count)
    print(f"{report.frames} frames, lost: {lost or 'none'}")
    if not report.slides:
        print("No slide was begun: nothing new came under the objective.")


def _demo(options: argparse.Namespace) -> None:
    demo = DemoOptions(
        slide=options.slide,
        pixel_size_um=options.pixel_size_um,
        area_mm=None if options.area_mm is None else tuple(options.area_mm),
        fov_px=options.fov_px,
        overlap=options.overlap,
        exposure_ms=options.exposure_ms,
        speed_um_s=options.speed_um_s,
        blur_px=options.blur_px,
        model=options.model,
        seed=options.seed,
        output=options.output,
        report=options.report,
    )
    if demo.report is not None:
        _make_folder(demo.report.absolute().parent)

    from rich.console import Console

    from deblurd.console import live_status, report_table
    from deblurd.host.signals import stop_on_signals
    from deblurd.simulator.demo import run_demo

    stop = stop_on_signals()
    with live_status(Console(stderr=True)) as on_status:
        report = run_demo(demo, on_status, stop)
    Console().print(report_table(report))


def _deblur(options: argparse.Namespace) -> None:
    dy, dx = options.motion
    if not (math.isfinite(dy) and math.isfinite(dx)):
        raise UsageError(
            f"--motion is {dy:g} {dx:g}, but must be two finite numbers of pixels, down and right"
        )
    for path in options.images:
        if not path.is_file():
            raise NoInputError(f"the image {path} is not there: give the paths of image files")
    _make_folder(options.output)

    from deblurd.deblur.images import deblur_images

    for result in deblur_images(
        options.images, motion=(dy, dx), encoding=options.encoding, model=options.model, output=options.output
    ):
        print(result.text)


def _stitch(options: argparse.Namespace) -> None:
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


def _collect(options: argparse.Namespace) -> None:
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


def _export(options: argparse.Namespace) -> None:
    from rich.console import Console

    from deblurd.console import count_bar
    from deblurd.export import export_ome_tiff

    with count_bar(Console(stderr=True), "exporting") as on_progress:
        path = export_ome_tiff(options.slide, options.output, on_progress=on_progress)
    print(path)


def _check(options: argparse.Namespace) -> int:
    from rich.console import Console

    from deblurd.check import check, table

    findings = check(options.config)
    Console().print(table(findings))
    return next((finding.exit_code for finding in findings if finding.exit_code), 0)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise OutputError(
            f"the folder {folder} cannot be created ({err.strerror}): choose a folder that you may write to"
        ) from err


# --- the words ---


def _parser() -> Parser:
    parser = Parser(
        prog="deblurd",
        description="Whole-slide mosaics from a microscope stage that never stops. For research use only.",
    )
    parser.add_argument("--version", action="version", version=f"deblurd {__version__}")
    _add_verbose(parser, default=False)
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command", parser_class=Parser)

    def command(name: str, run: Any, text: str) -> Parser:
        child = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        child.set_defaults(run=run)
        _add_verbose(child, default=argparse.SUPPRESS)
        parser.commands[name] = child
        return child

    _config_words(command("config", None, "write, check and show configuration files"))
    _run_words(command("run", _run, "make a mosaic of every slide, until stopped"))
    _demo_words(command("demo", _demo, "scan a virtual slide and compare the mosaic with the truth"))
    _deblur_words(command("deblur", _deblur, "take a known motion out of image files"))
    _stitch_words(command("stitch", _stitch, "make a mosaic of image files whose stage positions are known"))
    _export_words(command("export", _export, "write a finished mosaic as one file that other programs open"))
    _collect_words(
        command("collect", _collect, "capture places sharp, out of focus and in motion, to train on")
    )
    _slides_words(command("slides", None, "list, check, finish and join slides that were scanned"))
    check = command("check", _check, "say whether this machine is ready for a run")
    check.add_argument("--config", type=Path, metavar="FILE", help="configuration; the simulator's if absent")
    return parser


def _add_verbose(parser: Parser, default: Any) -> None:
    # both before and after the command
    parser.add_argument(
        "-v", "--verbose", action="store_true", default=default, help="say more, tracebacks included"
    )


def _actions(parser: Parser) -> Callable[[str, Any, str], Parser]:
    """Makes the actions of a group of commands: a parser from a name, what it runs, and a line of help."""
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="action", parser_class=Parser)

    def action(name: str, run: Any, text: str) -> Parser:
        child = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        child.set_defaults(run=run)
        _add_verbose(child, default=argparse.SUPPRESS)
        parser.commands[name] = child
        return child

    return action


def _slides_words(parser: Parser) -> None:
    slides_cli.add_actions(_actions(parser))


def _config_words(parser: Parser) -> None:
    action = _actions(parser)
    action("init", _config_init, "write a commented configuration")
    action("check", _config_check, "say what is wrong with a configuration, line by line")
    action("show", _config_show, "print a configuration with every default filled in")
    action("schema", _config_schema, "print the JSON Schema, for editors")
    default = Path("deblurd.toml")
    init = parser.commands["init"]
    init.add_argument(
        "file", type=Path, nargs="?", default=default, metavar="FILE", help=f"default: {default}"
    )
    init.add_argument(
        "--example", metavar="NAME", help="simulator, democam or hardware in place of every setting"
    )
    for name in ("check", "show"):
        parser.commands[name].add_argument("file", type=Path, metavar="FILE")


def _run_words(parser: Parser) -> None:
    parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="from `deblurd config init`"
    )


def _demo_words(parser: Parser) -> None:
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
        help="width and height to scan; the whole slide if absent",
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
    add("--model", default=default.model, metavar="NAME", help='or "wiener", "raw" (%(default)s)')
    add("--seed", type=int, default=default.seed, metavar="N", help="of tissue and noise (%(default)s)")
    add("--output", type=Path, default=default.output, metavar="DIR", help="(%(default)s)")
    add("--report", type=Path, metavar="FILE.json", help="write the figures here too")


def _deblur_words(parser: Parser) -> None:
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


def _stitch_words(parser: Parser) -> None:
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


def _collect_words(parser: Parser) -> None:
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


def _export_words(parser: Parser) -> None:
    add = parser.add_argument
    add("slide", type=Path, metavar="SLIDE", help="the slide's folder")
    add(
        "--to",
        choices=("ome-tiff",),
        required=True,
        help="ome-tiff: tiled, with its pyramid, every pixel kept",
    )
    add("--output", type=Path, metavar="FILE", help="mosaic.ome.tif in the slide's folder if absent")
