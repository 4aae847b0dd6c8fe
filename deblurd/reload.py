"""A new configuration while the daemon runs: what the next slide takes, and what waits for a restart."""

from __future__ import annotations

from dataclasses import dataclass

from deblurd.settings import Settings

LIVE = ("slide", "deblur", "mosaic", "service")
"""Sections that a slide takes when it begins, or that are looked at whenever they count."""

FIXED = ("mosaic.output",)
"""Of these sections: what is locked while the daemon lives."""


@dataclass(frozen=True, slots=True)
class Reload:
    """settings: what counts from now on. taken, waiting: names of the settings that changed, "deblur.model", and those of them that a restart takes."""

    settings: Settings
    taken: tuple[str, ...]
    waiting: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """For people."""
        if not self.taken and not self.waiting:
            return "The configuration was read again and says nothing new."
        parts = []
        if self.taken:
            parts.append(f"{', '.join(self.taken)} counts from the next slide on")
        if self.waiting:
            parts.append(f"{', '.join(self.waiting)} counts after a restart")
        return f"The configuration was read again: {'; '.join(parts)}."


def reload(running: Settings, fresh: Settings) -> Reload:
    """`running` with what it can take of `fresh`."""
    old, new = running.model_dump(), fresh.model_dump()
    taken: list[str] = []
    waiting: list[str] = []
    updates = {}
    for section in type(running).model_fields:
        # a section that is not there, as [simulator] may be, has no settings
        before, after = old[section] or {}, new[section] or {}
        changed = [key for key in before | after if before.get(key) != after.get(key)]
        fixed = [key for key in changed if section not in LIVE or f"{section}.{key}" in FIXED]
        taken += [f"{section}.{key}" for key in changed if key not in fixed]
        waiting += [f"{section}.{key}" for key in fixed]
        if section in LIVE:
            kept = {key: getattr(getattr(running, section), key) for key in fixed}
            updates[section] = getattr(fresh, section).model_copy(update=kept)
    return Reload(running.model_copy(update=updates), tuple(taken), tuple(waiting))
