"""From the configuration to the lanes of a scan: over which area, how fast, and why not faster."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from shapely.geometry.base import BaseGeometry
from shapely.ops import transform

from deblurd.acquire.microscope import MicroscopeInfo
from deblurd.scan.area import area_of, start_of
from deblurd.scan.driver import is_within
from deblurd.scan.lane import Lane, Point, duration_s, fields, serpentine
from deblurd.scan.limits import SpeedLimit, speed_limit
from deblurd.scan.tissue import TissueMap, explore
from deblurd.settings import ScanSettings

_DEFAULT_UM_S = 1000.0
"""Between the fields of stop-and-stare, and where nothing limits the speed."""


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """Where a scan leads. middle_um: (y, x), somewhere within it. area: in (x, y) um; None where `tissue` tells. limit: of the speed.
    sentence: for people."""

    lanes: Iterable[Lane]
    middle_um: Point
    area: BaseGeometry | None
    tissue: TissueMap | None
    speed_um_s: float
    rest_s: float
    limit: SpeedLimit
    sentence: str


def course_of(
    scan: ScanSettings,
    info: MicroscopeInfo,
    here_um: Point,
    blur_px: float,
    frames_per_s: float = 0.0,
    rows_um_s: float = math.inf,
) -> Course:
    """The course of a scan that drives. here_um: (y, x) of the stage. blur_px: the longest motion of the model. frames_per_s: 0 where not known. rows_um_s:
    the fastest that a rolling shutter can be put right for.

    Raises NoInputError or ConfigError where the area makes no sense.
    """
    fov_um = info.affine.field_um(info.shape)
    area, start_um = area_of(scan, here_um, fov_um), start_of(scan, here_um)
    limit = speed_limit(
        info.affine,
        info.shape,
        info.exposure_ms,
        blur_px=blur_px,
        overlap=scan.overlap,
        frames_per_s=frames_per_s,
        rows_um_s=rows_um_s,
    )
    rest_s = (scan.settle_ms + info.exposure_ms) / 1000
    fastest_um_s = limit.speed_um_s if math.isfinite(limit.speed_um_s) else _DEFAULT_UM_S
    stops = scan.mode == "stop_and_stare"
    speed_um_s = scan.speed_um_s or (_DEFAULT_UM_S if stops else fastest_um_s)
    if area is None:
        tissue = TissueMap(start_um, fov_um, scan.overlap, info.encoding)
        lanes: Iterable[Lane] = explore(
            tissue,
            start_um,
            speed_um_s,
            lambda at_um: is_within(scan.stage_limits_um, at_um),
            rest_s=rest_s if stops else None,
        )
        return Course(
            lanes, start_um, None, tissue, speed_um_s, rest_s, limit, "until there is no more tissue"
        )
    inside = area.representative_point()
    middle_um = (inside.y, inside.x)
    if stops:
        lanes = fields(area, fov_um, scan.overlap, speed_um_s, rest_s)
        sentence = f"{len(lanes)} fields, with a stop of {rest_s:.2f} s at each"
        return Course(lanes, middle_um, area, None, speed_um_s, rest_s, limit, sentence)
    ramp_s = scan.ramp_ms / 1000
    overlap, run_up_um = scan.lane_overlap or scan.overlap, speed_um_s * ramp_s / 2
    lanes = serpentine(area, fov_um, overlap, speed_um_s, run_up_um=run_up_um)
    if scan.crossed:
        turned = transform(lambda x, y: (y, x), area)
        lanes += [
            replace(lane, start_um=lane.start_um[::-1], end_um=lane.end_um[::-1])
            for lane in serpentine(turned, fov_um[::-1], overlap, speed_um_s, run_up_um=run_up_um)
        ]
    if scan.lane_exposures_ms:
        turns = scan.lane_exposures_ms
        lanes = [replace(lane, exposure_ms=turns[n % len(turns)]) for n, lane in enumerate(lanes)]
    sentence = f"{len(lanes)} lanes at {speed_um_s:.0f} um/s, about {duration_s(lanes, ramp_s):.0f} s"
    if scan.speed_um_s is None:
        sentence += f"; not faster, because {limit.why}"
    elif scan.speed_um_s > limit.speed_um_s:
        sentence += f", which is more than {limit.speed_um_s:.0f} um/s: {limit.why}"
    return Course(lanes, middle_um, area, None, speed_um_s, rest_s, limit, sentence)
