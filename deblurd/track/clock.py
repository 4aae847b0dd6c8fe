"""When a frame was exposed: a robust line through arrival times against the camera's beats."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_HISTORY = 1024
_LEAST = 8
_FIT_EACH = 8
_RECENT = 32
_CLIP = 6.0
_DRIFT = 5.0
_CLEAR_PERIODS = 0.15
_BEAT_PERIODS = 0.12
_MEAN_PERIODS = 0.08
_CONFIRMED_BY = 3

_KEEPS_BEAT = 0.5
_SEEN_BEAT = 0.45
_BETTER = 1.3
_PROMPT = 0.1
"""Shares of the frames: so many are on the beat where it is not hidden by jitter; another beat must have so many times as many; and where
fewer are prompt the beat has moved."""

_CATCHING_UP = 0.75
_NEAR_BEAT = 0.1
_MOST_BENT = 0.5

_WHITE, _WALKS = 1.4, 0.7
"""The ratio of von Neumann (1941), mean squared step over variance, is 2 for values of which one tells nothing of the next, and near 0 for a walk."""

_NEAR = 16
_EARLY_SIGMAS = 6.0
_EARLY_PERIODS = 0.35
_LATE_PERIODS = 0.5
_SOME = 0.25
_EVEN = 0.4
"""A frame is on its beat if it is early or late by no more standard deviations and periods, and so many of the next ones to it, in number and share, are on theirs."""

Floats = NDArray[np.float64]


class FrameClock:
    """Turns frame numbers of one camera sequence into times of exposure.

    Frames arrive late by a constant latency and a jitter, now and then much later (the computer was busy), but their camera keeps a
    steady beat. So a line through many arrivals is far better than each of them, but for a camera that keeps none. A driver may leave exposures out
    without a gap in the numbers: all later frames then come late by whole periods, whereas a frame that is merely late is
    followed by one that is not. So the beats left out before a frame are the least lateness, in whole periods, of all frames from there on.
    Where the jitter is not small against the period, lateness is averaged over as many frames as it takes to tell. Memory:
    the last 1,024 frames, fewer where the camera's pace wanders.
    """

    def __init__(self, exposure_ms: float, latency_ms: float) -> None:
        self._exposure_s, self._latency_s = exposure_ms / 1000, latency_ms / 1000
        self._numbers: deque[int] = deque(maxlen=_HISTORY)
        self._arrived: deque[float] = deque(maxlen=_HISTORY)
        self._skipped: Floats = np.zeros(0)
        self._line: tuple[float, float] | None = None
        self._jitter_s = math.inf
        self._seen = 0
        self._history: tuple[Floats, Floats] = (np.zeros(0), np.zeros(0))
        self._judged: dict[int, tuple[float, float]] = {}

    def see(self, number: int, arrived_s: float) -> None:
        """The next frame of the sequence; numbers rise."""
        self._numbers.append(number)
        self._arrived.append(arrived_s)
        self._seen += 1
        if len(self._numbers) < _LEAST:
            return
        numbers, arrived = np.array(self._numbers, dtype=np.float64), np.array(self._arrived)
        if self._line is None or self._seen <= 2 * _LEAST or self._is_lost(numbers, arrived, self._line):
            self._keep(2 * _RECENT)
            numbers, arrived = numbers[-2 * _RECENT :], arrived[-2 * _RECENT :]
            self._line = _first_line(numbers, arrived)
        self._skipped = self._left_out(numbers, arrived, self._line)
        if self._seen < 2 * _RECENT or self._seen % _FIT_EACH == 0:
            self._fit(numbers, arrived, self._line)
        self._history = numbers[-len(self._skipped) :], arrived[-len(self._skipped) :]
        self._judged.clear()

    @property
    def period_s(self) -> float | None:
        return None if self._line is None else self._line[1]

    @property
    def sigma_s(self) -> float:
        """Uncertainty of exposure times (one standard deviation), but for an error of the latency; inf before the line stands."""
        return 2 * self._jitter_s / math.sqrt(max(len(self._numbers), 1))

    def is_settled(self, number: int) -> bool:
        """Whether frames after `number` have shown that it was not merely late."""
        if self._line is None:
            return False
        return self._index(number) < self._confirmed()

    def exposure(self, number: int) -> tuple[float, float, float] | None:
        """Start, middle and end (s) of the exposure of frame `number`, one of the last; None before the line stands."""
        if self._line is None:
            return None
        offset, period = self._line
        i = self._index(number)
        end_s = offset + period * (number + float(self._skipped[i])) - self._latency_s
        end_s += self._judged_s(i, self._line)[0]
        return end_s - self._exposure_s, end_s - 0.5 * self._exposure_s, end_s

    def revision(self, number: int) -> Callable[[], float]:
        """To be asked at any time, from any thread: how much later (s) frame `number` is believed to have been exposed by then than it is now.

        Each frame moves the line a little: by more, in the beginning, than what is measured beside it may be wrong.
        """
        if self._line is None:
            return lambda: 0.0
        offset, period = self._line
        i = self._index(number)
        if self._judged_s(i, self._line)[0] != 0.0:
            # it was exposed when its arrival says, whatever the line does
            return lambda: 0.0
        beat = number + float(self._skipped[i])

        def later_s() -> float:
            now_offset, now_period = self._line or (offset, period)
            moved_s = now_offset - offset + (now_period - period) * beat
            # a line that was begun anew counts other beats
            return moved_s if abs(moved_s) < 0.5 * period else 0.0

        return later_s

    def doubt_s(self, number: int) -> float:
        """How much earlier the exposure of frame `number` may lie than `exposure` says, and than its arrival says; 0 for most frames.

        What keeps the computer from taking a frame in time keeps it from starting the next exposures too. So where exposures seem to be left
        out before a frame, it may be that frame which was late, and they were left out after it; and so with all that arrive on its heels.
        Where hardly any frame keeps the beat, nobody knows which was late and which were left out: then it is as much as arrivals scatter.
        """
        if self._line is None:
            return math.inf
        last = self._index(number)
        first = last
        while first > 0 and self._on_heels(first):
            first -= 1
        before = self._skipped[first - 1] if first > 0 else self._skipped[first]
        return max(float(self._skipped[last] - before) * self._line[1], self._judged_s(last, self._line)[1])

    def _judged_s(self, i: int, line: tuple[float, float]) -> tuple[float, float]:
        """What to add to the line's time of the i-th frame of the history, and how much earlier it may have been all the same."""
        if i not in self._judged:
            self._judged[i] = self._judge(i, line)
        return self._judged[i]

    def _judge(self, i: int, line: tuple[float, float]) -> tuple[float, float]:
        offset, period = line
        around = slice(max(i - _RECENT, 0), i + _RECENT)
        numbers, arrived = self._history
        late = (arrived - offset) / period - numbers - self._skipped
        own, near = float(late[i]), late[max(i - _NEAR, 0) : i + _NEAR]
        if _is_even(numbers[around], arrived[around]) and neumann(late[around]) < _WALKS:
            # a camera without a beat, that starts an exposure when it is done with the one before: the frames themselves know better than any line
            return period * own, 0.0
        if _on_beat(arrived[around], period) >= _SEEN_BEAT:
            # many may be late where the computer is busy, but some are prompt, and hardly any comes before its time
            is_kept = (
                -min(_EARLY_SIGMAS * self._jitter_s / period, _EARLY_PERIODS) < own < _LATE_PERIODS
                and float((np.abs(near) < _CLEAR_PERIODS).mean()) > _SOME
                and float((near < -_EARLY_PERIODS).mean()) < _PROMPT
            )
        else:
            # jitter that is longer than the period is nothing but jitter where no exposure was ever left out, and one frame's tells nothing of the next one's
            is_kept = (
                len(late) >= 2 * _RECENT
                and bool(self._skipped[0] == self._skipped[-1])
                and neumann(late) > _WHITE
            )
        if is_kept:
            return 0.0, 0.0
        late = late[around]
        return 0.0, period * max(float(np.ptp(late)), float(np.abs(late).max()), 1.0)

    def _on_heels(self, i: int) -> bool:
        """Whether frame i of the history followed the one before faster than the camera sends them."""
        assert self._line is not None
        beats = self._numbers[i] - self._numbers[i - 1]
        return self._arrived[i] - self._arrived[i - 1] < _CATCHING_UP * self._line[1] * beats

    def _confirmed(self) -> int:
        """How many frames of the history are known not to be merely late: all, but for a step at the very end."""
        assert self._line is not None
        tail = 4 * _CONFIRMED_BY
        numbers, arrived = (np.array(v)[-tail:] for v in (self._numbers, self._arrived))
        # while a backlog is worked off frames follow one another faster than the camera sends them: they tell nothing of it
        fresh = np.diff(arrived) > _CATCHING_UP * self._line[1] * np.diff(numbers)
        witnesses = np.flatnonzero(np.concatenate([[True], fresh]))
        at = len(self._skipped) - len(numbers) + int(witnesses[max(-1 - _CONFIRMED_BY, -len(witnesses))])
        return int(np.searchsorted(self._skipped, self._skipped[at], side="right"))

    def _index(self, number: int) -> int:
        """Where `number` stands in the history, or would stand."""
        i = int(np.searchsorted(np.array(self._numbers), number))
        return min(i, len(self._skipped) - 1)

    def _is_lost(self, numbers: Floats, arrived: Floats, line: tuple[float, float]) -> bool:
        """Whether the frames of late keep a beat, but not that of the line. Where the computer is busy many are late, but some are still prompt."""
        offset, period = line
        off = (arrived[-_RECENT:] - offset) / period
        off -= np.rint(off)
        if float(np.median(np.abs(off))) <= _CLEAR_PERIODS:
            return False
        keeps = _on_beat(arrived[-_RECENT:], period)
        if keeps >= _KEEPS_BEAT:
            return float((np.abs(off) < _CLEAR_PERIODS).mean()) < _PROMPT
        other = _beat_of(numbers[-_RECENT:], arrived[-_RECENT:])
        return other is not None and _on_beat(arrived[-_RECENT:], other) > max(_KEEPS_BEAT, _BETTER * keeps)

    @staticmethod
    def _is_hidden(arrived: Floats, period: float) -> bool:
        """Whether jitter is too large against the period for a beat to be seen."""
        return _on_beat(arrived[-4 * _RECENT :], period) < _SEEN_BEAT

    def _left_out(self, numbers: Floats, arrived: Floats, line: tuple[float, float]) -> Floats:
        """Beats left out before each frame."""
        offset, period = line
        late = (arrived - offset) / period - numbers
        # measured against the nearest beat, so that a wrong count of beats does not look like jitter
        if self._is_hidden(arrived, period):
            size = int(min((self._jitter_s / (_MEAN_PERIODS * period)) ** 2 + 1, len(late)))
            sums = np.concatenate([[0.0], np.cumsum(late)])
            means = (sums[size:] - sums[:-size]) / size
            late = np.concatenate([means, np.full(size - 1, means[-1])])
        return np.asarray(np.minimum.accumulate(np.rint(late)[::-1])[::-1])

    def _fit(self, numbers: Floats, arrived: Floats, line: tuple[float, float]) -> None:
        self._line = line
        while True:
            for _ in range(2):
                known = self._confirmed()
                beats = numbers[:known] + self._skipped[:known]
                offset, period, residual, jitter = _robust_line(beats, arrived[:known], self._line)
                bent = abs(period / self._line[1] - 1) * (beats[-1] - beats[0])
                if bent > _MOST_BENT and not self._is_hidden(arrived, self._line[1]):
                    # it would count beats otherwise than they were counted for it
                    return
                self._line, self._jitter_s = (offset, period), jitter
                self._skipped = self._left_out(numbers, arrived, self._line)
            drift = abs(float(np.median(residual[-_RECENT:])))
            if (
                drift < _DRIFT * jitter / math.sqrt(min(_RECENT, len(residual))) + 1e-5
                or len(numbers) < 2 * _RECENT
            ):
                break
            # the pace has wandered: what is long ago tells nothing of now
            half = len(numbers) // 2
            self._keep(half)
            numbers, arrived, self._skipped = numbers[-half:], arrived[-half:], self._skipped[-half:]

    def _keep(self, frames: int) -> None:
        while len(self._numbers) > frames:
            self._numbers.popleft()
            self._arrived.popleft()


def _is_even(numbers: Floats, arrived: Floats) -> bool:
    """Whether frames follow one another at an even pace: none was late, and none left out."""
    paces = np.diff(arrived) / np.diff(numbers)
    usual = float(np.median(paces)) if len(paces) else 0.0
    return usual > 0.0 and float(np.abs(paces / usual - 1.0).max()) < _EVEN


def neumann(values: Floats) -> float:
    """Von Neumann's ratio; inf of values that are all the same, and of none."""
    if len(values) == 0:
        return math.inf
    spread, steps = values - values.mean(), np.diff(values)
    power = float(spread @ spread)
    return float(steps @ steps) / power if power > 0.0 else math.inf


def _off_beat(periods: Floats) -> float:
    """How far values typically lie from whole numbers; 1/4 where they have nothing to do with them."""
    return float(np.median(np.abs(periods - np.rint(periods))))


def _on_beat(arrived: Floats, period: float) -> float:
    """The largest share of arrivals that keep one and the same phase of a beat, give or take a tenth."""
    phases = np.sort(arrived / period % 1.0)
    around = np.concatenate([phases, phases + 1.0])
    ends = np.searchsorted(around, phases + 2 * _NEAR_BEAT, side="right")
    return float((ends - np.arange(len(phases))).max()) / len(phases)


def _beat_of(numbers: Floats, arrived: Floats) -> float | None:
    """The camera's period where the jitter lets it be seen from frame to frame."""
    paces = np.diff(arrived) / np.diff(numbers)
    # exposures that are left out make paces longer, so the beat is among the short ones
    short = float(np.percentile(paces, 25))
    if short <= 0:
        return None
    beats = np.rint(paces / short)
    return (
        float(np.median(paces / np.maximum(beats, 1))) if _off_beat(paces / short) < _BEAT_PERIODS else None
    )


def _first_line(numbers: Floats, arrived: Floats) -> tuple[float, float]:
    """Offset and period from a handful of frames, some of which may be late or follow exposures that were left out."""
    period = _beat_of(numbers, arrived)
    if period is not None:
        beats = np.concatenate([[0.0], np.cumsum(np.rint(np.diff(arrived) / period))])
        offset, period, _, _ = _robust_line(
            beats, arrived, (float(np.median(arrived - period * beats)), period)
        )
        return offset - period * numbers[0], period
    # jitter hides the beat: only the long way tells it
    half = len(numbers) // 2
    period = max(
        float(np.median((arrived[half:] - arrived[:-half]) / (numbers[half:] - numbers[:-half]))), 1e-6
    )
    return float(np.median(arrived - period * numbers)), period


def _robust_line(x: Floats, y: Floats, start: tuple[float, float]) -> tuple[float, float, Floats, float]:
    """Offset, slope, residuals (far-off ones as nought) and their standard deviation: least squares without what is far off.

    start: offset and slope near the truth. The clip is wide, because the latency is a mean and jitter is skewed: cutting its tail would
    bias the line.
    """
    middle_x, first_y = float(x.mean()), float(y[0])
    u, v = x - middle_x, y - first_y
    slope = start[1]
    height = start[0] + slope * middle_x - first_y
    keep = np.ones(len(x), dtype=bool)
    for _ in range(4):
        residual = v - height - slope * u
        off = np.abs(residual - np.median(residual))
        keep = off < _CLIP * (1.4826 * float(np.median(off)) + 1e-6)
        uk, vk = u[keep], v[keep]
        centre = float(uk.mean())
        slope = float(((uk - centre) * vk).sum() / max(float(((uk - centre) ** 2).sum()), 1e-12))
        height = float(vk.mean()) - slope * centre
    residual = np.where(keep, v - height - slope * u, 0.0)
    jitter = float(np.sqrt((residual[keep] ** 2).mean()))
    return first_y + height - slope * middle_x, max(slope, 1e-6), residual, jitter
