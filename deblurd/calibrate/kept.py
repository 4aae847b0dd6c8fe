"""Calibrations kept from scan to scan, in one small file beside the slides."""

from __future__ import annotations

import logging
from pathlib import Path

from deblurd.acquire.microscope import MicroscopeInfo
from deblurd.host.kept import KeptFile
from deblurd.track.calibration import Calibration

log = logging.getLogger(__name__)

FILE = "calibrations.json"


class KeptCalibrations:
    """``<output>/calibrations.json``: one for each objective and camera."""

    def __init__(self, output: Path) -> None:
        self.path = output / FILE
        self._file = KeptFile(self.path, "the calibration", "calibrations are measured anew")

    def get(self, info: MicroscopeInfo) -> Calibration:
        """What is kept for this objective and camera, or else what is configured.

        What no longer fits the configuration is passed over: then that has been changed since.
        """
        configured = Calibration.configured(info.affine)
        kept = self._file.get(_key(info))
        if kept is None:
            return configured
        try:
            calibration = Calibration.from_dict(kept["calibration"])
            # what counts is latency and lag together
            lag_s = calibration.lag_s + ((info.latency_ms or 0.0) - float(kept["latency_ms"])) / 1000
        except (KeyError, TypeError, ValueError) as err:
            log.warning(
                "the calibration in %s makes no sense (%s) and is measured anew: `deblurd calibrate`",
                self.path,
                err,
            )
            return configured
        if (why := calibration.disagreement(info.affine)) is not None:
            log.info("the calibration that was kept is passed over, since %s", why)
            return configured
        return calibration.with_lag(lag_s)

    def rolling_ms(self, info: MicroscopeInfo) -> float:
        """From the exposure of a frame's first row to that of its last: as configured, or else as kept, or else 0."""
        return self.get(info).rolling_ms(info.shape[0]) if info.rolling_ms is None else info.rolling_ms

    def keep(self, info: MicroscopeInfo, calibration: Calibration) -> None:
        """Raises OutputError."""
        kept = {"latency_ms": info.latency_ms or 0.0, "calibration": calibration.to_dict()}
        self._file.keep(_key(info), kept)


def _key(info: MicroscopeInfo) -> str:
    return f"{info.camera}, {info.objective or 'one objective'}"
