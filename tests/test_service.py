"""A manager hears how it goes, by datagrams at a real socket; a bad configuration is refused; a hurried end is bounded."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deblurd import config, health, service
from deblurd.errors import ModelError
from deblurd.host.notify import Notifier
from deblurd.host.signals import Stop
from deblurd.service import Service
from deblurd.settings import Settings

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="systemd's sockets are Unix sockets")

GOOD = '[microscope]\nbackend = "simulator"\n[service]\ndrain_s = 0.1\nstuck_s = 5.0\n'


class Daemon:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.abandoned = threading.Event()
        self.model_is_there = True

    def reload(self, fresh: Settings) -> str:
        if not self.model_is_there:
            raise ModelError("there is no such model: install it")
        self.settings = fresh
        return "taken"

    def abandon(self) -> None:
        self.abandoned.set()


class World:
    """A service, its daemon, and what its manager hears."""

    def __init__(self, folder: Path) -> None:
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.listening.bind(str(folder / "notify"))
        self.listening.settimeout(20)
        self.file = folder / "deblurd.toml"
        self.file.write_text(GOOD, "utf-8")
        self.daemon = Daemon(config.load(self.file))
        self.stop, self.hangups = Stop(), queue.SimpleQueue[int]()
        self.sentence = "Waiting for a slide."
        environ = {"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "120000000"}
        self.notifier = Notifier(environ)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        with Service(self.daemon, self.file, lambda: self.sentence, self.stop, self.hangups, self.notifier):
            yield

    def hears(self, wanted: Callable[[str], bool]) -> list[str]:
        """All messages up to the first one that is wanted."""
        heard: list[str] = []
        while not heard or not wanted(heard[-1]):
            heard.append(self.listening.recv(65536).decode())
        return heard


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("faulthandler.enable", lambda _: None)
    made = World(tmp_path)
    yield made
    made.listening.close()


def test_ready_then_fed_with_a_status_that_follows_the_state(world: World) -> None:
    with world.at_work():
        assert world.hears("READY=1".__eq__) == ["STATUS=Waiting for a slide.", "READY=1"]
        world.hears("WATCHDOG=1".__eq__)
        world.sentence = "Scanning S-001: 412 fields."
        world.hears("STATUS=Scanning S-001: 412 fields.".__eq__)


def test_what_is_stuck_is_named_and_the_watchdog_goes_hungry(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with health.watched("deblur"), world.at_work():
        world.hears("WATCHDOG=1".__eq__)
        found = [health.Stuck("deblur", 61.2)]
        monkeypatch.setattr(health, "stuck", lambda patience_s: found)
        world.hears("STATUS=Stuck for 61 s: deblur.".__eq__)
        time.sleep(1.2)
        found.clear()
        fed = world.hears("WATCHDOG=1".__eq__)
        # nothing came between the word of it and the end of it
        assert "WATCHDOG=1" not in fed[:-1]
    said = [record.getMessage() for record in caplog.records if "stuck" in record.getMessage()]
    assert said == ["deblur is stuck: it has not moved on for 61 s; deblurd will be started again"]


def test_a_good_configuration_is_taken(world: World) -> None:
    with world.at_work():
        world.hears("READY=1".__eq__)
        world.file.write_text(GOOD + '[slide]\nname = "b"\n', "utf-8")
        world.hangups.put(1)
        heard = world.hears("READY=1".__eq__)
        assert [each for each in heard if each.startswith("RELOADING=1\nMONOTONIC_USEC=")]
        assert world.daemon.settings.slide.name == "b"


@pytest.mark.parametrize("fault", ["typo", "no file", "no model"])
def test_a_bad_one_is_refused_and_said_until_a_good_one_comes(
    world: World, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    with world.at_work():
        world.hears("READY=1".__eq__)
        running = world.daemon.settings
        if fault == "typo":
            world.file.write_text(GOOD + '[slide]\nnam = "b"\n', "utf-8")
        elif fault == "no file":
            world.file.unlink()
        else:
            world.daemon.model_is_there = False
        world.hangups.put(1)
        world.hears("READY=1".__eq__)
        status = world.hears(lambda each: each.startswith("STATUS="))[-1]
        assert status.startswith("STATUS=Waiting for a slide. The new configuration is refused")
        assert world.daemon.settings is running
        assert any("is refused" in record.getMessage() for record in caplog.records)
        world.file.write_text(GOOD, "utf-8")
        world.daemon.model_is_there = True
        world.hangups.put(1)
        world.hears("STATUS=Waiting for a slide.".__eq__)


def test_in_haste_painting_has_so_long_and_otherwise_as_long_as_it_takes(world: World) -> None:
    with world.at_work():
        world.stop.set()
        world.hears("STOPPING=1".__eq__)
        assert not world.daemon.abandoned.wait(1.5)
        world.stop.in_haste = True
        assert world.daemon.abandoned.wait(10)


def test_what_hangs_does_not_hold_up_the_end_for_ever(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    left: queue.SimpleQueue[int] = queue.SimpleQueue()
    monkeypatch.setattr(service, "LEAVE_S", 0.2)
    monkeypatch.setattr("os._exit", left.put)
    with world.at_work():
        world.stop.set()
        world.stop.in_haste = True
        assert left.get(timeout=10) == service.HUNG
        assert world.daemon.abandoned.is_set()


def test_the_last_word_is_why_it_ended(world: World) -> None:
    with pytest.raises(ModelError), world.at_work():
        raise ModelError("the camera is gone: look at its cable")
    world.hears("STATUS=the camera is gone: look at its cable".__eq__)
