"""The service under the real systemd: installed by README.md, started, asked, reloaded, killed, hung, stopped."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from deblurd.record.journal import Journal
from deblurd.slides.catalog import Entry, slides
from tests.systemd.nspawn import CONFIGURATION, CannotBoot, Machine, why_not

pytestmark = [
    pytest.mark.long,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(why_not() is not None, reason=f"no machine can be booted here: {why_not()}"),
]

CONFIG = "/etc/deblurd/deblurd.toml"
DROP_IN = "/etc/systemd/system/deblurd.service.d/hang.conf"
ORDERS = "/var/lib/deblurd/orders"

# a watchdog that does not let a test wait, and a model that hangs on order
HANGING = f"""\
[Service]
WatchdogSec=6
Environment=DEBLURD_FAULTS={ORDERS}
ExecStart=
ExecStart=/opt/deblurd/bin/python -m tests.soak.faulty run --config {CONFIG}
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    made = Machine(tmp_path_factory.mktemp("machine"))
    try:
        made.__enter__()
    except CannotBoot as err:
        pytest.skip(f"systemd does not come up in a container here: {err}")
    try:
        made.install()
        yield made
    finally:
        made.__exit__(None, None, None)


@pytest.fixture
def started(machine: Machine) -> Iterator[Machine]:
    """The service, scanning."""
    start(machine)
    yield machine
    machine.run("systemctl", "stop", "deblurd")
    machine.run("systemctl", "reset-failed", "deblurd")


def start(machine: Machine) -> None:
    machine.write(CONFIG, CONFIGURATION)
    machine.must("systemd-tmpfiles", "--create", "deblurd.conf")
    machine.must("systemctl", "start", "deblurd")
    until_scanning(machine)


def until_scanning(machine: Machine, fields: int = 3) -> None:
    def is_scanning() -> bool:
        found = re.match(r"Scanning a: (\d+) field", machine.show("StatusText"))
        return found is not None and int(found[1]) >= fields

    machine.until("scanning", is_scanning)


def known(machine: Machine) -> list[Entry]:
    return list(slides(machine.state / "slides", in_use=False))


def acknowledged(slide: Entry) -> int:
    with closing(Journal(slide.folder.journal, read_only=True)) as journal:
        return journal.count()


def fields(machine: Machine) -> list[dict[str, Any]]:
    """What is known of each tile of the only slide."""
    [slide] = slides(machine.state / "slides", in_use=True)
    with closing(Journal(slide.folder.journal, read_only=True)) as journal:
        return journal.rows()


def until_resumed(machine: Machine, folder: Path, tiles: int) -> None:
    """The slide of `folder`, which had at least so many tiles, is finished by what was started again."""

    def entry() -> Entry:
        [found] = [each for each in known(machine) if each.folder.path == folder]
        return found

    machine.until("resumed", lambda: entry().state == "done")
    assert (entry().tiles or 0) >= tiles
    assert entry().manifest["tiles"] == entry().tiles


def test_started_asked_reloaded_and_stopped(started: Machine) -> None:
    machine = started
    assert machine.run("systemd-analyze", "verify", "/etc/systemd/system/deblurd.service").stderr == ""
    assert machine.show("Type") == "notify"
    status = machine.status()
    assert "Active: active (running)" in status
    assert re.search(r'Status: "Scanning a: \d+ fields', status)
    # as the user that it is meant to have, which is in the groups that own the hardware
    pid = machine.show("MainPID")
    assert machine.must("ps", "-o", "user=", "-p", pid).strip() == "deblurd"
    groups = machine.must("id", "--name", "--groups", "deblurd").split()
    assert {"dialout", "video", "plugdev", "render"} <= set(groups)

    machine.write(CONFIG, CONFIGURATION.replace('name = "a"', 'nam = "b"'))
    refused = machine.run("systemctl", "reload", "deblurd")
    assert refused.returncode != 0
    assert (machine.show("ActiveState"), machine.show("MainPID")) == ("active", pid)
    assert re.search(r"deblurd.toml:\d+: .*nam", machine.journal())
    # whoever sends the signal himself is refused too
    machine.must("systemctl", "kill", "--kill-whom=main", "--signal=HUP", "deblurd")
    machine.until("refused", lambda: "configuration is refused" in machine.show("StatusText"))
    assert (machine.show("ActiveState"), machine.show("MainPID")) == ("active", pid)

    machine.write(CONFIG, CONFIGURATION.replace('name = "a"', 'name = "b"'))
    machine.must("systemctl", "reload", "deblurd")
    machine.until("taken", lambda: "slide.name counts from the next slide on" in machine.journal())
    machine.until("said", lambda: "refused" not in machine.show("StatusText"))
    assert machine.show("MainPID") == pid

    # the first fields may show bare glass
    machine.until("deblurred", lambda: any(row["gate"] == "deblur" for row in fields(machine)))
    machine.must("systemctl", "stop", "deblurd")
    assert (machine.show("Result"), machine.show("ExecMainStatus")) == ("success", "0")
    [slide] = known(machine)
    assert (slide.state, slide.manifest["reason"]) == ("done", "stopped")
    assert slide.manifest["engine"] == "CPU"
    assert slide.manifest["gates"].get("deblur", 0) > 0
    # in the lines of a slide stands its name, and each has its priority
    lines = [json.loads(line) for line in machine.journal("--output=json").splitlines()]
    said = {(line["PRIORITY"], line["MESSAGE"]) for line in lines if "deblurd.session:" in line["MESSAGE"]}
    assert any(priority == "6" and f"[{slide.folder.name}]" in text for priority, text in said)
    assert any(line["PRIORITY"] == "3" and "is refused" in line["MESSAGE"] for line in lines)
    # the group may look on, others may not
    assert (slide.folder.path.stat().st_mode & 0o777) == 0o750


def test_killed_started_again_and_the_slide_is_finished(started: Machine) -> None:
    machine = started
    until_scanning(machine, 10)
    slide = known(machine)[-1]
    restarts = int(machine.show("NRestarts"))
    machine.must("systemctl", "kill", "--kill-whom=main", "--signal=KILL", "deblurd")
    tiles = acknowledged(slide)
    assert tiles > 0
    machine.until("started again", lambda: int(machine.show("NRestarts")) == restarts + 1)
    until_resumed(machine, slide.folder.path, tiles)
    until_scanning(machine)


def test_hung_found_out_started_again_and_the_slide_is_finished(machine: Machine) -> None:
    orders = machine.state / "orders"
    machine.must("sh", "-c", f"mkdir -p {ORDERS} && chown deblurd {ORDERS}")
    machine.write(DROP_IN, HANGING)
    machine.must("systemctl", "daemon-reload")
    start(machine)
    until_scanning(machine, 10)
    slide = known(machine)[-1]
    restarts, pid = int(machine.show("NRestarts")), machine.show("MainPID")
    (orders / "model-hangs").write_text("3600")
    machine.until("said", lambda: "Stuck for" in machine.show("StatusText") or machine.show("MainPID") != pid)
    machine.until("started again", lambda: int(machine.show("NRestarts")) == restarts + 1)
    said = machine.journal()
    assert "deblur is stuck: it has not moved on for" in said
    assert "Watchdog timeout" in said
    # where each thread stood
    assert re.search(r'File ".*/faulty.py", line \d+ in slow_deblur', said)
    until_resumed(machine, slide.folder.path, acknowledged(slide))
    until_scanning(machine)
    machine.must("systemctl", "stop", "deblurd")
    machine.must("rm", DROP_IN)
    machine.must("systemctl", "daemon-reload")


def test_a_configuration_that_only_a_person_can_mend_is_not_tried_again(machine: Machine) -> None:
    machine.write(CONFIG, CONFIGURATION.replace('model = "fast"', 'model = "fats"'))
    assert machine.run("systemctl", "start", "deblurd").returncode != 0
    machine.until("failed", lambda: machine.show("ActiveState") == "failed")
    assert machine.show("ExecMainStatus") == "66"
    assert machine.show("NRestarts") == "0"
    assert "fats" in machine.status() or "fats" in machine.journal()
    machine.must("systemctl", "reset-failed", "deblurd")
