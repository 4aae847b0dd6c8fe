"""What numbers and times of arriving frames tell: when each was received, and which never came."""

from __future__ import annotations

from collections import deque
from datetime import datetime
from statistics import median, pvariance
from time import perf_counter

from deblurd.acquire.losses import Losses

_INTERVALS = 200
_LEAST_INTERVALS = 10
_MEDIAN_EACH = 10
_LEAST_FOR_BEAT = 100
_SUM = 8
_BEAT_RATIO = 0.3
_OFF_BEAT = 0.3
_LATE_PERIODS = 0.5
_FRAMES_TO_CATCH_UP = 3


def received_s(stamp: str | None, popped_s: float, empty_s: float) -> float:
    """When the core received a frame that was taken out just now, at `popped_s`, on the monotonic clock.

    stamp: the core's `TimeReceivedByCore`, in naive local time. That clock is read now as well, so the difference is how long the frame has
    waited, whatever the zone. A step of the clock meanwhile (time server, daylight saving) shows as a wait that cannot be:
    below zero, or from before `empty_s`, when the buffer was last seen empty; then the time of taking it out stands.
    """
    if stamp is None:
        return popped_s
    # both clocks at once: on a busy machine it may be long since popped_s was read
    now_s, now = perf_counter(), datetime.now()
    try:
        arrived_s = now_s - (now - datetime.fromisoformat(stamp)).total_seconds()
    except (ValueError, TypeError):  # not a time, or one with a zone
        return popped_s
    return arrived_s if empty_s <= arrived_s <= popped_s else popped_s


class Watch:
    """Counts the frames of one camera sequence that never came.

    A gap in the core's numbers is certain. Exposures that the driver left out leave no gap, only a pause of more than
    1.5 periods that the frames after it do not make up for: those are suspected, where the camera keeps a beat. One that starts
    each exposure when the last one is done with has none: there a pause is only a pause.

    period_s: median time between the last frames, but a few; None before there are enough of them.
    """

    def __init__(self, losses: Losses) -> None:
        self.expected = 0
        self._losses = losses
        self._arrived_s: float | None = None
        self._intervals: deque[float] = deque(maxlen=_INTERVALS)
        self._late_s = 0.0
        self._since_late = 0
        self._since_median = 0
        self.period_s: float | None = None

    @property
    def keeps_beat(self) -> bool:
        """Whether a late frame is followed by a shorter pause, as with a camera that has a clock.

        Then sums of n intervals scatter hardly more than one interval; where each begins when the last has ended, n times as much.
        """
        period_s = self.period_s
        if period_s is None or len(self._intervals) < _LEAST_FOR_BEAT:
            return False
        longest_s = (1 + _LATE_PERIODS) * period_s
        usual = [period_s if interval_s > longest_s else interval_s for interval_s in self._intervals]
        sums = [sum(usual[n : n + _SUM]) for n in range(len(usual) - _SUM + 1)]
        return pvariance(sums) < _BEAT_RATIO * _SUM * pvariance(usual)

    def went_back(self, number: int) -> bool:
        """Whether the core began to count anew, as older cores do when their buffer overflows."""
        return number < self.expected

    def see(self, number: int, arrived_s: float) -> None:
        """The next frame of the sequence; its number is not below `expected`."""
        gap = number - self.expected
        if gap > 0:
            self._losses.add("buffer", gap, f"number {number} came after {self.expected - 1}")
        if self._arrived_s is not None:
            self._pause((arrived_s - self._arrived_s) / (gap + 1))
        self.expected, self._arrived_s = number + 1, arrived_s

    def missed_since(self, now_s: float) -> int:
        """About how many frames would have come since the last one; at least 1."""
        if self._arrived_s is None or self.period_s is None:
            return 1
        return max(1, round((now_s - self._arrived_s) / self.period_s))

    def _pause(self, interval_s: float) -> None:
        period_s = self.period_s
        self._intervals.append(interval_s)
        self._since_median += 1
        if self._since_median >= _MEDIAN_EACH and len(self._intervals) >= _LEAST_INTERVALS:
            self.period_s, self._since_median = median(self._intervals), 0
        if period_s is None:
            return
        late_s = interval_s - period_s
        if self._since_late:
            self._late_s += min(late_s, 0.0)
            self._since_late -= 1
            n = round(self._late_s / period_s)
            is_whole = abs(self._late_s / period_s - n) < _OFF_BEAT
            if not self._since_late and n >= 1 and is_whole and self.keeps_beat:
                self._losses.add(
                    "suspected",
                    n,
                    f"a pause of {1000 * (self._late_s + period_s):.1f} ms at number {self.expected}",
                )
        elif late_s > _LATE_PERIODS * period_s:
            self._late_s, self._since_late = late_s, _FRAMES_TO_CATCH_UP
