"""What slides are called: templates of the configuration, filled in."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from string import Formatter

SLIDE_ID = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$"
"""A name that is a folder everywhere: it begins with no dot, so it is neither hidden nor the way out of the folder."""

_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that Windows keeps for itself."""

_WIDTH = re.compile(r"0?\d")

NAME_FIELDS = ("counter", "date", "operator")
FOLDER_FIELDS = ("slide_id", "utc", "counter", "operator")

_MOST_TRIED = 100_000


def is_slide_id(text: str) -> bool:
    return (
        re.fullmatch(SLIDE_ID, text) is not None
        and not text.endswith(".")
        and _DEVICES.fullmatch(text) is None
    )


def as_slide_id(text: str) -> str | None:
    """A barcode's text as a slide_id, with "-" for what cannot stand in one; None where nothing is left."""
    found = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:64].rstrip("-.")
    return found if is_slide_id(found) else None


def check_template(template: str, fields: Iterable[str]) -> None:
    """Raises ValueError, in a sentence, where `template` has other {places} than `fields`, or gives no name of a folder."""
    known = tuple(fields)
    try:
        places = [(name, spec) for _, name, spec, _ in Formatter().parse(template) if name is not None]
        unknown = next((name for name, _ in places if name not in known), None)
        # two digits of width at most
        odd = next(
            (spec for name, spec in places if spec and not (name == "counter" and _WIDTH.fullmatch(spec))),
            None,
        )
        sample = (
            ""
            if unknown is not None or odd
            else fill(template, slide_id="a", utc=datetime(2026, 1, 1), counter=1, operator="a")
        )
    except ValueError as err:
        raise ValueError(f"this template cannot be filled in ({err})") from err
    if unknown is not None:
        raise ValueError(f"there is no {{{unknown}}}: write {', '.join(f'{{{name}}}' for name in known)}")
    if odd is not None:
        raise ValueError(f'a place cannot be formatted as ":{odd}": only a counter can, as in {{counter:03}}')
    if not is_slide_id(sample):
        raise ValueError(
            f'it would give "{sample}", and no folder is called so: use letters, digits, . _ and -, at most 64, and no dot first'
        )


def fill(template: str, *, slide_id: str, utc: datetime, counter: int, operator: str | None) -> str:
    """Raises ValueError where a format in it does not fit."""
    return template.format(
        slide_id=slide_id,
        utc=utc.strftime("%Y%m%dT%H%M%SZ"),
        date=utc.strftime("%Y%m%d"),
        counter=counter,
        operator=operator or "nobody",
    )


def next_slide_id(output: Path, template: str, utc: datetime, operator: str | None) -> str:
    """The name of a slide without a label: where the template counts, the first that `output` does not hold yet."""
    name = ""
    for counter in range(1, _MOST_TRIED):
        before, name = name, fill(template, slide_id="", utc=utc, counter=counter, operator=operator)
        if name == before or not (output / name).exists():
            break
    return name


def folder_name(output: Path, template: str, slide_id: str, utc: datetime, operator: str | None) -> str:
    """counter: how many folders the slide has already, and one."""
    there = output / slide_id
    counter = sum(each.is_dir() for each in there.iterdir()) + 1 if there.is_dir() else 1
    return fill(template, slide_id=slide_id, utc=utc, counter=counter, operator=operator)
