"""The states of a slide, and which follows which."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Literal

from deblurd.errors import DeblurdError
from deblurd.record.journal import Journal
from deblurd.slides.folder import SlideFolder

log = logging.getLogger(__name__)

Live = Literal["idle", "armed", "scanning", "paused", "closing"]
"""What a microscope can be at: see `State`."""

State = Literal[Live, "done", "incomplete", "interrupted"]
"""idle: nothing begins by itself. armed: tissue under a moving stage begins a slide. scanning, paused: a slide is at work. closing: its
end has come, and it is painted; a short gap can still turn out to be none. done, incomplete: it has ended, whole or not. interrupted: found
unfinished at the next start.
"""

NEXT: dict[State, frozenset[State]] = {
    "idle": frozenset({"armed", "scanning"}),
    "armed": frozenset({"idle", "scanning"}),
    "scanning": frozenset({"paused", "closing", "interrupted"}),
    "paused": frozenset({"scanning", "closing", "interrupted"}),
    "closing": frozenset({"scanning", "done", "incomplete", "interrupted"}),
    "done": frozenset(),
    "incomplete": frozenset(),
    "interrupted": frozenset(),
}


class Story:
    """What became of one slide: its `state`, each change with its reason handed to `note` as (state, reason)."""

    def __init__(self, note: Callable[[str, str], None], state: State = "armed") -> None:
        self._note, self.state = note, state

    def end(self, folder: SlideFolder, state: Literal["done", "incomplete"], reason: str) -> None:
        """The last change, when the slide's own journal has been closed already."""
        self._note = partial(_note_late, folder)
        self.to(state, reason)

    def to(self, state: State, reason: str) -> None:
        """Raises ValueError, and changes nothing, where `state` does not follow the present one."""
        if state not in NEXT[self.state]:
            raise ValueError(f"a slide that is {self.state} does not become {state}")
        self.state = state
        self._note(state, reason)


def _note_late(folder: SlideFolder, kind: str, text: str) -> None:
    """An event for the journal of a slide that was closed."""
    try:
        journal = Journal(folder.journal)
        try:
            journal.event(kind, text)
        finally:
            journal.close()
    except DeblurdError as err:
        # the manifest says the same
        log.warning("%s", err)
