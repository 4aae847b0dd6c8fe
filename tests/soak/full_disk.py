"""A disk that is full in the middle of a scan, and a slide folder that is taken away: nothing acknowledged may be lost.

python -m tests.soak.full_disk [--rounds 6] [--model wiener]

Linux, and the right to mount: each scan of the virtual microscope writes to a small disk in memory, which something else fills at a random
moment; every second time the slide's folder is renamed in place of that. Then there is room again (the folder is back), and the slide is resumed.
It must hold every tile of the journal, verify as whole, leave nothing lying about, and have the mosaic of an undisturbed run.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from deblurd.errors import DeblurdError
from deblurd.slides.catalog import entry
from deblurd.slides.folder import SlideFolder
from tests.soak.kill_nine import DEBLURD, SCAN, faults_of, start, wait_for

DISK = "720m"
"""More than the least that a slide wants before it begins."""

PATIENCE_S = 30.0


@contextlib.contextmanager
def small_disk(size: str = DISK) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="deblurd-disk-") as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 18))
    return filler


def scan(output: Path, model: str, errors: Path) -> subprocess.Popen[bytes]:
    with errors.open("wb") as file:
        process = subprocess.Popen(
            [*DEBLURD, "demo", *SCAN, "--model", model, "--output", str(output)],
            stdout=subprocess.DEVNULL,
            stderr=file,
        )
    wait_for(process, lambda: any(output.glob("demo/*/journal.sqlite")))
    return process


def ended(process: subprocess.Popen[bytes]) -> int | None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(PATIENCE_S)
    return None


def disturb(disk: Path, model: str, wait_s: float, taken_away: bool) -> tuple[str, int, list[str]]:
    """What happened, the tiles that were acknowledged, and what is wrong after the slide was resumed."""
    output, errors = disk / "slides", disk / "errors.txt"
    process = scan(output, model, errors)
    (path,) = output.glob("demo/demo_*")
    time.sleep(wait_s)
    if taken_away:
        aside = path.with_name("aside")
        path.rename(aside)
        code = ended(process)
        if path.exists():
            return "made a folder where the slide was", 0, [f"{sorted(p.name for p in path.iterdir())}"]
        aside.rename(path)
    else:
        filler = fill(disk)
        code = ended(process)
        filler.unlink()
    if code is None:  # it waits for room
        code = process.wait()
    said = errors.read_text("utf-8", errors="replace").strip().splitlines()
    slide = SlideFolder(path)
    found = entry(slide, in_use=False)
    before = f"exit {code}, {found.state}: {said[-1] if said and code else ''}"
    if found.state != "done":
        resumed = start("slides", "resume", str(path)).wait()
        if resumed:
            return before, found.tiles or 0, [f"resuming ended with {resumed}"]
    return before, found.tiles or 0, faults_of(slide, found.tiles or 0, disk)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--model", default="wiener")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, bad = random.Random(options.seed), 0
    for number in range(options.rounds):
        wait_s, taken_away = rng.uniform(0.2, 5.0), number % 2 == 1
        with small_disk() as disk:
            try:
                what, tiles, faults = disturb(disk, options.model, wait_s, taken_away)
            except DeblurdError as err:
                what, tiles, faults = "the slide cannot be read", 0, [str(err)]
        bad += bool(faults)
        name = "folder taken away" if taken_away else "disk full"
        print(
            f"{name} after {wait_s:.1f} s: {what}; {tiles} tiles; faults: {'; '.join(faults) or 'none'}",
            flush=True,
        )
    print(f"{options.rounds} rounds, {bad} with faults")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
