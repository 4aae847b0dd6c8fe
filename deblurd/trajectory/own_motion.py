"""An object's own motion blur, taken out with its own velocity: seen, linked, deblurred, and seen again.

The filter is Wiener's at a high ratio of noise to signal, near the matched filter: for places it beats every sharper one (docs/decisions/0022;
`python -m tests.benchmarks.trajectories --only own` measures what it gains).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from deblurd.deblur.wiener import wiener
from deblurd.frames import MotionVector
from deblurd.light import Image
from deblurd.trajectory.blobs import blob_answer, quadratic_top, sigma_of
from deblurd.trajectory.detect import Points
from deblurd.trajectory.link import Found, Linked
from deblurd.trajectory.series import Series

LOCATING_NSR = 3.0
"""Ratio of noise to signal that the filter is told."""

LEAST_PX = 3.0
"""A shorter blur costs no accuracy."""

_STEADY = 0.5
"""Cosine between the step to a frame and the step from it: an object that turned more between them has no one velocity."""

_KNOWN = 0.5
"""Share of a frame's objects that are also known before and after it. Where fewer are, they go farther than they lie apart: links are guesses, and velocities too."""

_ACROSS = 0.4
"""Share of an object's diameter that its place is looked for in across the motion; along it, half the blur."""

_SEEN_AGAIN = 4.0
"""Contrast over noise of an object that one frame does not show by itself, and those before and after tell where to look."""

_SAME = 0.6


def without_own_blur(
    linked: Iterable[Linked], series: Series, light_of: Callable[[int], Image], dark: Callable[[], bool]
) -> Iterator[Found]:
    """The objects of each frame where their deblurred pictures show them; three frames are looked at together.

    light_of: the light of a frame by its number, kept until the frame after it has come. dark: whether objects are.
    """
    window: deque[Linked] = deque(maxlen=3)
    for after in linked:
        window.append(after)
        if len(window) == 1:
            continue
        if len(window) == 2:
            yield window[0].found
            continue
        before, now = window[0], window[1]
        yield _relocated(
            before, now, after, series, light_of(now.found.instant.number), -1.0 if dark() else 1.0
        )
    if window:
        yield window[-1].found


def _relocated(
    before: Linked, now: Linked, after: Linked, series: Series, light: Image, sign: float
) -> Found:
    found, exposure_s = now.found, series.exposure_ms / 1000
    yx, size, score = (each.copy() for each in (found.points.yx_px, found.points.size_px, found.points.score))
    earlier, here, later = before.index_of, now.index_of, after.index_of
    if len(earlier.keys() & here.keys() & later.keys()) < _KNOWN * len(here):
        return found
    added: list[tuple[NDArray[np.float64], float, float]] = []
    share = _share(before, now, after)
    for track in earlier.keys() & later.keys():
        start_um, end_um = before.found.yx_um[earlier[track]], after.found.yx_um[later[track]]
        velocity_um_s = (end_um - start_um) / (after.found.instant.t_s - before.found.instant.t_s)
        travel_px = series.affine.to_pixels(velocity_um_s * exposure_s)
        if math.hypot(*travel_px) < LEAST_PX:
            continue
        index = here.get(track)
        if index is None:
            size_px = float(before.found.points.size_px[earlier[track]])
            at = series.to_pixels(found.instant, start_um + share * (end_um - start_um))
            seen = _look(light, at, size_px, travel_px, sign)
            if seen is not None and seen[1] >= _SEEN_AGAIN:
                added.append((seen[0], size_px, seen[1]))
        elif _is_steady(found.yx_um[index] - start_um, end_um - found.yx_um[index]):
            across_px = _across_px(before, now, after, track)
            seen = _look(light, yx[index], across_px, travel_px, sign)
            if seen is not None:
                # without its streak it is as large as across its motion, and no neighbour beside the streak is a part of it
                yx[index], size[index], score[index] = seen[0], across_px, max(score[index], seen[1])
    points = Points(yx, size, score)
    if added:
        points = Points(
            np.concatenate([yx, [each[0] for each in added]]),
            np.concatenate([points.size_px, [each[1] for each in added]]),
            np.concatenate([score, [each[2] for each in added]]),
        )
    # what were two ends of one streak is one object
    points = points.apart(_SAME)
    return Found(found.instant, points, series.to_stage(found.instant, points.yx_px))


def _look(
    light: Image, at: NDArray[np.float64], size_px: float, travel_px: NDArray[np.float64], sign: float
) -> tuple[NDArray[np.float64], float] | None:
    """Where the deblurred picture around `at` is highest near the path, and how clearly; None beyond the frame."""
    length_px = math.hypot(*travel_px)
    half = math.ceil(length_px / 2 + 2 * size_px + 6)
    middle = np.rint(at).astype(int)
    low, high = np.maximum(middle - half, 0), np.minimum(middle + half + 1, light.shape)
    if (high - low < 8).any():
        return None
    crop = np.ascontiguousarray(light[low[0] : high[0], low[1] : high[1]])
    sharp = wiener(crop, MotionVector(float(travel_px[0]), float(travel_px[1])), LOCATING_NSR)
    answer = sign * blob_answer(sharp, sigma_of(size_px))
    y, x = np.mgrid[low[0] : high[0], low[1] : high[1]]
    along_y, along_x = travel_px / length_px
    off_y, off_x = y - at[0], x - at[1]
    near_path = np.abs(off_y * along_y + off_x * along_x) <= length_px / 2 + 1
    near_path &= np.abs(off_y * along_x - off_x * along_y) <= _ACROSS * size_px
    if not near_path.any():
        return None
    row, column = np.unravel_index(np.where(near_path, answer, -np.inf).argmax(), answer.shape)
    near = np.pad(answer, 1, mode="edge")[row : row + 3, column : column + 3].astype(np.float64)
    noise = float(np.median(np.abs(answer[~near_path]))) / 0.6745
    place = np.array([row, column]) + low + quadratic_top(near[None])[0]
    return place, float(answer[row, column]) / max(noise, 1e-9)


def _across_px(before: Linked, now: Linked, after: Linked, track: int) -> float:
    """Diameter of an object across its motion: the least that three frames say, as blur only adds to it."""
    return min(float(each.found.points.size_px[each.index_of[track]]) for each in (before, now, after))


def _share(before: Linked, now: Linked, after: Linked) -> float:
    start_s, end_s = before.found.instant.t_s, after.found.instant.t_s
    return (now.found.instant.t_s - start_s) / (end_s - start_s)


def _is_steady(come_um: NDArray[np.float64], go_um: NDArray[np.float64]) -> bool:
    return bool(come_um @ go_um >= _STEADY * np.linalg.norm(come_um) * np.linalg.norm(go_um))
