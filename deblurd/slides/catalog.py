"""The slides below an output folder, as their folders tell. Nothing is written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from deblurd.errors import DataError, NoInputError, OutputError
from deblurd.host.lock import is_held
from deblurd.record.journal import Journal
from deblurd.slides.folder import SlideFolder

State = Literal["growing", "done", "incomplete", "interrupted", "unreadable"]

_STAMP = re.compile(r"(\d{8}T\d{6}Z)(?:.*-(\d+)$)?")


@dataclass(frozen=True, slots=True)
class Entry:
    """One slide.

    state: growing: at work just now; done; incomplete: ended, but something failed; interrupted: never ended; unreadable: `note` says why.
    tiles: acknowledged ones, None where unknown. manifest: what slide.json says, empty where it says nothing.
    """

    folder: SlideFolder
    state: State
    tiles: int | None
    manifest: dict[str, Any]
    note: str = ""


def slides(output: Path, in_use: bool | None = None) -> Iterator[Entry]:
    """Every slide below `output`, oldest first. in_use: whether another deblurd works there; found out if None.

    Raises NoInputError where there is no such folder.
    """
    if not output.is_dir():
        raise NoInputError(f"there is no folder {output}: name the one that mosaic.output names")
    held = is_held(output) if in_use is None else in_use
    found = [SlideFolder(path) for path in output.glob("*/*") if path.is_dir()]
    for folder in sorted((each for each in found if each.exists), key=_age):
        yield entry(folder, held)


def entry(folder: SlideFolder, in_use: bool | None = None) -> Entry:
    """What `folder` tells of its slide. in_use: as for `slides`."""
    try:
        manifest = folder.read_manifest()
    except NoInputError:
        # a kill between the folder and the first manifest
        manifest = {"state": "growing"}
    except DataError as err:
        return Entry(folder, "unreadable", None, {}, str(err))
    state = manifest.get("state")
    if state not in ("growing", "done", "incomplete"):
        return Entry(folder, "unreadable", None, manifest, f"slide.json has the unknown state {state!r}")
    if state == "growing" and not (is_held(folder.path.parent.parent) if in_use is None else in_use):
        state = "interrupted"
    try:
        return Entry(folder, cast(State, state), _acknowledged(folder, manifest), manifest)
    except (DataError, OutputError) as err:
        return Entry(folder, cast(State, state), None, manifest, str(err))


def _acknowledged(folder: SlideFolder, manifest: dict[str, Any]) -> int:
    if manifest["state"] != "growing" and isinstance(count := manifest.get("acknowledged"), int):
        return count
    if not folder.journal.is_file():
        return 0
    journal = Journal(folder.journal, read_only=True)
    try:
        return journal.count()
    finally:
        journal.close()


def _age(folder: SlideFolder) -> tuple[str, int, str]:
    stamp = _STAMP.search(folder.name)
    return (stamp[1], int(stamp[2] or 1), folder.name) if stamp else ("", 0, folder.name)
