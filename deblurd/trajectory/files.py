"""What is written of a series: two tables, a summary for programs, and a graph (GEFF) for other trackers."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import IO, Any

import numpy as np

from deblurd.errors import OutputError
from deblurd.trajectory.measure import COLUMNS, Measures, Track

TRACKS, SUMMARY, ABOUT, GRAPH = "tracks.csv", "summary.csv", "trajectories.json", "tracks.geff"
TRACK_COLUMNS = ("track_id", "t_s", "x_um", "y_um", "size_um", "score")

MOST_IN_GRAPH = 2_000_000
"""Points: geff's library wants all of them in memory."""


class Tables:
    """tracks.csv and summary.csv in `folder`, a track at a time; they have their names once `close` was called, and not before."""

    def __init__(self, folder: Path) -> None:
        self._parts = [(folder / name, folder / f"{name}.part") for name in (TRACKS, SUMMARY)]
        self._files = [_open(part) for _, part in self._parts]
        self._tracks, self._summary = (csv.writer(file, lineterminator="\n") for file in self._files)
        self._tracks.writerow(TRACK_COLUMNS)
        self._summary.writerow(COLUMNS)

    def add(self, track: Track, measures: Measures) -> None:
        columns = track.t_s, track.yx_um[:, 1], track.yx_um[:, 0], track.size_um, track.score
        for t_s, x, y, size, score in zip(*columns, strict=True):
            self._tracks.writerow(
                (track.number, f"{t_s:.6g}", f"{x:.4f}", f"{y:.4f}", f"{size:.3f}", f"{score:.2f}")
            )
        self._summary.writerow([_cell(value) for value in astuple(measures)])

    def close(self) -> None:
        for file in self._files:
            file.close()
        for path, part in self._parts:
            part.replace(path)

    def give_up(self) -> None:
        """Nothing stays of what was not finished."""
        for file in self._files:
            file.close()
        for _, part in self._parts:
            part.unlink(missing_ok=True)


@contextmanager
def tables(folder: Path) -> Iterator[Tables]:
    """Finished where the `with` ends well, gone where it does not. Raises OutputError."""
    made = Tables(folder)
    try:
        yield made
    except BaseException:
        made.give_up()
        raise
    made.close()


def write_about(folder: Path, content: dict[str, Any]) -> None:
    """trajectories.json, whole or not at all; what is not a number is null."""
    part = folder / f"{ABOUT}.part"
    text = json.dumps({"schema": 1, "research_use_only": True} | _plain(content), indent=2, allow_nan=False)
    with _open(part) as file:
        file.write(text + "\n")
    part.replace(folder / ABOUT)


def write_graph(folder: Path, points: int) -> str | None:
    """tracks.geff of tracks.csv, where the library geff is installed; a sentence where it could not be."""
    try:
        import geff
    except ImportError:
        return f"{GRAPH} was not written: pip install geff for it"
    if points > MOST_IN_GRAPH:
        return f"{GRAPH} was not written, because {points} points are more than it is made for: tracks.csv has them all"
    table = np.empty((0, len(TRACK_COLUMNS)))
    if points:
        table = np.loadtxt(folder / TRACKS, delimiter=",", skiprows=1, ndmin=2)
    track = table[:, 0].astype(np.uint64)
    ids = np.arange(len(table), dtype=np.uint64)
    same = track[1:] == track[:-1]
    edges = np.stack([ids[:-1][same], ids[1:][same]], axis=1) if len(ids) else np.empty((0, 2), np.uint64)
    columns = {"track_id": track} | {name: table[:, i] for i, name in enumerate(TRACK_COLUMNS) if i}
    units = {"t_s": "second", "x_um": "micrometer", "y_um": "micrometer"}
    kinds = {"t_s": "time", "y_um": "space", "x_um": "space"}
    _write_geff(geff, folder / GRAPH, ids, edges, columns, kinds, units)
    return None


def _write_geff(
    geff: Any,
    path: Path,
    ids: Any,
    edges: Any,
    columns: dict[str, Any],
    kinds: dict[str, str],
    units: dict[str, str],
) -> None:
    from geff.core_io import write_arrays

    axes = [{"name": name, "type": kind, "unit": units[name]} for name, kind in kinds.items()]
    metadata = geff.GeffMetadata(directed=True, axes=axes, node_props_metadata={}, edge_props_metadata={})
    write_arrays(
        path,
        node_ids=ids,
        node_props={name: {"values": values, "missing": None} for name, values in columns.items()},
        edge_ids=edges,
        edge_props={},
        metadata=metadata,
        overwrite=True,
    )


def _open(path: Path) -> IO[str]:
    try:
        return path.open("w", encoding="utf-8", newline="")
    except OSError as err:
        raise OutputError(
            f"{path} cannot be written ({err.strerror}): make room, or choose another folder"
        ) from err


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "active" if value else "still"
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else ""
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
