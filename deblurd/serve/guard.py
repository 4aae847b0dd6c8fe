"""Who may ask. Stands in front of everything else that answers."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import json
import secrets
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deblurd.errors import ConfigError

COOKIE = "deblurd"
MOST_BODY_BYTES = 64 * 1024
BODY_S = 10.0
LEAST_TOKEN = 16

_READING = ("GET", "HEAD")
_OPEN_PATHS = ("/", "/healthz", "/api/login")
_EMPTY_STYLE = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
"""Hash of nothing: the page holds one style element, empty, so that OpenSeadragon does not add its own."""

_HEADERS = {
    "content-security-policy": f"default-src 'none'; script-src 'self'; style-src 'self' {_EMPTY_STYLE}; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


class Access:
    """The rules. names: host names that the page goes by, beside localhost and bare addresses. token: None if all may ask."""

    def __init__(self, names: Iterable[str] = (), token: str | None = None) -> None:
        self._names = {"localhost", *(name.lower().rstrip(".") for name in names)}
        self._token_digest = None if token is None else _digest(token)

    def knows_host(self, host: str) -> bool:
        """Whether a Host header is ours. A bare address is: only a name can be bent to point at this machine by somebody else's DNS."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
            # raises for a port that is none
            _ = urlsplit(f"//{host}").port
        except ValueError:
            return False
        if not host or any(sign in host for sign in "/@?#\\ "):
            return False
        if name.rstrip(".") in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def knows_token(self, token: str) -> bool:
        return self._token_digest is None or secrets.compare_digest(_digest(token), self._token_digest)

    def cookie_for(self, token: str) -> str | None:
        """What a browser that has shown `token` is to keep; None if no token is asked for."""
        return None if self._token_digest is None else _digest(token)

    def admits(self, authorization: str, cookies: str) -> bool:
        """Whether the headers show the token, or what was kept of it."""
        if self._token_digest is None:
            return True
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() == "bearer" and self.knows_token(token.strip()):
            return True
        try:
            kept = SimpleCookie(cookies).get(COOKIE)
        except CookieError:
            return False
        return kept is not None and secrets.compare_digest(
            kept.value.encode("latin-1", "replace"), self._token_digest.encode()
        )


def read_token(path: Path | None) -> str | None:
    """The text of a token file, without blanks around it. Raises ConfigError where it cannot be read or is too short to be safe."""
    if path is None:
        return None
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError(
            f"serve.token_file {path} cannot be read ({err}): write a long random text into it, readable by this user only"
        ) from err
    if len(token) < LEAST_TOKEN:
        raise ConfigError(
            f"serve.token_file {path} holds fewer than {LEAST_TOKEN} characters, which could be guessed: write a long random text into it"
        )
    return token


class Guard:
    """Refuses, before any route sees it, what comes from another page, for another host, without the token, or with too large a body.

    Pages of other sites cannot read our answers, since no CORS header ever permits it; they could send, and so whatever is
    not a GET must come from our own page (Origin) or from no page at all. There are no WebSockets: all are refused.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refused = self._refusal(scope)
        if refused is None and scope["method"] not in _READING:
            body = await _body(scope, receive)
            if isinstance(body, bytes):
                receive = _replay(body, receive)
            else:
                refused = body
        if refused is not None:
            await _refuse(_protected(send), *refused)
            return
        await self._app(scope, receive, _protected(send))

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        hosts = _all(scope, b"host")
        if len(hosts) != 1 or not self._access.knows_host(hosts[0]):
            return (
                421,
                "this name is not known here: use the machine's address, or add the name to serve.names",
            )
        if scope["method"] not in _READING:
            origins = _all(scope, b"origin")
            own = all(_is_origin_of(origin, hosts[0]) for origin in origins)
            sites = _all(scope, b"sec-fetch-site")
            if len(origins) > 1 or not own or any(site not in ("same-origin", "none") for site in sites):
                return 403, "this request comes from another page: use deblurd's own page"
        path = scope["path"]
        if path in _OPEN_PATHS or path.startswith("/static/"):
            return None
        if not self._access.admits(
            "".join(_all(scope, b"authorization")[:1]), "; ".join(_all(scope, b"cookie"))
        ):
            return (
                401,
                "the token is missing or wrong: open the page and type it in, or send it as a bearer token",
            )
        return None


def _all(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _is_origin_of(origin: str, host: str) -> bool:
    """Whether a page of `host` has this Origin. "null" (a file, a sandboxed frame) is nobody's."""
    scheme, _, rest = origin.partition("://")
    return scheme in ("http", "https") and rest.lower() == host.lower()


async def _body(scope: Scope, receive: Receive) -> bytes | tuple[int, str]:
    """The whole body, or why it is refused."""
    too_large = 413, f"the request is larger than {MOST_BODY_BYTES // 1024} kB: nothing here needs so much"
    for length in _all(scope, b"content-length"):
        if not length.isdecimal() or int(length) > MOST_BODY_BYTES:
            return too_large
    body = b""
    try:
        async with asyncio.timeout(BODY_S):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return 400, "the request ended before its body did: send it again"
                body += bytes(message.get("body", b""))
                if len(body) > MOST_BODY_BYTES:
                    return too_large
                if not message.get("more_body", False):
                    return body
    except TimeoutError:
        return 408, f"the request's body took longer than {BODY_S:g} s: send it again"


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _protected(send: Send) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", []))
            there = {name for name, _ in headers}
            extra = _HEADERS | ({} if b"cache-control" in there else {"cache-control": "no-store"})
            message = {**message, "headers": headers + [(k.encode(), v.encode()) for k, v in extra.items()]}
        await send(message)

    return with_headers


async def _refuse(send: Send, status: int, sentence: str) -> None:
    body = json.dumps({"detail": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status in (408, 413):
        # what follows on this connection would be the rest of the body
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
