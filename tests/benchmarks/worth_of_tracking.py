"""What knowing the motion is worth, in dB: ``python -m tests.benchmarks.worth_of_tracking``.

One scan of the virtual microscope, with a latency that nobody told, a slow stage and a camera that is turned; its tiles are deblurred with the motion vector that a
program would take from the last two readings of the stage when the frame arrives (naive), with the tracked one, and with the true one. PSNR is
against what a camera would see that stands still at the true place; tiles that are refused or fail the check keep their raw pixels, as in a mosaic.
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from deblurd.daemon import Daemon
from deblurd.deblur.model import find_model
from deblurd.frames import MotionVector, Tile
from deblurd.light import from_linear
from deblurd.pipeline import make_deblurrer
from deblurd.record.journal import Journal
from deblurd.record.raw import RawStore
from deblurd.settings import DeblurSettings
from deblurd.simulator.demo import demo_settings
from deblurd.simulator.optics import Optics
from deblurd.simulator.options import DemoOptions

MOVING_PX = 3.0
BORDER_PX = 48


def psnr_db(a: Any, b: Any) -> float:
    inner = slice(BORDER_PX, -BORDER_PX)
    off = a[inner, inner].astype(np.float64) - b[inner, inner]
    return float(10 * np.log10(255**2 / np.mean(off**2)))


def naive(
    readings: Any, arrived_s: float, exposure_s: float, to_pixels: Callable[[Any], Any]
) -> MotionVector:
    """From the last two readings before the frame came."""
    last = int(np.searchsorted(readings[:, 0], arrived_s)) - 1
    (t0, *first), (t1, *second) = readings[last - 1, :3], readings[last, :3]
    dy, dx = -to_pixels((np.array(second) - first) / (t1 - t0) * exposure_s)
    return MotionVector(float(dy), float(dx))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="fast")
    parser.add_argument("--blur-px", type=float, nargs="*", default=[10.0, 20.0])
    parser.add_argument("--slide", type=Path)
    parser.add_argument("--area-mm", type=float, nargs=2, default=(1.2, 0.7))
    given = parser.parse_args()
    print(
        f"{'blur, px':>8s} {'tiles':>6s} {'raw':>7s} {'naive':>7s} {'tracked':>8s} {'true':>7s}   length and angle off, naive and tracked"
    )
    for blur_px in given.blur_px:
        with TemporaryDirectory(prefix="deblurd-worth-") as folder:
            options = DemoOptions(
                slide=given.slide, area_mm=tuple(given.area_mm), blur_px=blur_px, model="raw", output=Path(folder), latency_ms=12.0,
                jitter_ms=3.0, stage_read_ms=30.0, stage_skew=True, rotation_deg=1.5,
            )  # fmt: skip
            print(row(options, given.model, blur_px))


def row(options: DemoOptions, model: str, blur_px: float) -> str:
    settings = demo_settings(options, options.pixel_size_um or 0.5, (4000.0, 3000.0))
    assert settings.simulator is not None
    simulator = settings.simulator.model_copy(update={"vignetting": 0.0})
    daemon = Daemon(settings.model_copy(update={"simulator": simulator}))
    try:
        slide = daemon.run(lambda _: None, threading.Event()).slides[0]
        simulation: Any = daemon.microscope.simulation
        readings, camera = daemon._tracker.poller.path.readings, daemon.camera
        affine = simulation.true_affine
        optics = Optics(simulation.slide, affine, (camera.shape[0], camera.shape[1]), len(camera.shape) == 3)
        raw = RawStore.open(slide.folder.raw)
        figures: list[list[float]] = []
        with make_deblurrer(find_model(model), camera, DeblurSettings(model=model)) as deblurrer:
            for tile in Journal(slide.folder.journal).tiles():
                true = simulation.truth[tile.sequence, tile.number]
                if true.motion.length_px < MOVING_PX:
                    continue
                pixels = raw.read(tile.index)
                sharp = from_linear(optics.light(true.mean_um[None, :]), pixels.dtype, camera.encoding)
                guess = naive(readings, true.arrived_s, options.exposure_ms / 1000, camera.affine.to_pixels)
                motions = (guess, tile.motion, true.motion)
                tiles: list[tuple[Tile, Any]] = [(replace(tile, motion=m), pixels) for m in motions]
                results = deblurrer.deblur(tiles)
                off = [v for m in motions[:2] for v in _off(m, true.motion)]
                figures.append([psnr_db(pixels, sharp), *(psnr_db(r.pixels, sharp) for r in results), *off])
    finally:
        daemon.close()
    table = np.array(figures)
    means, off = table[:, :4].mean(axis=0), np.sqrt(np.nanmean(table[:, 4:] ** 2, axis=0))
    return (
        f"{blur_px:8g} {len(table):6d} {means[0]:7.2f} {means[1]:7.2f} {means[2]:8.2f} {means[3]:7.2f}   "
        f"{off[0]:.1f} %, {off[1]:.2f} deg; {off[2]:.1f} %, {off[3]:.2f} deg"
    )


def _off(seen: MotionVector, true: MotionVector) -> tuple[float, float]:
    """Length (per cent) and angle (degrees) off."""
    if not seen.is_known:
        return np.nan, np.nan
    ratio = complex(seen.dx, seen.dy) / complex(true.dx, true.dy)
    return 100 * (abs(ratio) - 1), float(np.degrees(np.angle(ratio)))


if __name__ == "__main__":
    main()
