"""The rooms in a row for one slide: record -> place -> deblur -> mosaic, each on its own thread.

Only `record` can hold the camera up, and only until the disk has taken the raw pixels. What comes after
works from the disk: a slow model delays the mosaic, never the scan, and what waits costs no pixels in memory.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deblurd.deblur.deblurrer import Deblurrer
from deblurd.deblur.model import Model
from deblurd.errors import DeblurdError
from deblurd.frames import DeblurredTile, Frame, Pixels, Place, Tile
from deblurd.mosaic.writer import MosaicSummary
from deblurd.place.placer import Placer
from deblurd.record.recorder import Recorder
from deblurd.settings import DeblurSettings, Settings
from deblurd.slides.folder import SlideFolder, utc_now
from deblurd.slides.painter import Camera, Painter
from deblurd.stages import Stage

log = logging.getLogger(__name__)

SOLVE_FIRST = 8
SOLVE_GROWTH = 1.5
"""All tiles are solved for when there are so many, and again at so many times as many."""

_LOOK_S = 0.1

WAITING_FRAMES = 8
"""Frames with pixels that may wait for the disk; also deblurred tiles that may wait for the painter."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a slide is: counts of tiles, and what waits in front of each stage."""

    recorded: int
    placed: int
    deblurred: int
    painted: int
    backlog: dict[str, int]


@dataclass(frozen=True, slots=True)
class Finished:
    """What a slide came to. seconds: from the first tile to the finished mosaic."""

    folder: SlideFolder
    tiles: int
    acknowledged: int
    mosaic: MosaicSummary | None
    gates: dict[str, int]
    places: dict[int, Place]
    weak_tiles: tuple[int, ...]
    loop_closure_px: float
    seconds: float
    failure: Exception | None

    def to_manifest(self, reason: str) -> dict[str, Any]:
        """What the slide's manifest says of its end. reason: why it ended."""
        return {
            "state": "done" if self.failure is None else "incomplete",
            "reason": reason if self.failure is None else f"{reason}; {self.failure}",
            "ended": utc_now(),
            "tiles": self.tiles,
            "acknowledged": self.acknowledged,
            "gates": self.gates,
            "weak_tiles": list(self.weak_tiles),
            # JSON has no nan
            "loop_closure_px": self.loop_closure_px if math.isfinite(self.loop_closure_px) else None,
            "mosaic": None if self.mosaic is None else self.mosaic.to_dict(),
        }


Paint = DeblurredTile | dict[int, Place] | NDArray[np.float32]
"""For the mosaic: a tile's pixels, places of tiles, or the gain that evens the light out."""


class SlidePipeline:
    """From chosen frames to the finished mosaic of one slide.

    intake() from one thread; finish() once, after the last intake().
    """

    def __init__(self, folder: SlideFolder, camera: Camera, deblurrer: Deblurrer, settings: Settings) -> None:
        self.folder = folder
        self.began_s, self.began_utc = time.perf_counter(), utc_now()
        self._recorder = Recorder(folder.path, camera.shape, camera.dtype)
        self._journal = self._recorder.journal
        self._journal.set_slide("camera", camera.to_json())
        self._deblurrer = deblurrer
        self._placer = Placer(camera.affine, camera.shape, settings.scan.overlap, self._read, camera.encoding)
        self._painter = Painter(
            folder.mosaic, folder.scratch, camera, self._read, settings.mosaic, deblurrer.name
        )
        self._shading = settings.mosaic.shading == "auto"
        self._gates: dict[str, int] = {}
        self._solve_at = SOLVE_FIRST
        self._gain_is_set = False
        self._acknowledged = threading.Event()
        self._mosaic: Stage[Paint] = Stage(
            "mosaic", self._paint, most=4, room=WAITING_FRAMES, when_idle=self._render
        )
        self._deblur: Stage[Tile] = Stage("deblur", self._take_blur_out, most=settings.deblur.batch)
        self._place: Stage[Tile] = Stage("place", self._find_place)
        self._record: Stage[tuple[Frame, Tile]] = Stage(
            "record", self._make_durable, most=WAITING_FRAMES, room=WAITING_FRAMES
        )
        for stage in self.stages:
            stage.start()

    @property
    def stages(
        self,
    ) -> tuple[Stage[tuple[Frame, Tile]], Stage[Tile], Stage[Tile], Stage[Paint]]:
        return (self._record, self._place, self._deblur, self._mosaic)

    @property
    def progress(self) -> Progress:
        return Progress(
            self._record.done,
            self._place.done,
            self._deblur.done,
            self._painter.painted,
            {stage.name: stage.backlog for stage in self.stages},
        )

    def intake(self, frame: Frame, tile: Tile) -> None:
        """Hands a chosen frame in; waits while the disk is behind.

        Raises what stopped the recording: without it nothing is safe, so the scan must stop.
        """
        self._record.put((frame, tile))
        if self._record.failure is not None:
            raise self._record.failure

    def again(self, without: Collection[int]) -> None:
        """Works through the tiles that the folder holds already, but for some, in their order, as if they came now; before any intake."""
        self._journal.forget_results()
        for tile in self._journal.tiles():
            if tile.index not in without:
                self._place.put(tile)

    def abandon(self) -> None:
        """Has `finish` return soon, without a mosaic; everything that was recorded stays. From any thread."""
        for stage in self.stages:
            stage.abandon(DeblurdError(f"the slide {self.folder.name} was abandoned: resume it"))

    def event(self, kind: str, text: str) -> None:
        self._journal.event(kind, text)

    @property
    def failure(self) -> Exception | None:
        """What stopped a stage, the earliest stage first."""
        return next((stage.failure for stage in self.stages if stage.failure is not None), None)

    def finish(self) -> Finished:
        """Drains every stage in order, solves once more, paints what is left."""
        for stage in self.stages:
            stage.close()
        summary = None
        solution = self._placer.solve()
        failure = self.failure
        if failure is None:
            try:
                self._painter.move(solution.places)
                if not self._gain_is_set and (gain := self._gain()) is not None:
                    self._set_gain(gain)
                self._journal.set_places(solution.places)
                summary = self._painter.finish(self._journal.rows())
            except (DeblurdError, OSError) as err:
                failure = err
        acknowledged = self._journal.count()
        self._recorder.close()
        return Finished(
            self.folder,
            self._painter.painted if failure is None else 0,
            acknowledged,
            summary,
            self._gates,
            dict(solution.places),
            tuple(solution.weak),
            solution.loop_closure_px,
            time.perf_counter() - self.began_s,
            failure,
        )

    # --- the work of each stage ---

    def _read(self, index: int) -> Pixels:
        return self._recorder.raw.read(index)

    def _make_durable(self, items: list[tuple[Frame, Tile]]) -> None:
        for tile in self._recorder.record(items):
            self._place.put(tile)

    def _find_place(self, tiles: list[Tile]) -> None:
        for tile in tiles:
            place = self._placer.add(tile, self._read(tile.index))
            self._mosaic.put({tile.index: place})
            self._deblur.put(tile)
            if (
                not self._gain_is_set
                and self._placer.shading.is_settled
                and (gain := self._gain()) is not None
            ):
                self._gain_is_set = True
                self._mosaic.put(gain)
        if self._place.done >= self._solve_at:
            # each solve moves all tiles: at a growing distance, their cost stays in proportion to the tiles
            self._solve_at = int(SOLVE_GROWTH * self._place.done) + 1
            self._mosaic.put(dict(self._placer.solve().places))

    def _take_blur_out(self, tiles: list[Tile]) -> None:
        for result in self._deblurrer.deblur([(tile, self._read(tile.index)) for tile in tiles]):
            self._gates[result.gate] = self._gates.get(result.gate, 0) + 1
            self._mosaic.put(result)

    def _paint(self, items: list[Paint]) -> None:
        for item in items:
            if isinstance(item, DeblurredTile):
                self._painter.add(item)
            elif isinstance(item, dict):
                self._painter.move(item)
            else:
                self._set_gain(item)
        results = [item for item in items if isinstance(item, DeblurredTile)]
        if results:
            self._journal.set_deblurred(results, self._deblurrer.name)

    def _render(self) -> None:
        self._painter.render_due(time.perf_counter())

    def _gain(self) -> NDArray[np.float32] | None:
        return self._placer.shading.gain() if self._shading else None

    def _set_gain(self, gain: NDArray[np.float32]) -> None:
        # as the journal keeps it, so that painting from the journal gives the same
        gain = gain.round(5)
        self._painter.set_gain(gain)
        self._journal.set_slide("gain", json.dumps(gain.tolist()))


def make_deblurrer(model: Model, camera: Camera, settings: DeblurSettings) -> Deblurrer:
    """The deblurrer for the tiles of `camera`, as configured. Raises ModelError."""
    return Deblurrer(
        model,
        encoding=camera.encoding,
        pixel_size_um=camera.affine.pixel_size_um,
        device=settings.device,
        threads=settings.threads,
        batch=settings.batch,
        sharp_below_px=settings.sharp_below_px,
        consistency_limit=settings.consistency_limit,
    )


def finish_in_sight(
    pipeline: SlidePipeline, on_progress: Callable[[int], None], stop: threading.Event | None = None
) -> Finished:
    """`pipeline.finish()`, with `on_progress` told the number of tiles painted, now and then, from this thread.

    stop: abandons the slide. Raises KeyboardInterrupt then.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="deblurd-finish") as pool:
        future = pool.submit(pipeline.finish)
        try:
            while wait([future], timeout=_LOOK_S).not_done:
                on_progress(pipeline.progress.painted)
                if stop is not None and stop.is_set():
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            pipeline.abandon()
            raise
    on_progress(pipeline.progress.painted)
    return future.result()


def describe_gates(gates: dict[str, int]) -> str:
    """For people: "38 deblurred, 2 blank"."""
    words: Sequence[tuple[str, str]] = (
        ("deblur", "deblurred"),
        ("sharp", "sharp as they were"),
        ("blank", "blank"),
        ("out_of_range", "too fast for the model (raw kept)"),
        ("unknown_motion", "with unknown motion (raw kept)"),
        ("inconsistent", "failed the check (raw kept)"),
    )
    return ", ".join(f"{gates[key]} {word}" for key, word in words if gates.get(key)) or "none"
