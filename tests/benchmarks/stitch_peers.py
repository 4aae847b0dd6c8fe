"""`deblurd stitch` beside ASHLAR and multiview-stitcher, on the same files in the same run, against known truth.

python -m tests.benchmarks.stitch_peers [SET ...] [--peers PYTHON] [--timeout 120] [--without TOOL]

PYTHON is an interpreter that has the other two (extra `bench`); this one if left out, and a tool that is not installed is left out too.
place_s, cpu_s: files read and placed, by the clock and in processor time; the latter tells more where others use the machine. whole_s: with the mosaic on disk; ours recorded, painted and closed as after a scan. Imports and
the start of processes are not counted. rms, max: of all tiles, and of those that are sure of their place by the sigma that we give (others overlap in noise, or can only follow the stage),
after the shift and the turn that suit each tool best. med: median of all after the shift alone, which a few lost tiles do not change.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deblurd.imagefiles import read_image
from deblurd.pipeline import SOLVE_FIRST, SOLVE_GROWTH
from deblurd.place.placer import Placer
from deblurd.stitch import stitch_folder
from tests.benchmarks.place_accuracy import SURE_PX
from tests.benchmarks.scan_sets import SLIDE, Scan, ScanSet, make, write_tiles

BASE = ScanSet(rows=8, columns=8, picture="slide")
MONO = BASE.but(picture="fluorescence", dtype="uint16", color=False)
PEERS = ("ashlar", "multiview-stitcher")

SETS = {
    "15 %": BASE,
    "10 %": BASE.but(overlap=0.10),
    "20 %": BASE.but(overlap=0.20),
    "sigma 5": BASE.but(stage_sigma_px=5.0),
    "sigma 20": BASE.but(stage_sigma_px=20.0),
    "1024 px": BASE.but(tile_px=1024, rows=4, columns=4),
    "2048 px": BASE.but(tile_px=2048, rows=3, columns=3),
    "blur 15 px": BASE.but(blur_px=15.0),
    "half empty": BASE.but(blank=0.5),
    "backlash 5 um": BASE.but(backlash_um=5.0),
    "affine 1 %, 1 deg": BASE.but(scale=1.01, rotation_deg=1.0),
    "fluorescence": MONO.but(overlap=0.20),
    "generated": BASE.but(picture="generated"),
    "2500 tiles": BASE.but(picture="generated", tile_px=256, rows=50, columns=50, color=False),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """places: (k, 2), px. whole_s: None where a tool only places."""

    places: NDArray[np.float64]
    place_s: float
    cpu_s: float
    whole_s: float | None


def ours(folder: Path, scan: Scan) -> tuple[Outcome, NDArray[np.bool_]]:
    """And which tiles are sure of their place."""
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    files = sorted(folder.glob("*.tif"))
    placer = Placer(
        scan.affine, scan.pixels[0].shape, 0.15, lambda index: read_image(files[index]), scan.encoding
    )
    solve_at = SOLVE_FIRST
    for tile, file in zip(scan.tiles, files, strict=True):
        placer.add(tile, read_image(file))
        if tile.index + 1 >= solve_at:
            placer.solve()
            solve_at = int(SOLVE_GROWTH * (tile.index + 1)) + 1
    placer.solve(is_last=True)
    place_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    began_s = time.perf_counter()
    stitched = stitch_folder(folder, folder.parent / "out", pixel_size_um=scan.affine.pixel_size_um)
    whole_s = time.perf_counter() - began_s
    with stitched.positions.open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    places = np.array([[float(row["y_px"]), float(row["x_px"])] for row in rows])
    sure = np.array([float(row["sigma_px"]) < SURE_PX for row in rows])
    return Outcome(places, place_s, cpu_s, whole_s), sure


def peer(python: str, tool: str, folder: Path, pixel_um: float, timeout_s: float) -> Outcome | str:
    """What came of it, or why nothing did."""
    script = Path(__file__).with_name("peers.py")
    command = [python, str(script), tool, str(folder), str(pixel_um)]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return f"not done in {timeout_s:g} s"
    if run.returncode:
        return (run.stderr.strip().splitlines() or [f"exit code {run.returncode}"])[-1][:90]
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return Outcome(np.array(found["places"]), found["place_s"], found["cpu_s"], found["whole_s"])


def line(name: str, tool: str, outcome: Outcome, scan: Scan, sure: NDArray[np.bool_], base: Outcome) -> str:
    every, best = scan.aligned_errors_px(outcome.places), scan.aligned_errors_px(outcome.places, sure)
    usual = float(np.median(scan.errors_px(outcome.places)))
    whole = "       -" if outcome.whole_s is None else f"{outcome.whole_s:8.2f}"
    return (
        f"{name:18s} {len(every):5d} {int(sure.sum()):5d} {tool:19s} {usual:7.3f} {np.sqrt((best**2).mean()):7.3f} {best.max():7.2f} "
        f"{np.sqrt((every**2).mean()):7.3f} {every.max():7.2f} {outcome.place_s:8.2f} {outcome.cpu_s:7.2f} {whole} "
        f"{outcome.place_s / base.place_s:7.1f} {outcome.cpu_s / base.cpu_s:6.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="*", choices=[[], *SETS], metavar="SET")
    parser.add_argument("--peers", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--timeout", type=float, default=120.0, metavar="S")
    parser.add_argument("--without", action="append", default=[], choices=PEERS)
    options = parser.parse_args()
    print(
        f"{'set':18s} tiles  sure {'tool':19s}     med    rms*    max*     rms     max  place_s   cpu_s  whole_s   ratio  (cpu)\n"
        "* of the tiles that are sure of their place",
        flush=True,
    )
    for name, scan_set in SETS.items():
        if options.sets and name not in options.sets:
            continue
        if not SLIDE.is_file() and scan_set.picture == "slide":
            scan_set = scan_set.but(picture="generated")
        scan = make(scan_set)
        with tempfile.TemporaryDirectory(prefix="deblurd-peers-") as temporary:
            folder = write_tiles(scan, Path(temporary) / "tiles", ".tif")
            base, sure = ours(folder, scan)
            print(line(name, "deblurd", base, scan, sure, base), flush=True)
            for tool in PEERS:
                if tool in options.without:
                    continue
                outcome = peer(options.peers, tool, folder, scan.affine.pixel_size_um, options.timeout)
                text = (
                    f"{name:18s} {'':11s} {tool:19s} {outcome}"
                    if isinstance(outcome, str)
                    else line(name, tool, outcome, scan, sure, base)
                )
                print(text, flush=True)


if __name__ == "__main__":
    main()
