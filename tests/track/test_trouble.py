"""Frames that come and have no place: whoever looks on is told, and until when."""

from __future__ import annotations

import numpy as np

from deblurd.frames import Frame
from deblurd.geometry import PixelToStage
from deblurd.track.tracker import Tracker

SHAPE, PERIOD_S, T0_S = (32, 32), 0.05, 1000.0


def test_a_stage_that_was_not_read_is_said_until_it_is_read_again() -> None:
    events: list[str] = []
    tracker = Tracker(
        lambda: (0.0, 0.0),
        PixelToStage.from_scale(1.0),
        SHAPE,
        5.0,
        overlap=0.2,
        latency_ms=1.0,
        poll_s=0.01,
        on_event=events.append,
    )

    def feed(first: int, count: int) -> None:
        for n in range(first, first + count):
            arrived_s = T0_S + n * PERIOD_S
            list(tracker.feed(Frame(np.zeros(SHAPE, np.uint8), n, arrived_s, 5.0, 0)))
            if n >= 100:
                tracker.poller.path.add(arrived_s, 0.0, float(n), 1e-4)

    feed(0, 30)
    assert tracker.trouble is None
    feed(30, 70)
    assert tracker.trouble is not None
    assert "the stage was not read in time" in tracker.trouble
    assert len(events) == 1
    feed(100, 60)
    assert tracker.trouble is None
