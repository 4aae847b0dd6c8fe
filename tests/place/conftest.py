"""Scans with known truth, shared with the benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from tests.benchmarks.scan_sets import SLIDE, Scan, ScanSet, make


@pytest.fixture(scope="session")
def scan_of() -> Callable[[ScanSet], Scan]:
    """Makes a scan, once for all tests that want the same."""
    made = cache(make)

    def of(scan_set: ScanSet) -> Scan:
        if scan_set.picture == "slide" and not SLIDE.is_file():
            pytest.skip("the real slide is not on this machine")
        return made(scan_set)

    return of
