"""The web server, on a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from types import TracebackType

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from deblurd.errors import OutputError

log = logging.getLogger(__name__)

MOST_REQUESTS = 100
PATIENCE_S = 5.0
_END_S = 5.0


class _Impatient(H11Protocol):
    """Hangs up on who sends half a request and then nothing, and on who asks and does not take the answer: each would hold a place for ever."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._was_stuck = False
        self._look_again()

    def _look_again(self) -> None:
        self.loop.call_later(PATIENCE_S, self._look)

    def _look(self) -> None:
        if self.transport.is_closing():
            return
        answering = self.cycle is not None and not self.cycle.response_complete
        half_asked = self.cycle is None or bool(self.conn.trailing_data[0])
        is_stuck = self.flow.write_paused if answering else half_asked
        # stuck at two looks in a row: once may be just at the wrong moment
        if is_stuck and self._was_stuck:
            log.info("a client of the page hung, and was hung up on")
            self.transport.abort()
            return
        self._was_stuck = is_stuck
        self._look_again()


class Server:
    """Answers from `with` to the end of it. host, port: where; port 0: any that is free. `url` says where in the end.

    Raises OutputError where the address is taken or not this machine's.
    """

    def __init__(self, app: ASGIApp, host: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server((host, port), family=family, backlog=128)
        except OSError as err:
            raise OutputError(
                f"the page cannot be served at {host}, port {port} ({err.strerror or err}): is another deblurd running? "
                "Choose another serve.port, or set serve.enabled to false"
            ) from err
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._socket.getsockname()[1]}/"
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                log_level="warning",
                lifespan="off",
                ws="none",
                proxy_headers=False,
                server_header=False,
                limit_concurrency=MOST_REQUESTS,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=2,
                h11_max_incomplete_event_size=16 * 1024,
                http=_Impatient,
            )
        )
        self._thread = threading.Thread(target=self._run, name="deblurd-page", daemon=True)

    def __enter__(self) -> Server:
        self._thread.start()
        log.info("the page is at %s", self.url)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join(_END_S)
        self._socket.close()

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        except Exception:
            # the scan goes on without its page
            log.exception("the page ended by itself: restart deblurd when the slide is done")
