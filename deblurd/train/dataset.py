"""Sharp images to learn from: a folder, its manifest, and a split that never divides a group.

A group is a slide, patient or field. ``MANIFEST.tsv`` in the folder (columns file, licence, split, group; others are
ignored) names the images; without it every image below the folder is taken, each subfolder is a group, and
the split follows from a hash of the group's name.
"""

from __future__ import annotations

import csv
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import openslide
from numpy.typing import NDArray

from deblurd.errors import DataError, NoInputError
from deblurd.train.recipe import DataRecipe

Split = Literal["train", "val", "test"]
SUFFIXES = {".png", ".tif", ".tiff", ".jpg", ".jpeg", ".webp", ".bmp", ".svs"}
MANIFEST = "MANIFEST.tsv"


@dataclass(frozen=True, slots=True)
class Entry:
    """One image. file: path inside the folder, with "/". family: its source, the first folder of that path."""

    file: str
    licence: str
    split: str
    group: str

    @property
    def family(self) -> str:
        return self.file.split("/")[0] if "/" in self.file else "images"


@dataclass(slots=True)
class Images:
    """The images of one split, in memory.

    pixels: (H, W, 3) uint8 RGB, sRGB-encoded. sha256: of the files, in the same order. skipped: files too small to use.
    """

    entries: list[Entry] = field(default_factory=list)
    pixels: list[NDArray[np.uint8]] = field(default_factory=list)
    sha256: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

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


def read_image(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of an image file (grey is tripled, 16 bit scaled down). DataError if it is broken."""
    if path.suffix.lower() == ".svs":
        try:
            with openslide.OpenSlide(path) as slide:
                return np.array(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
        except openslide.OpenSlideError as err:
            raise DataError(f"{path} cannot be read ({err}): remove or replace it.") from err
    try:
        image = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_COLOR)
    except (cv2.error, OSError) as err:
        raise DataError(f"{path} cannot be read ({err}): remove or replace it.") from err
    if image is None:
        raise DataError(f"{path} is not an image, or broken: remove or replace it.")
    return np.ascontiguousarray(image[..., ::-1], dtype=np.uint8)


def list_images(folder: Path, recipe: DataRecipe) -> list[Entry]:
    """What the folder holds, less what the recipe excludes; files of no split are left out.

    Raises NoInputError for a missing or empty folder, DataError for a broken manifest or a divided group.
    """
    if not folder.is_dir():
        raise NoInputError(
            f"There is no folder {folder} to take images from: name one that holds sharp images."
        )
    found = _from_manifest(folder / MANIFEST) if (folder / MANIFEST).is_file() else _from_folder(folder)
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


def load_images(
    folder: Path, entries: Sequence[Entry], split: Split, recipe: DataRecipe, least_px: int
) -> Images:
    """Read the images of one split. Those smaller than `least_px` are skipped; DataError if none is left."""
    images = Images()
    for entry in entries:
        if entry.split != split:
            continue
        path = folder / entry.file
        pixels = read_image(path)
        for pattern, (first, last) in recipe.keep_columns.items():
            if fnmatch(entry.file, pattern):
                pixels = pixels[:, first:last]
        if min(pixels.shape[:2]) < least_px:
            images.skipped.append(entry.file)
            continue
        images.entries.append(entry)
        images.pixels.append(np.ascontiguousarray(pixels))
        images.sha256.append(hashlib.sha256(path.read_bytes()).hexdigest())
    if not images.pixels:
        raise DataError(
            f"No {split} image of {folder} is at least {least_px} px wide and high: add larger ones, or lower field_px."
        )
    return images


def _from_manifest(manifest: Path) -> list[Entry]:
    with manifest.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    missing = {"file", "licence", "split"} - set(rows[0] if rows else ())
    if missing:
        raise DataError(f"{manifest} lacks the column(s) {sorted(missing)}: add them, separated by tabs.")
    return [
        Entry(row["file"], row["licence"], row["split"], row.get("group") or row["file"])
        for row in rows
        if row["split"] in ("train", "val", "test")
    ]


def _from_folder(folder: Path) -> list[Entry]:
    files = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    groups = sorted({_group(f) for f in files}, key=lambda g: hashlib.sha256(g.encode()).digest())
    # every tenth group validates and every tenth tests; of a few groups the first validates
    split = {g: {0: "val", 5: "test"}.get(i % 10, "train") for i, g in enumerate(groups)}
    return [Entry(f.as_posix(), "not stated", split[_group(f)], _group(f)) for f in files]


def _group(file: Path) -> str:
    return file.parent.as_posix() if file.parent != Path() else file.stem
