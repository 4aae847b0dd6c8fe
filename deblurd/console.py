"""What a run looks like in a terminal: one line of progress, and a table at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column, Table

from deblurd.daemon import Status
from deblurd.pipeline import describe_fusion, describe_gates
from deblurd.slides.catalog import Entry


@contextmanager
def live_status() -> Iterator[Callable[[Status], None]]:
    """A progress bar on stderr of tiles painted of tiles taken, with frames/s, what waits, and what was lost; nothing where no person looks."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda status: None
        return
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        console=console,
    ) as bar:
        task = bar.add_task("waiting for tissue", total=None, figures="")

        def show(status: Status) -> None:
            lost = sum(status.lost.values())
            figures = f"{status.frames_per_s:.1f} frames/s"
            total = painted = None
            if status.progress is not None:
                total, painted = status.progress.recorded, status.progress.painted
                figures += f", {total} tiles, {total - painted} waiting"
            if lost:
                figures += f", {lost} frames lost"
            description = status.trouble or status.slide or "waiting for new ground"
            bar.update(
                task, description=description, total=total or None, completed=painted or 0, figures=figures
            )

        yield show


@contextmanager
def count_bar(console: Console, description: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar of so many done of so many; gone when it is over."""
    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def report_table(report: Mapping[str, Any], name: str = "deblurd demo") -> Table:
    """A report for people: the same keys, nested ones on one line; without what there was none of."""
    # folded, since a path that is cut short leads nowhere
    columns = Column(), Column(overflow="fold")
    table = Table(*columns, title=f"{name}, for research use only", title_justify="left", show_header=False)
    for key, value in report.items():
        if value is None:
            continue
        if isinstance(value, Mapping):
            value = ", ".join(f"{k} {v}" for k, v in value.items()) or "none"
        table.add_row(key, escape(str(value)))
    return table


_NAMED = 8
"""So many tiles are named in a cell of a table."""

STATES = {
    "growing": "growing just now",
    "done": "done",
    "incomplete": "incomplete: resume it",
    "interrupted": "interrupted: resume it",
    "unreadable": "unreadable",
}


def slides_table(slides: Iterable[Entry]) -> Table:
    """One line for each slide."""
    # folded, since a name that is cut short names nothing
    columns = Column("slide", overflow="fold"), "state", Column("tiles", justify="right"), "model", "size, px"
    table = Table(*columns, "begun", title="slides, for research use only", title_justify="left")
    for each in slides:
        m = each.manifest
        tiles = "" if each.tiles is None else each.tiles
        name = f"{each.folder.path.parent.name}/{each.folder.name}"
        row = (name, STATES[each.state], tiles, _model(m), _size_px(m), _minute(m.get("begun")))
        table.add_row(*(escape(str(text)) for text in row))
    return table


def slide_table(slide: Entry) -> Table:
    """What is known of a slide, in words."""
    m = slide.manifest
    mosaic, microscope = m.get("mosaic") or {}, m.get("microscope") or {}
    covered = f", {100 * mosaic['covered']:.0f} % of it with tissue or ground" if "covered" in mosaic else ""
    closure = m.get("loop_closure_px")
    rows: dict[str, Any] = {
        "state": STATES[slide.state],
        "note": slide.note,
        "ended by": m.get("reason"),
        "begun": _minute(m.get("begun")),
        "ended": _minute(m.get("ended")),
        "tiles": None
        if slide.tiles is None
        else f"{slide.tiles} recorded, {m.get('tiles', 0)} in the mosaic",
        "deblurring": describe_gates(m["gates"]) if m.get("gates") else None,
        "fused": describe_fusion(m) if m.get("fused") else None,
        "left out": _tiles(m.get("damaged", []), "their raw pixels are damaged"),
        "weak places": _tiles(m.get("weak_tiles", []), "nothing in them matched a neighbour"),
        "matches agree": None if closure is None else f"to {closure:.2f} px",
        "mosaic": f"{_size_px(m)} px{covered}" if mosaic else None,
        "model": " ".join(filter(None, (_model(m), f"on {m['engine']}" if "engine" in m else ""))),
        "camera": microscope.get("camera"),
        "frames": m.get("frames"),
        "lost frames": ", ".join(f"{cause} {n}" for cause, n in m.get("dropped", {}).items() if n),
        "stitched from": m.get("stitched_from"),
        "joined from": " and ".join(m.get("joined_from", [])),
        "notes": "; ".join(m.get("notes", [])),
        "folder": slide.folder.path,
    }
    columns = Column(), Column(overflow="fold")
    title = f"{escape(slide.folder.name)}, for research use only"
    table = Table(*columns, title=title, title_justify="left", show_header=False)
    for key, value in rows.items():
        if value not in (None, ""):
            table.add_row(key, escape(str(value)))
    return table


def _model(manifest: Mapping[str, Any]) -> str:
    model = manifest.get("model", {})
    return " ".join(str(model[key]) for key in ("name", "version") if key in model)


def _size_px(manifest: Mapping[str, Any]) -> str:
    mosaic = manifest.get("mosaic") or {}
    return f"{mosaic['width_px']} x {mosaic['height_px']}" if "width_px" in mosaic else ""


def _minute(utc: str | None) -> str:
    """Of an ISO 8601 time."""
    return "" if utc is None else utc[:16].replace("T", " ")


def _tiles(indices: Sequence[int], why: str) -> str:
    most = ", ".join(map(str, indices[:_NAMED])) + (", ..." if len(indices) > _NAMED else "")
    return f"{len(indices)} ({most}): {why}" if indices else ""
