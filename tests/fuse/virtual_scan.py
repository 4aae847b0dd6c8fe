"""A scan by a plan in simulated time: the virtual slide, optics, sensor and stage, and from the recording on the daemon's own pipeline.

Only the core and the tracker are left out, whose clocks are real: so a busy computer changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deblurd.acquire.microscope import MicroscopeInfo
from deblurd.deblur.model import find_model
from deblurd.frames import Frame, MotionVector, Pose, Tile
from deblurd.geometry import PixelToStage
from deblurd.pipeline import Finished, SlidePipeline, make_deblurrer
from deblurd.scan.course import course_of
from deblurd.scan.plan import Plan
from deblurd.settings import Settings
from deblurd.simulator.demo import corner_of, demo_settings
from deblurd.simulator.motion import Motion
from deblurd.simulator.optics import Optics
from deblurd.simulator.options import DemoOptions
from deblurd.simulator.planned import planned
from deblurd.simulator.score import position_error_px, score_mosaic
from deblurd.simulator.sensor import Sensor
from deblurd.simulator.slide import VirtualSlide, open_slide
from deblurd.slides.camera import Camera
from deblurd.slides.folder import SlideFolder
from deblurd.track.choose import EachFrame, TileChooser

POSE_SIGMA_UM, LENGTH_ERROR, ANGLE_ERROR_DEG = 0.1, 0.01, 0.5
"""What the tracker reaches on a computer that has time (tests/track)."""

_STEPS = 64


@dataclass
class Scanned:
    plan: Plan
    finished: Finished
    scan_s: float
    frames: int
    psnr_db: float
    ssim: float
    position_rms_px: float


class VirtualScan:
    """One scan. Chosen frames, and what is known of them."""

    def __init__(self, options: DemoOptions) -> None:
        whole = open_slide(options.slide, options.pixel_size_um, options.seed)
        settings = demo_settings(options, whole.pixel_size_um, whole.size_um, corner_of(options, whole))
        self.settings: Settings
        self.settings, self.plan = planned(options, settings)
        simulator = self.settings.simulator
        assert simulator is not None
        self.slide: VirtualSlide = open_slide(
            simulator.slide, simulator.pixel_size_um, simulator.seed, simulator.slide_size_mm
        )
        self._simulator = simulator
        self.affine = PixelToStage.from_scale(self.slide.pixel_size_um)
        self.exposure_ms = self.settings.microscope.exposure_ms or 0.0
        self._shape = (*simulator.fov_px, 3)
        self._optics = Optics(self.slide, self.affine, simulator.fov_px, True)
        full_e = simulator.electrons_full_scale
        self._sensor = Sensor(
            self._shape, 8, "srgb", full_e, simulator.read_noise_e, simulator.vignetting, simulator.seed
        )
        self._full_scale_ms = full_e / (simulator.light_e_ms or 1.0)
        self._rng = np.random.default_rng(5)
        self.truth_um: list[NDArray[np.float64]] = []
        self.scan_s, self.frames = 0.0, 0

    def info(self) -> MicroscopeInfo:
        return MicroscopeInfo(
            "virtual", "virtual", self._shape, "uint8", "srgb", self.exposure_ms, 0.0, self.affine, "", ""
        )

    def tiles(self) -> Iterator[tuple[Frame, Tile]]:
        """Those that the tracker would choose."""
        scan = self.settings.scan
        each = scan.observations > 1
        chooser = (
            EachFrame(self.affine, self._shape, scan.observations)
            if each
            else TileChooser(
                self.affine, self._shape, scan.overlap, only_at_rest=scan.mode == "stop_and_stare"
            )
        )
        before: tuple[float, float, int, Tile, NDArray[np.float64]] | None = None
        for exposed in self._exposures():
            choice = chooser.see(exposed[3].pose)
            if choice == "before" and before is not None:
                yield self._shot(before)
            elif choice == "this":
                yield self._shot(exposed)
            before = exposed
        if isinstance(chooser, TileChooser) and chooser.last() and before is not None:
            yield self._shot(before)

    def _exposures(self) -> Iterator[tuple[float, float, int, Tile, NDArray[np.float64]]]:
        """Every frame: exposure in ms, time, number, as a tile, and its path (n, 2) um."""
        course = course_of(
            self.settings.scan, self.info(), self.settings_start(), 40.0, self._simulator.frames_per_s
        )
        lanes = list(course.lanes)
        motion = Motion(self._simulator.acceleration_um_s2, start_um=lanes[0].start_um)
        beat_s, at_s, now_s, number = 1 / self._simulator.frames_per_s, 0.0, 0.0, 0
        # a camera runs before the stage does
        for lane in lanes:
            for target in (lane.start_um, lane.end_um):
                motion.go(target, lane.speed_um_s, now_s)
                now_s = max(motion.end_s, now_s) + lane.rest_s
                turns_ms = self.settings.scan.exposures_ms or (lane.exposure_ms or self.exposure_ms,)
                while at_s + (exposure_ms := turns_ms[number % len(turns_ms)]) / 1000 <= now_s:
                    times = np.linspace(at_s, at_s + exposure_ms / 1000, _STEPS + 1)
                    path = motion.true(times)
                    yield exposure_ms, at_s, number, self._tile(path, at_s, exposure_ms, number), path
                    number += 1
                    at_s += max(beat_s, *(ms / 1000 for ms in turns_ms))
                if lane.end_um == lane.start_um:
                    break
        self.scan_s, self.frames = now_s, number

    def settings_start(self) -> tuple[float, float]:
        start = self.settings.scan.start_um
        assert start is not None
        return start[1], start[0]

    def _tile(self, path: NDArray[np.float64], at_s: float, exposure_ms: float, number: int) -> Tile:
        seen = -self.affine.to_pixels(path - path.mean(axis=0))
        true = MotionVector.from_path(seen[0], seen[_STEPS // 2], seen[-1])
        longer, turn = 1 + self._rng.normal(0, LENGTH_ERROR), np.deg2rad(self._rng.normal(0, ANGLE_ERROR_DEG))
        dy = longer * (np.cos(turn) * true.dy + np.sin(turn) * true.dx)
        dx = longer * (np.cos(turn) * true.dx - np.sin(turn) * true.dy)
        motion = MotionVector(float(dy), float(dx), true.bend_dy, true.bend_dx, 0.02)
        mean = path.mean(axis=0) + self._rng.normal(0, POSE_SIGMA_UM, 2)
        pose = Pose(at_s + exposure_ms / 2000, float(mean[0]), float(mean[1]), sigma_um=POSE_SIGMA_UM)
        return Tile(-1, 0, number, pose, motion, exposure_ms, self._shape, "")

    def _shot(self, exposed: tuple[float, float, int, Tile, NDArray[np.float64]]) -> tuple[Frame, Tile]:
        exposure_ms, at_s, number, tile, path = exposed
        light = self._optics.light((path[1:] + path[:-1]) / 2)
        pixels = self._sensor.expose(light * np.float32(exposure_ms / self._full_scale_ms), 0, number)
        self.truth_um.append(path.mean(axis=0))
        return Frame(pixels, number, at_s, exposure_ms), tile


def scan(options: DemoOptions, kind: type[VirtualScan] = VirtualScan) -> Scanned:
    """Scans by the plan of `options`, into its output folder, and scores the mosaic."""
    virtual = kind(options)
    camera = Camera(virtual.info().shape, "uint8", "srgb", virtual.affine, virtual.exposure_ms, "virtual")
    deblurrer = make_deblurrer(find_model(virtual.settings.deblur.model), camera, virtual.settings.deblur)
    folder = SlideFolder.create(Path(options.output), "plan")
    with deblurrer:
        pipeline = SlidePipeline(folder, camera, deblurrer, virtual.settings)
        for frame, tile in virtual.tiles():
            pipeline.intake(frame, tile)
        finished = pipeline.finish()
    if finished.failure is not None:
        raise finished.failure
    folder.write_manifest(
        {"config": json.loads(virtual.settings.model_dump_json())} | finished.to_manifest("done")
    )
    truth = dict(enumerate(virtual.truth_um))
    rms_px, offset_um = position_error_px(finished.places, truth, virtual.affine)
    score = score_mosaic(finished.folder.mosaic, virtual.slide, offset_um)
    return Scanned(virtual.plan, finished, virtual.scan_s, virtual.frames, score.psnr_db, score.ssim, rms_px)
