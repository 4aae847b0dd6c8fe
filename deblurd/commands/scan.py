"""``deblurd status``, and the actions of ``deblurd slides`` and ``deblurd scan`` that speak to a daemon at work."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from deblurd.errors import UsageError

if TYPE_CHECKING:
    from deblurd.serve.client import Client
    from deblurd.serve.view import Action

P = TypeVar("P", bound=argparse.ArgumentParser)

DEFAULT_URL = "http://127.0.0.1:8765/"


def add_status(parser: argparse.ArgumentParser) -> None:
    """What follows ``deblurd status``."""
    _where(parser)
    parser.add_argument("--json", action="store_true", help="everything, for programs")


def add_actions(action: Callable[[str, Any, str], P]) -> None:
    """The actions of the group. action: makes a parser from a name, what it runs, and a line of help."""
    for name, text in (
        ("start", "begin a slide now, or go on with the one that is paused"),
        ("finish", "end the slide at work, and paint what is left of it"),
        ("pause", "record nothing until `deblurd slides start`"),
        ("discard", "end the slide at work without a mosaic"),
    ):
        _where(action(name, _act, text))
    label = action("label", _label, "say what the slide is called, as a barcode reader does")
    label.add_argument("text", metavar="LABEL", help="letters, digits, . _ and -")
    _where(label)


def add_driving(action: Callable[[str, Any, str], P]) -> None:
    """The actions of ``deblurd scan`` for a stage that deblurd drives. action: as of `add_actions`."""
    for name, text in (
        ("pause", "halt the stage where it is, and record nothing until `deblurd scan resume`"),
        ("resume", "drive on to where the stage was going"),
        ("stop", "end the scan where the stage is, and paint what was recorded"),
        ("home", "end the scan, drive to slide.home_um or where the scan began, and paint what was recorded"),
    ):
        _where(action(name, _act, text))


def status(options: argparse.Namespace) -> int:
    """Prints the state of the scan; its code is 0 unless the scan has failed."""
    found = _client(options).status()
    if options.json:
        print(json.dumps(found.model_dump(mode="json"), indent=2))
    else:
        print(found.sentence)
        lost = ", ".join(f"{cause} {count}" for cause, count in found.lost.items() if count)
        print(f"{found.frames} frames, {found.frames_per_s:.1f}/s, lost: {lost or 'none'}")
        waiting = ", ".join(f"{stage} {count}" for stage, count in found.backlog.items() if count)
        print(f"{found.fields} fields, {found.painted} painted, waiting: {waiting or 'none'}")
        left = "" if found.disk_hours is None else f", {found.disk_hours:.1f} h left at this rate"
        print(f"{found.model} ({found.engine}); {found.free_bytes // 10**9} GB free{left}")
    return 70 if found.state == "failed" else 0


def _act(options: argparse.Namespace) -> None:
    client, action = _client(options), options.action
    # one word for a person, two for the daemon
    if action == "start" and client.status().state == "paused":
        action = "resume"
    asked: Action = "finish" if action == "stop" else action
    print(client.act(asked))


def _label(options: argparse.Namespace) -> None:
    from deblurd.serve.view import LABEL_PATTERN

    if not re.fullmatch(LABEL_PATTERN, options.text):
        raise UsageError(
            f"the label {options.text!r} cannot be a slide's name: use 1 to 64 letters, digits, . _ and -"
        )
    print(_client(options).act("label", options.text))


def _where(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--url", default=DEFAULT_URL, metavar="URL", help="where the daemon's page is (%(default)s)"
    )
    where.add_argument("--config", type=Path, metavar="FILE", help="the configuration that it runs with")
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="its token, if it asks for one and --config does not say",
    )


def _client(options: argparse.Namespace) -> Client:
    from deblurd import config
    from deblurd.serve.client import Client
    from deblurd.serve.guard import read_token

    url, token_file = options.url, options.token_file
    if options.config is not None:
        serve = config.load(options.config).serve
        # a daemon that listens everywhere listens here too
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(serve.host, serve.host)
        url = f"http://{f'[{host}]' if ':' in host else host}:{serve.port}/"
        token_file = token_file or serve.token_file
    return Client(url, read_token(token_file))
