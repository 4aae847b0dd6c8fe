"""The scan of an area: sets out when the camera keeps its beat, drives, and can be told to pause, go on, go home and stop."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from deblurd.acquire.microscope import Microscope
from deblurd.errors import MicroscopeError
from deblurd.frames import Frame
from deblurd.scan.course import Course, course_of
from deblurd.scan.cross import cross
from deblurd.scan.driver import Driver, check_within
from deblurd.scan.focus import FocusPlane, three_places
from deblurd.scan.gaps import gaps
from deblurd.scan.lane import Lane, Point
from deblurd.scan.tissue import TissueMap
from deblurd.settings import Settings
from deblurd.track.tracker import Tracker

log = logging.getLogger(__name__)

STEADY_FRAMES = 24
"""So many frames at an even pace, and the camera's beat is known."""

READY_S = 10.0
"""The longest wait for the camera's beat before the stage sets out."""


ROUNDS_BACK = 2
"""So often gaps are gone back to: what is left then has another cause."""

_SETTLE_S = 3.0
_WORK_S = 30.0
"""The longest waits, at the end, for frames that are on their way, and for tiles that are being worked on."""

_LOOK_S = 0.02
_MOST_FAILED = 0.34
"""Where a larger share of the tiles came to nothing, it is not for a gap: something is wrong with speed, exposure or model."""

_GLANCE = 0.1
"""Of a field: after so much way frames are looked at for tissue."""

Failed = Callable[[], tuple[Sequence[Point], int] | None]


class AreaScan:
    """Drives `microscope` over the area that the settings name, or over all tissue. blur_px: the longest motion that the model takes out.

    failed: middles (y, x) of tiles that came to nothing so far, and how many there are in all; None while tiles are still being worked on. shape: of what
    a frame is good for, if that is not all of it; most_um_s: up to which speed it is.
    `see` gets every frame, from one thread; the other methods may be called from any. Until the stage stands at the start, frames become no tiles.
    """

    def __init__(
        self,
        settings: Settings,
        microscope: Microscope,
        tracker: Tracker,
        blur_px: float,
        failed: Failed = lambda: ((), 0),
        shape: tuple[int, ...] | None = None,
        most_um_s: float = math.inf,
    ) -> None:
        self._settings, self._microscope, self._tracker = settings, microscope, tracker
        self._info = microscope.info if shape is None else replace(microscope.info, shape=shape)
        self._most_um_s = most_um_s
        self._blur_px, self._failed = blur_px, failed
        self._arrivals: deque[float] = deque(maxlen=STEADY_FRAMES)
        self._first_s = math.inf
        self._driver: Driver | None = None
        self._course: Course | None = None
        self._plane: FocusPlane | None = None
        self._glanced_um = (math.inf, math.inf)
        self._stopped = threading.Event()
        self._began_s: float | None = None
        self._begins = self._is_held = False
        tracker.choose_from_s = math.inf

    def narrow(self, shape: tuple[int, ...], most_um_s: float) -> None:
        """Frames are good for so much of them only, up to that speed: lanes that were not begun yet lie nearer to one another."""
        self._info, self._most_um_s = replace(self._info, shape=shape), most_um_s

    def check(self) -> None:
        """Raises what is wrong with area and focus, before the camera starts: NoInputError, ConfigError or MicroscopeError."""
        scan = self._settings.scan
        course = self._plan(0.0, self._microscope.position_um())
        if course.area is not None:
            # where it ends too: else it would be said when half of the area is done
            for lane in course.lanes:
                check_within(scan.stage_limits_um, lane.start_um)
                check_within(scan.stage_limits_um, lane.end_um)
        if scan.focus_points_um is not None:
            self._plane = FocusPlane.through(scan.focus_points_um)

    def see(self, frame: Frame) -> None:
        """The next frame, as it arrives. Raises as `check` does."""
        if self._driver is None:
            if self._is_held:
                return
            self._first_s = min(self._first_s, frame.arrived_s)
            # of cameras that keep a beat it is the beginnings that keep it
            self._arrivals.append(frame.arrived_s - frame.exposure_ms / 1000)
            if _is_steady(self._arrivals) or frame.arrived_s - self._first_s > READY_S:
                waits_s = np.diff(np.array(self._arrivals))
                self._driver = self._make_driver(float(np.median(waits_s)) if len(waits_s) else 0.0)
                if self._stopped.is_set():
                    self._driver.home()
                self._driver.start()
        elif self._course is not None and self._course.tissue is not None:
            self._glance(frame, self._course.tissue)

    def pause(self) -> None:
        """Halts the stage where it is, until `go_on`; before it drives, it does not begin."""
        self._is_held = True
        if self._driver is not None:
            self._driver.pause()

    def go_on(self) -> None:
        """Drives on to where the stage was going."""
        self._is_held = False
        if self._driver is not None:
            self._driver.go_on()

    def home(self) -> None:
        """Ends the scan, and drives to slide.home_um, or else to where it began. Raises MicroscopeError."""
        self._stopped.set()
        # what comes by on the way belongs to no slide
        self._tracker.choose_from_s = math.inf
        if self._driver is not None:
            self._driver.home()

    def stop(self) -> None:
        """Ends the scan where the stage is."""
        self._stopped.set()
        if self._driver is not None:
            self._driver.stop()

    @property
    def is_paused(self) -> bool:
        return self._driver is not None and self._driver.is_paused

    @property
    def done_s(self) -> float | None:
        """When the stage came to rest for good; None before."""
        return None if self._driver is None else self._driver.done_s

    @property
    def seconds(self) -> float:
        """From the first lane of the area until the stage came to rest for good; 0 before."""
        return 0.0 if self.done_s is None or self._began_s is None else self.done_s - self._began_s

    @property
    def failure(self) -> MicroscopeError | None:
        """What ended the scan early."""
        return None if self._driver is None else self._driver.failure

    def _plan(self, period_s: float, here_um: Point) -> Course:
        frames_per_s = 1 / period_s if period_s > 0 else 0.0
        return course_of(
            self._settings.scan, self._info, here_um, self._blur_px, frames_per_s, self._most_um_s
        )

    def _make_driver(self, period_s: float) -> Driver:
        scan, microscope = self._settings.scan, self._microscope
        here_um = microscope.position_um()

        def plan() -> Course:
            course = self._course = self._plan(period_s, here_um)
            log.info("scanning: %s", course.sentence)
            return course

        course = plan()
        home_um = self._settings.slide.home_um
        driver = Driver(
            microscope,
            self._lanes(course, plan),
            limits_um=scan.stage_limits_um,
            home_um=None if home_um is None else (home_um[1], home_um[0]),
            focus=lambda at_um: None if self._plane is None else self._plane(at_um),
            is_blank=self._is_blank,
            on_lane=self._at_lane,
        )
        # two frames at rest: that it rests shows in the second one
        driver.rest_s = 2 * period_s + self._info.exposure_ms / 1000 if scan.rests else 0.0
        return driver

    def _is_blank(self) -> bool:
        course = self._course
        return course is not None and course.tissue is not None and course.tissue.is_blank_now

    def _lanes(self, course: Course, plan: Callable[[], Course]) -> Iterator[Lane]:
        """On the driver's thread: what comes next is decided when what came before has been driven. plan: makes the course anew."""
        yield from self._focusing(course)
        seen = self._info.shape
        # what the camera sees of the stage is learnt first, unless it is known, and while it is not
        field_um = min(self._info.affine.field_um(self._info.shape))
        for lane in cross(course.middle_um, field_um):
            if self._tracker.is_calibrated or not self._settings.learns_calibration:
                break
            yield lane
        if self._settings.learns_calibration and not self._tracker.calibration.is_known:
            log.warning(
                "the frames at the start did not tell how the camera sees the stage, so that a wrong pixel size or mirror would not be noticed yet: see to it that "
                "there is tissue in focus where the scan begins, or run `deblurd calibrate` on a quiet computer"
            )
        if self._info.shape != seen:
            course = plan()
        self._begins = True
        yield from course.lanes
        yield from self._going_back(course)

    def _focusing(self, course: Course) -> Iterator[Lane]:
        if self._plane is not None or not self._settings.scan.autofocus:
            return
        places = [course.middle_um] if course.area is None else three_places(course.area)
        found = []
        for at_um in places:
            yield Lane.point(at_um, course.speed_um_s, course.rest_s)
            found.append((at_um[1], at_um[0], self._microscope.autofocus_um()))
        log.info("in focus at %s", ", ".join(f"x {x:.0f}, y {y:.0f}: z {z:.1f} um" for x, y, z in found))
        # one place is one height
        self._plane = FocusPlane.through(found) if len(found) > 2 else FocusPlane(found[0][2], 0.0, 0.0)

    def _going_back(self, course: Course) -> Iterator[Lane]:
        """To gaps, and to tiles that came to nothing: sharp frames at rest."""
        fov_um = self._info.affine.field_um(self._info.shape)
        doubted: set[Point] = set()
        for turn in range(ROUNDS_BACK + 1):
            if not self._settings.scan.go_back or not self._is_worked_through():
                return
            area = course.area if course.tissue is None else course.tissue.area
            assert area is not None
            failed, tiles = self._failed() or ((), 0)
            if len(failed) > _MOST_FAILED * max(tiles, 1):
                log.warning(
                    "%d of %d tiles could not be deblurred, which is too many to go back to: scan slower, or choose another model",
                    len(failed),
                    tiles,
                )
                failed = ()
            for at_um in set(failed) - doubted:
                self._tracker.doubt(np.array(at_um))
                doubted.add(at_um)
            back = gaps(area, fov_um, self._tracker.grades_at)
            if not back:
                return
            if turn == ROUNDS_BACK:
                log.warning("%d places of the area could not be taken", len(back))
                return
            log.info("going back to %d places", len(back))
            for at_um in back:
                # where it is unclear when frames are exposed, the stage rests until some surely were
                yield Lane.point(at_um, course.speed_um_s, course.rest_s + self._tracker.doubt_s)

    def _is_worked_through(self) -> bool:
        """Waits for frames that are on their way, and for tiles that are worked on; False if the scan was ended meanwhile."""
        now_s = time.perf_counter()
        while self._tracker.seen_until_s < now_s and time.perf_counter() < now_s + _SETTLE_S:
            if self._stopped.wait(_LOOK_S):
                return False
        while self._failed() is None and time.perf_counter() < now_s + _WORK_S:
            if self._stopped.wait(_LOOK_S):
                return False
        return not self._stopped.is_set()

    def _at_lane(self, lane: Lane) -> None:
        if self._begins:
            self._begins = False
            self._began_s = self._tracker.choose_from_s = time.perf_counter()

    def _glance(self, frame: Frame, tissue: TissueMap) -> None:
        pose = self._tracker.newest_pose
        if pose is None:
            return
        at_um = (pose.y_um, pose.x_um)
        fov_um = self._info.affine.field_um(self._info.shape)
        if math.dist(at_um, self._glanced_um) > _GLANCE * min(fov_um) or tissue.field(at_um) in tissue.border:
            self._glanced_um = at_um
            tissue.see(frame.pixels, at_um)


def _is_steady(arrivals: Sequence[float]) -> bool:
    """Whether the last frames came at an even pace, so that their clock can be trusted."""
    if len(arrivals) < STEADY_FRAMES:
        return False
    waits = np.diff(np.array(arrivals))
    return float(waits.max()) < 1.5 * float(np.median(waits))
