"""When a slide is over, and when the next one may begin."""

from __future__ import annotations

from deblurd.frames import Pose
from deblurd.settings import SlideSettings
from deblurd.slides.ending import Ending


def at(x_um: float, y_um: float = 0.0) -> Pose:
    return Pose(0.0, y_um, x_um)


def test_a_slide_ends_at_home_and_none_begins_there() -> None:
    ending = Ending(SlideSettings(home_um=(1000.0, 0.0), home_radius_um=50.0), leave_um=100.0)
    assert ending.reason(at(900.0), 1.0, 0.0) is None
    assert ending.reason(at(980.0), 1.0, 0.0) == "home position"
    assert not ending.may_start(at(1000.0))
    assert ending.may_start(at(0.0))


def test_a_slide_ends_after_a_time_without_new_ground() -> None:
    ending = Ending(SlideSettings(idle_end_s=10.0), leave_um=100.0)
    assert ending.reason(at(0.0), 10.0, 0.5) is None
    assert ending.reason(at(0.0), 11.0, 0.5) == "no new ground for 10 s"
    assert ending.reason(None, 11.0, 0.5) is not None


def test_a_resting_stage_does_not_begin_slide_after_slide() -> None:
    ending = Ending(SlideSettings(), leave_um=100.0)
    assert ending.may_start(at(0.0))
    ending.ended(at(0.0))
    assert not ending.may_start(at(99.0))
    assert ending.may_start(at(101.0))
    ending.ended(None)
    assert ending.may_start(at(0.0))
