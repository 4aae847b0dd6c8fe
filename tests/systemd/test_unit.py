"""The unit is one that systemd understands, and leaves little to be attacked."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "systemd"

pytestmark = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed here"
)


def analyze(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *words, str(folder / "deblurd.service")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"LC_ALL": "C", "NO_COLOR": "1", "SYSTEMD_PAGER": ""},
    )


@pytest.fixture(params=["alone", "on a LAN"])
def units(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The unit's folder, with and without the drop-in, and with programs that are installed."""
    folder = tmp_path / "units"
    shutil.copytree(UNITS, folder)
    if request.param == "alone":
        shutil.rmtree(folder / "deblurd.service.d")
    unit = folder / "deblurd.service"
    text = unit.read_text("utf-8")
    assert text.count("/opt/deblurd/bin/deblurd ") == 2
    unit.write_text(text.replace("/opt/deblurd/bin/deblurd ", f"{shutil.which('true')} "), "utf-8")
    return folder


def test_systemd_has_nothing_to_say_about_it(units: Path) -> None:
    # it ends with 0 for a key that it does not know, and says so
    found = analyze("verify", folder=units)
    assert (found.stdout, found.stderr, found.returncode) == ("", "", 0)


def test_the_words_of_the_check_are_understood(units: Path) -> None:
    unit = units / "deblurd.service"
    unit.write_text(unit.read_text("utf-8").replace("WatchdogSec=", "WatchdogSecs="), "utf-8")
    assert "WatchdogSecs" in analyze("verify", folder=units).stderr


def test_its_exposure_is_at_most_2(units: Path) -> None:
    found = analyze("security", "--offline=yes", folder=units)
    [score] = re.findall(r"Overall exposure level for deblurd.service: ([\d.]+)", found.stdout)
    assert float(score) <= 2.0


def test_time_to_stop_and_the_watchdog_fit_the_settings() -> None:
    from deblurd.settings import ServiceSettings

    unit = dict(re.findall(r"^(\w+)=(\d+)$", (UNITS / "deblurd.service").read_text("utf-8"), re.MULTILINE))
    defaults = ServiceSettings()
    assert int(unit["TimeoutStopSec"]) >= defaults.drain_s + 15
    assert int(unit["WatchdogSec"]) >= 10
