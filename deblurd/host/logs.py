"""What deblurd says while it works: on stderr, for a person, a file or systemd's journal."""

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


def now_about(slide: str) -> None:
    """What this thread logs from now on carries the slide's name; "": no slide's."""
    _slide.set(slide)


def configure(verbose: bool) -> None:
    """Colours on a terminal, plain lines elsewhere, each with its priority in a journal. Replaces the root logger's handlers."""
    handler: logging.Handler
    if sys.stderr.isatty():
        handler = RichHandler(console=Console(stderr=True), show_path=verbose, highlighter=NullHighlighter())
        handler.setFormatter(logging.Formatter("%(slide)s%(message)s", datefmt="%H:%M:%S"))
    else:
        # no time: a journal adds its own
        handler = logging.StreamHandler(sys.stderr)
        form = _ForJournal if _is_journal() else _OneLine
        handler.setFormatter(form("%(levelname)s %(name)s: %(slide)s%(message)s"))
    least = logging.INFO if verbose else logging.WARNING
    # at the handler, since some libraries set the level of their own loggers to DEBUG
    handler.addFilter(lambda record: record.name.startswith("deblurd") or record.levelno >= least)
    handler.addFilter(_name_slide)
    logging.basicConfig(level=least, handlers=[handler], force=True)
    logging.captureWarnings(True)
    logging.getLogger("deblurd").setLevel(logging.DEBUG if verbose else logging.INFO)
    # read when it is imported: pymmcore-plus would say everything a second time, and keep files in the user's folder
    os.environ.setdefault("PYMM_LOG_LEVEL", "CRITICAL")
    # ("0" should mean none, and does not: it would fill up to 800 MB)
    os.environ.setdefault("PYMM_LOG_FILE", "0" if os.name == "nt" else os.devnull)


class _OneLine(logging.Formatter):
    """One record, one line; only a traceback follows it."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return " | ".join(super().formatMessage(record).splitlines())


class _ForJournal(_OneLine):
    """Each line begins with its priority in angle brackets, as sd-daemon(3) has it; so do those of a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        mark = _mark(record.levelno)
        return "\n".join(mark + line for line in super().format(record).splitlines())


def complain(sentence: str) -> None:
    """The last word of a command that failed, on stderr."""
    marked = _mark(logging.ERROR) if _is_journal() else ""
    # a configuration's faults are several lines
    sys.stderr.writelines(f"{marked}{line}\n" for line in sentence.splitlines())


def _mark(level: int) -> str:
    # syslog's: 2 critical, 3 error, 4 warning, 6 information, 7 debug
    steps = (logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6)
    return f"<{next((priority for least, priority in steps if level >= least), 7)}>"


def _is_journal() -> bool:
    """Whether stderr leads to systemd's journal: see systemd.exec(5) on JOURNAL_STREAM. A child's may not, though it inherits the variable."""
    try:
        there = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{there.st_dev}:{there.st_ino}"


def _name_slide(record: logging.LogRecord) -> bool:
    name = _slide.get()
    record.slide = f"[{name}] " if name else ""
    return True
