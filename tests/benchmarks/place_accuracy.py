"""How exactly tiles are placed, and what it costs; against known truth.

python tests/benchmarks/place_accuracy.py [SET ...]
"""

from __future__ import annotations

import sys
import time

import cv2
import numpy as np

from deblurd.frames import Pixels
from deblurd.place.placer import Placer
from tests.benchmarks.scan_sets import SLIDE, Scan, ScanSet, make

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
    "half empty": SIDE.but(blank=0.5),
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
    "slide half empty": SIDE.but(picture="slide", blank=0.5),
    "slide blur 15 px": SIDE.but(picture="slide", blur_px=15.0),
    "slide blur 20 px, 20 %": SIDE.but(picture="slide", blur_px=20.0, overlap=0.2),
}


def run(name: str, scan: Scan) -> str:
    """One line of the table: errors of the tiles that matches hold, cost per tile and of the last solve."""
    raw: dict[int, Pixels] = {}
    placer = Placer(scan.affine, scan.pixels[0].shape, 0.15, raw.__getitem__, scan.encoding)
    first_s, solve_at, last_s = 0.0, 4, 0.0
    for tile, pixels in zip(scan.tiles, scan.pixels, strict=True):
        raw[tile.index] = pixels
        began_s = time.process_time()
        placer.add(tile, pixels)
        first_s += time.process_time() - began_s
        if len(raw) >= solve_at:
            began_s = time.process_time()
            placer.solve()
            first_s += time.process_time() - began_s
            solve_at = int(1.25 * len(raw)) + 1
    began_s = time.process_time()
    solution = placer.solve()
    last_s = time.process_time() - began_s
    places = np.array([solution.places[n].yx_px for n in range(len(scan.tiles))])
    held = np.ones(len(places), dtype=bool)
    held[list(solution.weak)] = False
    errors = scan.errors_px(places, held)
    loose = scan.errors_px(places, None)[~held]
    weak = f"{len(loose):3d} of {np.sqrt((loose**2).mean()):5.1f}" if len(loose) else "  0"
    gain = placer.shading.gain()
    light = "-"
    if gain is not None:
        truth = cv2.resize(1 / scan.vignette, gain.shape[::-1], interpolation=cv2.INTER_AREA)
        light = f"{100 * np.abs(gain / truth * (truth / gain).mean() - 1).max():.2f}"
    return (
        f"{name:24s} {len(places):5d} {np.sqrt((errors**2).mean()):7.3f} {errors.max():7.3f} {weak:12s} "
        f"{solution.loop_closure_px:6.3f} {len(solution.outliers):4d} {solution.stage.sigma_px:6.1f} "
        f"{1000 * first_s / len(places):8.1f} {1000 * last_s:8.1f} {light:>7s}"
    )


def main() -> None:
    cv2.setNumThreads(1)
    print(
        f"{'set':24s} tiles  rms_px  max_px weak, px      loop_px  out sigma_s ms/tile solve_ms light_%",
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
