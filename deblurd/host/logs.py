"""What deblurd says while it works: on stderr, for a person or for a journal."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.highlighter import NullHighlighter
from rich.logging import RichHandler

_slide: ContextVar[str] = ContextVar("slide", default="")


@contextmanager
def about_slide(name: str) -> Iterator[None]:
    """What is logged inside carries the slide's name.

    A new thread starts without it: run it in ``contextvars.copy_context()`` to hand it on.
    """
    token = _slide.set(name)
    try:
        yield
    finally:
        _slide.reset(token)


def configure(verbose: bool) -> None:
    """Colours on a terminal, plain lines elsewhere. Replaces the root logger's handlers."""
    handler: logging.Handler
    if sys.stderr.isatty():
        handler = RichHandler(console=Console(stderr=True), show_path=verbose, highlighter=NullHighlighter())
        handler.setFormatter(logging.Formatter("%(slide)s%(message)s", datefmt="%H:%M:%S"))
    else:
        # no time: a journal adds its own
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_OneLine("%(levelname)s %(name)s: %(slide)s%(message)s"))
    least = logging.INFO if verbose else logging.WARNING
    # at the handler, since some libraries set the level of their own loggers to DEBUG
    handler.addFilter(lambda record: record.name.startswith("deblurd") or record.levelno >= least)
    handler.addFilter(_name_slide)
    logging.basicConfig(level=least, handlers=[handler], force=True)
    logging.captureWarnings(True)
    logging.getLogger("deblurd").setLevel(logging.DEBUG if verbose else logging.INFO)
    # read when it is imported: pymmcore-plus would say everything a second time, and keep files in the user's folder
    os.environ.setdefault("PYMM_LOG_LEVEL", "CRITICAL")
    os.environ.setdefault("PYMM_LOG_FILE", "0")


class _OneLine(logging.Formatter):
    """One record, one line; only a traceback follows it."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return " | ".join(super().formatMessage(record).splitlines())


def _name_slide(record: logging.LogRecord) -> bool:
    name = _slide.get()
    record.slide = f"[{name}] " if name else ""
    return True
