"""A camera of which nothing is kept is measured without being asked for: before a scan that deblurd drives, or by frames at rest that come anyway."""

from __future__ import annotations

import logging
import math

import numpy as np

from deblurd.acquire.microscope import Microscope, MicroscopeInfo
from deblurd.errors import DataError, DeblurdError, OutputError
from deblurd.frames import Frame, Pixels, Pose
from deblurd.photon.kept import KeptTransfers
from deblurd.photon.run import FACTORS, take_pairs
from deblurd.photon.transfer import Pair, PhotonTransfer, measure_transfer

log = logging.getLogger(__name__)

MOST_S = 2.0
"""So long it may take, beside the exposures themselves."""

STILL_PX = 0.5
"""A stage that reads so much otherwise has moved; less shows in the pixels."""

EVERY_S = 1.0
MOST_TRIES = 20
LEAST_SURE = 0.1
"""Relative error of the gain: frames of one exposure, of whatever is there, tell no more at times."""

_SIDE_PX = 512
"""So much of the middle of a frame is enough, and takes milliseconds."""


def measure_before_scan(microscope: Microscope, kept: KeptTransfers) -> PhotonTransfer | None:
    """By frames at a few exposures, with the stage where it stands; kept. None where something is kept already, or nothing could be found, as the log says why.

    Takes a second or two; the exposure is then as it was.
    """
    info = microscope.info
    if kept.get(info) is not None:
        return None
    try:
        found = measure_transfer(take_pairs(microscope, info.exposure_ms, FACTORS, MOST_S), info.encoding)
    except DeblurdError as err:
        log.info("the camera was not measured by itself: %s (`deblurd photons`)", err)
        return None
    _keep(kept, info, found)
    return found


class WhileResting:
    """Looks on while frames come, and measures by two of them when the stage rests; one exposure tells neither the offset nor an automatic one."""

    def __init__(self, info: MicroscopeInfo, kept: KeptTransfers) -> None:
        self._info, self._kept = info, kept
        self._is_over = kept.get(info) is not None
        self._before: tuple[Frame, Pose] | None = None
        self._tries, self._tried_s = 0, -math.inf

    def see(self, frame: Frame, pose: Pose | None) -> PhotonTransfer | None:
        """The next frame, and where the stage was read last; returns what was found, once."""
        if self._is_over or pose is None:
            return None
        before, self._before = self._before, (frame, pose)
        if before is None or not self._rests(before, frame, pose):
            return None
        if frame.arrived_s - self._tried_s < EVERY_S:
            return None
        self._tried_s, self._tries = frame.arrived_s, self._tries + 1
        self._is_over = self._tries >= MOST_TRIES
        try:
            pair = Pair(frame.exposure_ms, _middle(before[0].pixels), _middle(frame.pixels))
            found = measure_transfer([pair], self._info.encoding)
        except DataError as err:
            if self._is_over:
                log.info("the camera was not measured by itself: %s (`deblurd photons`)", err)
            return None
        if found.error > LEAST_SURE:
            return None
        self._is_over, self._before = True, None
        _keep(self._kept, self._info, found)
        return found

    def _rests(self, before: tuple[Frame, Pose], frame: Frame, pose: Pose) -> bool:
        first, at = before
        moved_um = math.hypot(pose.y_um - at.y_um, pose.x_um - at.x_um)
        alike = (first.sequence, first.exposure_ms) == (frame.sequence, frame.exposure_ms)
        # read anew since: else nobody knows
        return alike and pose.t_s > at.t_s and moved_um < STILL_PX * self._info.affine.pixel_size_um


def _keep(kept: KeptTransfers, info: MicroscopeInfo, found: PhotonTransfer) -> None:
    log.info("measured %s: %s", info.camera, found.sentence())
    try:
        kept.keep(info, found)
    except OutputError as err:
        log.warning("%s", err)


def _middle(pixels: Pixels) -> Pixels:
    top, left = (max(0, (side - _SIDE_PX) // 2) for side in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + _SIDE_PX, left : left + _SIDE_PX])
