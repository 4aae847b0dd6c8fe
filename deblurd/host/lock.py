"""One deblurd for each output folder."""

from __future__ import annotations

import contextlib
import errno
import os
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final

from filelock import FileLock, Timeout

from deblurd.errors import LockedError, OutputError

LOCK_NAME: Final = ".deblurd.lock"
# beside the lock and not in it: whoever tries the lock empties that file, and Windows lets nobody read it
HOLDER_NAME: Final = ".deblurd.holder.txt"


class OutputLock:
    """Holds an output folder against other processes until `release`, or until this process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._holder = folder / HOLDER_NAME
        # any thread may release what the main thread acquired
        self._lock = FileLock(folder / LOCK_NAME, thread_local=False)

    def acquire(self) -> None:
        """Creates the folder where needed. Raises OutputError where that fails, LockedError that names the holder."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(blocking=False)
        except Timeout as err:
            raise LockedError(
                f"{self.folder} is in use by another deblurd ({self._who()}): stop that one first, "
                "or set another mosaic.output"
            ) from err
        except (OSError, NotImplementedError) as err:
            raise self._unusable(err) from err
        now = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            self._holder.write_text(f"process {os.getpid()}, started {now}", encoding="utf-8")
        except OSError as err:
            # on a full disk it goes without: it is only a note for people
            if err.errno != errno.ENOSPC:
                self._lock.release()
                raise self._unusable(err) from err

    def release(self) -> None:
        """Lets others in; nothing happens where the lock is not held."""
        if self._lock.is_locked:
            with contextlib.suppress(OSError):
                # only a note for people: the next holder writes over it
                self._holder.unlink()
            self._lock.release()

    def __enter__(self) -> OutputLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _who(self) -> str:
        try:
            return self._holder.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return "process unknown"

    def _unusable(self, err: Exception) -> OutputError:
        reason = getattr(err, "strerror", None) or err
        return OutputError(
            f"deblurd cannot write into the output folder {self.folder} ({reason}): "
            "choose a folder on a local disk that you may write to"
        )


def output_lock(folder: Path) -> OutputLock:
    """The lock of an output folder, not yet acquired."""
    return OutputLock(folder)


def is_held(folder: Path) -> bool:
    """Whether a deblurd, this one or another, works on an output folder just now; False where that cannot be told."""
    path = folder / LOCK_NAME
    if not path.is_file():
        return False
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return False
    lock.release()
    return False


def remove_lock(folder: Path) -> None:
    """Takes away the files of a lock that is not held; only where nobody else can want it, as in a folder just made."""
    for file in (folder / LOCK_NAME, folder / HOLDER_NAME):
        file.unlink(missing_ok=True)
