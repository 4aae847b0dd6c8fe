"""The daemon's API, for the command line on the same machine or on another."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from pydantic import ValidationError

from deblurd.errors import DataError, ServiceError, UsageError
from deblurd.serve.view import Action, Status

TIMEOUT_S = 10.0
_MOST_BYTES = 1_000_000


class Client:
    """A daemon whose page is at `url`. token: where one is asked for.

    Every method raises ServiceError where nobody answers or the token is missing, UsageError where the daemon says that it makes no sense
    now, DataError for an answer that is not deblurd's.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"{url!r} is no address of a page: give one such as http://127.0.0.1:8765/")
        self._url, self._token = url.rstrip("/"), token

    def status(self) -> Status:
        try:
            return Status.model_validate(self._ask("/api/status"))
        except ValidationError as err:
            raise DataError(
                f"{self._url} answers, but not as this version of deblurd does: use the version that runs there"
            ) from err

    def act(self, action: Action, text: str = "") -> str:
        """The sentence that says what was done."""
        answer = self._ask(f"/api/actions/{action}", {"text": text})
        return str(answer.get("detail", "")) if isinstance(answer, dict) else ""

    def _ask(self, path: str, body: dict[str, str] | None = None) -> Any:
        headers = {"content-type": "application/json"}
        if self._token is not None:
            headers["authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, headers)
        # a proxy of the house has no business between a program and this machine
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=TIMEOUT_S) as answer:
                return json.loads(answer.read(_MOST_BYTES))
        except urllib.error.HTTPError as err:
            raise _refusal(self._url, err) from err
        except (OSError, ValueError) as err:
            reason = getattr(err, "reason", None) or err
            raise ServiceError(
                f"no deblurd answers at {self._url} ({reason}): start it with `deblurd run`, or give its address with --url"
            ) from err


def _refusal(url: str, err: urllib.error.HTTPError) -> UsageError | ServiceError:
    try:
        sentence = str(json.loads(err.read(_MOST_BYTES))["detail"])
    except (OSError, ValueError, KeyError, TypeError):
        sentence = f"{url} answers {err.code} ({err.reason}): is it deblurd?"
    return UsageError(sentence) if err.code in (409, 422) else ServiceError(sentence)
