"""What a technician types."""

from __future__ import annotations

import argparse
import difflib
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from deblurd import __version__
from deblurd.commands import calibrate, collect, demo, files, plan, run, scan, slides, trajectories
from deblurd.errors import DeblurdError, OutputError, UsageError
from deblurd.host import logs, memory

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
    logs.complain(f"deblurd: {sentence}")
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


def _check(options: argparse.Namespace) -> int:
    from rich.console import Console

    from deblurd.check import check, table

    findings = check(options.config)
    Console().print(table(findings))
    return next((finding.exit_code for finding in findings if finding.exit_code), 0)


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
    run.add_words(command("run", run.run, "make a mosaic of every slide, until stopped"))
    scan.add_status(command("status", scan.status, "what a `deblurd run` on this machine is doing"))
    demo.add_words(command("demo", demo.run, "scan a virtual slide and compare the mosaic with the truth"))
    files.add_deblur(command("deblur", files.deblur, "take a known motion out of image files"))
    files.add_stitch(
        command("stitch", files.stitch, "make a mosaic of image files whose stage positions are known")
    )
    files.add_export(
        command("export", files.export, "write a finished mosaic as one file that other programs open")
    )
    calibrate.add_words(
        command("calibrate", calibrate.run, "measure how the camera sees the stage, which moves for it")
    )
    collect.add_words(
        command("collect", collect.run, "capture places sharp, out of focus and in motion, to train on")
    )
    plan.add_photons(
        command("photons", plan.photons, "measure the camera's noise and the light, with the stage at rest")
    )
    action = _actions(command("scan", None, "plan the scan of an area, do it, pause and end it"))
    plan.add_scan(action)
    run.add_scan(action)
    scan.add_driving(action)
    _slides_words(command("slides", None, "list, check, finish and join slides that were scanned"))
    trajectories.add_words(
        command("trajectories", trajectories.trajectories, "follow objects through a series of frames")
    )
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
    action = _actions(parser)
    slides.add_actions(action)
    scan.add_actions(action)


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
