"""The daemon for half an hour, with a fault every 20 seconds: no tile lost, memory flat, the page answers, every fault named.

python -m tests.soak.soak [--minutes 30] [--tiles 5000] [--every 20] [--seed 0]

This is the daemon's service manager: it is told how things are, starts the daemon again where it died or hung, as systemd would, and in
between injects one fault after the other (tests/soak/faulty.py). The daemon's technician drives over one patch of a virtual slide after
the other. In the end every slide is finished, and each must hold and show every tile that was acknowledged, and verify as whole.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from deblurd.errors import DeblurdError
from deblurd.resume import resume_all
from deblurd.slides.catalog import slides
from deblurd.slides.verify import verify
from tests.soak.faulty import FAULTS

CONFIGURATION = """\
[microscope]
backend = "simulator"
exposure_ms = 5.0
encoding = "srgb"
latency_ms = 15.0
hang_s = 2.0
[simulator]
slide_size_mm = [4.0, 3.0]
fov_px = [256, 256]
[scan]
mode = "watch"
speed_um_s = 500.0
[deblur]
model = "fast"
threads = 1
[slide]
name = "soak"
home_um = [-1500.0, -1500.0]
home_s = 0.5
resume_s = 0.0
# one slide after the other of the same tissue
start = "field"
idle_end_s = 15.0
[service]
stuck_s = 30.0
[serve]
port = 0
[mosaic]
output = {output}
"""

PATIENCE_S = 120.0
"""The longest that a fault may stay unnamed, or the daemon away."""

WATCHDOG_S = 30.0

CALM_S = 1.5
"""After a fault, so that the next one is not taken for the same."""

HANGING_CLIENTS = 20


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to fail: what is ordered (by the name in FAULTS, if it has one) for how many seconds, and by which words it is known."""

    name: str
    seconds: float
    known_by: str


NAMED = (
    Fault("camera-stops", 5.0, "the camera stopped by itself"),
    Fault("camera-hangs", 4.0, "the camera sent nothing for too long"),
    Fault("stage-silent", 3.0, "a reading of the stage was left out"),
    Fault("stage-nan", 2.0, "which is no place"),
    Fault("disk-full", 5.0, "MB are free for"),
    Fault("model-slow", 12.0, "deblur"),
    Fault("page-hangs", 8.0, "a client of the page hung, and"),
    Fault("kill", 0.0, "is interrupted and is being finished"),
    Fault("model-hangs", 300.0, "deblur is stuck"),
)
RARE = ("kill", "model-hangs")
"""These end the process: between them it lives long enough to show whether its memory grows."""


@dataclass
class Life:
    """One process of the daemon: its resident memory, MB, every two seconds."""

    rss_mb: list[float] = field(default_factory=list)

    @property
    def growth(self) -> float | None:
        """Of the last third over the second, medians; None where it was short."""
        third = len(self.rss_mb) // 3
        # caches and the first slides fill for two minutes
        if third < 40:
            return None
        return float(np.median(self.rss_mb[-third:]) / np.median(self.rss_mb[third:-third]))


class Manager:
    """Starts the daemon, hears what it tells, and starts it again where it ends or is stuck; as systemd does, from `with` to its end."""

    def __init__(self, folder: Path, configuration: str = CONFIGURATION) -> None:
        self.output, self.orders, self.log_file = folder / "slides", folder / "orders", folder / "log"
        self.orders.mkdir()
        self._config = folder / "deblurd.toml"
        self._config.write_text(configuration.format(output=json.dumps(str(self.output))), "utf-8")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / "notify"))
        self._socket.settimeout(0.5)
        self._environ = os.environ | {
            "NOTIFY_SOCKET": str(folder / "notify"),
            "WATCHDOG_USEC": str(int(1e6 * WATCHDOG_S)),
            "DEBLURD_FAULTS": str(self.orders),
            "DEBLURD_TECHNICIAN": "1",
            "PYTHONUNBUFFERED": "1",
        }
        self.lives: list[Life] = []
        self.exits: list[int] = []
        self.is_up = threading.Event()
        self.status = ""
        self._stopping = self._ending = False
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._hear, self._watch)]

    def __enter__(self) -> Manager:
        self._start()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._stopping = True
        for thread in self._threads:
            thread.join()
        self._socket.close()

    def _start(self) -> None:
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.soak.faulty", "run", "--config", str(self._config)],
                stdout=log, stderr=log, env=self._environ,
            )  # fmt: skip
        self._fed_s = time.perf_counter() + PATIENCE_S
        self.lives.append(Life())

    def _hear(self) -> None:
        while not self._stopping:
            try:
                message = self._socket.recv(65536).decode()
            except TimeoutError:
                continue
            if message == "READY=1":
                self.is_up.set()
            elif message == "WATCHDOG=1":
                self._fed_s = time.perf_counter()
            elif message.startswith("STATUS="):
                self.status = message.removeprefix("STATUS=")

    def _watch(self) -> None:
        looked_s = 0.0
        while not self._stopping:
            time.sleep(0.2)
            now_s = time.perf_counter()
            if self.is_up.is_set() and not self._ending and now_s - self._fed_s > WATCHDOG_S:
                self.process.send_signal(signal.SIGABRT)
            if (code := self.process.poll()) is not None:
                self.is_up.clear()
                self.exits.append(code)
                if self._stopping or code == 0:
                    return
                time.sleep(1.0)
                self._start()
            elif now_s - looked_s > 2.0 and self.is_up.is_set():
                looked_s = now_s
                with contextlib.suppress(psutil.Error):
                    self.lives[-1].rss_mb.append(psutil.Process(self.process.pid).memory_info().rss / 1e6)

    @property
    def log(self) -> str:
        return self.log_file.read_text("utf-8", errors="replace")

    @property
    def url(self) -> str:
        return str(re.findall(r"the page is at (http://\S+)/", self.log)[-1])

    def stop(self) -> int:
        """Ends it in order; its exit code."""
        self._ending = True
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(150)


class Prober(threading.Thread):
    """Asks the page for its state four times a second, while the daemon is up: seconds of each answer, and what went wrong."""

    def __init__(self, manager: Manager) -> None:
        super().__init__(daemon=True)
        self._manager = manager
        self.ended = threading.Event()
        self.seconds: list[float] = []
        self.failures: list[str] = []
        self.newest: dict[str, Any] = {}

    def run(self) -> None:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while not self.ended.wait(0.25):
            if not self._manager.is_up.is_set():
                continue
            process, began_s = self._manager.process, time.perf_counter()
            try:
                with opener.open(f"{self._manager.url}/api/status", timeout=10) as answer:
                    self.newest = json.loads(answer.read())
                self.seconds.append(time.perf_counter() - began_s)
            except (OSError, ValueError, IndexError) as err:
                time.sleep(0.5)
                if process is self._manager.process and process.poll() is None:
                    self.failures.append(str(err))


@contextlib.contextmanager
def hanging_clients(url: str) -> Iterator[None]:
    """Some say half a sentence, some ask for pictures and never take them."""
    host, port = url.removeprefix("http://").split(":")
    with contextlib.ExitStack() as stack:
        for n in range(HANGING_CLIENTS):
            wire = stack.enter_context(socket.create_connection((host, int(port)), timeout=5))
            half = b"GET /api/live/camera.jpg HTTP/1.1\r\nHost: localhost\r\n"
            with contextlib.suppress(OSError):
                wire.sendall(half if n % 2 else (half + b"\r\n") * 20)
        yield


class Soak:
    """Faults, one after the other, on a daemon at work; `faults` says of each whether and after how many seconds it was named."""

    def __init__(self, manager: Manager, prober: Prober, say: Callable[[str], None]) -> None:
        self._manager, self._prober, self._say = manager, prober, say
        self.faults: dict[str, list[float | None]] = {}

    def inject(self, fault: Fault) -> None:
        """Returns when it has been named and is over, or was not named in time."""
        manager = self._manager
        if not manager.is_up.wait(PATIENCE_S):
            raise RuntimeError(f"the daemon does not come up:\n{manager.log[-3000:]}")
        before, lives, began_s = len(manager.log), len(manager.lives), time.perf_counter()
        with contextlib.ExitStack() as stack:
            if fault.name in FAULTS:
                order = manager.orders / f".{fault.name}"
                order.write_text(str(fault.seconds), "utf-8")
                order.rename(manager.orders / fault.name)
            elif fault.name == "kill":
                manager.is_up.clear()
                manager.process.kill()
            else:
                stack.enter_context(hanging_clients(manager.url))
            named_s = self._await_name(fault, before, began_s)
            if fault.name in RARE:
                # what comes next, its end too, is for the process that follows
                while len(manager.lives) == lives and time.perf_counter() < began_s + PATIENCE_S:
                    time.sleep(0.1)
            else:
                time.sleep(max(0.0, began_s + fault.seconds + CALM_S - time.perf_counter()))
        self.faults.setdefault(fault.name, []).append(named_s)
        took = "not named" if named_s is None else f"named after {named_s:.1f} s"
        self._say(f"{fault.name}: {took}; {manager.status}")

    def _await_name(self, fault: Fault, before: int, began_s: float) -> float | None:
        while (passed_s := time.perf_counter() - began_s) < PATIENCE_S:
            if fault.name == "model-slow":
                # no news, a number: what waits
                if self._prober.newest.get("backlog", {}).get("deblur", 0) >= 2:
                    return passed_s
            elif fault.known_by in self._manager.log[before:]:
                return passed_s
            time.sleep(0.1)
        return None


def lost_tiles(output: Path) -> tuple[int, int, list[str]]:
    """Slides, acknowledged tiles, and what is wrong with them. What is not finished is finished first."""
    told: list[str] = []
    resume_all(output, told.append, threading.Event())
    tiles, count, faults = 0, 0, []
    for slide in slides(output, in_use=False):
        count += 1
        tiles += slide.tiles or 0
        if slide.state != "done" or slide.manifest.get("tiles") != slide.tiles:
            shown = slide.manifest.get("tiles")
            faults.append(
                f"{slide.folder.name} is {slide.state}, with {shown} of {slide.tiles} tiles {slide.note}"
            )
            continue
        if not slide.tiles:
            # ended before its first tile: there is nothing to look at, and no journal
            continue
        try:
            faults += [f"{slide.folder.name}: {fault}" for fault in verify(slide.folder)[2]]
        except DeblurdError as err:
            faults.append(f"{slide.folder.name}: {err}")
    return count, tiles, faults + [sentence for sentence in told if "could not" in sentence]


def order_of(rng: random.Random, kills: int, count: int) -> Iterator[Fault]:
    """All faults again and again, each time shuffled; those of RARE only now and then."""
    by_name = {fault.name: fault for fault in NAMED}
    common = [fault for fault in NAMED if fault.name not in RARE]
    rare_at = {int((n + 1) * count / (kills + 1)): RARE[n % 2] for n in range(kills)}
    waiting: list[Fault] = []
    for n in range(count):
        if n in rare_at:
            yield by_name[rare_at[n]]
            continue
        if not waiting:
            waiting = rng.sample(common, len(common))
        yield waiting.pop()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--tiles", type=int, default=5000)
    parser.add_argument("--every", type=float, default=20.0)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    seconds = 60 * options.minutes
    began_s = time.perf_counter()

    def say(text: str) -> None:
        print(f"{time.perf_counter() - began_s:6.0f} s  {text}", flush=True)

    with tempfile.TemporaryDirectory(prefix="deblurd-soak-") as name:
        folder = Path(name)
        with Manager(folder) as manager:
            prober = Prober(manager)
            prober.start()
            soak = Soak(manager, prober, say)
            rng, faults = random.Random(options.seed), int(seconds / options.every)
            for n, fault in enumerate(order_of(rng, options.kills, faults)):
                due_s = began_s + (n + 1) * options.every
                while time.perf_counter() < due_s:
                    time.sleep(0.1)
                passed_s, tiles = time.perf_counter() - began_s, acknowledged(manager.output)
                if passed_s > seconds or tiles >= options.tiles:
                    break
                soak.inject(fault)
            manager.is_up.wait(PATIENCE_S)
            prober.ended.set()
            prober.join()
            code = manager.stop()
        count, tiles, wrong = lost_tiles(manager.output)
        bad = report(soak, prober, manager, code, count, tiles, wrong)
        if bad:
            print(manager.log[-20_000:])
    sys.exit(1 if bad else 0)


def acknowledged(output: Path) -> int:
    """Tiles of all slides so far."""
    return sum(slide.tiles or 0 for slide in slides(output, in_use=True)) if output.is_dir() else 0


def report(
    soak: Soak, prober: Prober, manager: Manager, code: int, count: int, tiles: int, wrong: list[str]
) -> list[str]:
    """Prints what came of it; returns what is wrong."""
    table = Table(title="soak: faults", title_justify="left")
    for column in ("fault", "times", "named", "after, s (median)"):
        table.add_column(column, justify="left" if column == "fault" else "right")
    bad = list(wrong)
    for name, found in sorted(soak.faults.items()):
        named = [each for each in found if each is not None]
        table.add_row(name, str(len(found)), str(len(named)), f"{np.median(named):.1f}" if named else "")
        if len(named) < len(found):
            bad.append(f"{name} was not named {len(found) - len(named)} times")
    console = Console(width=100)
    console.print(table)
    ms = 1000 * np.array(prober.seconds or [np.nan])
    print(f"{count} slides, {tiles} tiles acknowledged, wrong: {'; '.join(wrong) or 'nothing'}")
    print(
        f"page: {len(prober.seconds)} answers, {np.percentile(ms, 50):.0f} ms median, {np.percentile(ms, 95):.0f} ms at 95 %, {ms.max():.0f} ms at most; {len(prober.failures)} without an answer"
    )
    for n, life in enumerate(manager.lives):
        grown = "" if life.growth is None else f", last third over the middle one {life.growth:.3f}"
        if life.rss_mb:
            print(
                f"process {n + 1}: {2 * len(life.rss_mb)} s, {np.median(life.rss_mb):.0f} MB median, {max(life.rss_mb):.0f} MB at most{grown}"
            )
        if life.growth is not None and life.growth > 1.1:
            bad.append(f"the memory of process {n + 1} grew")
    print(f"exit codes: {manager.exits}, in the end {code}")
    if code != 0:
        bad.append(f"it ended with {code}")
    bad += [f"the page did not answer: {failure}" for failure in prober.failures]
    print(f"in all: {'; '.join(bad) or 'nothing wrong'}")
    return bad


if __name__ == "__main__":
    main()
