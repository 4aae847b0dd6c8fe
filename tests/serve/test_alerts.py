"""What the page shows of the log."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from deblurd.serve.alerts import MOST_KEPT, AlertLog
from deblurd.serve.words import state_sentence

log = logging.getLogger("deblurd.tests.alerts")


@pytest.fixture
def alerts() -> Iterator[AlertLog]:
    handler = AlertLog()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield handler
    log.removeHandler(handler)


def test_a_warning_that_comes_again_and_again_hides_nothing(alerts: AlertLog) -> None:
    log.error("%s", "the disk is full")
    for number in range(2 * MOST_KEPT):
        log.warning("frame %d has no place", number)
    log.error("%s", "the camera is gone")
    log.error("%s", "the stage is gone")
    assert [alert.text for alert in alerts.newest()] == [
        "the disk is full",
        f"frame {2 * MOST_KEPT - 1} has no place ({2 * MOST_KEPT} times by now)",
        "the camera is gone",
        "the stage is gone",
    ]
    assert alerts.count == 2 * MOST_KEPT + 3


def test_news_are_all_kept(alerts: AlertLog) -> None:
    for number in range(3):
        log.info("slide %d is done", number)
    assert [alert.text for alert in alerts.newest()] == [f"slide {number} is done" for number in range(3)]


def test_a_trouble_is_a_sentence_of_its_own() -> None:
    said = state_sentence("scanning", "S-1", fields=3, trouble="the camera sends nothing: look at its cable")
    assert said == "Scanning S-1: 3 fields. The camera sends nothing: look at its cable."
