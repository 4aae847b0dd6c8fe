"""What is the best way to scan an area in a given time, or to a given quality, with this light and this camera?

Each way (stop at every field; one frame of each place; a burst of frames alike; two exposures in turn, by the frame or by the lane; two passes that cross) is
tried over its exposures, and judged by the formula of `fuse/expect.py`. Nothing here moves anything.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np
from shapely import box
from shapely.geometry.base import BaseGeometry

from deblurd.deblur.gate import is_not_worth_it
from deblurd.errors import UsageError
from deblurd.frames import MotionVector
from deblurd.fuse.expect import Known, View, expected_errors, raw_error, view_variance
from deblurd.fuse.spectrum import Floats, Specimen
from deblurd.scan.lane import duration_s, fields, serpentine

Way = Literal["stop", "single", "burst", "alternate", "lanes", "cross"]
WAYS: tuple[Way, ...] = get_args(Way)

MOST_BLUR_PX = 40.0
_RATIOS = (0.15, 0.3, 0.5, 0.7)
"""Of the shorter exposure to the longer, where two take turns."""

MOST_OBSERVATIONS = 60
"""Of scan.observations: as many frames as see a place."""

_STEPS = 9
_MOST_VIEWS = 48
_EDGE_PX = 16.0
"""So much of a frame's border tells little: there a view fades in."""

_BUSY = 0.9
"""The share of a frame's time that the exposure may take: the rest goes to reading out."""

_SLOWEST_UM_S = 5.0
_PLACES = 200
_GREY = 0.375
"""Variance of the noise of a colour image's luminance, over that of a channel."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What is known before a scan. fov_px: height, width. light_e_ms: electrons of a white pixel per ms. full_e: electrons at saturation. can_alternate:
    whether the camera can change its exposure from frame to frame. blur_px: the longest motion that can be taken out. settle_s: of the stage
    at a stop. ramp_s: to speed up or brake. stage_um_s: its top speed. Raises UsageError where that makes no sense."""

    area_mm: tuple[float, float]
    fov_px: tuple[int, int]
    pixel_size_um: float
    frames_per_s: float
    light_e_ms: float
    read_e: float = 4.0
    full_e: float = 20_000.0
    shortest_ms: float = 0.1
    specimen: Specimen = field(default_factory=Specimen)
    known: Known = field(default_factory=Known)
    overlap: float = 0.2
    settle_s: float = 0.25
    ramp_s: float = 0.05
    stage_um_s: float = 20_000.0
    blur_px: float = MOST_BLUR_PX
    can_alternate: bool = False

    def __post_init__(self) -> None:
        for name, value in (
            ("the light", self.light_e_ms),
            ("the frame rate", self.frames_per_s),
            ("the pixel size", self.pixel_size_um),
            ("the full well", self.full_e),
            *(("the area", side) for side in self.area_mm),
        ):
            if not (math.isfinite(value) and value > 0):
                raise UsageError(
                    f"{name} is {value:g}, but must be a number above 0: measure it, or correct it"
                )

    @property
    def longest_ms(self) -> float:
        """Until a white pixel saturates."""
        return max(self.full_e / self.light_e_ms, self.shortest_ms)

    def longest_at_ms(self, speed_um_s: float) -> float:
        """Until a white pixel saturates, the next frame is due, or there is more blur than can be taken out."""
        of_blur_ms = self.blur_px * self.pixel_size_um / speed_um_s * 1000
        return min(self.longest_ms, _BUSY * 1000 / self.frames_per_s, of_blur_ms)

    def exposures_at(self, speed_um_s: float, steps: int) -> list[float]:
        """`steps` exposures, ms, from the shortest to the longest at that speed; the shortest alone where even that is too long."""
        most_ms = max(self.longest_at_ms(speed_um_s), self.shortest_ms)
        return [float(ms) for ms in np.geomspace(self.shortest_ms, most_ms, steps)]


@dataclass(frozen=True, slots=True)
class Plan:
    """One way to scan. exposures_ms: one, or two that take turns. views: how many frames see a place, on average. why_not: why it cannot be done, or ""."""

    way: Way
    speed_um_s: float
    exposures_ms: tuple[float, ...]
    lane_overlap: float
    views: float
    scan_s: float
    psnr_db: float
    why_not: str = ""

    @property
    def is_possible(self) -> bool:
        return not self.why_not

    def blur_px(self, pixel_size_um: float) -> tuple[float, ...]:
        """Of each exposure; 0 where the stage stops."""
        speed = 0.0 if self.way == "stop" else self.speed_um_s
        return tuple(speed * ms / 1000 / pixel_size_um for ms in self.exposures_ms)

    def settings(self) -> list[str]:
        """Lines of the configuration by which `deblurd run` scans so."""
        turns = f"[{', '.join(f'{ms:.4g}' for ms in self.exposures_ms)}]"
        lines = {
            "microscope.exposure_ms": f"{max(self.exposures_ms):.4g}",
            "scan.mode": '"stop_and_stare"' if self.way == "stop" else '"serpentine"',
            "scan.speed_um_s": f"{self.speed_um_s:.0f}",
            "scan.observations": "1" if self.way in ("stop", "single") else f"{MOST_OBSERVATIONS}",
        }
        if self.way == "alternate":
            lines["scan.exposures_ms"] = turns
        if self.way == "lanes":
            lines |= {"scan.lane_exposures_ms": turns, "scan.lane_overlap": f"{self.lane_overlap:g}"}
        if self.way == "cross":
            lines["scan.crossed"] = "true"
        return [f"{name} = {value}" for name, value in lines.items()]

    def advice(self, pixel_size_um: float) -> str:
        """For the technician who sets the exposure and moves the stage."""
        if self.why_not:
            return self.why_not
        exposures = " and ".join(f"{ms:.3g} ms" for ms in self.exposures_ms)
        if self.way == "stop":
            return f"stop at every field and expose {exposures}"
        blur = " and ".join(f"{px:.1f} px" for px in self.blur_px(pixel_size_um))
        turns = {
            "alternate": " in turn, frame by frame",
            "lanes": " in turn, lane by lane",
            "cross": ", in two passes that cross",
        }
        return f"drive at {self.speed_um_s:.0f} um/s and expose {exposures}{turns.get(self.way, '')}: {blur} of blur, {self.views:.1f} frames see each place"


def plan(conditions: Conditions, time_s: float | None = None, psnr_db: float | None = None) -> list[Plan]:
    """The best of each way, the best of all first. time_s: what the scan may take. psnr_db: in place of it, what is wanted; then the fastest is first.

    Raises UsageError where neither or both are given.
    """
    if (time_s is None) == (psnr_db is None):
        raise UsageError(
            "say either how long the scan may take or how good it should be: the other follows from it"
        )
    if time_s is not None:
        if not (math.isfinite(time_s) and time_s > 0):
            raise UsageError(f"a scan cannot take {time_s:g} s: give a time above 0")
        best = [best_of(way, conditions, time_s) for way in WAYS]
        return sorted(best, key=lambda each: (not each.is_possible, -each.psnr_db))
    assert psnr_db is not None
    if not math.isfinite(psnr_db):
        raise UsageError(f"a quality of {psnr_db:g} dB is not possible: give a number")
    fastest = [_fastest(way, conditions, psnr_db) for way in WAYS]
    return sorted(fastest, key=lambda each: (not each.is_possible, each.scan_s))


def best_of(way: Way, conditions: Conditions, time_s: float) -> Plan:
    """The plan of one way that gives the most in `time_s`."""
    if way == "stop":
        return _stop(conditions, time_s)
    c, nothing = conditions, Plan(way, 0.0, (), conditions.overlap, 0.0, math.inf, -math.inf)
    if way == "alternate" and not c.can_alternate:
        return replace(nothing, why_not="the camera cannot change its exposure from frame to frame")
    overlap = _lane_overlap(c, way)
    speed = _speed_for(c, way, overlap, time_s)
    if speed > c.stage_um_s:
        return replace(
            nothing, why_not=f"the stage would have to drive {speed:.0f} um/s, and can {c.stage_um_s:.0f}"
        )
    step_px = speed / c.frames_per_s / c.pixel_size_um
    if step_px > (1 - _LEAST_OVERLAP) * c.fov_px[1]:
        return replace(
            nothing,
            why_not=f"at {speed:.0f} um/s the stage drives {step_px / c.fov_px[1]:.2f} fields between two frames: places would be missed; allow more "
            "time, or let the camera send more frames",
        )
    most_ms = c.longest_at_ms(speed)
    if most_ms < c.shortest_ms:
        return replace(
            nothing, why_not=f"even {c.shortest_ms:g} ms of exposure blur by more than {c.blur_px:g} px"
        )
    along = 1.0 if way == "single" else max((c.fov_px[1] - _EDGE_PX) / step_px, 1.0)
    plans = []
    for exposures in _exposures(way, c.shortest_ms, most_ms):
        quality = expected_db(c, way, speed, exposures, along)
        views = along * (2 if way in ("lanes", "cross") else 1)
        plans.append(Plan(way, speed, exposures, overlap, views, time_s, quality))
    return max(plans, key=lambda each: each.psnr_db)


_LEAST_OVERLAP = 0.1
"""Of neighbouring frames, so that they can be matched."""


def _exposures(way: Way, shortest_ms: float, longest_ms: float) -> Iterable[tuple[float, ...]]:
    for ms in np.geomspace(shortest_ms, longest_ms, _STEPS):
        if way in ("alternate", "lanes"):
            for ratio in (*_RATIOS, 1.0):
                yield float(ms), float(max(ms * ratio, shortest_ms))
        else:
            yield (float(ms),)


def expected_db(c: Conditions, way: Way, speed: float, exposures: Sequence[float], along: float) -> float:
    """Expected PSNR at a `speed` in um/s; along: how many frames of a lane see a place in its middle: fewer see its ends, and more where lanes overlap."""
    if way == "single":
        return -10 * math.log10(_error_alone(c, _view(c, speed, exposures[0])))
    most = math.ceil(min(along, _MOST_VIEWS))
    total = 0.0
    for share, lanes in _seen_by(c, way):
        groups = []
        for k in range(most):
            each = exposures if way == "lanes" else (exposures[k % len(exposures)],) * 2
            views = [_view(c, speed, ms, across=way == "cross" and turn == 1) for turn, ms in enumerate(each)]
            groups.append(views[:lanes])
        errors = expected_errors(groups, c.specimen, c.known)
        if lanes == 1:
            errors[0] = _error_alone(c, groups[0][0])
        seen = np.clip(_seen_along(c) * min(along, _MOST_VIEWS), 1.0, most)
        # where it is not whole, some places are seen once more than others
        total += share * float(np.interp(seen, np.arange(1, most + 1), errors).mean())
    return -10 * math.log10(total)


def _view(c: Conditions, speed: float, ms: float, *, across: bool = False) -> View:
    px = speed * ms / 1000 / c.pixel_size_um
    return View(MotionVector(px, 0.0) if across else MotionVector(0.0, px), c.light_e_ms * ms, c.read_e)


def _error_alone(c: Conditions, view: View) -> float:
    """Mean square error of one frame, by the way that it goes: deblurred, or as it is."""
    taken, raw = raw_error(view, c.specimen, c.known)
    if is_not_worth_it(view.motion, taken, _GREY * view_variance(view, c.specimen, c.known)):
        return raw
    return expected_errors([[view]], c.specimen, c.known)[0]


def _seen_by(c: Conditions, way: Way) -> list[tuple[float, int]]:
    """Shares of the area that one lane sees, and two."""
    if way == "cross":
        return [(1.0, 2)]
    height_px, side_px = c.area_mm[1] * 1000 / c.pixel_size_um, c.fov_px[0]
    lanes = len(serpentine(_area(c), _fov_um(c), _lane_overlap(c, way), 1.0))
    twice = max(lanes * side_px - height_px - (lanes - 1) * _EDGE_PX, 0.0) / height_px
    return [(1 - twice, 1), (twice, 2)] if twice < 1 else [(1.0, 2)]


def _seen_along(c: Conditions) -> Floats:
    """At places along a lane, the share of the frames that see its middle."""
    width_px, side_px = c.area_mm[0] * 1000 / c.pixel_size_um, float(c.fov_px[1])
    reach = (side_px - _EDGE_PX) / 2
    at = (np.arange(_PLACES) + 0.5) / _PLACES * width_px
    first, last = side_px / 2, max(width_px - side_px / 2, side_px / 2)
    seen = np.minimum(at + reach, last) - np.maximum(at - reach, first)
    return np.clip(seen / (2 * reach), 0.0, 1.0)


def _stop(c: Conditions, time_s: float) -> Plan:
    points = fields(_area(c), _fov_um(c), c.overlap, c.stage_um_s, 0.0)
    travel_s = duration_s(points, 2 * c.ramp_s) / max(len(points), 1)
    each_s = time_s / len(points) - c.settle_s - travel_s
    least_s = (c.settle_s + travel_s + c.shortest_ms / 1000) * len(points)
    if each_s * 1000 < c.shortest_ms:
        return Plan(
            "stop", c.stage_um_s, (), c.overlap, 0.0, least_s, -math.inf,
            f"{len(points)} stops of {c.settle_s:g} s to settle take at least {least_s:.1f} s",
        )  # fmt: skip
    ms = min(each_s * 1000, c.longest_ms)
    quality = -10 * math.log10(_error_alone(c, _view(c, 0.0, ms)))
    takes_s = (c.settle_s + travel_s + ms / 1000) * len(points)
    return Plan("stop", c.stage_um_s, (ms,), c.overlap, 1.0, takes_s, quality)


def _fastest(way: Way, c: Conditions, psnr_db: float) -> Plan:
    """By halving the time: more time is never worse."""
    low_s, high_s = 0.01, 1e6
    best = best_of(way, c, high_s)
    if not best.is_possible:
        return best
    if best.psnr_db < psnr_db:
        return replace(
            best, scan_s=math.inf, why_not=f"not better than {best.psnr_db:.1f} dB in whatever time"
        )
    while high_s / low_s > 1.02:
        middle_s = math.sqrt(low_s * high_s)
        tried = best_of(way, c, middle_s)
        if tried.is_possible and tried.psnr_db >= psnr_db:
            best, high_s = tried, middle_s
        else:
            low_s = middle_s
    return best


def scan_time_s(c: Conditions, way: Way, overlap: float, speed_um_s: float) -> float:
    """How long the stage takes along the lanes of a way that drives."""
    run_up_um = speed_um_s * c.ramp_s / 2
    width, height = (side * 1000 for side in c.area_mm)
    total = duration_s(serpentine(_area(c), _fov_um(c), overlap, speed_um_s, run_up_um=run_up_um), c.ramp_s)
    if way == "cross":
        turned = _fov_um(c)[::-1]
        total += duration_s(
            serpentine(box(0, 0, height, width), turned, overlap, speed_um_s, run_up_um=run_up_um), c.ramp_s
        )
    return total


def _speed_for(c: Conditions, way: Way, overlap: float, time_s: float) -> float:
    """The speed at which the lanes take `time_s`; inf where no speed is enough."""
    low, high = _SLOWEST_UM_S, 1e6
    if scan_time_s(c, way, overlap, high) > time_s:
        # ramps alone take longer: there is a fastest speed, and what is above only runs up further
        high = min(np.geomspace(low, high, 60), key=lambda v: scan_time_s(c, way, overlap, float(v)))
        if scan_time_s(c, way, overlap, high) > time_s:
            return math.inf
    while high / low > 1.005:
        middle = math.sqrt(low * high)
        if scan_time_s(c, way, overlap, middle) > time_s:
            low = middle
        else:
            high = middle
    return float(high)


def _lane_overlap(c: Conditions, way: Way) -> float:
    return max(c.overlap, 0.5) if way == "lanes" else c.overlap


def _area(c: Conditions) -> BaseGeometry:
    return box(0, 0, c.area_mm[0] * 1000, c.area_mm[1] * 1000)


def _fov_um(c: Conditions) -> tuple[float, float]:
    return c.fov_px[0] * c.pixel_size_um, c.fov_px[1] * c.pixel_size_um
