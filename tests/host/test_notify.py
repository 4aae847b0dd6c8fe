"""What systemd is told, as datagrams at a real socket; and nothing where nobody listens."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deblurd.host.notify import Notifier

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="systemd's sockets are Unix sockets")


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket as systemd makes it, and what NOTIFY_SOCKET says of it."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@deblurd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        try:
            listening.bind(name.replace("@", "\0"))
        except OSError:
            pytest.skip("only Linux has abstract sockets")
        listening.settimeout(10)
        yield listening, name


def test_each_message_is_one_datagram(manager: tuple[socket.socket, str]) -> None:
    listening, name = manager
    notifier = Notifier({"NOTIFY_SOCKET": name})
    assert notifier.is_heard
    notifier.ready()
    notifier.status("Scanning S-001: 412 fields,\n3 gaps")
    notifier.alive()
    notifier.stopping()
    assert [listening.recv(4096).decode() for _ in range(4)] == [
        "READY=1",
        "STATUS=Scanning S-001: 412 fields, 3 gaps",
        "WATCHDOG=1",
        "STOPPING=1",
    ]


def test_a_reload_names_its_moment_on_the_monotonic_clock(manager: tuple[socket.socket, str]) -> None:
    listening, name = manager
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    Notifier({"NOTIFY_SOCKET": name}).reloading()
    first, second = listening.recv(4096).decode().splitlines()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert first == "RELOADING=1"
    key, moment = second.split("=")
    assert key == "MONOTONIC_USEC"
    assert before <= int(moment) <= after


@pytest.mark.parametrize(
    ("watchdog", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_ours_or_nobodys(watchdog: dict[str, str], seconds: float | None) -> None:
    assert Notifier({"NOTIFY_SOCKET": "/run/systemd/notify", **watchdog}).watchdog_s == seconds


def test_nothing_happens_where_nobody_asked_to_be_told() -> None:
    notifier = Notifier({"WATCHDOG_USEC": "30000000"})
    assert not notifier.is_heard
    assert notifier.watchdog_s is None
    notifier.ready()
    notifier.status("nobody hears this")


def test_a_manager_that_is_gone_or_does_not_read_holds_nobody_up(tmp_path: Path) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(tmp_path / "deaf"))
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "deaf")})
        for _ in range(3000):
            notifier.alive()
