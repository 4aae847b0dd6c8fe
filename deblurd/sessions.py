"""The slides under one microscope: which is at work, and why each began and ended."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Literal, Protocol, cast

from deblurd.deblur.deblurrer import Deblurrer
from deblurd.errors import OutputError
from deblurd.finishing import Finishing, News
from deblurd.frames import Frame, Pose, Tile
from deblurd.host.disk import DiskGuard
from deblurd.host.logs import now_about
from deblurd.naming import folder_name, next_slide_id
from deblurd.pipeline import SlidePipeline
from deblurd.session import Session
from deblurd.settings import Settings
from deblurd.slides.camera import Camera
from deblurd.slides.ending import Ending, is_at_home
from deblurd.slides.folder import SlideFolder
from deblurd.slides.ground import is_same_ground, shows_tissue
from deblurd.slides.starting import Starting
from deblurd.slides.states import Live

log = logging.getLogger(__name__)

Action = Literal["start", "finish", "pause", "resume", "discard", "label", "home"]

MOST_WAITING = 4
"""Fields, with their pixels, that wait for the slide to begin whose first ones they are."""

ACQUISITION = "Micro-Manager's acquisition"

DISK_S = 1.0
"""Between two looks at the room on the disk."""

WAITING_S = 2.0
"""So long: an older one may show a slide that has been taken away since."""


class Ground(Protocol):
    """Knows which ground has a tile already: the tracker."""

    def forget_tiles(self) -> Any:
        """All ground is new. Returns what was known."""

    def remember_tiles(self, known: Any) -> None:
        """What `forget_tiles` returned counts again."""


class Sessions:
    """Begins slides, hands their tiles on, ends them. finishing: those that have ended. camera: of the next slide.

    facts: what a slide's manifest says of the microscope. fov_um: height, width of a field on the stage. on_pause: told True when somebody
    pauses the slide, False when it goes on; on_stop: told that somebody ended it; on_home: that the stage is to drive home, where deblurd drives it. on_news: told ("done" or "stopped", a sentence).
    `take` and `look` come from the thread that acquires; `look` and `end` also from another, when that one is stuck; all else from any.
    """

    def __init__(
        self,
        settings: Settings,
        disk: DiskGuard,
        camera: Camera,
        deblurrer: Deblurrer,
        ground: Ground,
        *,
        fov_um: tuple[float, float],
        facts: Callable[[], dict[str, Any]],
        now: Callable[[], float] = time.perf_counter,
        on_pause: Callable[[bool], None] = lambda paused: None,
        on_stop: Callable[[], None] = lambda: None,
        on_home: Callable[[], None] | None = None,
        on_news: News = lambda kind, text: None,
    ) -> None:
        self.settings, self.deblurrer, self._disk, self.camera = settings, deblurrer, disk, camera
        self._coming: tuple[Settings, Deblurrer] | None = None
        self._ground, self._facts, self._now = ground, facts, now
        self._on_pause, self._on_stop, self._on_home, self._on_news = on_pause, on_stop, on_home, on_news
        self._starting = Starting(settings.slide, leave_um=0.5 * min(fov_um))
        self._ending = Ending(settings.slide)
        self.finishing = Finishing(disk, on_news)
        self._lock = threading.RLock()
        self._orders: deque[tuple[Action, str]] = deque()
        self._work: Session | None = None
        self._waiting: deque[tuple[Frame, Tile]] = deque(maxlen=MOST_WAITING)
        self._open: Session | None = None
        """Ended by itself, and goes on if its own ground is seen again soon."""
        self._last: Session | None = None
        self._label: str | None = None
        self.held: str | None = None
        """Why nothing begins or goes on for now, whoever asks."""
        self._is_held, self._looked_s = False, -math.inf

    # --- for those who look on, and ask, from other threads ---

    @property
    def slide(self) -> SlidePipeline | None:
        """The slide at work."""
        work = self._work
        return None if work is None else work.slide

    @property
    def label(self) -> str | None:
        """What the slide at work is called by whoever put it there, or else what the next one is to be called."""
        work = self._work
        return self._label if work is None else work.label

    @property
    def is_asked(self) -> bool:
        """Whether the next field begins a slide, whatever it shows."""
        return self._starting.is_asked

    @property
    def slide_id(self) -> str | None:
        """Of the slide at work."""
        work = self._work
        return None if work is None else work.slide_id

    @property
    def state(self) -> Live:
        """Of the slide at work; where none is, whether and how one can begin."""
        work = self._work
        if work is not None:
            return cast(Live, work.state)
        if self.held is not None:
            return "paused"
        if self._starting.is_asked or self._label is not None:
            return "armed"
        if self.finishing.closing:
            return "closing"
        return "idle" if self._starting.is_idle else "armed"

    @property
    def actions(self) -> tuple[Action, ...]:
        """What makes sense now."""
        home: tuple[Action, ...] = () if self._on_home is None else ("home",)
        work = self._work
        if work is None:
            return (*(() if self._starting.is_asked or self.held is not None else ("start",)), "label", *home)
        if self.held is not None:
            return ("finish", "discard", "label", *home)
        return ("finish", "resume" if work.state == "paused" else "pause", "discard", "label", *home)

    def order(self, action: Action, text: str = "") -> None:
        """Has it done within a frame or two, if it makes sense then. text: the label; of start and finish, who wants it, if it is not a person."""
        self._orders.append((action, text))

    def acquisition(self, runs: bool) -> None:
        """Micro-Manager's own began, and its first field begins a slide if none is at work; or it ended, and the slide that it began with it."""
        self._orders.append(("start" if runs else "finish", ACQUISITION))

    @property
    def coming(self) -> tuple[Settings, Deblurrer]:
        """What the next slide begins with."""
        return self._coming or (self.settings, self.deblurrer)

    def renew(self, settings: Settings, deblurrer: Deblurrer) -> None:
        """Those of the next slide; at once where none is at work."""
        self._coming = settings, deblurrer

    # --- what is seen ---

    def take(self, frame: Frame, tile: Tile) -> None:
        """A field that is worth a tile: of the slide at work, or maybe the first of a new one. Raises what stops the scan."""
        with self._lock:
            if self._work is None:
                self._consider(frame, tile)
            elif self._work.state == "scanning":
                self._intake(self._work, frame, tile)

    def look(self, pose: Pose | None) -> None:
        """Does what was ordered, and ends the slide at work if it is over. pose: newest of the stage."""
        with self._lock:
            self._watch_disk()
            while self._orders:
                self._obey(*self._orders.popleft(), pose)
            now_s = self._now()
            work = self._work
            if work is None:
                self._take_what_comes()
                self._starting.look(pose, now_s)
                if self._waiting and now_s - self._waiting[0][0].arrived_s > WAITING_S:
                    self._wait_no_more()
                if self._open is not None and now_s - self._open.ended_s > self.settings.slide.resume_s:
                    self._seal()
            elif self._is_held:
                self._ending.waits(now_s)
                # else what comes after the slide would be taken for it
                if (reason := self._ending.reason(pose, now_s)) is not None:
                    self._end(f"{reason}, while the disk was full", pose)
            elif work.state == "paused":
                # it waits as long as it likes; but at the load position its glass may be exchanged
                self._ending.waits(now_s)
                if (reason := self._ending.reason(pose, now_s)) is not None:
                    self._end(f"{reason}, while it was paused", pose, may_go_on=True)
                    self._on_stop()
            elif work.state == "scanning" and (reason := self._ending.reason(pose, now_s)) is not None:
                self._end(reason, pose, may_go_on=True)

    def close_level(self) -> None:
        """Another objective is in place: ends the slide at work, which goes on if the first one is back soon over its own ground."""
        with self._lock:
            self._end("another objective is in place", None, may_go_on=True)

    def end(self, reason: str) -> None:
        """Ends the slide at work, if there is one, for good."""
        with self._lock:
            self._end(reason, None)
            self._seal()

    def _intake(self, work: Session, frame: Frame, tile: Tile) -> None:
        try:
            work.slide.intake(frame, tile)
        except OutputError:
            # it may have been filled since it was looked at last
            self._watch_disk(at_once=True)
            if self.held is None:
                raise
            self._break_off()
            return
        tissue = shows_tissue(frame.pixels, self.camera.encoding)
        self._ending.field(tile.pose, tissue, self._now())

    def _consider(self, frame: Frame, tile: Tile) -> None:
        if self.held is not None:
            return
        self._take_what_comes()
        starting = self._starting
        tissue = starting.wants_tissue and shows_tissue(frame.pixels, self.camera.encoding)
        reason = starting.reason(tile.pose, tissue)
        if tissue and self._is_of_the_last(frame, tile):
            reason = self._go_on() if reason is not None else None
            tissue = False
        if reason is not None:
            if self._work is None:
                self._watch_disk(at_once=True)
                if self.held is not None:
                    return
            try:
                work = self._work or self._begin(reason)
            except OutputError:
                self._watch_disk(at_once=True)
                if self.held is None:
                    raise
                return
            for each in (*self._waiting, (frame, tile)):
                if work is self._work:
                    self._intake(work, *each)
            self._waiting.clear()
        elif tissue and starting.armed is not None and not is_at_home(tile.pose, self.settings.slide):
            self._waiting.append((frame, tile))
        else:
            self._wait_no_more()

    def _wait_no_more(self) -> None:
        """What is not kept has taken no ground."""
        self._waiting.clear()
        self._ground.forget_tiles()

    def _is_of_the_last(self, frame: Frame, tile: Tile) -> bool:
        """Whether a field shows ground of the slide that ended last: then it begins no other one by itself."""
        last = self._last
        if last is None:
            return False
        pixels = last.slide.camera.straight(frame.pixels, tile)
        return is_same_ground(pixels, tile.pose, last.slide.centres_um, last.slide.raw, self.camera.affine)

    def _go_on(self) -> str | None:
        """Why the slide that ended last goes on; None where it has been closed, or another one is expected."""
        last = self._open
        if last is None or self._label is not None:
            return None
        self._open, self._work = None, last
        self.finishing.take_back(last)
        last.to("scanning", "only a short gap: its own ground is seen again")
        self._ground.remember_tiles(last.ground)
        self._ending.went_on(self._now())
        self._starting.began()
        now_about(last.name)
        return last.reason

    # --- what is asked ---

    def _obey(self, action: Action, text: str, pose: Pose | None) -> None:
        work = self._work
        if action == "label":
            self._call(text, pose)
        elif action == "home":
            self._end("sent home by hand", pose, by_hand=True)
            if self._on_home is not None:
                self._on_home()
        elif work is None:
            if action == "start":
                self._starting.ask(text or "started by hand")
            elif text == ACQUISITION:
                self._starting.ask_no_more(ACQUISITION)
        elif action == "finish":
            if text != ACQUISITION:
                self._finish(text or "finished by hand", pose)
            elif work.begun_by == ACQUISITION:
                self._finish(f"{ACQUISITION} ended", pose)
        elif action == "discard":
            work.is_discarded = True
            self._finish("discarded by hand", pose)
        elif action == "pause":
            # also while the disk is full: then room alone does not make it go on
            self._is_held = False
            self._pause(work, "paused by hand")
        elif action in ("resume", "start") and self.held is None:
            self._unpause(work, "resumed by hand")

    def _finish(self, reason: str, pose: Pose | None) -> None:
        self._end(reason, pose, by_hand=True)
        self._on_stop()

    def _pause(self, work: Session, reason: str) -> None:
        if work.state == "scanning":
            work.to("paused", reason)
            work.ground = self._ground.forget_tiles()
            self._on_pause(True)

    def _unpause(self, work: Session, reason: str) -> None:
        if work.state == "paused":
            work.to("scanning", reason)
            self._ground.remember_tiles(work.ground)
            self._ending.went_on(self._now())
            self._on_pause(False)

    def _call(self, label: str, pose: Pose | None) -> None:
        """A label for the slide at work, if it has none; another one ends it, and is the next slide's."""
        work = self._work
        if work is not None and work.label in (None, label):
            if work.label is None:
                work.call(label)
            return
        if work is not None:
            self._finish(f"the next label, {label}", pose)
        self._seal()
        self._label = label
        self._starting.expect(f"labelled {label}")

    # --- what the disk has room for ---

    def _watch_disk(self, at_once: bool = False) -> None:
        """A full disk pauses the slide at work, whose tiles are painted with the room that is left, and nothing begins until there is more."""
        now_s = self._now()
        if now_s - self._looked_s < DISK_S and not at_once:
            return
        self._looked_s = now_s
        before, self.held = self.held, self._disk.trouble
        work = self._work
        if self.held is not None and before is None:
            log.error("the scan is paused: %s", self.held)
            self._on_news("stopped", self.held)
            self.finishing.lack_room()
            if work is not None:
                work.lacked_room = True
            if work is not None and work.state == "scanning":
                self._is_held = True
                self._pause(work, "disk full")
                # what the folder says if nobody comes to make room; where there is none even for this, it is found unfinished
                with suppress(OutputError):
                    work.write_manifest(state="incomplete", reason="disk full")
            elif work is None:
                self._on_pause(True)
        elif self.held is None and before is not None:
            log.info("there is room on the disk again")
            if work is not None and self._is_held:
                self._is_held = False
                work.write_manifest()
                self._unpause(work, "there is room on the disk again")
            elif work is None:
                self._on_pause(False)
        if self.held is None:
            self.finishing.finish_left()

    def _break_off(self) -> None:
        """The disk was full before anybody saw it, and a tile was refused: what was recorded is finished when there is room, and another slide goes on."""
        self._end("disk full", None)
        self._last = None
        self._starting.ask("there is room on the disk again")

    # --- a slide's life ---

    def _begin(self, reason: str) -> Session:
        self._seal()
        output, slide, utc = self.settings.mosaic.output, self.settings.slide, datetime.now(UTC)
        label, self._label = self._label, None
        slide_id = label or next_slide_id(output, slide.name, utc, slide.operator)
        name = folder_name(output, slide.folder, slide_id, utc, slide.operator)
        folder = SlideFolder.create(output, slide_id, name)
        pipeline = SlidePipeline(folder, self.camera, self.deblurrer, self.settings)
        work = Session(pipeline, slide_id, label, self._facts, self.finishing.ended)
        now_about(folder.name)
        work.to("scanning", reason)
        work.write_manifest()
        self._work, self._last = work, None
        self._starting.began()
        self._ending.began(self._now())
        return work

    def _end(self, reason: str, pose: Pose | None, *, by_hand: bool = False, may_go_on: bool = False) -> None:
        work, self._work = self._work, None
        if work is None:
            return
        if work.state == "scanning":
            work.ground = self._ground.forget_tiles()
        self._waiting.clear()
        self._starting.ended(pose, by_hand)
        self._is_held = False
        work.to("closing", reason)
        work.ended_s = self._now()
        now_about("")
        self.finishing.add(work)
        self._open = self._last = work
        if not may_go_on:
            self._seal()

    def _seal(self) -> None:
        """The slide that ended last goes on no more: its mosaic is finished."""
        open_, self._open = self._open, None
        if open_ is None:
            return
        open_.ground = None
        self.finishing.close(open_)

    def _take_what_comes(self) -> None:
        coming, self._coming = self._coming, None
        if coming is not None:
            self.settings, self.deblurrer = coming
            self._starting.settings = self._ending.settings = self.settings.slide
