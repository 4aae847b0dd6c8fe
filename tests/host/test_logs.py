"""Each line of the log is one record, and says which slide it is about."""

from __future__ import annotations

import io
import logging
import threading
import warnings
from collections.abc import Iterator
from contextvars import copy_context

import pytest
from rich.console import Console

from deblurd.host.logs import setup_logging, slide_in_log

log = logging.getLogger("deblurd.test")


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("deblurd")
    before = root.handlers[:], root.level, own.level
    yield
    root.handlers[:], level, own_level = before
    root.setLevel(level)
    own.setLevel(own_level)
    logging.captureWarnings(False)


def test_a_file_gets_one_plain_line_for_each_record() -> None:
    out = io.StringIO()
    setup_logging(Console(file=out))
    log.warning("two\nlines %s", "[bold]")
    log.debug("too much")
    logging.getLogger("some.library").info("too much")
    assert out.getvalue() == "WARNING two | lines [bold]\n"


def test_verbose_shows_our_own_details_only() -> None:
    out = io.StringIO()
    setup_logging(Console(file=out), verbose=True)
    log.debug("detail")
    logging.getLogger("some.library").debug("noise")
    assert out.getvalue() == "DEBUG detail\n"


def test_a_second_call_replaces_the_first() -> None:
    first, second = io.StringIO(), io.StringIO()
    setup_logging(Console(file=first))
    setup_logging(Console(file=second))
    log.warning("once")
    assert (first.getvalue(), second.getvalue()) == ("", "WARNING once\n")


def test_the_slide_is_named_inside_and_in_threads_that_are_given_the_context() -> None:
    out = io.StringIO()
    setup_logging(Console(file=out))
    with slide_in_log("s1"):
        log.info("inside")
        thread = threading.Thread(target=copy_context().run, args=(log.info, "in its thread"))
        thread.start()
        thread.join()
    log.info("after")
    assert out.getvalue().splitlines() == ["INFO [s1] inside", "INFO [s1] in its thread", "INFO after"]


def test_a_terminal_gets_rich_lines_without_markup() -> None:
    out = io.StringIO()
    setup_logging(Console(file=out, force_terminal=True, width=120, color_system=None))
    with slide_in_log("s1"):
        log.warning("take [/care] now")
    assert "WARNING" in out.getvalue()
    assert "[s1] take [/care] now" in out.getvalue()


def test_warnings_go_to_the_log() -> None:
    out = io.StringIO()
    setup_logging(Console(file=out))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert "DeprecationWarning: old" in out.getvalue()
    assert out.getvalue().startswith("WARNING ")


def test_a_traceback_follows_its_line() -> None:
    out = io.StringIO()
    setup_logging(Console(file=out))
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("went wrong")
    assert out.getvalue().startswith("ERROR went wrong\nTraceback")
