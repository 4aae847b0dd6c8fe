"""Sharp images to learn from: a folder, its manifest, and a split that never divides a group.

A group is a slide, patient or field. ``MANIFEST.tsv`` in the folder (columns file, licence, split, group; others are
ignored) names the images; without it every image below the folder is taken, each subfolder is a group, and
the split follows from a hash of the group's name. An image may also be an OME-Zarr mosaic, the folder of a slide that deblurd scanned, or
``pairs.csv``, the list of captured pairs that ``deblurd collect`` writes: see `sources`.
"""

from __future__ import annotations

import csv
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deblurd.errors import DataError, NoInputError
from deblurd.frames import MotionVector
from deblurd.train.recipe import AT_REST_PX, DataRecipe, DegradeRecipe
from deblurd.train.sources import (
    PAIRS,
    Captured,
    Picture,
    find,
    is_mosaic,
    is_slide,
    pictures,
    read_image,
    read_pairs,
)

Split = Literal["train", "val", "test"]
MANIFEST = "MANIFEST.tsv"


@dataclass(frozen=True, slots=True)
class Entry:
    """One image. file: path inside the folder, with "/". family: its source, the first folder of that path. pair: what was captured of it, blurred."""

    file: str
    licence: str
    split: str
    group: str
    pair: Captured | None = None

    @property
    def family(self) -> str:
        return self.file.split("/")[0] if "/" in self.file else "images"


@dataclass(slots=True)
class Images:
    """The images of one split, in memory.

    pixels: (H, W, 3) uint8 RGB, sRGB-encoded. sha256: of the files, in the same order (of the pixels, where they are only a part of
    their source). skipped: sources with nothing in them that is large enough. captured: by index, the blurred frame of a pair and its motion.
    """

    entries: list[Entry] = field(default_factory=list)
    pixels: list[NDArray[np.uint8]] = field(default_factory=list)
    sha256: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    captured: dict[int, tuple[Picture, MotionVector]] = field(default_factory=dict)

    def sampling_weights(self) -> NDArray[np.float64]:
        """Chance of each image (n,): by area within a family, families by the square root of their area."""
        area = np.array([p.shape[0] * p.shape[1] for p in self.pixels], dtype=np.float64)
        total: dict[str, float] = defaultdict(float)
        for entry, pixels in zip(self.entries, area, strict=True):
            total[entry.family] += float(pixels)
        weights = area / np.sqrt([total[e.family] for e in self.entries])
        return np.asarray(weights / weights.sum(), dtype=np.float64)

    def provenance(self) -> list[dict[str, str | int]]:
        """For the manifest: name, licence, number of images and one sha256 over theirs, of each family."""
        rows: dict[tuple[str, str], list[str]] = defaultdict(list)
        for entry, digest in zip(self.entries, self.sha256, strict=True):
            rows[entry.family, entry.licence].append(digest)
        return [
            {
                "name": name,
                "licence": licence,
                "images": len(digests),
                "sha256": hashlib.sha256("".join(sorted(digests)).encode()).hexdigest(),
            }
            for (name, licence), digests in sorted(rows.items())
        ]


def list_images(folder: Path, recipe: DataRecipe) -> list[Entry]:
    """What the folder holds, less what the recipe excludes; files of no split are left out.

    Raises NoInputError for a missing or empty folder, DataError for a broken manifest or a divided group.
    """
    if not folder.is_dir():
        raise NoInputError(
            f"There is no folder {folder} to take images from: name one that holds sharp images."
        )
    found = _from_manifest(folder) if (folder / MANIFEST).is_file() else _from_folder(folder)
    entries = [e for e in found if not any(fnmatch(e.file, pattern) for pattern in recipe.exclude)]
    if not entries:
        raise NoInputError(f"{folder} holds no images that the recipe allows: add some, or exclude fewer.")
    splits: dict[tuple[str, str], set[str]] = defaultdict(set)
    for entry in entries:
        splits[entry.family, entry.group].add(entry.split)
    for (family, group), names in splits.items():
        if len(names) > 1:
            raise DataError(f"Group {group} of {family} is in {sorted(names)}: keep each group in one split.")
    return entries


def check_trainable(folder: Path, entries: Sequence[Entry]) -> None:
    """DataError unless there is something to learn from, and something else to validate on."""
    if not {"train", "val"} <= {e.split for e in entries}:
        groups = len({(e.family, e.group) for e in entries})
        raise DataError(
            f"{folder} has {groups} group(s), not enough to train and to validate on: add images of other slides."
        )


def usable_pairs(entries: Sequence[Entry], recipe: DegradeRecipe) -> list[Entry]:
    """Without the captured pairs whose motion the recipe does not teach; those at rest are for models that take defocus."""

    def fits(pair: Captured) -> bool:
        length = pair.motion.length_px
        return recipe.rest_share > 0 if length < AT_REST_PX else length <= recipe.blur_px[1]

    return [entry for entry in entries if entry.pair is None or fits(entry.pair)]


def load_images(
    folder: Path, entries: Sequence[Entry], split: Split, recipe: DataRecipe, least_px: int
) -> Images:
    """Read the images of one split. Those smaller than `least_px` are skipped; DataError if none is left, or one is broken."""
    if split not in {entry.split for entry in entries}:
        raise DataError(
            f"{folder} has no {split} images, only those of {sorted({entry.split for entry in entries})}: add some of other slides, or take another split."
        )
    images = Images()
    sharp: dict[str, Picture] = {}
    for entry in entries:
        if entry.split != split:
            continue
        if entry.pair is None:
            found = [_columns(picture, entry.file, recipe) for picture in pictures(folder / entry.file)]
        else:
            if entry.file not in sharp:  # kept once for all frames of its place
                sharp[entry.file] = _columns(read_image(folder / entry.file), entry.file, recipe)
            found = [sharp[entry.file]]
        kept = [picture for picture in found if min(picture.shape[:2]) >= least_px]
        for picture in kept:
            if entry.pair is not None:
                blurred = _columns(read_image(folder / entry.pair.blurred), entry.file, recipe)
                _check_pair(folder, entry.pair, blurred, picture)
                images.captured[len(images.pixels)] = blurred, entry.pair.motion
            images.entries.append(entry)
            images.pixels.append(picture)
            images.sha256.append(_digest(folder, entry, picture))
        if not kept:
            images.skipped.append(entry.file)
    if not images.pixels:
        raise DataError(
            f"No {split} image of {folder} is at least {least_px} px wide and high: add larger ones, or lower field_px."
        )
    return images


def _columns(picture: Picture, file: str, recipe: DataRecipe) -> Picture:
    for pattern, (first, last) in recipe.keep_columns.items():
        if fnmatch(file, pattern):
            picture = picture[:, first:last]
    return np.ascontiguousarray(picture)


def _check_pair(folder: Path, pair: Captured, blurred: Picture, sharp: Picture) -> None:
    if blurred.shape != sharp.shape:
        raise DataError(
            f"{folder / pair.blurred} is {blurred.shape[:2]} px, but {pair.sharp} is {sharp.shape[:2]}: capture the pair again."
        )


def _digest(folder: Path, entry: Entry, picture: Picture) -> str:
    path = folder / (entry.file if entry.pair is None else entry.pair.blurred)
    return hashlib.sha256(path.read_bytes() if path.is_file() else picture.tobytes()).hexdigest()


def _from_manifest(folder: Path) -> list[Entry]:
    manifest = folder / MANIFEST
    with manifest.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    missing = {"file", "licence", "split"} - set(rows[0] if rows else ())
    if missing:
        raise DataError(f"{manifest} lacks the column(s) {sorted(missing)}: add them, separated by tabs.")
    return [
        entry
        for row in rows
        if row["split"] in ("train", "val", "test")
        for entry in _entries(
            folder, row["file"], row["licence"], row["split"], row.get("group"), row["file"]
        )
    ]


def _from_folder(folder: Path) -> list[Entry]:
    found = [
        entry
        for path in find(folder)
        for file in [path.relative_to(folder)]
        for entry in _entries(folder, file.as_posix(), "not stated", "", None, _group(folder, file))
    ]
    groups = sorted({e.group for e in found}, key=lambda g: hashlib.sha256(g.encode()).digest())
    # every tenth group validates and every tenth tests; of a few groups the first validates
    split = {g: {0: "val", 5: "test"}.get(i % 10, "train") for i, g in enumerate(groups)}
    return [replace(entry, split=split[entry.group]) for entry in found]


def _entries(folder: Path, file: str, licence: str, split: str, group: str | None, alone: str) -> list[Entry]:
    """Of one source; a list of pairs has one for each row. alone: the group of an image where `group` is not given."""
    if Path(file).name != PAIRS:
        return [Entry(file, licence, split, group or alone)]
    pairs = read_pairs(folder, file)
    return [Entry(pair.sharp, licence, split, group or pair.group, pair) for pair in pairs]


def _group(folder: Path, file: Path) -> str:
    """The folder that an image lies in; a mosaic, or a slide in the folder of its name, is a group of its own."""
    if is_mosaic(folder / file) or file.parent == Path():
        return file.as_posix() if is_mosaic(folder / file) or is_slide(folder / file) else file.stem
    return file.parent.as_posix()
