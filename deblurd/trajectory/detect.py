"""Finding objects in one frame: what a detector is, and which there are."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from deblurd.errors import UsageError
from deblurd.light import Image

Polarity = Literal["auto", "bright", "dark"]

ENTRY_POINTS = "deblurd.detectors"
"""Other packages name theirs here: a function that takes `Wanted` and gives a `Detector`."""


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """The n objects of one frame. yx_px: (n, 2) float64, from the middle of the first pixel. size_px: (n,) diameters. score: (n,) contrast over noise."""

    yx_px: NDArray[np.float64]
    size_px: NDArray[np.float64]
    score: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.yx_px)

    def chosen(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Points:
        return Points(self.yx_px[index], self.size_px[index], self.score[index])

    def apart(self, share: float) -> Points:
        """The clearest first, without those that lie nearer to a clearer one than this share of its diameter."""
        points = self.chosen(np.argsort(-self.score, kind="stable"))
        taken = np.zeros(len(points), bool)
        near = cKDTree(points.yx_px).query_ball_point(points.yx_px, share * points.size_px)
        for index, others in enumerate(near):
            if not taken[index]:
                taken[[other for other in others if other > index]] = True
        return points.chosen(~taken)

    @classmethod
    def none(cls) -> Points:
        return cls(np.empty((0, 2)), np.empty(0), np.empty(0))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to look for. size_px: smallest and largest diameter. threshold: least score; None: the detector finds its own."""

    size_px: tuple[float, float] = (4.0, 16.0)
    polarity: Polarity = "auto"
    threshold: float | None = None


class Detector(Protocol):
    """Finds objects; may keep what it learned from earlier frames of the same series, such as whether objects are dark."""

    def find(self, light: Image) -> Points:
        """The objects in (H, W) float32 linear light of full scale 1, in any order."""


Maker = Callable[[Wanted], Detector]


def _log(wanted: Wanted) -> Detector:
    from deblurd.trajectory.blobs import BlobDetector

    return BlobDetector(wanted)


def _trackpy(wanted: Wanted) -> Detector:
    from deblurd.trajectory.crocker_grier import TrackpyDetector

    return TrackpyDetector(wanted)


_MAKERS: dict[str, Maker] = {"log": _log, "trackpy": _trackpy}


def detector_names() -> list[str]:
    """Those that come along, and those that installed packages bring."""
    return sorted({*_MAKERS, *entry_points(group=ENTRY_POINTS).names})


def make_detector(name: str, wanted: Wanted) -> Detector:
    """By name, or by the path of an ONNX file. Raises UsageError that names what there is, ModelError for a file that is no detector."""
    if name in _MAKERS:
        return _MAKERS[name](wanted)
    if name.lower().endswith(".onnx"):
        from deblurd.trajectory.onnx_detector import OnnxDetector

        return OnnxDetector(Path(name), wanted)
    for found in entry_points(group=ENTRY_POINTS, name=name):
        made: Detector = found.load()(wanted)
        return made
    known = detector_names()
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UsageError(
        f"there is no detector {name!r}: {hint}there are {', '.join(known)}, or give a file.onnx"
    )
