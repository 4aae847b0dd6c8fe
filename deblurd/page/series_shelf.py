"""The series of the output folder, as the page shows them."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from deblurd.errors import DataError, NoInputError
from deblurd.geometry import PixelToStage
from deblurd.imagefiles import read_image
from deblurd.serve.pictures import jpeg, top_of
from deblurd.serve.series import SeriesEntry, SeriesTrack, SeriesTracks
from deblurd.serve.view import FOLDER_PATTERN
from deblurd.serve.words import say
from deblurd.tileset import read_table
from deblurd.trajectory.live import SHELF, TRACKS_FOLDER

MOST_TRACKS = 2000
"""A browser draws so many while a hand moves the slider."""

_ABOUT, _TRACKS = "trajectories.json", "tracks.csv"


class SeriesShelf:
    """Implements `serve.series.Shelf` for the output folder."""

    def __init__(self, output: Path) -> None:
        self._root = output / SHELF

    def series(self) -> list[SeriesEntry]:
        """Newest first; those that are still being followed are not there yet."""
        found = []
        for path in sorted(self._root.glob(f"*/{TRACKS_FOLDER}/{_ABOUT}"), reverse=True):
            name = path.parent.parent.name
            try:
                about = _read_about(path)
                summary = about["summary"]
                sentence = say(
                    "series.summary", n=summary["tracks"], active=summary["active"], frames=about["frames"]
                )
                entry = SeriesEntry(
                    name=name, frames=about["frames"], tracks=summary["tracks"], sentence=sentence
                )
            except (DataError, KeyError, TypeError):
                # one damaged series does not hide the others
                entry = SeriesEntry(name=name, frames=0, tracks=0, sentence=say("series.damaged"))
            if re.fullmatch(FOLDER_PATTERN, name):
                found.append(entry)
        return found

    def tracks(self, name: str) -> SeriesTracks:
        folder = self._folder(name) / TRACKS_FOLDER
        about = _read_about(folder / _ABOUT)
        try:
            affine = PixelToStage(np.array(about["affine_um"], dtype=np.float64))
            height, width = about["shape"][:2]
            stage_um, t_s = (
                np.array(about["stage_um"], dtype=np.float64),
                np.array(about["t_s"], dtype=np.float64),
            )
            middle_px = np.array([(height - 1) / 2, (width - 1) / 2])
            points: dict[int, list[list[float]]] = {}
            with (folder / _TRACKS).open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    at_um = np.array([float(row["y_um"]), float(row["x_um"])]) - stage_um
                    y, x = affine.to_pixels(at_um) + middle_px
                    number = int(np.abs(t_s - float(row["t_s"])).argmin())
                    size = float(row["size_um"]) / affine.pixel_size_um
                    points.setdefault(int(row["track_id"]), []).append(
                        [number, round(float(y), 2), round(float(x), 2), round(size, 2)]
                    )
        except (OSError, KeyError, TypeError, ValueError) as err:
            raise DataError(
                f"the tracks of {name} are damaged ({err}): follow it again with `deblurd trajectories`"
            ) from err
        longest = sorted(points, key=lambda track: -len(points[track]))[:MOST_TRACKS]
        return SeriesTracks(
            shape_px=[height, width],
            pixel_size_um=affine.pixel_size_um,
            t_s=t_s.round(4).tolist(),
            tracks=[SeriesTrack(id=track, points=points[track]) for track in sorted(longest)],
            left_out=len(points) - len(longest),
        )

    def frame(self, name: str, number: int) -> bytes:
        folder = self._folder(name)
        rows = read_table(folder)
        if number >= len(rows):
            raise NoInputError(f"{name} has {len(rows)} frames, and no frame {number}: look at its times")
        pixels = read_image(folder / Path(rows[number].file).name)
        return jpeg(pixels, top_of(pixels))

    def _folder(self, name: str) -> Path:
        folder = self._root / name
        if not re.fullmatch(FOLDER_PATTERN, name) or not (folder / TRACKS_FOLDER / _ABOUT).is_file():
            raise NoInputError(f"there is no series {name}: look at the list of series")
        return folder


def _read_about(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise DataError(
            f"{path} cannot be read ({err}): follow the series again with `deblurd trajectories`"
        ) from err
    if not isinstance(content, dict):
        raise DataError(f"{path} is not a JSON object: follow the series again with `deblurd trajectories`")
    return content
