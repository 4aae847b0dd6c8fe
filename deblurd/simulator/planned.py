"""A demo's scan by a plan: with this light and this camera, in a given time."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from deblurd.errors import UsageError
from deblurd.fuse.expect import Known
from deblurd.fuse.spectrum import Specimen, measure_specimen
from deblurd.light import to_linear
from deblurd.scan.plan import MOST_OBSERVATIONS, WAYS, Conditions, Plan, best_of
from deblurd.settings import Settings
from deblurd.simulator.options import DemoOptions
from deblurd.simulator.slide import VirtualSlide, open_slide

FULL_E = 20_000.0
"""Electrons of the virtual sensor's full well."""

_RAMP_S = 0.1
_LOOKS, _LOOK_PX = 3, 512
_STOP_MS = 5.0
_SHARE_OF_STOPPING = 0.5


def planned(options: DemoOptions, settings: Settings) -> tuple[Settings, Plan]:
    """The settings for the plan that `options` name, and the plan. Raises UsageError where it cannot be done."""
    conditions = conditions_of(options, settings)
    scan_s = options.scan_s or default_time_s(conditions)
    ways = [way for way in WAYS if options.plan in (way, "auto")]
    # a stop plan by itself takes the time that it needs
    plans = [
        best_of(way, conditions, 1e5 if options.plan == "stop" and options.scan_s is None else scan_s)
        for way in ways
    ]
    best = max(plans, key=lambda each: (each.is_possible, each.psnr_db))
    if not best.is_possible:
        raise UsageError(f"the plan {options.plan} cannot be done in {scan_s:.1f} s, because {best.why_not}")
    return _with(settings, best, conditions), best


def conditions_of(options: DemoOptions, settings: Settings) -> Conditions:
    """What is known beforehand; the specimen from a few places of the slide, as of an earlier mosaic."""
    simulator, scan = settings.simulator, settings.scan
    assert simulator is not None
    assert scan.area_mm is not None
    # the microscope's own: generated tissue differs with its size
    slide = open_slide(simulator.slide, simulator.pixel_size_um, simulator.seed, simulator.slide_size_mm)
    return Conditions(
        area_mm=scan.area_mm,
        fov_px=simulator.fov_px,
        pixel_size_um=slide.pixel_size_um,
        frames_per_s=options.fps or 30.0,
        light_e_ms=options.light_e_ms,
        read_e=simulator.read_noise_e,
        full_e=FULL_E,
        specimen=_specimen(slide, area_px(settings, slide.pixel_size_um)),
        # no lens bends, and the camera is square: frames of one lane lie within hundredths of a pixel
        known=Known(place_px=0.02),
        overlap=options.overlap,
        ramp_s=_RAMP_S,
        can_alternate=True,
    )


def default_time_s(conditions: Conditions) -> float:
    """Half of what stopping takes with a short exposure."""
    stopping = replace(conditions, light_e_ms=conditions.full_e / _STOP_MS)
    return _SHARE_OF_STOPPING * best_of("stop", stopping, 1e5).scan_s


def _with(settings: Settings, plan: Plan, conditions: Conditions) -> Settings:
    """`settings`, so that they come to `plan`. White at its longest exposure is full scale: the camera's gain is set to it."""
    longest_ms = max(plan.exposures_ms)
    stops = plan.way == "stop"
    turns_ms = plan.exposures_ms if len(set(plan.exposures_ms)) > 1 else ()
    scan: dict[str, Any] = {
        "mode": "stop_and_stare" if stops else "serpentine",
        "speed_um_s": plan.speed_um_s,
        "ramp_ms": 1000 * conditions.ramp_s,
        "settle_ms": 1000 * conditions.settle_s,
        "observations": 1 if plan.way in ("stop", "single") else MOST_OBSERVATIONS,
        # a stop must show two frames at rest, or nobody knows that it was one
        "rests": stops and 3 / conditions.frames_per_s > conditions.settle_s + longest_ms / 1000,
        # the time of a plan is for the plan
        "go_back": False,
        "crossed": plan.way == "cross",
        "lane_overlap": plan.lane_overlap,
        "lane_exposures_ms": turns_ms if plan.way == "lanes" else (),
        "exposures_ms": turns_ms if plan.way == "alternate" else (),
    }
    assert settings.simulator is not None
    simulator = {
        "frames_per_s": conditions.frames_per_s
        if not stops
        else min(conditions.frames_per_s, 900 / longest_ms),
        "light_e_ms": conditions.light_e_ms,
        "electrons_full_scale": conditions.light_e_ms * longest_ms,
    }
    return settings.model_copy(
        update={
            "microscope": settings.microscope.model_copy(update={"exposure_ms": longest_ms}),
            "simulator": settings.simulator.model_copy(update=simulator),
            "scan": settings.scan.model_copy(update=scan),
        }
    )


def area_px(settings: Settings, pixel_size_um: float) -> tuple[int, int, int, int]:
    """Top, left, height and width of the area to scan, in pixels of the slide."""
    scan, simulator = settings.scan, settings.simulator
    assert simulator is not None
    assert scan.area_mm is not None
    assert scan.start_um is not None
    width, height = (math.ceil(side * 1000 / pixel_size_um) for side in scan.area_mm)
    left, top = (
        int(middle / pixel_size_um - side / 2)
        for middle, side in zip(scan.start_um, simulator.fov_px[::-1], strict=True)
    )
    return top, left, height, width


def _specimen(slide: VirtualSlide, area: tuple[int, int, int, int]) -> Specimen:
    top, left, height, width = area
    side = min(_LOOK_PX, width, height)
    looks = []
    for row in range(_LOOKS):
        for column in range(_LOOKS):
            y, x = (int((n + 0.5) / _LOOKS * (room - side)) for n, room in ((row, height), (column, width)))
            looks.append(to_linear(slide.region(top + y, left + x, side, side), "srgb"))
    return measure_specimen(looks)
