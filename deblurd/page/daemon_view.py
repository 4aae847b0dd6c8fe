"""A daemon as the page sees it."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from deblurd.daemon import Daemon
from deblurd.errors import OutputError, UsageError
from deblurd.frames import DeblurredTile, Frame, Pixels
from deblurd.host.disk import free_bytes
from deblurd.host.gpu import GpuMeter
from deblurd.mosaic.gaps import count_gaps
from deblurd.naming import is_slide_id
from deblurd.page import slide_list
from deblurd.page.mosaics import StoredMosaics, describe_live, live_tile
from deblurd.photon.kept import KeptTransfers
from deblurd.pipeline import Progress, SlidePipeline
from deblurd.scan.advice import advise
from deblurd.scan.limits import speed_limit
from deblurd.scan.plan import Conditions
from deblurd.serve.alerts import AlertLog
from deblurd.serve.pictures import jpeg, top_of
from deblurd.serve.view import Action, Alert, Event, Gpu, Mosaic, Picture, Slide, SlideField, State, Status
from deblurd.serve.words import say, speed_text, state_sentence

STATUS_S = 0.15
GAPS_S = 1.0
ADVICE_S = 2.0
TRANSFER_S = 10.0
GPU_S = 1.0
SLIDES_S = 1.0
"""What is asked again sooner gets the same answer: however many look on, the scan pays for one."""

LONGEST_PX = 1024
"""Of a live picture."""

_SPEED_S = 0.1
_DRIVEN = 30
"""So many speeds, of a stage that moves by more than a pixel in an exposure, tell how fast it is driven."""
_ON_DISK = 1.7
"""Bytes on the disk for one of the camera: raw.zarr, and the mosaic's pyramid."""

T = TypeVar("T")


class _Lately(Generic[T]):
    """A value that is made anew when it is older than `for_s`, by one thread at a time."""

    def __init__(self, make: Callable[[], T], for_s: float) -> None:
        self._make, self._for_s = make, for_s
        self._lock = threading.Lock()
        self._kept: tuple[float, T] | None = None

    def get(self) -> T:
        with self._lock:
            if self._kept is None or time.perf_counter() - self._kept[0] > self._for_s:
                self._kept = time.perf_counter(), self._make()
            return self._kept[1]


class DaemonView:
    """Implements `serve.view.View`."""

    def __init__(self, daemon: Daemon, alerts: AlertLog) -> None:
        self._daemon, self._alerts = daemon, alerts
        self._output = daemon.settings.mosaic.output
        self._stored = StoredMosaics()
        self._status = _Lately(self._make_status, STATUS_S)
        self._gaps = _Lately(self._count_gaps, GAPS_S)
        self._slides = _Lately(lambda: slide_list.list_slides(self._output), SLIDES_S)
        meter = GpuMeter()
        self._gpu = _Lately(meter.read, GPU_S)
        self._transfer = _Lately(lambda: KeptTransfers(self._output).get(daemon.microscope.info), TRANSFER_S)
        self._advice = _Lately(self._advise, ADVICE_S)
        self._driven_um_s: deque[float] = deque(maxlen=_DRIVEN)
        self._top = 255
        self._pictures: dict[Picture, tuple[Frame | DeblurredTile, bytes]] = {}
        self._pose_before: tuple[float, float, float] | None = None
        self._speed_um_s = 0.0

    def status(self) -> Status:
        return self._status.get()

    def unready(self) -> str | None:
        if (failure := self._daemon.failure) is not None:
            return str(failure)
        if (held := self._daemon.sessions.held) is not None:
            return held
        now = self._daemon.status
        if now.trouble is None and now.frames_per_s == 0:
            return "the camera sends no frames: wait, or look at its cable and its power"
        return now.trouble

    def act(self, action: Action, text: str = "") -> str:
        sessions = self._daemon.sessions
        slide, before = self._slide_name(), sessions.label
        if action == "label" and not is_slide_id(text):
            raise UsageError(say("refused.label", label=text))
        if self._daemon.failure is not None or action not in sessions.actions:
            raise UsageError(say("refused", sentence=self.status().sentence))
        sessions.order(action, text)
        which = (
            ""
            if action != "label" or sessions.slide is None
            else ".at_work"
            if before in (None, text)
            else ".next"
        )
        return say(f"did.{action}{which}", slide=slide, label=text)

    def alerts(self) -> list[Alert]:
        return self._alerts.newest()

    # --- pictures ---

    def picture(self, kind: Picture) -> bytes | None:
        if kind == "camera":
            frame = self._daemon.newest_frame
            return None if frame is None else self._live_jpeg(kind, frame, lambda: frame.pixels)
        slide = self._at_work()
        newest = None if slide is None else slide.newest
        if slide is None or newest is None:
            return None
        after = kind == "after"
        return self._live_jpeg(kind, newest, lambda: newest.pixels if after else slide.raw(newest.index))

    def _live_jpeg(self, kind: Picture, of: Frame | DeblurredTile, read: Callable[[], Pixels]) -> bytes:
        kept = self._pictures.get(kind)
        if kept is not None and kept[0] is of:
            # however many pages look on, it is made once
            return kept[1]
        pixels = read()
        # once bright, always shown on the same scale, so that pictures do not flicker
        self._top = max(self._top, top_of(pixels))
        made = jpeg(pixels, self._top, longest_px=LONGEST_PX)
        self._pictures[kind] = of, made
        return made

    # --- slides ---

    def slides(self) -> list[Slide]:
        return self._slides.get()

    def folder(self, folder: str) -> Path:
        return slide_list.find_slide(self._output, folder).path

    def events(self, folder: str) -> list[Event]:
        return slide_list.events_of(slide_list.find_slide(self._output, folder))

    def mosaic(self, folder: str) -> Mosaic | None:
        camera = self._daemon.camera
        if (slide := self._live(folder)) is not None:
            field_px = slide_list.field_px(camera.affine, camera.shape)
            shard_px = self._daemon.settings.mosaic.shard_px
            return describe_live(slide.store, shard_px, camera.affine.pixel_size_um, field_px)
        found = slide_list.find_slide(self._output, folder)
        known = slide_list.camera_of(found.read_manifest())
        return self._stored.describe(found.mosaic, None if known is None else known[1])

    def mosaic_tile(self, folder: str, level: int, row: int, column: int) -> bytes | None:
        if (slide := self._live(folder)) is not None:
            return live_tile(slide.store, self._top, level, row, column)
        return self._stored.tile(slide_list.find_slide(self._output, folder).mosaic, level, row, column)

    def fields(self, folder: str) -> list[SlideField]:
        if (slide := self._live(folder)) is not None:
            return slide_list.fields_of(slide.journal_rows(), self._daemon.camera.affine)
        found = slide_list.find_slide(self._output, folder)
        known = slide_list.camera_of(found.read_manifest())
        return slide_list.fields_of(slide_list.rows_of(found), None if known is None else known[0])

    def _live(self, folder: str) -> SlidePipeline | None:
        slides = (self._daemon.sessions.slide, *self._daemon.sessions.finishing.closing)
        return next((slide for slide in slides if slide is not None and slide.folder.name == folder), None)

    def _at_work(self) -> SlidePipeline | None:
        """The slide that is scanned, else the newest of those that are being finished."""
        return self._daemon.sessions.slide or next(reversed(self._daemon.sessions.finishing.closing), None)

    # --- the status ---

    def _make_status(self) -> Status:
        daemon, now, slide = self._daemon, self._daemon.status, self._at_work()
        progress, failure = slide.progress if slide else None, daemon.failure
        state = self._state()
        gaps, limit_um_s = self._gaps.get(), self._limit_um_s(now.frames_per_s)
        pose, frame = daemon.stage_pose, daemon.newest_frame
        self._measure_speed()
        fields, painted = (progress.recorded, progress.painted) if progress else (0, 0)
        return Status(
            sentence=self._sentence(state, progress, gaps),
            state=state,
            slide=slide.folder.name if slide else None,
            label=daemon.sessions.label,
            actions=[] if failure else list(daemon.sessions.actions),
            frames=now.frames,
            frames_per_s=now.frames_per_s,
            lost=now.lost,
            fields=fields,
            placed=progress.placed if progress else 0,
            deblurred=progress.deblurred if progress else 0,
            painted=painted,
            backlog=progress.backlog if progress else {},
            gaps=gaps,
            stage_um=None if pose is None else [pose.y_um, pose.x_um],
            speed_um_s=self._speed_um_s,
            speed_limit_um_s=limit_um_s,
            advice=self._advice.get(),
            engine=daemon.deblurrer.engine_name,
            model=daemon.deblurrer.name,
            gpu=self._gpu_use(),
            free_bytes=self._free_bytes(),
            disk_hours=self._disk_hours(slide, fields),
            newest_field=slide.newest.index if slide and slide.newest else None,
            newest_frame=None if frame is None else frame.number,
            mosaic_revision=slide.store.revision if slide else None,
            alerts=self._alerts.count,
        )  # fmt: skip

    def _state(self) -> State:
        return "failed" if self._daemon.failure is not None else self._daemon.sessions.state

    def _slide_name(self) -> str:
        """What a person calls the slide at work, or the next one."""
        sessions = self._daemon.sessions
        return sessions.slide_id or sessions.label or say("slide.unnamed")

    def _sentence(self, state: State, progress: Progress | None, gaps: int) -> str:
        daemon, name = self._daemon, self._slide_name()
        sessions, failure, key = daemon.sessions, daemon.failure, str(state)
        if state == "armed":
            key += ".asked" if sessions.is_asked else ".label" if sessions.label is not None else ""
        elif state == "closing" and (slide := self._at_work()) is not None:
            name = slide.folder.path.parent.name
        elif state == "paused" and sessions.held is not None:
            key = "held"
        elif state == "failed" and (slide := self._at_work()) is not None:
            key, name = "failed.painting", slide.folder.path.parent.name
        return state_sentence(
            key,
            name,
            progress.recorded if progress else 0,
            progress.painted if progress else 0,
            gaps,
            self._speed_um_s,
            self._limit_um_s(daemon.status.frames_per_s),
            sessions.held if failure is None else str(failure),
            daemon.status.trouble,
        )

    def _count_gaps(self) -> int:
        slide, camera = self._at_work(), self._daemon.camera
        if slide is None:
            return 0
        centres_um = np.array(slide.centres_um, dtype=np.float64).reshape(-1, 2)
        height, width = slide_list.field_px(camera.affine, camera.shape)
        size_um = camera.affine.pixel_size_um
        return count_gaps(centres_um, (height * size_um, width * size_um))

    def _limit_um_s(self, frames_per_s: float) -> float | None:
        """The fastest at which no place goes unseen, and the model still takes the blur out."""
        camera, settings = self._daemon.camera, self._daemon.settings
        limit_um_s = speed_limit(
            camera.affine,
            camera.shape,
            camera.exposure_ms,
            blur_px=max(self._daemon.deblurrer.blur_range_px[1], settings.deblur.sharp_below_px),
            overlap=settings.scan.overlap,
            frames_per_s=frames_per_s,
            rows_um_s=camera.most_um_s,
        ).speed_um_s
        return limit_um_s if math.isfinite(limit_um_s) else None

    def _advise(self) -> str | None:
        """A better exposure for the speed that the stage was mostly driven at of late."""
        transfer, frames_per_s = self._transfer.get(), self._daemon.status.frames_per_s
        if transfer is None or not frames_per_s or len(self._driven_um_s) < _DRIVEN:
            return None
        camera, settings = self._daemon.camera, self._daemon.settings
        found = advise(
            Conditions(
                (1.0, 1.0),
                (camera.shape[0], camera.shape[1]),
                camera.affine.pixel_size_um,
                frames_per_s,
                transfer.light_e_ms,
                transfer.read_e,
                transfer.full_scale_e,
                blur_px=max(self._daemon.deblurrer.blur_range_px[1], settings.deblur.sharp_below_px),
            ),
            float(np.median(self._driven_um_s)),
            camera.exposure_ms,
            fuses=settings.scan.observations > 1,
        )
        if found is None:
            return None
        texts = speed_text(found.speed_um_s), f"{found.exposure_ms:g}", f"{found.gain_db:.1f}"
        return say("advice", speed=texts[0], ms=texts[1], now=f"{camera.exposure_ms:g}", gain=texts[2])

    def _measure_speed(self) -> None:
        pose, before = self._daemon.stage_pose, self._pose_before
        if pose is None or (before is not None and pose.t_s - before[0] < _SPEED_S):
            return
        if before is not None:
            way_um = math.hypot(pose.y_um - before[1], pose.x_um - before[2])
            self._speed_um_s = way_um / (pose.t_s - before[0])
            if (
                self._speed_um_s * self._daemon.camera.exposure_ms / 1000
                > self._daemon.camera.affine.pixel_size_um
            ):
                self._driven_um_s.append(self._speed_um_s)
        self._pose_before = pose.t_s, pose.y_um, pose.x_um

    def _gpu_use(self) -> Gpu | None:
        found = self._gpu.get()
        return None if found is None else Gpu(**asdict(found))

    def _free_bytes(self) -> int:
        try:
            return free_bytes(self._output)
        except OutputError:
            # the scan says what is wrong with its disk; the page shows that there is no room
            return 0

    def _disk_hours(self, slide: SlidePipeline | None, fields: int) -> float | None:
        if slide is None or slide is not self._daemon.sessions.slide or fields == 0:
            return None
        camera = self._daemon.camera
        bytes_ = math.prod(camera.shape) * np.dtype(camera.dtype).itemsize * fields * _ON_DISK
        return self._free_bytes() / bytes_ * (time.perf_counter() - slide.began_s) / 3600
