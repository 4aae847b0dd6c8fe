"""When a slide is over."""

from __future__ import annotations

from deblurd.frames import Pose
from deblurd.settings import SlideSettings
from deblurd.slides.ending import Ending


def at(x_um: float, y_um: float = 0.0) -> Pose:
    return Pose(0.0, y_um, x_um)


def test_a_slide_ends_after_a_time_at_the_load_position() -> None:
    ending = Ending(SlideSettings(home_um=(1000.0, 0.0), home_radius_um=50.0, home_s=2.0))
    assert ending.reason(at(900.0), 1.0) is None
    assert ending.reason(at(980.0), 2.0) is None
    assert ending.reason(at(1010.0), 3.9) is None
    assert ending.reason(at(1010.0), 4.0) == "load position"


def test_passing_the_load_position_ends_nothing() -> None:
    ending = Ending(SlideSettings(home_um=(1000.0, 0.0), home_radius_um=50.0, home_s=2.0))
    for now_s, x_um in enumerate((980.0, 1010.0, 1100.0, 1010.0, 980.0, 0.0)):
        assert ending.reason(at(x_um), float(now_s)) is None


def test_a_slide_ends_after_a_time_without_new_ground() -> None:
    ending = Ending(SlideSettings(idle_end_s=10.0))
    ending.field(at(0.0), True, 0.5)
    assert ending.reason(at(0.0), 10.0) is None
    assert ending.reason(at(0.0), 11.0) == "no new ground for 10 s"
    assert ending.reason(None, 11.0) is not None
    ending.went_on(11.0)
    assert ending.reason(None, 20.0) is None


def test_a_blank_field_alone_ends_nothing_and_far_from_all_tissue_it_does() -> None:
    ending = Ending(SlideSettings(far_um=5000.0))
    ending.field(at(0.0), False, 0.0)
    assert ending.reason(at(90_000.0), 1.0) is None
    ending.field(at(0.0), True, 1.0)
    ending.field(at(3000.0), False, 2.0)
    assert ending.reason(at(3000.0), 2.0) is None
    ending.field(at(6000.0), True, 3.0)
    assert ending.reason(at(12_000.0), 3.0) is None
    ending.field(at(10_000.0), False, 4.0)
    assert ending.reason(at(10_000.0), 4.0) is None
    ending.field(at(12_000.0), False, 5.0)
    assert ending.reason(at(12_000.0), 5.0) == "a blank field, and no tissue of this slide within 5 mm"
    ending.began(6.0)
    assert ending.reason(at(12_000.0), 6.0) is None
