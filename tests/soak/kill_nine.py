"""kill -9 in the middle of scans, again and again: no acknowledged tile may be lost, and no pixel may differ.

python -m tests.soak.kill_nine [--kills 50] [--model wiener]

Each scan of the virtual microscope is killed at a random moment of its life, and then resumed by the command; every third
resumption is killed as well, and resumed. The finished slide must hold every tile of the journal, verify as whole, leave nothing
lying about, and have the very mosaic that an undisturbed run makes of the same frames.
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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from rich.console import Console
from rich.table import Table

from deblurd.deblur.model import find_model
from deblurd.errors import DeblurdError
from deblurd.frames import Frame
from deblurd.pipeline import SlidePipeline, make_deblurrer
from deblurd.record.journal import Journal
from deblurd.record.raw import RawStore
from deblurd.settings import Settings
from deblurd.slides.camera import Camera
from deblurd.slides.catalog import entry
from deblurd.slides.folder import SlideFolder
from deblurd.slides.verify import verify

SCAN = ("--area-mm", "0.8", "0.6", "--fov-px", "256", "--blur-px", "10")
DEBLURD = (sys.executable, "-m", "deblurd")


def start(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*DEBLURD, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def scan(output: Path, model: str, words: Sequence[str] = SCAN) -> subprocess.Popen[bytes]:
    """A demo that has just made the folder of its slide."""
    process = start("demo", *words, "--model", model, "--output", str(output))
    wait_for(process, lambda: any(output.glob("demo/*")))
    return process


def wait_for(process: subprocess.Popen[bytes], seen: Callable[[], bool]) -> None:
    """Until the process has done what can be seen from outside, or has ended."""
    while not seen():
        try:
            process.wait(0.005)
            return
        except subprocess.TimeoutExpired:
            continue


def killed_after(process: subprocess.Popen[bytes], wait_s: float) -> bool:
    """Whether the process still lived `wait_s` from now, and was killed."""
    try:
        process.wait(wait_s)
        return False
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        return True


def arrays(mosaic: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Every level of image and provenance, and where level 0 begins."""
    group = zarr.open_group(str(mosaic), mode="r")
    ome: Any = group.attrs["ome"]
    datasets = ome["multiscales"][0]["datasets"]
    names = [f"{prefix}{each['path']}" for each in datasets for prefix in ("", "labels/source/")]
    levels: dict[str, Any] = {name: group[name] for name in names}
    shift = datasets[0]["coordinateTransformations"][1]["translation"]
    return {"origin": np.array(shift)} | {name: np.asarray(level[:]) for name, level in levels.items()}


def differences(a: Path, b: Path) -> list[str]:
    """In what two mosaics differ; empty where every pixel of every level and of the provenance is the same."""
    first, second = arrays(a), arrays(b)
    names = sorted(first.keys() | second.keys())
    return [
        name
        for name in names
        if name not in first or name not in second or not np.array_equal(first[name], second[name])
    ]


def undisturbed(slide: SlideFolder, output: Path) -> SlideFolder:
    """The slide that the frames of `slide` make when they come from a camera and nothing happens in between."""
    settings = Settings.model_validate(slide.read_manifest()["config"])
    journal, raw = Journal(slide.journal, read_only=True), RawStore.open(slide.raw)
    camera, tiles = Camera.from_json(journal.slide("camera")), journal.tiles()
    journal.close()
    deblurrer = make_deblurrer(find_model(settings.deblur.model), camera, settings.deblur)
    folder = SlideFolder.create(output, "undisturbed")
    pipeline = SlidePipeline(folder, camera, deblurrer, settings)
    for tile in tiles:
        frame = Frame(raw.read(tile.index), tile.number, tile.pose.t_s, tile.exposure_ms, tile.sequence)
        pipeline.intake(frame, tile)
    finished = pipeline.finish()
    deblurrer.close()
    if finished.failure is not None:
        raise finished.failure
    return folder


def leavings(slide: SlideFolder) -> list[str]:
    """What only a slide at work may hold."""
    stray = [*slide.path.rglob("*.part*"), *slide.path.glob("scratch*"), *slide.path.glob("*before*")]
    return [str(path.relative_to(slide.path)) for path in stray + list(slide.path.glob("journal.sqlite-*"))]


def faults_of(slide: SlideFolder, tiles: int, output: Path) -> list[str]:
    """What is wrong with a slide that was killed with so many acknowledged tiles, and resumed."""
    found = entry(slide, in_use=False)
    if found.state != "done" or found.tiles != tiles or found.manifest["tiles"] != tiles:
        return [f"{found.state} with {found.manifest.get('tiles')} of {tiles} tiles {found.note}"]
    faults = [f"left over: {name}" for name in leavings(slide)]
    if tiles == 0:
        return faults
    return (
        faults
        + verify(slide)[2]
        + [f"other pixels in {name}" for name in differences(slide.mosaic, undisturbed(slide, output).mosaic)]
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--model", default="wiener")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, table, bad = random.Random(options.seed), Table(title="kill -9, then resume"), 0
    for column in ("kill", "after, s", "tiles", "then", "faults"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory(prefix="deblurd-kill-") as folder:
        began_s = time.perf_counter()
        scan(Path(folder), options.model).wait()
        (whole,) = Path(folder).glob("demo/*/slide.json")
        # what comes after is the demo's own comparison
        life_s = float(time.perf_counter() - began_s)
        assert entry(SlideFolder(whole.parent)).state == "done"
    killed = 0
    while killed < options.kills:
        # every fifth while the slide is being made
        wait_s = rng.uniform(0.0, 0.1 if killed % 5 == 4 else 0.6 * life_s)
        with tempfile.TemporaryDirectory(prefix="deblurd-kill-") as folder:
            if not killed_after(scan(Path(folder), options.model), wait_s):
                continue
            killed += 1
            (path,) = (each for each in Path(folder).glob("demo/*") if each.is_dir())
            slide, then = SlideFolder(path), "resumed"
            if not slide.exists:
                table.add_row(str(killed), f"{wait_s:.2f}", "0", "an empty folder", "none")
                continue
            state, tiles = (found := entry(slide)).state, found.tiles or 0
            if state == "done":
                then = "was done"
            elif killed % 3 == 0 and killed_after(start("slides", "resume", str(path)), rng.uniform(0.5, 3)):
                then = "resumed, killed, resumed"
            start("slides", "resume", str(path)).wait()
            try:
                faults = faults_of(slide, tiles, Path(folder))
            except DeblurdError as err:
                faults = [str(err)]
            bad += bool(faults)
            row = (str(killed), f"{wait_s:.2f}", str(tiles), then, "; ".join(faults) or "none")
            table.add_row(*row)
            print(*row, flush=True)
    Console().print(table)
    print(f"{killed} kills, {bad} with faults")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
