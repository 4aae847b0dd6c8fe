"""What deblurd says while it works: on stderr, for a person or for a journal."""

from __future__ import annotations

import logging
import sys

from rich.console import Console
from rich.highlighter import NullHighlighter
from rich.logging import RichHandler


def configure(verbose: bool) -> None:
    """Colours on a terminal, plain lines elsewhere. Replaces the root logger's handlers."""
    handler: logging.Handler
    if sys.stderr.isatty():
        handler = RichHandler(console=Console(stderr=True), show_path=verbose, highlighter=NullHighlighter())
        handler.setFormatter(logging.Formatter("%(message)s", datefmt="%H:%M:%S"))
    else:
        # no time: a journal adds its own
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    least = logging.INFO if verbose else logging.WARNING
    # at the handler, since some libraries set the level of their own loggers to DEBUG
    handler.addFilter(lambda record: record.name.startswith("deblurd") or record.levelno >= least)
    logging.basicConfig(level=least, handlers=[handler], force=True)
    logging.getLogger("deblurd").setLevel(logging.DEBUG if verbose else logging.INFO)
