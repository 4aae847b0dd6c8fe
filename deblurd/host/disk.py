"""Room on the disk, looked at before it runs out."""

from __future__ import annotations

import shutil
from pathlib import Path

from deblurd.errors import OutputError

MB = 1_000_000


def free_bytes(folder: Path) -> int:
    """On the disk where `folder` is or would be created. Raises OutputError where the disk does not answer."""
    folder = folder.absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists() or path == path.parent)
    try:
        return shutil.disk_usage(there).free
    except OSError as err:
        raise OutputError(
            f"the disk of {folder} does not answer ({err.strerror}): check that it is connected"
        ) from err


class DiskGuard:
    """Refuses to go on where the disk of `folder` has less than `floor_mb` megabytes (1e6 bytes) free."""

    def __init__(self, folder: Path, floor_mb: int = 500) -> None:
        self.folder, self.floor_mb = folder, floor_mb
        self._was_full = False

    @property
    def free_bytes(self) -> int:
        return free_bytes(self.folder)

    def check(self) -> int:
        """Bytes free. Raises OutputError where they are too few."""
        free = self.free_bytes
        if free < self.floor_mb * MB:
            raise OutputError(
                f"only {free // MB} MB are free for {self.folder} and a slide needs at least {self.floor_mb} MB: "
                "delete or move old slides, or set mosaic.output to a larger disk"
            )
        return free

    @property
    def trouble(self) -> str | None:
        """Why nothing should be written now, in a sentence. After the disk was full, None only when there is a tenth more than the floor."""
        try:
            free = self.check()
        except OutputError as err:
            self._was_full = True
            return str(err)
        # else every tile that is written would be the end of it again
        if self._was_full and free < 1.1 * self.floor_mb * MB:
            return f"{free // MB} MB are free again for {self.folder}, which is not yet enough to go on: make more room"
        self._was_full = False
        return None


def make_folder(folder: Path) -> None:
    """Makes it unless it is there. Raises OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise OutputError(
            f"the folder {folder} cannot be created ({err.strerror}): choose a folder that you may write to"
        ) from err
