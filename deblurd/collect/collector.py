"""``deblurd collect``: the same places of a slide sharp, out of focus and in motion."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from deblurd.acquire import open_microscope
from deblurd.acquire.microscope import Microscope
from deblurd.calibrate.kept import KeptCalibrations
from deblurd.collect.folder import CaptureFolder
from deblurd.collect.pairs import middle_light, pair
from deblurd.collect.watch import Seen, StoppedError, Watch
from deblurd.errors import UsageError
from deblurd.frames import MotionVector, Pixels, Pose
from deblurd.light import Image
from deblurd.rolling import margin_px, straightened
from deblurd.settings import Settings
from deblurd.slides.folder import utc_now

log = logging.getLogger(__name__)

SHARP_FRAMES = 8
"""Frames at rest whose median is the sharp one."""

RUNS = 10
"""A busy computer may get nothing that fits out of a run past a place: so often it is tried."""

RUN_UP_S = 0.1
"""For the stage to come to its speed, beside a tenth of a field."""

_LARGEST_SHIFT = 0.15
"""Of a field: a frame in motion farther off its place shows too much else, under another light."""

_OFF_SPEED = 0.25
"""A frame whose blur level is off by a larger share was taken while the stage sped up or braked."""

_STILL = MotionVector(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is taken. places_um: (y, x) each. blur_px: levels, each along x and y, there and back. defocus_um: from the focus."""

    places_um: Sequence[tuple[float, float]]
    blur_px: Sequence[float] = (5.0, 10.0, 20.0)
    defocus_um: Sequence[float] = (-8.0, -4.0, -2.0, 2.0, 4.0, 8.0)

    @property
    def steps(self) -> int:
        """Passes and planes of all places."""
        return len(self.places_um) * (4 * len(self.blur_px) + len(self.defocus_um))


@dataclass(slots=True)
class Report:
    """What came of it. moving, defocused: pairs. unlike: frames whose place on the sharp one could not be told."""

    folder: Path
    places: int = 0
    moving: int = 0
    defocused: int = 0
    unlike: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    name: str
    y_um: float
    x_um: float
    sharp: Image
    pose: Pose


def plan_over(
    plan: Plan,
    microscope: Microscope,
    settings: Settings,
    at_um: Sequence[Sequence[float]],
    places: int | None,
) -> Plan:
    """`plan` with its places: at_um, (x, y) each; or `places` of them over the area of [scan]; or where the stage stands.

    Raises UsageError where they cannot be known, or the blur levels or planes make no sense.
    """
    if any(not (math.isfinite(level) and level > 1) for level in plan.blur_px):
        raise UsageError(f"blur levels of {list(plan.blur_px)} px: give levels above 1 px")
    if not all(math.isfinite(number) for number in (*plan.defocus_um, *(x for xy in at_um for x in xy))):
        raise UsageError("--at and --defocus-um need finite micrometres")
    if places is not None:
        return replace(plan, places_um=_over_area(settings, places, microscope))
    return replace(plan, places_um=[(y, x) for x, y in at_um] or [microscope.position_um()])


def _over_area(settings: Settings, count: int, microscope: Microscope) -> list[tuple[float, float]]:
    """`count` places or a few more, spread evenly."""
    scan = settings.scan
    if scan.area_mm is None or scan.start_um is None or count < 1:
        raise UsageError(
            "--places needs a number above 0, and scan.area_mm and scan.start_um in the configuration: add them, or name places by --at X Y"
        )
    info = microscope.info
    fov_y, fov_x = np.abs(info.affine.matrix @ np.diag(info.shape[:2])).sum(axis=1)
    height, width = max(scan.area_mm[1] * 1000 - fov_y, 1.0), max(scan.area_mm[0] * 1000 - fov_x, 1.0)
    columns = max(1, min(count, round(math.sqrt(count * width / height))))
    rows = -(-count // columns)
    return [
        (scan.start_um[1] + height * (i + 0.5) / rows, scan.start_um[0] + width * (j + 0.5) / columns)
        for i in range(rows)
        for j in range(columns)
    ]


def collect(
    settings: Settings,
    output: Path,
    plan: Callable[[Microscope], Plan],
    on_progress: Callable[[int, int], None],
    stop: threading.Event,
) -> Report:
    """Takes everything of a plan and writes it into the folder `output`, place by place; what a stop leaves is whole.

    plan: makes it for the open microscope. on_progress: steps done, and all. Raises what the microscope raises, and OutputError.
    """
    microscope = open_microscope(settings.at_one_exposure)
    try:
        made = plan(microscope)
        # a plan that makes no sense leaves no empty folder
        rolling_ms = KeptCalibrations(settings.mosaic.output).rolling_ms(microscope.info)
        collector = Collector(microscope, CaptureFolder(output), made, on_progress, rolling_ms)
        try:
            with Watch(microscope, stop, settings.microscope.stage_poll_ms / 1000) as watch:
                collector.run(watch)
        except StoppedError:
            collector.report.notes.append("Stopped early: what was taken so far is whole.")
        return collector.report
    finally:
        microscope.close()


class Collector:
    """Drives stage and focus, and keeps what fits. rolling_ms: from the exposure of a frame's first row to that of its last. report: grows while it works."""

    def __init__(
        self,
        microscope: Microscope,
        folder: CaptureFolder,
        plan: Plan,
        on_progress: Callable[[int, int], None],
        rolling_ms: float = 0.0,
    ) -> None:
        self._microscope, self._folder, self._plan = microscope, folder, plan
        self._info = info = microscope.info
        self._share = rolling_ms / info.exposure_ms
        fastest_px_ms = (1 + _OFF_SPEED) * max(plan.blur_px, default=0.0) / info.exposure_ms
        self._margin = margin_px(info.shape, fastest_px_ms, rolling_ms) if rolling_ms else 0
        self._on_progress, self._done = on_progress, 0
        self.report = Report(folder.path)

    def run(self, watch: Watch) -> None:
        self._folder.describe(
            {
                "microscope": self._info.to_dict(),
                "began": utc_now(),
                "defocus_um": list(self._plan.defocus_um),
            }
        )
        if self._microscope.z_um() is None and self._plan.defocus_um:
            self.report.notes.append("The microscope has no focus drive: no frames out of focus were taken.")
        for number, (y_um, x_um) in enumerate(self._plan.places_um):
            place = self._sharp(watch, f"place_{number:03d}", y_um, x_um)
            try:
                self._out_of_focus(watch, place)
                self._in_motion(watch, place)
            finally:
                self._folder.save()
            self.report.places += 1

    def _sharp(self, watch: Watch, name: str, y_um: float, x_um: float) -> _Place:
        self._microscope.move_to_um(y_um, x_um)
        seen = [s for s in watch.until_rest(y_um, x_um, SHARP_FRAMES) if s.rests_at(y_um, x_um)]
        sharp = middle_light([self._straight(s) for s in seen], self._info.encoding)
        return _Place(name, y_um, x_um, sharp, seen[len(seen) // 2].pose)

    def _out_of_focus(self, watch: Watch, place: _Place) -> None:
        focus_um = self._microscope.z_um()
        if focus_um is None:
            return
        try:
            for n, offset_um in enumerate(self._plan.defocus_um):
                self._microscope.focus_to_um(focus_um + offset_um)
                *_, last = watch.until_rest(
                    place.y_um, place.x_um, 2
                )  # the first may have seen the focus move
                self.report.defocused += self._keep(place, f"defocus_{n:02d}", last, _STILL, offset_um)
                self._step()
        finally:
            self._microscope.focus_to_um(focus_um)

    def _in_motion(self, watch: Watch, place: _Place) -> None:
        exposure_s, pixel_um = self._info.exposure_ms / 1000, self._info.affine.pixel_size_um
        fields_um = self._info.affine.pixel_size_um * min(self._info.shape[:2])
        for level in self._plan.blur_px:
            speed_um_s = level * pixel_um / exposure_s
            reach_um = (_LARGEST_SHIFT + 0.1) * fields_um + RUN_UP_S * speed_um_s
            for name, (y, x) in {"y": (1, 0), "x": (0, 1)}.items():
                # one way to the start of the run, then the run there and back
                for way, sign in (("there", 1), ("back", -1)):
                    start = place.y_um - sign * y * reach_um, place.x_um - sign * x * reach_um
                    end = place.y_um + sign * y * reach_um, place.x_um + sign * x * reach_um
                    for _ in range(RUNS):
                        self._microscope.set_speed_um_s(speed_um_s)
                        self._go(watch, *start)
                        self._microscope.move_to_um(*end)
                        fitting = [s for s in watch.until_rest(*end) if self._fits(s, place, level)]
                        kept = [
                            self._keep(place, f"motion_{level:g}px_{name}_{way}_{n}", seen, seen.motion, 0.0)
                            for n, seen in enumerate(fitting)
                        ]
                        self.report.moving += sum(kept)
                        if any(kept):
                            break
                    self._step()

    def _go(self, watch: Watch, y_um: float, x_um: float) -> None:
        self._microscope.move_to_um(y_um, x_um)
        for _ in watch.until_rest(y_um, x_um):
            pass

    def _fits(self, seen: Seen, place: _Place, level_px: float) -> bool:
        near = np.abs(self._shift_px(seen, place)) < _LARGEST_SHIFT * np.array(self._info.shape[:2])
        return seen.is_timed and bool(
            near.all() and seen.motion.is_known and abs(seen.motion.length_px / level_px - 1) < _OFF_SPEED
        )

    def _shift_px(self, seen: Seen, place: _Place) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        """What the frame shows at p, the sharp one shows at p + this, by the stage."""
        return self._info.affine.to_pixels(seen.pose.yx_um - place.pose.yx_um)

    def _keep(self, place: _Place, name: str, seen: Seen, motion: MotionVector, offset_um: float) -> bool:
        found = pair(
            place.sharp, self._straight(seen), motion, self._shift_px(seen, place), self._info.encoding
        )
        if found is None:
            self.report.unlike += 1
            return False
        self._folder.add(place.name, name, found, offset_um)
        return True

    def _straight(self, seen: Seen) -> Pixels:
        if self._share == 0:
            return seen.pixels
        return straightened(seen.pixels, seen.motion, self._share, self._margin)

    def _step(self) -> None:
        self._done += 1
        self._on_progress(self._done, self._plan.steps)
