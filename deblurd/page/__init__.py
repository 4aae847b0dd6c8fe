"""The page of a daemon at work: what `serve` wants to know, taken from the daemon and the output folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from deblurd.daemon import Daemon
from deblurd.page.daemon_view import DaemonView
from deblurd.page.series_shelf import SeriesShelf
from deblurd.serve.alerts import AlertLog
from deblurd.serve.app import create_app
from deblurd.serve.guard import Access, read_token
from deblurd.serve.server import Server


@dataclass(frozen=True, slots=True)
class Page:
    """url: its address; None: the configuration wants none. view: what it shows, for others who want to know."""

    url: str | None
    view: DaemonView


@contextmanager
def open_page(daemon: Daemon) -> Iterator[Page]:
    """Serves the page of `daemon`, as configured, until the end of the `with`.

    Raises OutputError where the address is taken, ConfigError where the token cannot be read.
    """
    settings = daemon.settings.serve
    alerts, logger = AlertLog(), logging.getLogger("deblurd")
    view = DaemonView(daemon, alerts)
    if not settings.enabled:
        yield Page(None, view)
        return
    # also without [trajectories]: those of earlier runs can be looked at
    shelf = SeriesShelf(daemon.settings.mosaic.output)
    app = create_app(view, Access(settings.names, read_token(settings.token_file)), shelf)
    with Server(app, settings.host, settings.port) as server:
        logger.addHandler(alerts)
        try:
            yield Page(server.url, view)
        finally:
            logger.removeHandler(alerts)
