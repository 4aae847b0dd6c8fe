"""When a slide begins."""

from __future__ import annotations

import pytest

from deblurd.frames import Pose
from deblurd.settings import SlideSettings
from deblurd.slides.starting import REST_S, Starting


def at(x_um: float, y_um: float = 0.0) -> Pose:
    return Pose(0.0, y_um, x_um)


def test_tissue_under_a_moving_stage_begins_a_slide() -> None:
    starting = Starting(SlideSettings(), leave_um=100.0)
    assert starting.reason(at(0.0), True) is None
    assert starting.reason(at(150.0), False) is None
    assert starting.reason(at(150.0), True) == "tissue under a moving stage"


def test_a_button_begins_a_slide_whatever_there_is() -> None:
    starting = Starting(SlideSettings(home_um=(0.0, 0.0), start="asked"), leave_um=100.0)
    assert starting.armed is None
    assert starting.reason(at(500.0), True) is None
    starting.ask("started by hand")
    assert not starting.wants_tissue
    assert starting.reason(at(0.0), False) == "started by hand"
    starting.began()
    assert starting.armed is None


def test_a_label_has_a_slide_begin_by_itself_also_where_none_does_otherwise() -> None:
    starting = Starting(SlideSettings(start="asked"), leave_um=100.0)
    starting.expect("labelled S-001")
    assert starting.reason(at(0.0), True) is None
    assert starting.reason(at(200.0), True) == "tissue under a moving stage, labelled S-001"
    starting.began()
    starting.ended(at(200.0), by_hand=False)
    assert starting.reason(at(900.0), True) is None


def test_none_begins_at_the_load_position() -> None:
    starting = Starting(SlideSettings(home_um=(1000.0, 0.0), home_radius_um=50.0), leave_um=10.0)
    assert starting.reason(at(900.0), True) is None
    assert starting.reason(at(1000.0), True) is None
    assert starting.reason(at(940.0), True) is not None


@pytest.mark.parametrize("start", ["tissue", "field"])
def test_a_resting_stage_does_not_begin_slide_after_slide(start: str) -> None:
    starting = Starting(SlideSettings.model_validate({"start": start}), leave_um=100.0)
    starting.ended(at(0.0), by_hand=False)
    assert starting.reason(at(99.0), True) is None
    assert starting.reason(at(101.0), True) is not None


def test_any_field_begins_the_first_slide_where_that_is_wanted() -> None:
    starting = Starting(SlideSettings(start="field"), leave_um=100.0)
    assert not starting.wants_tissue
    assert starting.reason(at(0.0), False) == "new ground"


def test_after_an_end_by_hand_the_stage_must_rest_first() -> None:
    starting = Starting(SlideSettings(), leave_um=100.0)
    starting.ended(at(0.0), by_hand=True)
    starting.expect("labelled S-002")
    for n in range(20):
        here = at(50.0 * n)
        starting.look(here, 0.3 * n)
        assert starting.armed is None
        assert starting.reason(here, True) is None
    starting.look(at(950.0), 5.7)
    starting.look(at(951.0), 5.7 + REST_S)
    assert starting.armed == "labelled S-002"
    assert starting.reason(at(960.0), True) is None
    assert starting.reason(at(1100.0), True) is not None
