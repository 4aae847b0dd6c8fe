"""Room on the disk, looked at before it runs out."""

from __future__ import annotations

import shutil
from pathlib import Path

from deblurd.errors import OutputError

MB = 1_000_000


class DiskGuard:
    """Refuses to go on where the disk of `folder` has less than `floor_mb` megabytes (1e6 bytes) free."""

    def __init__(self, folder: Path, floor_mb: int = 500) -> None:
        self.folder, self.floor_mb = folder, floor_mb

    @property
    def free_bytes(self) -> int:
        """Raises OutputError where the folder is gone."""
        try:
            return shutil.disk_usage(self.folder).free
        except OSError as err:
            raise OutputError(
                f"the free space of {self.folder} cannot be read ({err.strerror}): "
                "check that the disk is connected and the folder is there"
            ) from err

    def check(self) -> None:
        """Raises OutputError where too little is free."""
        free_mb = self.free_bytes // MB
        if free_mb < self.floor_mb:
            raise OutputError(
                f"the disk of {self.folder} has {free_mb} MB free and a slide needs at least {self.floor_mb} MB: "
                "move finished slides away, or set mosaic.output to a larger disk"
            )
