"""One deblurd for each output folder."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final

from filelock import FileLock, Timeout

from deblurd.errors import LockedError, OutputError

LOCK: Final = ".deblurd.lock"
# beside the lock and not in it: whoever tries the lock empties that file, and Windows lets nobody read it
OWNER: Final = ".deblurd.owner.json"


class OutputLock:
    """Holds an output folder against other processes until `release`, or until this process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # any thread may release what the main thread acquired
        self._lock = FileLock(folder / LOCK, thread_local=False)

    def acquire(self) -> None:
        """Creates the folder where needed. Raises OutputError where that fails, LockedError that names the holder."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(blocking=False)
        except Timeout as err:
            raise LockedError(
                f"{self.folder} is in use by another deblurd ({self._holder()}): stop that one first, "
                "or set another mosaic.output"
            ) from err
        except (OSError, NotImplementedError) as err:
            reason = getattr(err, "strerror", None) or err
            raise OutputError(
                f"the output folder {self.folder} cannot be created and locked ({reason}): "
                "choose a folder on a local disk that you may write to"
            ) from err
        try:
            (self.folder / OWNER).write_text(
                json.dumps({"pid": os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds")}),
                encoding="utf-8",
            )
        except OSError as err:
            self.release()
            raise OutputError(
                f"nothing can be written into the output folder {self.folder} ({err.strerror}): "
                "make room, or choose a folder that you may write to"
            ) from err

    def release(self) -> None:
        """Lets others in; nothing happens where the lock is not held."""
        self._lock.release()

    def __enter__(self) -> OutputLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _holder(self) -> str:
        try:
            owner = json.loads((self.folder / OWNER).read_text(encoding="utf-8"))
            return f"process {owner['pid']}, started {owner['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "which has not yet said its number"


def output_lock(folder: Path) -> OutputLock:
    """The lock of an output folder, not yet acquired."""
    return OutputLock(folder)
