"""The slides below an output folder, as their folders tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deblurd.errors import DataError, NoInputError
from deblurd.slides.folder import SlideFolder


@dataclass(frozen=True, slots=True)
class Entry:
    """One slide. state: "growing" where it was never ended (or is at work just now), "done", "incomplete", or "unknown"."""

    folder: SlideFolder
    state: str
    manifest: dict[str, Any]


def slides(output: Path) -> Iterator[Entry]:
    """Every slide below `output`, oldest first. Raises NoInputError where there is no such folder."""
    if not output.is_dir():
        raise NoInputError(f"there is no folder {output}: name the one that mosaic.output names")
    journals = sorted(output.glob("*/*/journal.sqlite"), key=lambda path: path.parent.name[-20:])
    for journal in journals:
        yield entry(SlideFolder(journal.parent))


def entry(folder: SlideFolder) -> Entry:
    try:
        manifest = folder.read_manifest()
    except (NoInputError, DataError):
        return Entry(folder, "unknown", {})
    return Entry(folder, str(manifest.get("state", "unknown")), manifest)
