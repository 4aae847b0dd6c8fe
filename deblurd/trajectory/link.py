"""Joining the objects of each frame to trajectories, frame by frame, with trackpy's linker (Crocker and Grier 1996)."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from trackpy.linking import Linker

from deblurd.trajectory.detect import Points
from deblurd.trajectory.series import Instant

# it would tell of every frame
logging.getLogger("trackpy").setLevel(logging.WARNING)

_LOOK = 5
"""Frames that are looked at to find out how far an object may go."""

_REACH_OF_SPACING, _REACH_OF_SIZE = 0.8, (1.0, 8.0)
"""How far an object may go from frame to frame where nobody says: this share of the distance between neighbours, within these multiples of their size."""

_PRIOR_STEPS = 2.0
"""So many steps of all tracks count beside those of one, where its persistence is judged."""


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The objects of one frame. yx_um: (n, 2) where they lie on the stage."""

    instant: Instant
    points: Points
    yx_um: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Linked:
    """The objects of one frame, with the track (n,) that each belongs to."""

    found: Found
    tracks: NDArray[np.int64]

    @property
    def index_of(self) -> dict[int, int]:
        """Where the object of a track lies in the arrays."""
        return {int(track): index for index, track in enumerate(self.tracks)}


@dataclass(frozen=True, slots=True)
class LinkRules:
    """reach_um: how far an object may lie from where it is expected in the next frame; None: found out from the first frames.
    most_gap: frames that an object may be away for and be the same. interval_s: usual time between frames."""

    interval_s: float
    pixel_size_um: float
    reach_um: float | None = None
    most_gap: int = 2


def link(founds: Iterable[Found], rules: LinkRules) -> Iterator[Linked]:
    """The same frames, each with the tracks of its objects; a frame comes out before the next one is asked for, but for the first few.

    Where frames are missing, empty ones stand for them, so that a gap is a gap in time.
    """
    coming = iter(founds)
    first = list(itertools.islice(coming, _LOOK))
    reach_um = rules.reach_um or _reach_um(first, rules.pixel_size_um)
    expect = _Expectation(rules)
    linker = Linker(reach_um, memory=rules.most_gap, predictor=expect.predict, link_strategy=_assign)
    numbers = itertools.count()
    before: Found | None = None
    for found in itertools.chain(first, coming):
        t_s = found.instant.t_s
        if before is None:
            linker.init_level(found.yx_um, t_s)
        else:
            for missing_s in _missing_s(before, found, rules):
                linker.next_level(np.empty((0, 2)), missing_s)
            linker.next_level(found.yx_um, t_s)
        tracks = [_number(point.track, numbers) for point in linker.hash.points]
        expect.see(t_s, tracks, found.yx_um)
        yield Linked(found, np.array(tracks, dtype=np.int64))
        before = found


def _number(track: Any, numbers: Iterator[int]) -> int:
    """Of a track of trackpy's; its own `id` is counted for all linkers together, and anew whenever one begins, and here one feeds another."""
    if not hasattr(track, "number"):
        track.number = next(numbers)
    return int(track.number)


class _Expectation:
    """Where objects are expected: a step is the one before it times its track's persistence, which is learned (an autoregression of order 1).

    The persistence is near 1 for what swims straight, 0 for what diffuses; noise of the places makes it negative, which counts as 0.
    """

    def __init__(self, rules: LinkRules) -> None:
        self._forget_s = (rules.most_gap + 2) * (rules.interval_s or 1.0)
        self._last: dict[int, tuple[float, NDArray[np.float64], NDArray[np.float64] | None]] = {}
        self._sums: dict[int, NDArray[np.float64]] = {}
        self._all = np.zeros(3)

    def predict(self, t_s: float, particles: Sequence[Any]) -> Iterator[NDArray[np.float64]]:
        """trackpy asks for the places at `t_s` of objects seen earlier."""
        for particle in particles:
            last = self._last.get(particle.track.number)
            if last is None or last[2] is None:
                yield particle.pos
            else:
                yield particle.pos + self._persistence(particle.track.number) * last[2] * (t_s - particle.t)

    def see(self, t_s: float, tracks: Sequence[int], yx_um: NDArray[np.float64]) -> None:
        for track, at in zip(tracks, yx_um, strict=True):
            before = self._last.get(track)
            velocity = None
            if before is not None:
                velocity = (at - before[1]) / (t_s - before[0])
                if before[2] is not None:
                    step = np.array([velocity @ before[2], before[2] @ before[2], 1.0])
                    self._sums[track] = self._sums.get(track, np.zeros(3)) + step
                    self._all += step
            self._last[track] = t_s, at, velocity
        for track in [track for track, last in self._last.items() if t_s - last[0] > self._forget_s]:
            del self._last[track]
            self._sums.pop(track, None)

    def _persistence(self, track: int) -> float:
        if not self._all[1]:
            return 0.0
        prior = self._all * (_PRIOR_STEPS / self._all[2])
        together, alone, _ = self._sums.get(track, 0.0) + prior
        return float(np.clip(together / max(alone, 1e-12), 0.0, 1.0))


def _assign(sources: set[Any], targets: set[Any], reach_um: float, **_: Any) -> tuple[list[Any], list[Any]]:
    """Of objects that could be joined in several ways, the way with the least sum of squared distances, one that stays alone counting as `reach_um`.

    trackpy's own search tries all ways, and gives up where there are many; the assignment problem has the same answer in polynomial time.
    """
    ahead, behind = list(targets), sorted(sources, key=lambda point: point.uuid)
    ahead.sort(key=lambda point: point.uuid)
    column = {point: index for index, point in enumerate(ahead)}
    far = 1e6 * reach_um**2
    cost = np.full((len(behind), len(ahead) + len(behind)), far)
    cost[:, len(ahead) :][np.diag_indices(len(behind))] = reach_um**2
    for row, point in enumerate(behind):
        for other, distance in point.forward_cands:
            if other is not None:
                cost[row, column[other]] = distance**2
    rows, columns = linear_sum_assignment(cost)
    joined = [ahead[index] if index < len(ahead) else None for index in columns]
    left = [point for point in ahead if point not in set(joined)]
    return [behind[row] for row in rows] + [None] * len(left), joined + left


def _missing_s(before: Found | None, now: Found, rules: LinkRules) -> list[float]:
    """Times of the frames that are not there between two, at most so many as end every track."""
    if before is None or not rules.interval_s:
        return []
    begin_s, end_s = before.instant.t_s, now.instant.t_s
    steps = round((end_s - begin_s) / rules.interval_s)
    missing = min(steps - 1, rules.most_gap + 1)
    return [begin_s + (end_s - begin_s) * (n + 1) / (missing + 1) for n in range(missing)]


def _reach_um(first: Sequence[Found], pixel_size_um: float) -> float:
    spacings, sizes = [], []
    for found in first:
        if len(found.points) > 1:
            spacings.append(np.asarray(cKDTree(found.yx_um).query(found.yx_um, k=2)[0])[:, 1])
        sizes.append(found.points.size_px)
    size_um = (
        pixel_size_um * float(np.median(np.concatenate(sizes))) if any(map(len, sizes)) else pixel_size_um
    )
    low, high = (times * size_um for times in _REACH_OF_SIZE)
    spacing_um = float(np.median(np.concatenate(spacings))) if spacings else high
    return float(np.clip(_REACH_OF_SPACING * spacing_um, low, high))
