"""A stage, a camera and glasses for `Sessions`, in time that a test moves on; nothing is painted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from deblurd import sessions as sessions_module
from deblurd.deblur.model import find_model
from deblurd.errors import OutputError
from deblurd.frames import Frame, MotionVector, Pixels, Pose, Tile
from deblurd.geometry import PixelToStage
from deblurd.host.disk import DiskGuard
from deblurd.pipeline import Finished, make_deblurrer
from deblurd.record.journal import Journal
from deblurd.record.raw import RawStore
from deblurd.sessions import Sessions
from deblurd.settings import DeblurSettings, MicroscopeSettings, MosaicSettings, Settings, SlideSettings
from deblurd.slides.camera import Camera
from deblurd.slides.folder import SlideFolder

PX = 128
STEP_UM = 96.0
SIDE = 1536
HOME_UM = (-2000.0, 0.0)


def glass(seed: int) -> Pixels:
    """A slide of 1 um/px: tissue on its left half, nothing on the right."""
    rng = np.random.default_rng(seed)
    fine = cv2.GaussianBlur(rng.normal(0, 1, (SIDE, SIDE)).astype(np.float32), (0, 0), 3.0)
    grey = 200 + 40 * fine / fine.std()
    grey[:, SIDE // 2 :] = 200
    noisy: Pixels = np.clip(grey + rng.normal(0, 1, grey.shape), 0, 255).astype(np.uint8)
    return noisy


GLASSES = [glass(seed) for seed in range(3)]


class Pipeline:
    """What a slide's pipeline is to `Sessions`, but for the painting: records, and is told that it is over."""

    def __init__(self, folder: SlideFolder, camera: Camera, deblurrer: Any, settings: Settings) -> None:
        self.folder, self.settings, self.deblurrer = folder, settings, deblurrer
        self.began_utc, self.camera = "", camera
        self.centres_um: list[tuple[float, float]] = []
        self.frames: list[Frame] = []
        self.events: list[tuple[str, str]] = []
        self.is_finished = self.is_abandoned = self.is_refused = False
        self.disk_is_full: Callable[[], bool] = lambda: False
        self._raw = RawStore.create(folder.raw, camera.shape, camera.dtype)
        self.raw = self._raw.read

    def event(self, kind: str, text: str) -> None:
        self.events.append((kind, text))

    def intake(self, frame: Frame, tile: Tile) -> None:
        assert not self.is_finished
        if self.is_refused or self.disk_is_full():
            # as a stage that has failed: for good
            self.is_refused = True
            raise OutputError("no room")
        self._raw.write(len(self.frames), frame.pixels)
        self.frames.append(frame)
        self.centres_um.append((tile.pose.y_um, tile.pose.x_um))

    def abandon(self) -> None:
        self.is_abandoned = True

    def finish(self) -> Finished:
        assert not self.is_finished
        self.is_finished = True
        self._raw.close()
        Journal(self.folder.journal).close()
        n = len(self.frames)
        return Finished(self.folder, n, n, None, {}, {}, (), 0.0, 0.0, None)


class Disk(DiskGuard):
    """One that is as full as a test says."""

    why: str | None = None

    @property
    def trouble(self) -> str | None:
        return self.why


class Bench:
    """A stage, a camera and glasses: every field of which the ground is new is worth a tile."""

    def __init__(self, output: Path, **slide: Any) -> None:
        affine = PixelToStage.from_scale(1.0)
        self.camera = Camera((PX, PX), "uint8", "linear", affine, 5.0)
        self.settings = Settings(
            microscope=MicroscopeSettings(backend="simulator"),
            deblur=DeblurSettings(model="raw"),
            mosaic=MosaicSettings(output=output),
            slide=SlideSettings.model_validate(
                {"home_um": (HOME_UM[1], HOME_UM[0]), "home_s": 1.0, "idle_end_s": 30.0, "resume_s": 20.0}
                | slide
            ),
        )
        self.deblurrer = make_deblurrer(find_model("raw"), self.camera, self.settings.deblur)
        self.at_um = np.array([400.0, 300.0])
        self.glass = 0
        self.now_s = 1000.0
        self.seen: set[tuple[int, int]] = set()
        self.disk = Disk(output, floor_mb=0)
        self.paused: list[bool] = []
        self.news: list[tuple[str, str]] = []
        self.pipelines: list[Pipeline] = []
        self.number = 0
        self.glass_of: dict[int, int] = {}
        self.sessions = Sessions(
            self.settings,
            self.disk,
            self.camera,
            self.deblurrer,
            self,
            fov_um=(PX, PX),
            facts=dict,
            now=lambda: self.now_s,
            on_pause=self.paused.append,
            on_news=lambda kind, text: self.news.append((kind, text)),
        )

    @property
    def state(self) -> str:
        return self.sessions.state

    # --- the ground that has tiles ---

    def forget_tiles(self) -> set[tuple[int, int]]:
        known, self.seen = self.seen, set()
        return known

    def remember_tiles(self, known: set[tuple[int, int]]) -> None:
        self.seen = known

    # --- what happens ---

    def fill_disk(self) -> None:
        self.disk.why = "no room"

    def make_room(self) -> None:
        self.disk.why = None

    def pixels(self) -> Pixels:
        y, x = (int(np.clip(v, 0, SIDE - PX)) for v in self.at_um)
        return GLASSES[self.glass][y : y + PX, x : x + PX]

    def frame(self, seconds: float = 0.1) -> None:
        self.now_s += seconds
        pose = Pose(self.now_s, *map(float, self.at_um))
        cell = int(self.at_um[0] // STEP_UM), int(self.at_um[1] // STEP_UM)
        if cell not in self.seen:
            self.seen.add(cell)
            self.number += 1
            self.glass_of[self.number] = self.glass
            frame = Frame(self.pixels(), self.number, self.now_s, 5.0)
            tile = Tile(-1, 0, self.number, pose, MotionVector(0, 0), 5.0, (PX, PX), "")
            self.sessions.take(frame, tile)
        self.sessions.look(pose)

    def go(self, dy_um: float, dx_um: float, steps: int = 1) -> None:
        for _ in range(steps):
            self.at_um = self.at_um + np.array([dy_um, dx_um])
            self.frame()

    def rest(self, seconds: float) -> None:
        for _ in range(int(seconds / 0.5)):
            self.frame(0.5)

    def settle(self) -> None:
        while not self.sessions.finishing.wait(5.0):
            pass


def stand_in(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(*args: Any) -> Pipeline:
        pipeline = Pipeline(*args)
        pipeline.disk_is_full = lambda: bench.disk.why is not None
        bench.pipelines.append(pipeline)
        return pipeline

    monkeypatch.setattr(sessions_module, "SlidePipeline", make)
