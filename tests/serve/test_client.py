"""`deblurd status` and the actions of `deblurd slides` before a real socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from deblurd.cli import main
from deblurd.errors import DataError, ServiceError, UsageError
from deblurd.serve.app import create_app
from deblurd.serve.client import Client
from deblurd.serve.guard import Access
from deblurd.serve.server import Server
from tests.serve.conftest import TOKEN, FakeView


@pytest.fixture
def url(view: FakeView) -> Iterator[str]:
    with Server(create_app(view, Access()), "127.0.0.1", 0) as server:
        yield server.url


def test_status_in_words(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--url", url]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "Scanning S-001: 412 fields, 3 gaps.",
        "900 frames, 29.9/s, lost: buffer 2",
        "412 fields, 398 painted, waiting: deblur 10",
        "fast (CPU); 1000 GB free, 7.5 h left at this rate",
    ]


def test_status_for_programs(url: str, view: FakeView, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--url", url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == view.status().model_dump(mode="json")


def test_a_failed_scan_is_seen_by_scripts(url: str, view: FakeView) -> None:
    view.state = "failed"
    assert main(["status", "--url", url]) == 70


@pytest.mark.parametrize("action", ["start", "finish", "pause", "discard"])
def test_slides_are_acted_upon(
    url: str, view: FakeView, action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["slides", action, "--url", url]) == 0
    assert capsys.readouterr().out == f"{action}: done\n"
    assert view.asked == [(action, "")]


def test_start_goes_on_with_a_paused_slide(
    url: str, view: FakeView, capsys: pytest.CaptureFixture[str]
) -> None:
    view.state = "paused"
    assert main(["slides", "start", "--url", url]) == 0
    assert view.asked == [("resume", "")]


def test_labels(url: str, view: FakeView, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["slides", "label", "S-002", "--url", url]) == 0
    assert view.asked == [("label", "S-002")]
    assert main(["slides", "label", "../S", "--url", url]) == UsageError.exit_code
    assert "cannot be a slide's name" in capsys.readouterr().err
    assert len(view.asked) == 1


def test_what_makes_no_sense_is_said_in_the_daemons_words(url: str) -> None:
    with pytest.raises(UsageError, match="not paused"):
        Client(url).act("resume")


def test_nobody_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--url", "http://127.0.0.1:1/"]) == ServiceError.exit_code
    assert "start it with `deblurd run`" in capsys.readouterr().err
    assert main(["status", "--url", "file:///etc/passwd"]) == UsageError.exit_code


def test_an_answer_of_another_program() -> None:
    async def other(scope: object, receive: object, send: object) -> None:
        assert callable(send)
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]}
        )
        await send({"type": "http.response.body", "body": b"{}"})

    with (
        Server(other, "127.0.0.1", 0) as server,
        pytest.raises(DataError, match="not as this version of deblurd does"),
    ):
        Client(server.url).status()


def test_the_token_comes_from_its_file(view: FakeView, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN, encoding="utf-8")
    with Server(create_app(view, Access(token=TOKEN)), "127.0.0.1", 0) as server:
        assert main(["status", "--url", server.url]) == ServiceError.exit_code
        assert main(["status", "--url", server.url, "--token-file", str(file)]) == 0
        config = tmp_path / "deblurd.toml"
        port = server.url.rstrip("/").rpartition(":")[2]
        config.write_text(
            f'[microscope]\nbackend = "simulator"\n[serve]\nhost = "0.0.0.0"\nport = {port}\ntoken_file = "token"\n',
            encoding="utf-8",
        )
        assert main(["status", "--config", str(config)]) == 0
        assert main(["slides", "finish", "--config", str(config)]) == 0
    assert view.asked == [("finish", "")]
