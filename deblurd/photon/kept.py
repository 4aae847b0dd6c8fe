"""Photon transfers kept from scan to scan, in one small file beside the slides."""

from __future__ import annotations

import logging
from pathlib import Path

from deblurd.acquire.microscope import MicroscopeInfo
from deblurd.host.kept import KeptFile
from deblurd.photon.transfer import PhotonTransfer

log = logging.getLogger(__name__)

FILE = "cameras.json"


class KeptTransfers:
    """``<output>/cameras.json``: one for each camera and pixel type."""

    def __init__(self, output: Path) -> None:
        self._file = KeptFile(
            output / FILE,
            "what was measured of the camera",
            "measure the camera again with `deblurd photons`",
        )

    def get(self, info: MicroscopeInfo) -> PhotonTransfer | None:
        """What is kept for this camera; None where nothing is, or what is there makes no sense."""
        kept = self._file.get(_key(info))
        if kept is None:
            return None
        try:
            return PhotonTransfer.from_dict(kept)
        except (TypeError, ValueError, AttributeError) as err:
            log.warning(
                "what %s says of %s makes no sense (%s): measure it again with `deblurd photons`",
                self._file.path,
                info.camera,
                err,
            )
            return None

    def keep(self, info: MicroscopeInfo, transfer: PhotonTransfer) -> None:
        """Raises OutputError."""
        self._file.keep(_key(info), transfer.to_dict())


def _key(info: MicroscopeInfo) -> str:
    return f"{info.camera}, {info.dtype}, {info.encoding}"
