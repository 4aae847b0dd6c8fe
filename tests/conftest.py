"""What every test finds, and what it leaves behind."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from hypothesis import settings
from rich.logging import RichHandler

# how long an example takes says more of the machine than of the code: each test has its time limit
settings.register_profile("deblurd", deadline=None)
settings.load_profile("deblurd")


@pytest.fixture(autouse=True)
def no_handler_of_a_closed_stream() -> Iterator[None]:
    """`deblurd` on the command line logs to stderr, which under test is closed with the test: threads of later ones would complain there."""
    root = logging.getLogger()
    before = list(root.handlers)
    yield
    for handler in list(root.handlers):
        if handler not in before and type(handler) in (logging.StreamHandler, RichHandler):
            root.removeHandler(handler)
