"""What of a new configuration counts at once, and what waits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deblurd.reload import LIVE, reload
from deblurd.settings import Settings


def settings(**sections: dict[str, Any]) -> Settings:
    return Settings.model_validate({"microscope": {"backend": "simulator"}, **sections})


def test_the_next_slide_takes_name_model_and_mosaic() -> None:
    fresh = settings(slide={"name": "b"}, deblur={"model": "wiener"}, mosaic={"refresh_s": 1.0})
    found = reload(settings(), fresh)
    assert found.settings == fresh
    assert found.taken == ("deblur.model", "mosaic.refresh_s", "slide.name")
    assert found.waiting == ()
    assert "slide.name counts from the next slide on" in found.sentence


def test_the_microscope_the_output_and_the_page_wait_for_a_restart() -> None:
    fresh = settings(
        simulator={"seed": 7},
        mosaic={"output": Path("elsewhere"), "refresh_s": 1.0},
        serve={"port": 9000},
        slide={"name": "b"},
    )
    running = settings()
    found = reload(running, fresh)
    assert found.settings.mosaic.output == running.mosaic.output
    assert found.settings.simulator == running.simulator
    assert found.settings.serve == running.serve
    assert found.settings.slide.name == "b"
    assert found.waiting == ("simulator.seed", "mosaic.output", "serve.port")
    assert "serve.port counts after a restart" in found.sentence


def test_the_same_again_is_nothing_new() -> None:
    found = reload(settings(), settings())
    assert (found.taken, found.waiting) == ((), ())
    assert "nothing new" in found.sentence


def test_another_microscope_is_named() -> None:
    fresh = Settings.model_validate({"microscope": {"config_file": "x.cfg"}})
    found = reload(settings(), fresh)
    assert "microscope.backend" in found.waiting
    assert "simulator.seed" in found.waiting
    assert found.settings == settings()


@pytest.mark.parametrize("section", LIVE)
def test_live_sections_exist(section: str) -> None:
    assert section in Settings.model_fields
