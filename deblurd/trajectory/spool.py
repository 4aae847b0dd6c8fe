"""Points of all frames, on the disk until the series has ended and its tracks are whole: memory does not grow with the series."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np

from deblurd.errors import OutputError
from deblurd.trajectory.link import Linked
from deblurd.trajectory.measure import Track

_FRAMES_AT_ONCE = 200
"""Between two writes to the disk: nothing here has to outlive a crash."""


class Spool:
    """A file at `path` that is gone when the `with` ends. Raises OutputError where it cannot be written."""

    def __init__(self, path: Path, pixel_size_um: float) -> None:
        self._path, self._pixel_size_um = path, pixel_size_um
        self._frames = 0
        path.unlink(missing_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute(
            "CREATE TABLE points (track INT, t_s REAL, y_um REAL, x_um REAL, size_um REAL, score REAL)"
        )
        self._db.execute("BEGIN")

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None
    ) -> None:
        self._db.close()
        self._path.unlink(missing_ok=True)

    def add(self, linked: Linked) -> None:
        """The objects of one frame."""
        points, t_s = linked.found.points, linked.found.instant.t_s
        columns = linked.tracks, linked.found.yx_um, points.size_px * self._pixel_size_um, points.score
        rows = (
            (int(track), t_s, float(y), float(x), float(size), float(score))
            for track, (y, x), size, score in zip(*columns, strict=True)
        )
        try:
            self._db.executemany("INSERT INTO points VALUES (?, ?, ?, ?, ?, ?)", rows)
            self._frames += 1
            if self._frames % _FRAMES_AT_ONCE == 0:
                self._db.execute("COMMIT")
                self._db.execute("BEGIN")
        except sqlite3.Error as err:
            raise OutputError(
                f"{self._path} cannot be written ({err}): make room, or choose another folder"
            ) from err

    def tracks(self, least_points: int) -> Iterator[Track]:
        """Those with so many points or more, numbered anew from 1 in the order in which they began."""
        long_enough = "SELECT track, MIN(t_s) AS begun FROM points GROUP BY track HAVING COUNT(*) >= ? "
        rows = self._db.execute(
            f"SELECT track, points.t_s, y_um, x_um, size_um, score FROM points JOIN ({long_enough}) USING (track) "
            "ORDER BY begun, track, points.t_s",
            (least_points,),
        )
        for number, (_, group) in enumerate(itertools.groupby(rows, key=lambda row: row[0]), start=1):
            _, t_s, y, x, size, score = np.array(list(group), dtype=np.float64).T
            yield Track(number, t_s, np.stack([y, x], axis=1), size, score)
