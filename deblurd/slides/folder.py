"""The folder of one slide, and the manifest in it that says what happened."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deblurd import __version__
from deblurd.errors import DataError, NoInputError, OutputError

MANIFEST_SCHEMA = 1


def utc_now() -> str:
    """Wall-clock time for people, ISO 8601 in UTC with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class SlideFolder:
    """``<output>/<slide_id>/<slide_id>_<time>/`` and what lies in it; see the properties."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, output: Path, slide_id: str, name: str | None = None) -> SlideFolder:
        """A new folder, never an existing one. name: what it is called, ``<slide_id>_<time>`` if absent; where that is there already, with a number.

        Raises OutputError where it cannot be created.
        """
        name = name or f"{slide_id}_{datetime.now(UTC).strftime('%Y%m%dT%H%M%SZ')}"
        for suffix in ["", *(f"-{n}" for n in range(2, 1000))]:
            path = output / slide_id / f"{name}{suffix}"
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as err:
                raise OutputError(
                    f"cannot create the slide folder {path} ({err.strerror}): "
                    "choose an output folder that this user may write to"
                ) from err
            return cls(path)
        raise OutputError(
            f"{output / slide_id} already has a thousand slides of this second: rename the slide"
        )

    @classmethod
    def open(cls, path: Path) -> SlideFolder:
        """An existing slide. Raises NoInputError where there is none."""
        folder = cls(path)
        if not folder.journal.is_file():
            raise NoInputError(
                f"{path} is not a slide folder (it has no journal.sqlite): name a slide's own folder"
            )
        return folder

    @property
    def exists(self) -> bool:
        """Whether this is a slide, whole or what a kill left of one."""
        return any(part.exists() for part in (self.raw, self.journal, self.manifest))

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def mosaic(self) -> Path:
        return self.path / "mosaic.ome.zarr"

    @property
    def raw(self) -> Path:
        return self.path / "raw.zarr"

    @property
    def journal(self) -> Path:
        return self.path / "journal.sqlite"

    @property
    def manifest(self) -> Path:
        return self.path / "slide.json"

    @property
    def thumbnail(self) -> Path:
        return self.path / "thumbnail.png"

    @property
    def mosaic_before(self) -> Path:
        """The finished mosaic that was there, while the slide is painted anew."""
        return self.path / "mosaic.before.ome.zarr"

    @property
    def scratch(self) -> Path:
        """Deblurred tiles while the slide grows; can be made again from raw.zarr, gone when it is done."""
        return self.path / "scratch.zarr"

    def write_manifest(self, content: dict[str, Any]) -> None:
        """Replaces slide.json as a whole, so that a reader never sees half of it.

        Raises OutputError where it cannot be written.
        """
        text = json.dumps(
            {"schema": MANIFEST_SCHEMA, "deblurd": __version__} | content, indent=2, default=str
        )
        part = self.manifest.with_suffix(".json.part")
        try:
            with part.open("w", encoding="utf-8") as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.manifest)
        except OSError as err:
            raise OutputError(
                f"cannot write {self.manifest} ({err.strerror}): make room or give the folder back, then resume"
            ) from err

    def read_manifest(self) -> dict[str, Any]:
        """What slide.json says. Raises NoInputError, DataError."""
        try:
            content = json.loads(self.manifest.read_text(encoding="utf-8"))
        except FileNotFoundError as err:
            raise NoInputError(f"{self.manifest} is missing: resume the slide to write it again") from err
        except ValueError as err:
            raise DataError(
                f"{self.manifest} is not JSON ({err}): delete it, and resume the slide to write it again"
            ) from err
        if not isinstance(content, dict):
            raise DataError(
                f"{self.manifest} is not a JSON object: delete it, and resume the slide to write it again"
            )
        if content.get("schema") != MANIFEST_SCHEMA:
            raise DataError(
                f"{self.manifest} has schema {content.get('schema')}, this deblurd reads {MANIFEST_SCHEMA}: "
                "use the deblurd that wrote it"
            )
        return content
