"""``deblurd photons``: takes frames at rest at a few exposures, and measures camera and light by them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence

from deblurd.acquire import open_microscope
from deblurd.acquire.microscope import Microscope, MicroscopeInfo
from deblurd.errors import MicroscopeError
from deblurd.frames import Frame
from deblurd.host.lock import output_lock
from deblurd.photon.kept import KeptTransfers
from deblurd.photon.transfer import Pair, PhotonTransfer, measure_transfer
from deblurd.settings import Settings

FACTORS = (0.25, 0.5, 1.0)
"""Of the configured exposure: as much light as the scan has, and less."""

_SETTLING_FRAMES = 2


def measure_camera(settings: Settings) -> tuple[MicroscopeInfo, PhotonTransfer]:
    """Measures the camera where the stage stands, keeps what was found beside the slides, and sets the exposure back.

    Raises DataError where the frames make no sense, and what the microscope raises.
    """
    lock = output_lock(settings.mosaic.output)
    lock.acquire()
    try:
        microscope = open_microscope(settings.at_one_exposure)
        try:
            info = microscope.info
            found = measure_transfer(take_pairs(microscope, info.exposure_ms, FACTORS), info.encoding)
            KeptTransfers(settings.mosaic.output).keep(info, found)
            return info, found
        finally:
            microscope.close()
    finally:
        lock.release()


def take_pairs(
    microscope: Microscope, exposure_ms: float, factors: Sequence[float], most_s: float = math.inf
) -> list[Pair]:
    """Two frames at each of `factors` times `exposure_ms`, with the camera at rest before and after, and the exposure as it was.

    Raises MicroscopeError, also where they take longer than `most_s` beside their exposures.
    """
    count = _SETTLING_FRAMES + 2
    until_s = time.perf_counter() + most_s + count * sum(factors) * exposure_ms / 1000
    pairs = []
    try:
        for factor in factors:
            microscope.set_exposure_ms(exposure_ms * factor)
            frames = _frames(microscope, count, until_s)[-2:]
            pairs.append(Pair(frames[0].exposure_ms, frames[0].pixels, frames[1].pixels))
    finally:
        microscope.set_exposure_ms(exposure_ms)
    return pairs


def _frames(microscope: Microscope, count: int, until_s: float) -> list[Frame]:
    stop, taken = threading.Event(), []
    # a camera that sends nothing does not come back to be asked
    patience = threading.Timer(max(min(until_s - time.perf_counter(), threading.TIMEOUT_MAX), 0.0), stop.set)
    patience.daemon = True
    patience.start()
    try:
        for frame in microscope.frames(stop):
            taken.append(frame)
            if len(taken) >= count:
                stop.set()
                microscope.stop()
    finally:
        patience.cancel()
    if len(taken) < count:
        raise MicroscopeError(
            f"{microscope.name} sent {len(taken)} of {count} frames: check the camera, then measure again"
        )
    return taken
