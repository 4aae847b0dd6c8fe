"""Two slides as one: the recorded tiles of both in a new slide, to be placed and painted together."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from deblurd.errors import DataError, OutputError, UsageError
from deblurd.frames import Frame, Tile
from deblurd.record.journal import Journal
from deblurd.record.raw import RawStore
from deblurd.record.recorder import Recorder
from deblurd.slides.camera import Camera
from deblurd.slides.folder import SlideFolder, utc_now

UNFINISHED = ".join.part"
"""Where the new slide grows, below the output folder: no slide is looked for there until it holds all tiles."""

PAUSE_S = 1.0
"""Between the last tile of the first slide and the first tile of the second one, as drift is reckoned."""

_AT_ONCE = 8


def join(
    first: SlideFolder,
    second: SlideFolder,
    output: Path,
    on_progress: Callable[[int, int], None] = lambda joined, tiles: None,
) -> tuple[SlideFolder, list[str]]:
    """A new slide below `output` with the tiles of both, in the state "growing": its mosaic is made by resuming it.

    Both slides are only read. Also returns what was left out because its raw pixels are damaged, as "tile 3 of <slide>". The caller holds
    the lock of `output`. Raises UsageError for one slide twice, DataError where the cameras differ or a slide is damaged or empty,
    NoInputError, OutputError.
    """
    if first.path.resolve() == second.path.resolve():
        raise UsageError(f"{first.path} cannot be joined with itself: name two slides")
    journals = [Journal(folder.journal, read_only=True) for folder in (first, second)]
    try:
        return _join((first, second), journals, output, on_progress)
    finally:
        for journal in journals:
            journal.close()


def _join(
    folders: tuple[SlideFolder, SlideFolder],
    journals: list[Journal],
    output: Path,
    on_progress: Callable[[int, int], None],
) -> tuple[SlideFolder, list[str]]:
    cameras = [Camera.from_json(journal.slide("camera")) for journal in journals]
    _check_alike(*cameras)
    # of a camera whose rolling shutter was not known yet when one of them was recorded, the tiles of both are put right
    camera = max(cameras, key=lambda each: each.margin_px)
    manifests = [folder.read_manifest() for folder in folders]
    tiles = [journal.tiles() for journal in journals]
    for folder, found in zip(folders, tiles, strict=True):
        if not found:
            raise DataError(f"{folder.path} holds no tile: there is nothing to join")
    total = sum(map(len, tiles))
    tiles[1] = _after(tiles[0], tiles[1])
    names = {str(manifest.get("slide_id", "slide")) for manifest in manifests}
    unfinished = output / UNFINISHED
    try:
        # what a kill may have left; whoever holds the lock is the only one who joins
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        recorder = Recorder(unfinished, camera.raw_shape, camera.dtype)
        left_out: list[str] = []
        try:
            recorder.journal.set_slide("camera", camera.to_json())
            for folder, journal, found in zip(folders, journals, tiles, strict=True):
                recorder.journal.event("join", f"{len(found)} tiles of {folder.name}")
                frames = _frames(folder, journal, found, left_out)
                while batch := list(islice(frames, _AT_ONCE)):
                    recorder.record(batch)
                    on_progress(recorder.journal.count(), total)
            count = recorder.journal.count()
        finally:
            recorder.close()
        SlideFolder(unfinished).write_manifest(_manifest(folders, manifests, count))
        joined = SlideFolder.create(output, names.pop() if len(names) == 1 else "joined")
        # Windows renames onto nothing that exists
        joined.path.rmdir()
        unfinished.rename(joined.path)
    except OSError as err:
        shutil.rmtree(unfinished, ignore_errors=True)
        if isinstance(err, OutputError):
            raise
        raise OutputError(
            f"the joined slide cannot be written below {output} ({err.strerror or err}): make room, then join again"
        ) from err
    return joined, left_out


def _check_alike(a: Camera, b: Camera) -> None:
    for what, one, other in (
        ("shape", a.raw_shape, b.raw_shape),
        ("data type", a.dtype, b.dtype),
        ("encoding", a.encoding, b.encoding),
    ):
        if one != other:
            raise DataError(
                f"the slides have different cameras ({what} {one} and {other}): join slides of one camera"
            )
    if not np.allclose(a.affine.matrix, b.affine.matrix, rtol=1e-4, atol=1e-4 * a.affine.pixel_size_um):
        raise DataError(
            f"the slides have different pixels ({a.affine.pixel_size_um:.5g} and {b.affine.pixel_size_um:.5g} um, "
            "or another turn of the camera): join slides of one camera and one objective"
        )


def _after(first: list[Tile], second: list[Tile]) -> list[Tile]:
    """`second` as if it had been scanned right after `first`: clocks of two runs know nothing of each other."""
    late_s = max(t.pose.t_s for t in first) + PAUSE_S - min(t.pose.t_s for t in second)
    runs = 1 + max(t.sequence for t in first)
    return [
        replace(t, sequence=t.sequence + runs, pose=replace(t.pose, t_s=t.pose.t_s + late_s)) for t in second
    ]


def _frames(
    folder: SlideFolder, journal: Journal, tiles: list[Tile], left_out: list[str]
) -> Iterator[tuple[Frame, Tile]]:
    """Each tile with its pixels; those that are not what was recorded are named in `left_out`."""
    raw, crcs = RawStore.open(folder.raw), journal.crcs()
    for tile in tiles:
        if not raw.is_intact(tile.index, crcs[tile.index]):
            left_out.append(f"tile {tile.index} of {folder.name}")
            continue
        yield Frame(raw.read(tile.index), tile.number, tile.pose.t_s, tile.exposure_ms, tile.sequence), tile


def _manifest(
    folders: tuple[SlideFolder, SlideFolder], manifests: list[dict[str, Any]], count: int
) -> dict[str, Any]:
    """Configuration and model are those of the first slide."""
    kept = {
        key: manifests[0][key] for key in ("slide_id", "microscope", "config", "model") if key in manifests[0]
    }
    return kept | {
        "state": "growing",
        "research_use_only": True,
        "begun": utc_now(),
        "joined_from": [str(folder.path.absolute()) for folder in folders],
        "tiles": count,
    }
