"""How exactly tiles are placed, and what it costs; against known truth.

python -m tests.benchmarks.place_accuracy [SET ...]

rms, max: of the tiles that are sure of their place, by their own sigma. less sure: of those whose overlaps are nearly empty. stage: of those in which
nothing matches, so that only the stage tells. ms/tile: processor time, with the solves on the way.
"""

from __future__ import annotations

import sys
import time

import cv2
import numpy as np

from deblurd.frames import Pixels
from deblurd.pipeline import SOLVE_FIRST, SOLVE_GROWTH
from deblurd.place.placer import Placer
from tests.benchmarks.scan_sets import SLIDE, Scan, ScanSet, make

SURE_PX = 0.15
"""Tiles whose place is said to be known to this are looked at by themselves: their matches show more than noise."""

SIDE = ScanSet(rows=8, columns=8)
MONO = SIDE.but(picture="fluorescence", dtype="uint16", color=False)
BIG = {"rows": 3, "columns": 3}

SETS = {
    "generated 15 %": SIDE,
    "generated 10 %": SIDE.but(overlap=0.10),
    "generated 20 %": SIDE.but(overlap=0.20),
    "sigma 20": SIDE.but(stage_sigma_px=20.0),
    "noise 8": SIDE.but(noise=8.0),
    "vignetting 30 %": SIDE.but(vignetting=0.3),
    "affine 1 %, 1 deg": SIDE.but(scale=1.01, rotation_deg=1.0),
    "backlash 5 um": SIDE.but(backlash_um=5.0),
    "5 % stray readings": SIDE.but(stray=0.05),
    "half empty": SIDE.but(blank=0.5),
    "half nearly empty": SIDE.but(blank=0.5, trace=0.02),
    "blur 15 px": SIDE.but(blur_px=15.0),
    "blur 40 px": SIDE.but(blur_px=40.0),
    "fluorescence 10 %": MONO.but(overlap=0.10),
    "fluorescence 20 %": MONO.but(overlap=0.20),
    "1024 px": SIDE.but(tile_px=1024, **BIG),
    "2048 px": SIDE.but(tile_px=2048, **BIG),
    "1024 tiles of 256 px": SIDE.but(tile_px=256, rows=32, columns=32, color=False),
    "slide 10 %": SIDE.but(picture="slide", overlap=0.10),
    "slide 15 %": SIDE.but(picture="slide"),
    "slide 20 %": SIDE.but(picture="slide", overlap=0.20),
    "slide sigma 20": SIDE.but(picture="slide", stage_sigma_px=20.0),
    "slide, 5 % stray": SIDE.but(picture="slide", stray=0.05),
    "slide half empty": SIDE.but(picture="slide", blank=0.5),
    "slide blur 15 px": SIDE.but(picture="slide", blur_px=15.0),
    "slide blur 20 px, 20 %": SIDE.but(picture="slide", blur_px=20.0, overlap=0.2),
}


def run(name: str, scan: Scan) -> str:
    """One line of the table: errors, cost per tile and of the last solve."""
    raw: dict[int, Pixels] = {}
    placer = Placer(scan.affine, scan.pixels[0].shape, 0.15, raw.__getitem__, scan.encoding)
    solve_at, began_s = SOLVE_FIRST, time.process_time()
    for tile, pixels in zip(scan.tiles, scan.pixels, strict=True):
        raw[tile.index] = pixels
        placer.add(tile, pixels)
        if len(raw) >= solve_at:
            placer.solve()
            solve_at = int(SOLVE_GROWTH * len(raw)) + 1
    first_s = time.process_time() - began_s
    began_s = time.process_time()
    solution = placer.solve(is_last=True)
    last_s = time.process_time() - began_s
    places = np.array([solution.places[n].yx_px for n in range(len(scan.tiles))])
    sigma = np.array([solution.places[n].sigma_px for n in range(len(scan.tiles))])
    sure = sigma < SURE_PX
    off = scan.errors_px(places)
    held = np.ones(len(places), dtype=bool)
    held[list(solution.weak)] = False
    exact = f"{'-':>7s} {'-':>7s}"
    if sure.any():
        errors = scan.errors_px(places, sure)
        exact = f"{np.sqrt((errors**2).mean()):7.3f} {errors.max():7.3f}"
    groups = [off[~sure & held], off[~held]]
    less, none = (f"{len(g):3d} of {np.sqrt((g**2).mean()):5.2f}" if len(g) else "  0" for g in groups)
    gain = placer.shading.gain()
    light = "-"
    if gain is not None:
        truth = cv2.resize(1 / scan.vignette, gain.shape[::-1], interpolation=cv2.INTER_AREA)
        light = f"{100 * np.abs(gain / truth * (truth / gain).mean() - 1).max():.2f}"
    return (
        f"{name:24s} {len(places):5d} {exact} {less:13s} {none:13s} "
        f"{solution.loop_closure_px:6.3f} {len(solution.outliers):4d} {solution.stage.sigma_px:6.1f} "
        f"{1000 * first_s / len(places):8.1f} {1000 * last_s:8.1f} {light:>7s}"
    )


def main() -> None:
    cv2.setNumThreads(1)
    print(
        f"{'set':24s} tiles  rms_px  max_px less sure, px stage, px     loop_px  out sigma_s ms/tile solve_ms light_%",
        flush=True,
    )
    for name, scan_set in SETS.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        if scan_set.picture == "slide" and not SLIDE.is_file():
            continue
        print(run(name, make(scan_set)), flush=True)


if __name__ == "__main__":
    main()
