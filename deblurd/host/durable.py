"""Making files survive a power cut: the only place that knows how each system does it."""

from __future__ import annotations

import os
from pathlib import Path


def fsync_file(path: Path) -> None:
    """Returns when the content of `path` is on the disk. Raises OSError."""
    # Windows flushes only what is open for writing
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def fsync_dir(path: Path) -> None:
    """Returns when the names in the folder `path` are on the disk; nothing to do on Windows. Raises OSError."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
