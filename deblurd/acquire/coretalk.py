"""Talking to Micro-Manager's core: its errors are plain RuntimeErrors with text."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from deblurd.errors import MicroscopeError

T = TypeVar("T")


def ask(function: Callable[..., T], *args: object, **kwargs: object) -> T:
    """Calls the core. Raises MicroscopeError with the core's own words."""
    try:
        return function(*args, **kwargs)
    except (RuntimeError, ValueError, OSError) as err:
        raise MicroscopeError(
            f"the microscope refused {function.__name__} ({first_line(err)}): check the device, then start again"
        ) from err


def first_line(err: BaseException) -> str:
    """The first line of an error's text, without its full stop."""
    lines = str(err).strip().splitlines()
    return lines[0].rstrip(". ") if lines else type(err).__name__
