"""Any sequence of moves, buttons and labels keeps every field, each in a slide of its own glass."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from deblurd.sessions import DISK_S
from deblurd.slides.states import NEXT
from tests.microscope_bench import HOME_UM, PX, SIDE, Bench, stand_in


class Anything(RuleBasedStateMachine):
    """A technician who does anything at any time."""

    @initialize(start=st.sampled_from(["tissue", "field", "asked"]))
    def begin(self, start: str) -> None:
        self.patch = pytest.MonkeyPatch()
        self.bench = Bench(Path(self.folder) / str(time.monotonic_ns()), start=start)
        stand_in(self.bench, self.patch)
        self.swapped = 0

    folder = ""

    @rule(
        dy=st.sampled_from([-60.0, 0.0, 60.0]),
        dx=st.sampled_from([-60.0, 0.0, 60.0]),
        steps=st.integers(1, 8),
    )
    def move(self, dy: float, dx: float, steps: int) -> None:
        self.bench.go(dy, dx, steps)
        self.bench.at_um = np.clip(self.bench.at_um, 0, SIDE - PX)

    @rule(seconds=st.sampled_from([0.5, 3.0, 40.0]))
    def rest(self, seconds: float) -> None:
        self.bench.rest(seconds)

    @rule(glass=st.integers(0, 2))
    def swap_at_the_load_position(self, glass: int) -> None:
        self.bench.at_um = np.array(HOME_UM)
        self.bench.rest(3.0)
        self.bench.glass = glass
        self.bench.at_um = np.array([400.0, 300.0])

    @rule(action=st.sampled_from(["start", "finish", "pause", "resume", "discard"]))
    def press(self, action: Any) -> None:
        self.bench.sessions.order(action)
        self.bench.frame()

    @rule(full=st.booleans())
    def fill_the_disk_or_make_room(self, full: bool) -> None:
        (self.bench.fill_disk if full else self.bench.make_room)()
        self.bench.frame(DISK_S + 0.1)

    @rule(label=st.sampled_from(["A", "B", "C"]))
    def scan_a_barcode(self, label: str) -> None:
        self.bench.sessions.order("label", label)
        self.bench.frame()

    @invariant()
    def one_story_for_each_slide(self) -> None:
        if not hasattr(self, "bench"):
            return
        sessions = self.bench.sessions
        for pipeline in self.bench.pipelines:
            state = "armed"
            for kind, _ in pipeline.events:
                if kind in NEXT:
                    assert kind in NEXT[state]  # type: ignore[index]
                    state = kind
            at_work: Any = sessions.slide
            assert (state in ("scanning", "paused")) == (at_work is pipeline)

    @invariant()
    def no_slide_holds_two_glasses(self) -> None:
        if not hasattr(self, "bench"):
            return
        # where tissue decides: a button, and "field", take what comes
        for pipeline in self.bench.pipelines:
            assert pipeline.frames
            if pipeline.events[0][1].startswith("tissue"):
                assert len({self.bench.glass_of[frame.number] for frame in pipeline.frames}) == 1

    def teardown(self) -> None:
        if not hasattr(self, "bench"):
            return
        sessions = self.bench.sessions
        sessions.end("stopped")
        self.bench.settle()
        assert sessions.finishing.failure is None
        assert all(pipeline.is_finished for pipeline in self.bench.pipelines)
        assert len(sessions.finishing.finished) == len(self.bench.pipelines)
        frames = [id(frame) for pipeline in self.bench.pipelines for frame in pipeline.frames]
        assert len(frames) == len(set(frames))
        names = [pipeline.folder.name for pipeline in self.bench.pipelines]
        assert len(names) == len(set(names))
        self.patch.undo()
        self.bench.deblurrer.close()


def test_anything(tmp_path: Path) -> None:
    Anything.folder = str(tmp_path)
    Anything.TestCase.settings = settings(
        max_examples=40,
        stateful_step_count=20,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )
    Anything.TestCase("runTest").runTest()
