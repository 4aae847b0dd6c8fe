"""What is known of each tile, in one SQLite file: its row there is what makes a tile acknowledged."""

from __future__ import annotations

import json
import math
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deblurd.errors import DataError, OutputError
from deblurd.frames import DeblurredTile, MotionVector, Place, Pose, Tile

SCHEMA = "1"

_TABLES = """
CREATE TABLE IF NOT EXISTS slide (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (utc TEXT NOT NULL, t_s REAL NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS tiles (
    tile INTEGER PRIMARY KEY,
    sequence INTEGER NOT NULL, frame INTEGER NOT NULL, utc TEXT NOT NULL,
    t_s REAL NOT NULL, exposure_ms REAL NOT NULL,
    x_um REAL NOT NULL, y_um REAL NOT NULL, z_um REAL, sigma_um REAL NOT NULL,
    motion_dy_px REAL, motion_dx_px REAL, motion_bend_dy_px REAL, motion_bend_dx_px REAL, motion_sigma_px REAL,
    crc32 INTEGER NOT NULL,
    place_y_px REAL, place_x_px REAL, place_sigma_px REAL,
    gate TEXT, source INTEGER, residual REAL, sharpness REAL, model TEXT
);
"""

_DISK = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}


class Journal:
    """The journal at `path`, made if it is not there. Thread-safe.

    Tables: `tiles`, one row for each acknowledged tile, with columns named and in units as in `Tile`, `Place` and
    `DeblurredTile`; `events`; `slide`, texts by key. Every method raises OutputError where the disk refuses and
    DataError where the file is not a whole journal; nothing is half done then, and it can be called again.
    read_only: nothing is written, not even to a journal in use elsewhere or on a disk that is not writable; it must be there.
    """

    def __init__(self, path: Path, read_only: bool = False) -> None:
        self.path, self._read_only = path, read_only
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        if path.exists() and path.stat().st_size == 0:
            # SQLite would take it for a new journal, and throw away a write-ahead log that lies beside it
            raise DataError(f"{path} is empty, it was cut short: restore it from a backup")
        if not read_only:
            with self._open() as connection:
                connection.executescript(_TABLES)
                connection.execute("INSERT OR IGNORE INTO slide VALUES ('schema', ?)", (SCHEMA,))
        try:
            if (schema := self.slide("schema")) != SCHEMA:
                raise DataError(
                    f"{path} has schema {schema}, this deblurd reads {SCHEMA}: use the deblurd that wrote it"
                )
        except DataError:
            # else whoever resumes the slide would find its journal in use
            self.close()
            raise

    # --- tiles ---

    def add(self, tiles: Sequence[Tile], crcs: Sequence[int]) -> None:
        """Acknowledges `tiles`, all or none; on return they are on the disk. crcs: crc32 of their raw pixels."""
        rows = [(*_tile_row(tile), crc) for tile, crc in zip(tiles, crcs, strict=True)]
        marks = ", ".join("?" * len(rows[0])) if rows else ""
        columns = (
            "tile, sequence, frame, utc, t_s, exposure_ms, x_um, y_um, z_um, sigma_um, motion_dy_px, motion_dx_px,"
            " motion_bend_dy_px, motion_bend_dx_px, motion_sigma_px, crc32"
        )
        with self._transaction(durable=True) as connection:
            if rows:
                shape = json.dumps(list(tiles[0].shape))
                connection.execute("INSERT OR IGNORE INTO slide VALUES ('shape', ?)", (shape,))
                connection.executemany(f"INSERT INTO tiles ({columns}) VALUES ({marks})", rows)

    def set_places(self, places: Mapping[int, Place]) -> None:
        """Where tiles lie now. Cheap: can be computed again, so it does not wait for the disk."""
        with self._transaction() as connection:
            connection.executemany(
                "UPDATE tiles SET place_y_px = ?, place_x_px = ?, place_sigma_px = ? WHERE tile = ?",
                [(place.y_px, place.x_px, place.sigma_px, index) for index, place in places.items()],
            )

    def set_deblurred(self, results: Sequence[DeblurredTile], model: str) -> None:
        """What deblurring made of tiles. Cheap: can be computed again, so it does not wait for the disk."""
        with self._transaction() as connection:
            connection.executemany(
                "UPDATE tiles SET gate = ?, source = ?, residual = ?, sharpness = ?, model = ? WHERE tile = ?",
                [(r.gate, r.source, r.residual, r.sharpness, model, r.index) for r in results],
            )

    def forget_results(self) -> None:
        """Takes back all that was computed from the tiles, as before they are worked through again."""
        columns = [
            "place_y_px",
            "place_x_px",
            "place_sigma_px",
            "gate",
            "source",
            "residual",
            "sharpness",
            "model",
        ]
        with self._transaction() as connection:
            connection.execute(f"UPDATE tiles SET {', '.join(f'{column} = NULL' for column in columns)}")
            connection.execute("DELETE FROM slide WHERE key IN ('gain', 'lights')")

    def tiles(self) -> list[Tile]:
        """Every acknowledged tile, in order."""
        shape = tuple(json.loads(self.slide("shape", "[]")))
        return [_tile(row, shape) for row in self.rows()]

    def rows(self) -> list[dict[str, Any]]:
        """The table `tiles` as it is, in order, by column name."""
        with self._open() as connection:
            cursor = connection.execute("SELECT * FROM tiles ORDER BY tile")
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]

    def places(self) -> dict[int, Place]:
        """Where tiles lie, as far as known."""
        query = "SELECT tile, place_y_px, place_x_px, place_sigma_px FROM tiles WHERE place_y_px IS NOT NULL"
        with self._open() as connection:
            return {
                int(index): Place(y, x, math.inf if sigma is None else sigma)
                for index, y, x, sigma in connection.execute(query)
            }

    def crcs(self) -> dict[int, int]:
        """crc32 of the raw pixels of each tile."""
        with self._open() as connection:
            return dict(connection.execute("SELECT tile, crc32 FROM tiles ORDER BY tile").fetchall())

    def count(self) -> int:
        """Acknowledged tiles."""
        with self._open() as connection:
            return int(connection.execute("SELECT count(*) FROM tiles").fetchone()[0])

    def next_index(self) -> int:
        """The first row after all acknowledged tiles."""
        with self._open() as connection:
            return int(connection.execute("SELECT coalesce(max(tile) + 1, 0) FROM tiles").fetchone()[0])

    # --- the slide ---

    def set_slide(self, key: str, value: str) -> None:
        with self._transaction(durable=True) as connection:
            connection.execute("INSERT OR REPLACE INTO slide VALUES (?, ?)", (key, value))

    def slide(self, key: str, default: str | None = None) -> str:
        """The text under `key`. Raises DataError where there is none and no default."""
        with self._open() as connection:
            row = connection.execute("SELECT value FROM slide WHERE key = ?", (key,)).fetchone()
        if row is not None:
            return str(row[0])
        if default is None:
            raise DataError(
                f"{self.path} does not say the slide's {key}: it is not the journal of a whole slide"
            )
        return default

    def event(self, kind: str, text: str) -> None:
        """Notes what happened, with the time now."""
        utc = datetime.now(UTC).isoformat(timespec="milliseconds")
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO events VALUES (?, ?, ?, ?)", (utc, time.perf_counter(), kind, text)
            )

    def events(self) -> list[tuple[str, float, str, str]]:
        """(utc, t_s, kind, text) of every event, in order."""
        with self._open() as connection:
            return connection.execute("SELECT utc, t_s, kind, text FROM events ORDER BY rowid").fetchall()

    def close(self) -> None:
        """Folds the write-ahead log into the file, so that it is whole by itself; a later call opens the journal again."""
        with self._lock:
            if self._connection is not None:
                # in use elsewhere: then the log stays beside it, and is as good
                with suppress(sqlite3.Error):
                    if not self._read_only:
                        self._connection.execute("PRAGMA busy_timeout = 100")
                        self._connection.execute("PRAGMA journal_mode = DELETE")
                self._connection.close()
                self._connection = None

    # --- the connection ---

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The connection, opened where needed, for one thread at a time."""
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._connect()
                yield self._connection
            except sqlite3.Error as err:
                self.close()
                raise self._translated(err) from err

    @contextmanager
    def _transaction(self, durable: bool = False) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if durable and self._identity is not None:
                self._check_still_there()
            with self._open() as connection:
                connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise

    def _connect(self) -> sqlite3.Connection:
        # a journal that was there and is gone must not begin again, empty
        mode = "ro" if self._read_only else "rwc" if self._identity is None else "rw"
        connection = sqlite3.connect(
            f"{self.path.resolve().as_uri()}?mode={mode}",
            uri=True,
            timeout=10.0,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            if not self._read_only:
                connection.execute("PRAGMA journal_mode = WAL")
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict == "ok" and self._is_short(connection):
                verdict = "it was cut short"
            self._identity = _identity(self.path)
        except (sqlite3.Error, OSError):
            connection.close()
            raise
        if verdict != "ok":
            connection.close()
            raise DataError(f"{self.path} is damaged ({verdict}): restore it from a backup")
        return connection

    def _is_short(self, connection: sqlite3.Connection) -> bool:
        """Whether the file lacks a part of its last page, which SQLite reads as zeros; with a log beside it nobody can tell."""
        log = self.path.with_name(f"{self.path.name}-wal")
        if log.exists() and log.stat().st_size > 0:
            return False
        pages, page_bytes = (
            int(connection.execute(f"PRAGMA {what}").fetchone()[0]) for what in ("page_count", "page_size")
        )
        return self.path.stat().st_size < pages * page_bytes

    def _check_still_there(self) -> None:
        """An open file outlives its name: what is written after the folder was taken away would be lost."""
        try:
            identity = _identity(self.path)
        except OSError as err:
            self.close()
            raise OutputError(
                f"the journal {self.path} is gone ({err.strerror}): give the folder back, then try again"
            ) from err
        if identity != self._identity:
            self.close()

    def _translated(self, err: sqlite3.Error) -> OutputError | DataError:
        code = getattr(err, "sqlite_errorcode", None)
        if isinstance(code, int) and code & 0xFF in _DISK and self._read_only:
            return OutputError(
                f"cannot open the journal {self.path} ({err}): give the folder back, or copy the slide to a disk that can be written"
            )
        if isinstance(code, int) and code & 0xFF in _DISK:
            return OutputError(
                f"cannot write the journal {self.path} ({err}): make room or give the folder back, then try again"
            )
        return DataError(f"{self.path} is not a whole journal ({err}): restore it from a backup")


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _tile_row(tile: Tile) -> tuple[Any, ...]:
    pose, motion = tile.pose, tile.motion
    return (
        *(tile.index, tile.sequence, tile.number, tile.utc),
        *(pose.t_s, tile.exposure_ms),
        *(pose.x_um, pose.y_um, pose.z_um, pose.sigma_um),
        *(motion.dy, motion.dx, motion.bend_dy, motion.bend_dx, motion.sigma_px),
    )


def _tile(row: Mapping[str, Any], shape: tuple[int, ...]) -> Tile:
    # SQLite keeps nan as NULL
    motion = [
        math.nan if row[name] is None else float(row[name])
        for name in (
            "motion_dy_px",
            "motion_dx_px",
            "motion_bend_dy_px",
            "motion_bend_dx_px",
            "motion_sigma_px",
        )
    ]
    pose = Pose(row["t_s"], row["y_um"], row["x_um"], row["z_um"], row["sigma_um"])
    return Tile(
        row["tile"],
        row["sequence"],
        row["frame"],
        pose,
        MotionVector(*motion),
        row["exposure_ms"],
        shape,
        row["utc"],
    )
