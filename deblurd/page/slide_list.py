"""The slides of the output folder, as the page lists them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from deblurd.errors import NoInputError
from deblurd.geometry import PixelToStage
from deblurd.record.journal import Journal
from deblurd.serve.view import FOLDER_PATTERN, MOST_FOLDER, Event, Slide, SlideField
from deblurd.serve.words import say
from deblurd.slides.catalog import Entry, slides
from deblurd.slides.folder import SlideFolder


def list_slides(output: Path) -> list[Slide]:
    """Newest first; a folder whose name the page could not ask for is left out. Empty where there is no output folder yet."""
    try:
        entries = list(slides(output, in_use=True))
    except NoInputError:
        return []
    return [_slide(entry) for entry in reversed(entries) if _has_proper_name(entry.folder.name)]


def find_slide(output: Path, name: str) -> SlideFolder:
    """Raises NoInputError where there is no such slide."""
    missing = NoInputError(f"there is no slide {name}: look at the list of slides")
    if not _has_proper_name(name):
        raise missing
    root = output.resolve()
    for path in output.glob(f"*/{name}"):
        # a folder that is a link to elsewhere is no slide of ours
        if path.is_dir() and path.resolve().is_relative_to(root) and (found := SlideFolder(path)).exists:
            return found
    raise missing


def events_of(folder: SlideFolder) -> list[Event]:
    """What its journal says happened. Raises DataError, OutputError."""
    if not folder.journal.is_file():
        return []
    journal = Journal(folder.journal, read_only=True)
    try:
        return [Event(utc=utc, kind=kind, text=text) for utc, _, kind, text in journal.events()]
    finally:
        journal.close()


def rows_of(folder: SlideFolder) -> list[dict[str, Any]]:
    """The journal's rows. Raises DataError, OutputError."""
    if not folder.journal.is_file():
        return []
    journal = Journal(folder.journal, read_only=True)
    try:
        return journal.rows()
    finally:
        journal.close()


def fields_of(rows: Iterable[dict[str, Any]], affine: PixelToStage | None) -> list[SlideField]:
    """Where each tile's middle lies: where it was solved to be, else where the stage was."""
    found = []
    for row in rows:
        y_um, x_um = row["y_um"], row["x_um"]
        if affine is not None and row["place_y_px"] is not None:
            y_um, x_um = affine.to_stage(np.array([row["place_y_px"], row["place_x_px"]]))
        sharpness = row["sharpness"]
        found.append(
            SlideField(
                y_um=round(float(y_um), 2),
                x_um=round(float(x_um), 2),
                gate=row["gate"],
                sharpness=None if sharpness is None or not math.isfinite(sharpness) else round(sharpness, 3),
            )
        )
    return found


def camera_of(manifest: dict[str, Any]) -> tuple[PixelToStage, tuple[float, float]] | None:
    """The affine, and height and width of a field in pixels of the mosaic; None where the manifest does not tell."""
    try:
        affine = PixelToStage(np.array(manifest["microscope"]["affine_um"], dtype=np.float64))
        height, width = manifest["microscope"]["shape"][:2]
    except (KeyError, TypeError, ValueError):
        return None
    return affine, field_px(affine, (height, width))


def field_px(affine: PixelToStage, shape: tuple[int, ...]) -> tuple[float, float]:
    """Height, width of the box that a frame fills in the mosaic."""
    box = np.abs(affine.rotation @ np.diag(shape[:2])).sum(axis=1)
    return float(box[0]), float(box[1])


def _slide(entry: Entry) -> Slide:
    manifest, folder = entry.manifest, entry.folder
    return Slide(
        folder=folder.name,
        slide_id=str(manifest.get("slide_id", folder.path.parent.name)),
        state=entry.state,
        verdict=_verdict(entry),
        begun=manifest.get("begun") if isinstance(manifest.get("begun"), str) else None,
        fields=entry.tiles,
        has_thumbnail=folder.thumbnail.is_file(),
        has_mosaic=(folder.mosaic / "zarr.json").is_file(),
    )


def _verdict(entry: Entry) -> str:
    state = "discarded" if entry.manifest.get("discarded") else entry.state
    parts = [say(f"verdict.{state}", reason=entry.note or entry.manifest.get("reason", ""))]
    mosaic, gates = entry.manifest.get("mosaic"), entry.manifest.get("gates")
    if isinstance(mosaic, dict) and mosaic.get("height_px"):
        covered = round(100 * mosaic["covered"])
        parts.append(
            say("verdict.size", width=mosaic["width_px"], height=mosaic["height_px"], covered=covered)
        )
    if isinstance(gates, dict) and (all_ := sum(gates.values())):
        # where there is nothing to deblur, nothing is missing
        raw = all_ - sum(gates.get(gate, 0) for gate in ("deblur", "sharp", "blank"))
        if raw:
            parts.append(say("verdict.raw", percent=max(round(100 * raw / all_), 1)))
    return "; ".join(parts)


def _has_proper_name(name: str) -> bool:
    return len(name) <= MOST_FOLDER and re.fullmatch(FOLDER_PATTERN, name) is not None
