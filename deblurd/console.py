"""What a run looks like in a terminal: one line of progress, and a table at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
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
from deblurd.slides.catalog import Entry


@contextmanager
def live_status(console: Console) -> Iterator[Callable[[Status], None]]:
    """A progress bar of tiles painted of tiles taken, with frames/s, what waits, and what was lost."""
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
            description = status.slide or "waiting for new ground"
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


def report_table(report: Mapping[str, Any]) -> Table:
    """The report of a demo for people: the same keys, nested ones on one line."""
    # folded, since a path that is cut short leads nowhere
    columns = Column(), Column(overflow="fold")
    table = Table(
        *columns, title="deblurd demo, for research use only", title_justify="left", show_header=False
    )
    for key, value in report.items():
        if isinstance(value, Mapping):
            value = ", ".join(f"{k} {v}" for k, v in value.items()) or "none"
        table.add_row(key, escape(str(value)))
    return table


def slides_table(slides: Iterable[Entry]) -> Table:
    """One line for each slide."""
    table = Table("slide", "state", "tiles", "model", "began", title="slides, for research use only")
    for each in slides:
        m = each.manifest
        model = m.get("model", {}).get("name", "")
        row = (each.folder.path.name, each.state, m.get("tiles", ""), model, m.get("begun", ""))
        table.add_row(*(escape(str(text)) for text in row))
    return table


def slide_table(slide: Entry) -> Table:
    """What a slide's manifest says, but for its configuration."""
    columns = Column(), Column(overflow="fold")
    table = Table(*columns, title=escape(str(slide.folder.path)), title_justify="left", show_header=False)
    for key, value in ({"state": slide.state} | slide.manifest).items():
        if key == "config":
            continue
        if isinstance(value, Mapping):
            value = ", ".join(f"{k} {v}" for k, v in value.items()) or "none"
        table.add_row(key, escape(str(value)))
    return table
