"""What a track did: how far, how fast, how straight, and whether it diffuses or is driven."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

MOST_LAGS = 10
"""Lags of the mean squared displacement that are looked at, and at most a quarter of a track (Saxton 1997): longer ones say little."""

LEAST_POINTS = 3
"""A shorter track has no mean squared displacement worth the name."""

ACTIVE_SHARE = 0.3
"""Of its diameter: an object that never went so far from its mean place is still."""

_FALSELY_ACTIVE = 0.01
"""So many of the objects that rest would be called active, were the noise of their places known and normal."""


@dataclass(frozen=True, slots=True)
class Track:
    """One object. t_s: (n,) rising. yx_um: (n, 2). size_um, score: (n,)."""

    number: int
    t_s: NDArray[np.float64]
    yx_um: NDArray[np.float64]
    size_um: NDArray[np.float64]
    score: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.t_s)


@dataclass(frozen=True, slots=True)
class Measures:
    """Of one track; nan where it is too short to tell.

    path_um: sum of the steps. net_um: from first to last place. speed: mean of path over time, and the fastest step, um/s. straightness: net over path, 0 to 1.
    msd_exponent: slope of log MSD over log lag after the noise of places is taken off; 1: diffuses, 2: is driven. diffusion_um2_s: from MSD = 4 D t + 4 s^2.
    noise_um: s, uncertainty of a place along an axis; nan also where the exposure hides it. active: or still; None where it was seen once.
    """

    track_id: int
    points: int
    start_s: float
    duration_s: float
    path_um: float
    net_um: float
    mean_speed_um_s: float
    top_speed_um_s: float
    straightness: float
    msd_exponent: float
    diffusion_um2_s: float
    noise_um: float
    mean_size_um: float
    active: bool | None


COLUMNS = tuple(each.name for each in fields(Measures))


def measure(track: Track, interval_s: float, field_noise_um: float = 0.0) -> Measures:
    """interval_s: usual time between frames. field_noise_um: what `usual_noise_um` says of all tracks of the field."""
    steps = np.diff(track.yx_um, axis=0)
    lengths = np.hypot(*steps.T) if len(steps) else np.zeros(0)
    duration_s = float(track.t_s[-1] - track.t_s[0])
    path_um = float(lengths.sum())
    net_um = math.dist(track.yx_um[0], track.yx_um[-1])
    lag_s, msd_um2, pairs = msd(track, interval_s)
    diffusion, offset_um2 = fit_msd(lag_s, msd_um2, pairs)
    noise_um = place_noise_um(offset_um2)
    return Measures(
        track.number,
        len(track),
        float(track.t_s[0]),
        duration_s,
        path_um,
        net_um,
        path_um / duration_s if duration_s else math.nan,
        float((lengths / np.diff(track.t_s)).max()) if len(steps) else math.nan,
        net_um / path_um if path_um else math.nan,
        exponent(lag_s, msd_um2, pairs, noise_um),
        diffusion,
        noise_um,
        float(track.size_um.mean()),
        _is_active(track, field_noise_um),
    )


def msd(
    track: Track, interval_s: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Lags (k,) s, mean squared displacements (k,) um^2 over all pairs of places that far apart in time, and how many pairs (k,) there were."""
    if len(track) < LEAST_POINTS or not interval_s:
        return np.zeros(0), np.zeros(0), np.zeros(0)
    frame = np.rint((track.t_s - track.t_s[0]) / interval_s).astype(np.int64)
    most = max(min(MOST_LAGS, frame[-1] // 4), min(2, len(track) - 1))
    place = np.full((frame[-1] + 1, 2), np.nan)
    place[frame] = track.yx_um
    found = [np.square(place[lag:] - place[:-lag]).sum(axis=1) for lag in range(1, most + 1)]
    pairs = np.array([np.isfinite(squares).sum() for squares in found], dtype=np.float64)
    seen = pairs > 0
    sums = np.array([np.nansum(squares) for squares in found], dtype=np.float64)
    return _lags_s(seen, interval_s), sums[seen] / pairs[seen], pairs[seen]


def _lags_s(seen: NDArray[np.bool_], interval_s: float) -> NDArray[np.float64]:
    return np.asarray(interval_s * (np.flatnonzero(seen) + 1.0), dtype=np.float64)


def fit_msd(
    lag_s: NDArray[np.float64], msd_um2: NDArray[np.float64], pairs: NDArray[np.float64]
) -> tuple[float, float]:
    """D (um^2/s) and the offset (um^2) of ``MSD = 4 D t + offset`` over the first lags, which hold most of what is known (Michalet 2010).

    The offset is ``4 s^2 - 4 D T / 3``: s, the uncertainty of a place along an axis, raises it, and an exposure T lowers it, below 0 too (Savin and
    Doyle 2005). nan where fewer than two lags are known.
    """
    first = slice(0, max(min(len(lag_s), 4), 2))
    if len(lag_s) < 2:
        return math.nan, math.nan
    weight = np.sqrt(pairs[first])
    terms = np.stack([4 * lag_s[first], np.ones(len(lag_s[first]))], axis=1)
    slope, offset = np.linalg.lstsq(terms * weight[:, None], msd_um2[first] * weight, rcond=None)[0]
    return float(max(slope, 0.0)), float(offset)


def place_noise_um(offset_um2: float) -> float:
    """s, from what `fit_msd` says; nan where the exposure hides it."""
    return math.sqrt(offset_um2) / 2 if offset_um2 >= 0 else math.nan


def exponent(
    lag_s: NDArray[np.float64], msd_um2: NDArray[np.float64], pairs: NDArray[np.float64], noise_um: float
) -> float:
    """Slope of log MSD over log lag; what is left of MSD after the noise of places must stay positive. nan where fewer than two lags are known."""
    if len(lag_s) < 2:
        return math.nan
    known_um2 = 4 * noise_um**2 if math.isfinite(noise_um) else 0.0
    clean = msd_um2 - min(known_um2, 0.8 * float(msd_um2.min()))
    if not (clean > 0).all():
        return math.nan
    return float(np.polyfit(np.log(lag_s), np.log(clean), 1, w=np.sqrt(pairs))[0])


def usual_noise_um(tracks: Iterable[Track]) -> float:
    """Uncertainty of a place along an axis that is usual in a field: the median over the tracks that tell one; 0 where none does, as where all are driven."""
    known = [noise_um2 for track in tracks if (noise_um2 := _noise_um2(track)) > 0]
    return math.sqrt(np.median(known)) if known else 0.0


def _noise_um2(track: Track) -> float:
    """Variance of a place along an axis, by how much of a step the next one takes back (Berglund 2010): below 0 where the object goes on instead; 0 for fewer than two steps."""
    steps = np.diff(track.yx_um, axis=0)
    return -float((steps[1:] * steps[:-1]).sum(axis=1).mean()) / 2 if len(steps) > 1 else 0.0


def _is_active(track: Track, field_noise_um: float) -> bool | None:
    """Whether it went far for its size, and its places scatter more than noise alone makes those of an object at rest scatter; None for a single place.

    The noise is its own or that of the field, whichever is more: a short track tells its own badly. One step among others, however long, tells nothing, as a wrong link
    is one, and so the places before it and after it have a mean of their own. What diffuses is told from what rests by some 20 places, what swims by 3 or 4.
    """
    if len(track) < 2:
        return None
    squares_um2 = np.square(track.yx_um - track.yx_um.mean(axis=0)).sum(axis=1)
    if squares_um2.max() <= (ACTIVE_SHARE * track.size_um.mean()) ** 2:
        return False
    sides = [track.yx_um]
    if len(track) > 2:
        longest = int(np.square(np.diff(track.yx_um, axis=0)).sum(axis=1).argmax()) + 1
        sides = [track.yx_um[:longest], track.yx_um[longest:]]
    scatter_um2 = sum(float(np.square(side - side.mean(axis=0)).sum()) for side in sides)
    noise_um2 = max(_noise_um2(track), field_noise_um**2)
    return bool(scatter_um2 > noise_um2 * chi2.isf(_FALSELY_ACTIVE, 2 * (len(track) - len(sides))))


@dataclass(slots=True)
class FieldSums:
    """Sums over all tracks of a field, from which its own figures follow; takes no more memory for more tracks."""

    tracks: int = 0
    active: int = 0
    still: int = 0
    points: int = 0
    path_um: float = 0.0
    time_s: float = 0.0
    squares_um2: NDArray[np.float64] | None = None
    pairs: NDArray[np.float64] | None = None

    def add(self, track: Track, measures: Measures, interval_s: float) -> None:
        if self.squares_um2 is None or self.pairs is None:
            self.squares_um2, self.pairs = np.zeros(MOST_LAGS), np.zeros(MOST_LAGS)
        self.tracks += 1
        self.active += measures.active is True
        self.still += measures.active is False
        self.points += len(track)
        self.path_um += measures.path_um
        self.time_s += measures.duration_s
        lag_s, msd_um2, pairs = msd(track, interval_s)
        lag = np.rint(lag_s / interval_s).astype(int) - 1 if interval_s else np.zeros(0, int)
        self.squares_um2[lag] += msd_um2 * pairs
        self.pairs[lag] += pairs

    def msd(self, interval_s: float) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Of all tracks together, as `msd` of one."""
        if self.squares_um2 is None or self.pairs is None:
            return np.zeros(0), np.zeros(0), np.zeros(0)
        seen = self.pairs > 0
        return _lags_s(seen, interval_s), self.squares_um2[seen] / self.pairs[seen], self.pairs[seen]
