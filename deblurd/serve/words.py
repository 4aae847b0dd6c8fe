"""Every text that people read, in one file that the page reads too: static/texts.json."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

FILE = Path(__file__).parent / "static" / "texts.json"


@cache
def texts() -> dict[str, str]:
    """Texts by key, some with {places} to fill."""
    content: dict[str, str] = json.loads(FILE.read_text("utf-8"))
    return content


def say(key: str, **places: object) -> str:
    """The text under `key`, filled in. A number in `places` called n also chooses the singular, under `key.one`."""
    found = texts()
    one = found.get(f"{key}.one")
    return (one if one is not None and places.get("n") == 1 else found[key]).format(**places)


def state_sentence(
    state: str,
    slide: str,
    fields: int = 0,
    painted: int = 0,
    gaps: int = 0,
    speed_um_s: float = 0.0,
    limit_um_s: float | None = None,
    why: str | None = None,
    trouble: str | None = None,
) -> str:
    """The state in plain words: "Scanning S-001: 412 fields, 3 gaps, slow down to 4.1 mm/s.".

    state: of a text "state.<state>". why: what stopped or holds the scan. trouble: why no frames come, a sentence.
    """
    parts = [say("n_fields", n=fields)]
    if gaps:
        parts.append(say("n_gaps", n=gaps))
    if limit_um_s is not None and speed_um_s > limit_um_s:
        parts.append(say("slow_down", speed=speed_text(limit_um_s)))
    sentence = say(
        f"state.{state}", slide=slide, parts=", ".join(parts), painted=painted, fields=fields, why=why
    )
    if trouble is None:
        return sentence
    return say("state.trouble", sentence=sentence, trouble=as_sentence(trouble))


def as_sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def speed_text(um_s: float) -> str:
    """ "4.1 mm/s", "320 um/s" """
    return f"{um_s / 1000:.1f} mm/s" if um_s >= 1000 else f"{um_s:.0f} µm/s"
