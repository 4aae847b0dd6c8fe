"""A series: frames of one place, or of a stage that moves over it, at known times."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deblurd.frames import Encoding, MotionVector, Pixels
from deblurd.geometry import PixelToStage

AT_REST = MotionVector(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Instant:
    """When and where a frame was taken: mid-exposure, s; stage position, um; travel of the whole image during the exposure.

    number: of the frame, in its source.
    """

    number: int
    t_s: float
    y_um: float = 0.0
    x_um: float = 0.0
    motion: MotionVector = AT_REST

    @property
    def yx_um(self) -> NDArray[np.float64]:
        return np.array([self.y_um, self.x_um])


@dataclass(frozen=True, slots=True)
class Series:
    """Frames in order of time; pixels are read one frame at a time.

    instants: of each frame, with times that rise. shape: (H, W) or (H, W, 3) of every frame. read: the pixels of a frame by its `number`, uint8 or uint16;
    raises DataError. close: gives back the file. exposure_ms: 0 where nobody said. notes: sentences for people.
    """

    name: str
    instants: tuple[Instant, ...]
    shape: tuple[int, ...]
    affine: PixelToStage
    encoding: Encoding
    exposure_ms: float
    read: Callable[[int], Pixels]
    notes: tuple[str, ...] = ()
    close: Callable[[], None] = lambda: None

    def __enter__(self) -> Series:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def interval_s(self) -> float:
        """Usual time from frame to frame; 0 where there is one frame."""
        return (
            float(np.median(np.diff([each.t_s for each in self.instants]))) if len(self.instants) > 1 else 0.0
        )

    @property
    def moves(self) -> bool:
        """Whether the stage stands elsewhere in some frame, by half a pixel or more."""
        at = np.array([each.yx_um for each in self.instants]).reshape(-1, 2)
        return bool(len(at) and np.ptp(at, axis=0).max() > 0.5 * self.affine.pixel_size_um)

    def to_stage(self, instant: Instant, yx_px: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where pixels (n, 2), counted from the first one's middle, of a frame lie on the stage, um (n, 2)."""
        middle = (np.array(self.shape[:2]) - 1) / 2
        return instant.yx_um + self.affine.to_stage(yx_px - middle)

    def to_pixels(self, instant: Instant, yx_um: NDArray[np.float64]) -> NDArray[np.float64]:
        """The inverse of `to_stage`."""
        middle = (np.array(self.shape[:2]) - 1) / 2
        return self.affine.to_pixels(yx_um - instant.yx_um) + middle


def in_order(instants: Sequence[Instant]) -> tuple[list[Instant], list[str]]:
    """The most frames whose times rise, and sentences on those that are left out: without a time, or with one that goes backwards.

    A time that is not a number stands for one that is missing.
    """
    timed = [each for each in instants if np.isfinite(each.t_s)]
    kept = _rising(timed)
    notes = []
    if missing := len(instants) - len(timed):
        notes.append(
            f"{_frames(missing)} left out for want of a time: fill in t_s, or give --fps for all of them"
        )
    if backwards := len(timed) - len(kept):
        notes.append(
            f"{_frames(backwards)} left out, because the times go backwards there or stand still: check the clock"
        )
    return kept, notes


def _rising(instants: Sequence[Instant]) -> list[Instant]:
    """The longest subsequence with rising times (Schensted 1961): one wild time costs one frame and not all that follow."""
    ends: list[float] = []
    at: list[int] = []
    before: list[int | None] = []
    for index, each in enumerate(instants):
        place = bisect_left(ends, each.t_s)
        ends[place : place + 1] = [each.t_s]
        at[place : place + 1] = [index]
        before.append(at[place - 1] if place else None)
    found: list[Instant] = []
    last = at[-1] if at else None
    while last is not None:
        found.append(instants[last])
        last = before[last]
    return found[::-1]


def _frames(count: int) -> str:
    return "1 frame is" if count == 1 else f"{count} frames are"


def numbered(count: int, fps: float) -> Iterator[Instant]:
    """`count` frames at rest, at an even pace."""
    return (Instant(number, number / fps) for number in range(count))
