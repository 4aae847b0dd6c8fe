"""`deblurd run` under a manager that is this test: what systemd would hear, and what it would do."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deblurd.errors import ConfigError, NoInputError
from deblurd.slides.catalog import slides

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGHUP and no SIGTERM"),
    pytest.mark.slow,
]

Hears = Callable[[str], str]


def configuration(folder: Path, name: str = "a", model: str = "raw", more: str = "") -> Path:
    file = folder / "deblurd.toml"
    file.write_text(
        '[microscope]\nbackend = "simulator"\nexposure_ms = 5.0\nencoding = "srgb"\nlatency_ms = 15.0\n'
        "[simulator]\nslide_size_mm = [3.0, 2.0]\nfov_px = [128, 128]\n"
        '[scan]\nmode = "serpentine"\narea_mm = [2.8, 1.8]\nspeed_um_s = 500.0\n'
        f'[deblur]\nmodel = "{model}"\n[mosaic]\noutput = {json.dumps(str(folder / "slides"))}\n'
        f'[slide]\nname = "{name}"\n[serve]\nenabled = false\n{more}',
        "utf-8",
    )
    return file


@contextmanager
def managed(file: Path) -> Iterator[tuple[subprocess.Popen[str], Hears]]:
    """The daemon, and what waits for a message that fits a pattern."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        path = str(file.with_name("notify"))
        manager.bind(path)
        manager.settimeout(60)
        environ = os.environ | {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "60000000"}

        def hears(pattern: str) -> str:
            while not re.search(pattern, message := manager.recv(65536).decode()):
                pass
            return message

        with subprocess.Popen(
            [sys.executable, "-m", "deblurd", "run", "--config", str(file)],
            env=environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process, hears
            finally:
                process.kill()


def test_ready_scanning_reloaded_refused_stopped(tmp_path: Path) -> None:
    file = configuration(tmp_path)
    with managed(file) as (process, hears):
        hears("^READY=1$")
        hears("^WATCHDOG=1$")
        assert re.search(r"STATUS=Scanning a: \d+ field", hears("STATUS=Scanning"))
        configuration(tmp_path, name="b", more="[simulator]\nseed = 2\n")
        file.write_text(file.read_text("utf-8").replace("seed", "sed"), "utf-8")
        process.send_signal(signal.SIGHUP)
        hears("^RELOADING=1\nMONOTONIC_USEC=")
        hears("^READY=1$")
        refused = hears("refused")
        assert "deblurd.toml:" in refused
        configuration(tmp_path, name="b", model="no-such-model")
        process.send_signal(signal.SIGHUP)
        hears("^READY=1$")
        assert "no-such-model" in hears("refused")
        configuration(tmp_path, name="b", model="wiener")
        process.send_signal(signal.SIGHUP)
        hears("^READY=1$")
        assert "refused" not in hears("^STATUS=")
        process.terminate()
        hears("^STOPPING=1$")
        assert process.stderr is not None
        said = process.stderr.read()
        assert process.wait(60) == 0
    assert "deblur.model, slide.name counts from the next slide on" in said
    assert said.count("is refused") == 2
    [slide] = slides(tmp_path / "slides")
    # the slide at work keeps what it began with
    assert (slide.state, slide.manifest["slide_id"], slide.manifest["model"]["name"]) == ("done", "a", "raw")
    assert slide.manifest["reason"] == "stopped"
    about = [line for line in said.splitlines() if "deblurd.session:" in line]
    assert any(f"[{slide.folder.name}]" in line for line in about)


@pytest.mark.parametrize(
    ("text", "code"),
    [("[microscope]\nbackend = 'simulato'\n", ConfigError.exit_code), (None, NoInputError.exit_code)],
)
def test_a_start_that_is_bound_to_fail_tells_systemd_not_to_try_again(
    tmp_path: Path, text: str | None, code: int
) -> None:
    file = tmp_path / "deblurd.toml"
    if text is not None:
        file.write_text(text, "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "deblurd", "run", "--config", str(file)], check=False, capture_output=True
    )
    assert done.returncode == code
    unit = Path(__file__).parents[2] / "systemd" / "deblurd.service"
    [never] = re.findall(r"^RestartPreventExitStatus=(.*)$", unit.read_text("utf-8"), re.MULTILINE)
    assert str(code) in never.split()
