"""Warnings of the log in the journal of the slide that grows."""

from __future__ import annotations

import logging
from pathlib import Path

from deblurd.errors import OutputError
from deblurd.record.journal import Journal
from deblurd.record.noted import NotedWarnings

log = logging.getLogger("deblurd.acquire.stream")


def test_what_goes_wrong_while_a_slide_grows_stands_in_its_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    log.warning("before")
    noted = NotedWarnings(journal.event)
    noted.start()
    log.info("all is well")
    log.warning("%d frame(s) lost", 3)
    log.error("the stage is gone")
    logging.getLogger("zarr").warning("somebody else's")
    noted.stop()
    log.warning("after")
    assert [(kind, text) for _, _, kind, text in journal.events()] == [
        ("warning", "3 frame(s) lost"),
        ("error", "the stage is gone"),
    ]
    journal.close()


def test_a_disk_that_is_full_does_not_end_the_noting() -> None:
    seen: list[str] = []

    def event(kind: str, text: str) -> None:
        seen.append(text)
        if text == "one":
            raise OutputError("the disk is full: make room")

    noted = NotedWarnings(event)
    noted.start()
    log.warning("one")
    log.warning("two")
    noted.stop()
    assert seen == ["one", "two"]
