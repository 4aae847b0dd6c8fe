"""Series on the disk, as a user would have them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import tifffile
from numpy.typing import NDArray

PIXEL_UM = 0.5

Frames = Sequence[NDArray[Any]]


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes frames and tiles.csv: rows of x_um, y_um, t_s and what else there is."""

    def write(frames: Frames, rows: Sequence[dict[str, Any]]) -> Path:
        path = tmp_path / "series"
        path.mkdir()
        names = ["file", *rows[0]]
        with (path / "tiles.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, names)
            table.writeheader()
            for number, (frame, row) in enumerate(zip(frames, rows, strict=True)):
                name = f"{number:04d}.tif"
                tifffile.imwrite(path / name, frame)
                table.writerow({"file": name} | row)
        return path

    return write


def at_rest(count: int, fps: float = 10.0) -> list[dict[str, Any]]:
    return [{"x_um": 0, "y_um": 0, "t_s": number / fps} for number in range(count)]
