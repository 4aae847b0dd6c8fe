"""A machine of its own, booted by the real systemd in a container, with deblurd installed in it as README.md says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import psutil

ROOT = Path(__file__).parents[2]
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"

BOOT_S = 60.0

TOOLS = ("systemd-nspawn", "nsenter", "dbus-daemon")

ENVIRONMENT = {"LD_LIBRARY_PATH": "/opt/python/lib", "PYTHONPATH": "/srv/deblurd"}
"""This Python lies elsewhere than it was built for, and this checkout is not among its packages."""

CONFIGURATION = """\
[microscope]
backend = "simulator"
exposure_ms = 5.0
encoding = "srgb"
latency_ms = 15.0
[simulator]
slide_size_mm = [3.0, 2.0]
fov_px = [128, 128]
[scan]
mode = "serpentine"
area_mm = [2.8, 1.8]
speed_um_s = 300.0
[deblur]
model = "fast"
[mosaic]
output = "/var/lib/deblurd/slides"
[slide]
name = "a"
[service]
stuck_s = 5.0
drain_s = 20.0
"""


def why_not() -> str | None:
    """Why no machine can be booted here, as far as that can be told without trying."""
    if not sys.platform.startswith("linux"):
        return "systemd runs on Linux only"
    import os

    if os.geteuid() != 0:
        return "only root may boot a container"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} not installed (Debian: systemd-container, util-linux, dbus)"
    return None


class CannotBoot(Exception):
    """The machine did not come up; the text is the last of what it said."""


class Machine:
    """Booted from `with` to its end; its root folder is in memory, its /usr is this machine's, read-only.

    folder: for what it needs here; folder/state is its /var/lib/deblurd. Raises CannotBoot.
    """

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.state.mkdir()
        self._opt, self._log = folder / "opt", folder / "console"
        self._make_opt()

    def _make_opt(self) -> None:
        """A virtual environment as `python3 -m venv /opt/deblurd` and `pip install .` leave it, with packages that are mounted."""
        (self._opt / "bin").mkdir(parents=True)
        (self._opt / "lib" / PYTHON / "site-packages").mkdir(parents=True)
        (self._opt / "pyvenv.cfg").write_text(
            "home = /opt/python/bin\ninclude-system-site-packages = false\n"
        )
        (self._opt / "bin" / "python").symlink_to(f"/opt/python/bin/{PYTHON}")
        program = self._opt / "bin" / "deblurd"
        program.write_text(
            "#!/opt/deblurd/bin/python\nimport sys\nfrom deblurd.cli import main\nsys.exit(main())\n"
        )
        program.chmod(0o755)

    def __enter__(self) -> Machine:
        packages = sysconfig.get_path("purelib")
        binds = {
            self._opt: "/opt/deblurd",
            Path(sys.base_prefix): "/opt/python",
            Path(packages): f"/opt/deblurd/lib/{PYTHON}/site-packages",
            ROOT: "/srv/deblurd",
        }
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "systemd-nspawn", "--directory=/", "--volatile=yes", "--boot", "--register=no", "--keep-unit",
                    "--private-network", f"--bind={self.state}:/var/lib/deblurd",
                    *(f"--bind-ro={here}:{there}" for here, there in binds.items()),
                    "systemd.firstboot=off",
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            self._await_boot()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        # the end of nspawn ends the container, whatever runs in it
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _await_boot(self) -> None:
        end_s = time.perf_counter() + BOOT_S
        while time.perf_counter() < end_s and self._process.poll() is None:
            children = psutil.Process(self._process.pid).children()
            if children:
                self._init = children[0].pid
                if self.run("systemctl", "is-system-running", "--wait").stdout.strip() in (
                    "running",
                    "degraded",
                ):
                    return
            time.sleep(0.2)
        said = self._log.read_text("utf-8", errors="replace").strip().splitlines()
        raise CannotBoot(said[-1] if said else "it said nothing")

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command in the machine, as root."""
        return subprocess.run(
            [
                "nsenter",
                f"--target={self._init}",
                "--mount",
                "--uts",
                "--ipc",
                "--net",
                "--pid",
                "--cgroup",
                *words,
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env={
                **ENVIRONMENT,
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "LC_ALL": "C.UTF-8",
                "SYSTEMD_PAGER": "",
                "SYSTEMD_COLORS": "0",
            },
        )

    def must(self, *words: str) -> str:
        """The output of a command that succeeds."""
        done = self.run(*words)
        assert done.returncode == 0, f"{' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def write(self, path: str, text: str) -> None:
        self.must("sh", "-c", 'mkdir -p "$(dirname "$1")" && printf %s "$2" > "$1"', "sh", path, text)

    def install(self) -> None:
        """What README.md tells to type, but for the packages, which are mounted."""
        section = (ROOT / "README.md").read_text("utf-8").split("## As a service\n")[1]
        block = re.findall(r"```\n(.*?)```", section, re.DOTALL)[0]
        for line in block.splitlines():
            assert line.startswith("sudo ")
            if not line.endswith(("venv /opt/deblurd", "pip install .")):
                self.must("sh", "-c", f"cd /srv/deblurd && {line.removeprefix('sudo ')}")
        environment = " ".join(f"{key}={value}" for key, value in ENVIRONMENT.items())
        self.write(
            "/etc/systemd/system/deblurd.service.d/test.conf",
            f"[Service]\nEnvironment={environment}\nRestartSec=1\n",
        )
        self.must("systemctl", "daemon-reload")

    # --- the service ---

    def show(self, name: str) -> str:
        return self.must("systemctl", "show", "--property", name, "--value", "deblurd").strip()

    def until(self, what: str, seen: Callable[[], bool], patience_s: float = 90.0) -> None:
        end_s = time.perf_counter() + patience_s
        while not seen():
            assert time.perf_counter() < end_s, f"never {what}:\n{self.status()}\n{self.journal()[-6000:]}"
            time.sleep(0.2)

    def status(self) -> str:
        return self.run("systemctl", "status", "--no-pager", "--lines=0", "deblurd").stdout

    def journal(self, *words: str) -> str:
        return self.must("journalctl", "--unit=deblurd", "--no-pager", "--output=short", *words)
