"""The folder that captured pairs lie in, as the trainer reads it: images, and ``pairs.csv``."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import cv2

from deblurd.collect.pairs import Pair
from deblurd.errors import OutputError
from deblurd.frames import Pixels

PAIRS = "pairs.csv"
COLUMNS = (
    "blurred",
    "sharp",
    "dy",
    "dx",
    "bend_dy",
    "bend_dx",
    "group",
    "z_um",
    "shift_dy",
    "shift_dx",
    "score",
    "defocus_px",
)


class CaptureFolder:
    """A new folder; refuses one that holds pairs already. Raises OutputError, here and where anything cannot be written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if (path / PAIRS).exists():
            raise OutputError(f"{path} holds captured pairs already: give another folder to --output")
        self._make(path)

    def describe(self, content: dict[str, Any]) -> None:
        """What the pairs were captured with, into ``capture.json``."""
        self._write(
            self.path / "capture.json",
            (json.dumps({"research_use_only": True} | content, indent=2) + "\n").encode(),
        )

    def add(self, place: str, name: str, pair: Pair, z_um: float | None) -> None:
        """Its two images; it is listed by the next `save`."""
        self._make(self.path / place)
        files = {kind: f"{place}/{name}_{kind}.png" for kind in ("blurred", "sharp")}
        for kind, pixels in (("blurred", pair.blurred), ("sharp", pair.sharp)):
            self._write(self.path / files[kind], _png(pixels))
        motion, shift = pair.motion, pair.shift_px.tolist()
        measured = (motion.dy, motion.dx, motion.bend_dy, motion.bend_dx)
        values = [f"{value:.4f}" for value in measured]
        found = [f"{value:.3f}" for value in (*shift, pair.score, pair.defocus_px)]
        z = "" if z_um is None else f"{z_um:.3f}"
        row = (files["blurred"], files["sharp"], *values, place, z, *found)
        self.rows.append(dict(zip(COLUMNS, row, strict=True)))

    def save(self) -> None:
        """The list of all pairs so far, whole or not at all."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows(self.rows)
        self._write(self.path / PAIRS, text.getvalue().encode())

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise OutputError(
                f"{folder} cannot be created ({err.strerror}): choose a folder that you may write to"
            ) from err

    def _write(self, path: Path, content: bytes) -> None:
        part = path.with_name(path.name + ".part")
        try:
            part.write_bytes(content)
            part.replace(path)
        except OSError as err:
            part.unlink(missing_ok=True)
            raise OutputError(
                f"{path} cannot be written ({err.strerror}): make room or choose another folder"
            ) from err


def _png(pixels: Pixels) -> bytes:
    image = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", image)[1].tobytes()
