"""kill -9 in the middle of scans, again and again: no acknowledged tile may be lost, no leavings may stay.

python -m tests.soak.kill_nine [--kills 50] [--model wiener]

Each scan of the virtual microscope is killed at a random moment after its first tile, then resumed; the finished slide must hold every tile of the
journal, verify as whole, and be the same when it is made once more.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from deblurd.record.journal import Journal
from deblurd.resume import resume
from deblurd.slides.folder import SlideFolder
from deblurd.slides.verify import verify

_SCAN = ["--area-mm", "0.8", "0.6", "--fov-px", "256", "--blur-px", "10"]


def killed_scan(output: Path, model: str, wait_s: float) -> SlideFolder | None:
    """A slide whose daemon was killed `wait_s` after its first tile; None where it was done by then."""
    command = [sys.executable, "-m", "deblurd", "demo", *_SCAN, "--model", model, "--output", str(output)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not list(output.glob("demo/*/journal.sqlite")):
            time.sleep(0.005)
        time.sleep(wait_s)
        if process.poll() is not None:
            return None
        os.kill(process.pid, signal.SIGKILL)
    (journal,) = output.glob("demo/*/journal.sqlite")
    return SlideFolder(journal.parent)


def pixels(slide: SlideFolder) -> np.ndarray:
    level: Any = zarr.open_group(str(slide.mosaic), mode="r")["0"]
    return np.asarray(level[:])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--model", default="wiener")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    killed = done_before = empty = faults = 0
    while killed < options.kills:
        wait_s = rng.uniform(0.0, 12.0)
        with tempfile.TemporaryDirectory(prefix="deblurd-kill-") as folder:
            slide = killed_scan(Path(folder), options.model, wait_s)
            if slide is None:
                done_before += 1
                continue
            killed += 1
            journal = Journal(slide.journal)
            tiles = journal.count()
            journal.close()
            if tiles == 0:
                empty += 1
                continue
            finished, damaged = resume(slide)
            left = [p.name for p in slide.path.iterdir() if "scratch" in p.name or p.name.endswith(".part")]
            first = pixels(slide)
            resume(slide)
            same = np.array_equal(first, pixels(slide))
            bad = damaged or finished.tiles != tiles or verify(slide)[2] or left or not same
            faults += bool(bad)
            print(
                f"{killed:3d}  killed after {wait_s:5.2f} s  {tiles:3d} tiles recorded, {finished.tiles:3d} painted  "
                f"damaged {len(damaged)}  left over {len(left)}  same again {same}",
                flush=True,
            )
    print(
        f"{killed} kills, {empty} before the first tile, {done_before} scans were done before; faults: {faults}"
    )
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
