"""``deblurd demo``: a virtual slide scanned through the whole daemon, and scored against the truth."""

from __future__ import annotations

import json
import math
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np

from deblurd.daemon import Daemon, Status
from deblurd.frames import Pixels, Tile
from deblurd.host.disk import DiskGuard
from deblurd.pipeline import Finished
from deblurd.record.journal import Journal
from deblurd.record.raw import RawStore
from deblurd.scan.plan import Plan
from deblurd.settings import (
    DeblurSettings,
    MicroscopeSettings,
    MosaicSettings,
    ScanSettings,
    Settings,
    SimulatorSettings,
    SlideSettings,
)
from deblurd.simulator.options import DemoOptions
from deblurd.simulator.picture import before_and_after
from deblurd.simulator.planned import area_px, planned
from deblurd.simulator.score import position_error_px, score_mosaic, score_tracking
from deblurd.simulator.slide import VirtualSlide, most_to_see_um, open_slide
from deblurd.slides.repaint import paint_raw

SETTLE_S = 0.25
"""What a stop-and-stare microscope waits for at each field until the stage stands still."""

LATENCY_MS = 15.0
"""From the end of an exposure to the frame's arrival, where the options name no other."""

_STRIP_PX = 512

RATED_TILES = 32
"""On how many tiles the engine's own rate is taken."""


def corner_of(options: DemoOptions, slide: VirtualSlide) -> tuple[float, float]:
    """Where the area begins on `slide`, (x, y) um: of an image it is the part with most to see, since the corner of most slides is bare glass."""
    if options.slide is None or options.area_mm is None:
        return 0.0, 0.0
    width_mm, height_mm = options.area_mm
    return most_to_see_um(slide, (1000 * width_mm, 1000 * height_mm))


def demo_settings(
    options: DemoOptions,
    pixel_size_um: float,
    slide_um: tuple[float, float],
    corner_um: tuple[float, float] = (0.0, 0.0),
) -> Settings:
    """The daemon's settings for these options. slide_um: width, height of the slide. corner_um: (x, y), of the area."""
    exposure_s = options.exposure_ms / 1000
    blur_px = 20.0 if options.blur_px is None else options.blur_px
    speed_um_s = (
        options.speed_um_s if options.speed_um_s is not None else blur_px * pixel_size_um / exposure_s
    )
    fov_um = options.fov_px * pixel_size_um
    # the camera must see each place: at least three frames in the time that the stage takes from tile to tile
    step_um = fov_um * (1 - options.overlap)
    frames_per_s = options.fps or min(max(30.0, 3 * speed_um_s / step_um), 0.9 / exposure_s)
    area_mm = options.area_mm or (slide_um[0] / 1000, slide_um[1] / 1000)
    told_ms, latency_ms = (LATENCY_MS,) * 2 if options.latency_ms is None else (0.0, options.latency_ms)
    return Settings(
        microscope=MicroscopeSettings(
            backend="simulator",
            exposure_ms=options.exposure_ms,
            latency_ms=told_ms,
            rolling_ms=options.rolling_ms if options.latency_ms is None else None,
            stage_poll_ms=5.0,
            # it sends no more than it takes: all are looked at
            most_frames_per_s=2 * max(60.0, frames_per_s),
        ),
        simulator=SimulatorSettings(
            slide=options.slide,
            slide_size_mm=(max(area_mm[0], 2 * fov_um / 1000), max(area_mm[1], 2 * fov_um / 1000)),
            pixel_size_um=pixel_size_um,
            seed=options.seed,
            fov_px=(options.fov_px, options.fov_px),
            frames_per_s=frames_per_s,
            latency_ms=latency_ms,
            rolling_ms=options.rolling_ms,
            jitter_ms=options.jitter_ms,
            backlash_um=options.backlash_um,
            stage_read_ms=options.stage_read_ms,
            stage_skew=options.stage_skew,
            rotation_deg=options.rotation_deg,
        ),
        scan=ScanSettings(
            mode="serpentine",
            start_um=(corner_um[0] + fov_um / 2, corner_um[1] + fov_um / 2),
            area_mm=area_mm,
            speed_um_s=speed_um_s,
            overlap=options.overlap,
            calibrate="never" if options.latency_ms is None else "always",
        ),
        deblur=DeblurSettings(model=options.model),
        mosaic=MosaicSettings(output=options.output),
        slide=SlideSettings(name="demo"),
    )


def run_demo(
    options: DemoOptions,
    on_status: Callable[[Status], None] = lambda _: None,
    stop: threading.Event | None = None,
) -> dict[str, Any]:
    """Scans and scores; returns the report, and writes it to `options.report`.

    Raises what the daemon raises, and DataError where nothing was scanned.
    """
    slide = open_slide(options.slide, options.pixel_size_um, options.seed)
    settings = demo_settings(options, slide.pixel_size_um, slide.size_um, corner_of(options, slide))
    plan: Plan | None = None
    if options.plan is not None:
        settings, plan = planned(options, settings)
    # nobody waits for room here
    DiskGuard(settings.mosaic.output, settings.mosaic.least_free_mb).check()
    daemon = Daemon(settings)
    try:
        _look_ahead(daemon)
        run = daemon.run(on_status, stop or threading.Event())
        report = _report(daemon, run.slides[0], settings, plan) if run.slides else {}
    finally:
        daemon.close()
    if options.report is not None:
        options.report.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return report


def _look_ahead(daemon: Daemon) -> None:
    """Has generated tissue made before the stage moves, as a real slide is there before it is scanned."""
    slide = cast(Any, daemon.microscope.simulation).slide
    top, left, height, width = area_px(daemon.settings, slide.pixel_size_um)
    for y in range(0, height, _STRIP_PX):
        slide.region(top + y, left, min(_STRIP_PX, height - y), width)


def _report(daemon: Daemon, finished: Finished, settings: Settings, plan: Plan | None) -> dict[str, Any]:
    run, camera = daemon.report, daemon.camera
    simulation: Any = daemon.microscope.simulation
    journal = Journal(finished.folder.journal, read_only=True)
    tiles = journal.tiles()
    journal.close()
    truth = {t.index: simulation.truth[(t.sequence, t.number)] for t in tiles}
    truth_um = {index: each.mean_um for index, each in truth.items()}
    tracked = score_tracking(tiles, truth)
    position_rms_px, offset_um = position_error_px(finished.places, truth_um, camera.affine)
    deblurred = score_mosaic(finished.folder.mosaic, simulation.slide, offset_um)
    with tempfile.TemporaryDirectory(prefix="deblurd-demo-") as temporary:
        raw_mosaic = paint_raw(finished.folder, Path(temporary))
        raw = score_mosaic(raw_mosaic, simulation.slide, offset_um)
        picture = finished.folder.path.parent / f"{finished.folder.name}_before_after.png"
        before_and_after(raw_mosaic, finished.folder.mosaic, simulation.slide, offset_um, picture)
    megapixels = finished.tiles * math.prod(camera.shape[:2]) / 1e6
    stop_and_stare_s = _stop_and_stare_s(settings, camera.affine.pixel_size_um)
    return {
        "slide": str(finished.folder.path),
        "mosaic": str(finished.folder.mosaic),
        "picture": str(picture),
        "model": daemon.deblurrer.model_id,
        "engine": daemon.deblurrer.engine_name,
        "frames": run.frames,
        "tiles": finished.tiles,
        "dropped": run.lost,
        "gates": finished.gates,
        "seconds": round(run.seconds, 3),
        "scan_s": round(run.scan_s, 3),
        "finish_s": round(run.finish_s, 3),
        "megapixels_per_s": round(megapixels / finished.seconds, 3),
        "engine_megapixels_per_s": round(_engine_rate(daemon, finished, tiles), 3),
        "psnr_db": {"raw": round(raw.psnr_db, 3), "deblurred": round(deblurred.psnr_db, 3)},
        "ssim": {"raw": round(raw.ssim, 4), "deblurred": round(deblurred.ssim, 4)},
        "plan": None if plan is None else plan.way,
        "advice": None if plan is None else plan.advice(camera.affine.pixel_size_um),
        "predicted_psnr_db": None if plan is None else round(plan.psnr_db, 3),
        "observations_mean": round(finished.observations_mean, 3),
        "left_out": finished.left_out,
        "position_rms_px": round(position_rms_px, 4),
        "offset_um": [round(float(v), 4) for v in offset_um],
        "pose_rms_um": round(tracked.pose_rms_um, 4),
        "motion_length_error_pct": _rounded(tracked.length_error_pct),
        "motion_angle_error_deg": _rounded(tracked.angle_error_deg),
        "stop_and_stare_s": round(stop_and_stare_s, 3),
        "speedup": round(stop_and_stare_s / run.seconds, 3),
    }


def _rounded(value: float) -> float | None:
    """JSON has no nan."""
    return round(value, 3) if math.isfinite(value) else None


def _engine_rate(daemon: Daemon, finished: Finished, tiles: list[Tile]) -> float:
    """Megapixels per second of deblurring alone, on tiles of this very slide."""
    read = daemon.camera.reader(RawStore.open(finished.folder.raw), {tile.index: tile for tile in tiles})
    sample = tiles[:: max(1, len(tiles) // RATED_TILES)]
    pixels: list[tuple[Tile, Pixels]] = [(tile, read(tile.index)) for tile in sample]
    batch = daemon.settings.deblur.batch
    began_s = time.perf_counter()
    for i in range(0, len(pixels), batch):
        daemon.deblurrer.deblur(pixels[i : i + batch])
    return sum(math.prod(p.shape[:2]) for _, p in pixels) / 1e6 / (time.perf_counter() - began_s)


def _stop_and_stare_s(settings: Settings, pixel_size_um: float) -> float:
    """The time that a stage needs which stops at each field of the same area with the same overlap."""
    scan, simulator = settings.scan, settings.simulator
    assert scan.area_mm is not None
    assert scan.speed_um_s is not None
    assert simulator is not None
    fov_um = np.array([simulator.fov_px[1], simulator.fov_px[0]]) * pixel_size_um
    step_um = fov_um * (1 - scan.overlap)
    fields = np.ceil(np.maximum(np.array(scan.area_mm) * 1000 - fov_um, 0) / step_um) + 1
    exposure_s = (settings.microscope.exposure_ms or 0.0) / 1000
    travel_s = float(step_um[0]) / scan.speed_um_s
    return float(fields.prod()) * (SETTLE_S + exposure_s + travel_s)
