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
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deblurd import health
from deblurd.deblur.consistency import RESIDUAL_LIMIT
from deblurd.deblur.deblurrer import Deblurrer
from deblurd.deblur.model import Model
from deblurd.errors import DeblurdError
from deblurd.frames import DeblurredTile, Frame, Pixels, Place, Tile
from deblurd.fuse.fuser import Noise
from deblurd.fusing import Companions, fuse_all, source_names
from deblurd.host.logs import about_slide
from deblurd.mosaic.store import MosaicStore
from deblurd.mosaic.writer import SURE_PX, MosaicSummary
from deblurd.place.placer import Placer
from deblurd.record.recorder import Recorder
from deblurd.settings import DeblurSettings, Settings
from deblurd.slides.camera import Camera
from deblurd.slides.folder import SlideFolder, utc_now
from deblurd.slides.painter import Painter
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
    observations_mean: float = 1.0
    left_out: dict[str, int] = field(default_factory=dict)
    fusion_notes: tuple[str, ...] = ()
    fused: bool = False

    @property
    def verdict(self) -> str:
        """In words: how many fields the mosaic shows, how many of them lie only about where they should, and what was odd about their frames."""
        unsure = [place.sigma_px for place in self.places.values() if place.sigma_px >= SURE_PX]
        about = (
            f", {len(unsure)} of them where the stage says, give or take {max(unsure):.0f} px, as nothing in them matched a neighbour"
            if unsure
            else ""
        )
        fusion = f"; {describe_fusion(self.to_manifest(''))}" if self.fused else ""
        return f"{self.tiles} of {self.acknowledged} fields painted{about}{fusion}"

    def to_manifest(self, reason: str) -> dict[str, Any]:
        """What the slide's manifest says of its end. reason: why it ended."""
        return {
            "state": "done" if self.failure is None else "incomplete",
            "reason": reason if self.failure is None else f"{reason}; {self.failure}",
            "ended": utc_now(),
            "tiles": self.tiles,
            "acknowledged": self.acknowledged,
            "gates": self.gates,
            "observations_mean": round(self.observations_mean, 3),
            "left_out": self.left_out,
            "fusion_notes": list(self.fusion_notes),
            "fused": self.fused,
            # the mosaic can always be made anew, so all that it is made of stays
            "raw_frames": {"kept": self.acknowledged, "shown_by_themselves": self.tiles},
            "weak_tiles": list(self.weak_tiles),
            # JSON has no nan
            "loop_closure_px": self.loop_closure_px if math.isfinite(self.loop_closure_px) else None,
            "mosaic": None if self.mosaic is None else self.mosaic.to_dict(),
        }


@dataclass(frozen=True, slots=True)
class Lights:
    """Factors that even the exposures out, by tile."""

    factors: dict[int, float]


@dataclass(frozen=True, slots=True)
class FusedTile:
    """What all frames that see a tile say of it; None where it is best as it is by itself."""

    index: int
    result: DeblurredTile | None


Paint = DeblurredTile | FusedTile | dict[int, Place] | NDArray[np.float32] | Lights
"""For the mosaic: a tile's pixels, those of all frames together, places of tiles, the gain that evens the field out, or factors for whole tiles."""


class SlidePipeline:
    """From chosen frames to the finished mosaic of one slide.

    fuses: whether tiles are fused from all frames that see them; None: where more frames are recorded than the mosaic is made of.
    intake() from one thread; finish() once, after the last intake(). For those who look on from other threads: `camera`; `newest`, the tile that
    was deblurred last, `settings` and `deblurrer`, which stay those that it began with, `centres_um`, (y, x) of every tile so far, `store`, the mosaic that grows, and `raw`.
    """

    def __init__(
        self,
        folder: SlideFolder,
        camera: Camera,
        deblurrer: Deblurrer,
        settings: Settings,
        fuses: bool | None = None,
    ) -> None:
        self.folder = folder
        self.began_s, self.began_utc = time.perf_counter(), utc_now()
        self._recorder = Recorder(folder.path, camera.raw_shape, camera.dtype)
        self._journal = self._recorder.journal
        self._journal.set_slide("camera", camera.to_json())
        self.settings, self.deblurrer = settings, deblurrer
        self.camera = camera
        self._tiles: dict[int, Tile] = {}
        self._read = camera.reader(self._recorder.raw, self._tiles)
        self._placer = Placer(camera.affine, camera.shape, settings.scan.overlap, self._read, camera.encoding)
        self._companions = Companions(
            camera.affine,
            camera.shape,
            settings.scan.overlap,
            self._read,
            camera.encoding,
            settings.scan.observations,
            None if camera.full_scale_e is None else Noise(camera.full_scale_e, camera.read_e),
            fuses=fuses,
        )
        self._painter = Painter(
            folder.mosaic,
            folder.scratch,
            camera,
            self._read,
            settings.mosaic,
            source_names(deblurrer.name) if self._companions.is_on else ["raw", deblurrer.name],
        )
        self._places: dict[int, Place] = {}
        self._shading = settings.mosaic.shading == "auto"
        self._gates: dict[str, int] = {}
        self._solve_at = SOLVE_FIRST
        self._gain_is_set = False
        self._acknowledged = threading.Event()
        self.newest: DeblurredTile | None = None
        self.centres_um: list[tuple[float, float]] = []
        with about_slide(folder.name):
            self._mosaic: Stage[Paint] = Stage(
                "mosaic", self._paint, most=4, room=WAITING_FRAMES, when_idle=self._render
            )
            self._fuse: Stage[int] = Stage("fuse", self._fuse_tiles)
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
    ) -> tuple[Stage[tuple[Frame, Tile]], Stage[Tile], Stage[Tile], Stage[int], Stage[Paint]]:
        return (self._record, self._place, self._deblur, self._fuse, self._mosaic)

    @property
    def progress(self) -> Progress:
        # the last stage first, and none less than those after it: a stage counts its tiles a moment after it has handed them on
        painted = self._painter.painted
        deblurred = max(painted, self._deblur.done + self._companions.passed_over)
        placed = max(deblurred, self._place.done)
        recorded = max(placed, self._record.done)
        return Progress(
            recorded, placed, deblurred, painted, {stage.name: stage.backlog for stage in self.stages}
        )

    @property
    def store(self) -> MosaicStore:
        return self._painter.store

    def raw(self, index: int) -> Pixels:
        """The pixels of a tile as the camera gave them, but for its rolling shutter; also when it is finished. Raises DataError where they are gone."""
        return self._read(index)

    def journal_rows(self) -> list[dict[str, Any]]:
        """What is known of each tile."""
        return self._journal.rows()

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
                self._take_in(tile)

    def abandon(self) -> None:
        """Has `finish` return soon, without a mosaic; everything that was recorded stays. From any thread."""
        for stage in self.stages:
            stage.abandon(DeblurdError("its mosaic was left unfinished: resume it"))
        self._painter.abandon()

    def event(self, kind: str, text: str) -> None:
        self._journal.event(kind, text)

    @property
    def failure(self) -> Exception | None:
        """What stopped a stage, the earliest stage first."""
        return next((stage.failure for stage in self.stages if stage.failure is not None), None)

    def finish(self) -> Finished:
        """Drains every stage in order, solves once more, paints what is left."""
        with health.watched("finish"), about_slide(self.folder.name):
            return self._finish()

    def _finish(self) -> Finished:
        self._record.close()
        self._place.close()
        for tile in self._companions.last():
            self._is_tile(tile)
        for stage in self.stages[2:]:
            stage.close()
        summary = None
        solution = self._placer.solve(is_last=True)
        failure = self.failure
        if failure is None:
            try:
                self._places.update(solution.places)
                self._companions.move(self._places)
                self._painter.move(self._shown(solution.places))
                if not self._gain_is_set and (gain := self._gain()) is not None:
                    self._set_gain(gain)
                self._set_lights(self._lights())
                self._fuse_the_rest()
                self._journal.set_places(solution.places)
                summary = self._painter.finish(self._journal.rows())
            except (DeblurdError, OSError) as err:
                failure = err
        acknowledged = self._journal.count()
        self._placer.forget_pixels()
        self._painter.close()
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
            self._companions.observations_mean,
            {why: len(frames) for why, frames in self._companions.left_out.items()},
            tuple(self._companions.notes),
            self._companions.is_on,
        )

    # --- the work of each stage ---

    def _make_durable(self, items: list[tuple[Frame, Tile]]) -> None:
        for tile in self._recorder.record(items):
            self._take_in(tile)

    def _take_in(self, tile: Tile) -> None:
        """A tile that is safe on the disk."""
        self._tiles[tile.index] = tile
        self._place.put(self.camera.believed(tile))

    def _find_place(self, tiles: list[Tile]) -> None:
        for tile in tiles:
            place = self._placer.add(tile, self._read(tile.index))
            self._places[tile.index] = place
            for key in self._companions.add(tile, place):
                self._is_tile(key)
            for index in self._companions.left_behind(place.yx_px, self._places):
                self._fuse.put(index)
            self.centres_um.append((tile.pose.y_um, tile.pose.x_um))
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
            self._places.update(self._placer.solve().places)
            self._companions.move(self._places)
            self._mosaic.put(self._shown(self._places))
            self._mosaic.put(self._lights())

    def _is_tile(self, tile: Tile) -> None:
        """One of the frames that the mosaic is made of."""
        self._mosaic.put({tile.index: self._places[tile.index]})
        self._deblur.put(tile)

    def _shown(self, places: Mapping[int, Place]) -> dict[int, Place]:
        """Those of the tiles that the mosaic is made of."""
        return {index: place for index, place in places.items() if self._companions.shows(index)}

    def _fuse_tiles(self, indices: list[int]) -> None:
        for index in indices:
            # where the tile itself still waits for its model, or nothing evens the light out yet, that is for the end
            alone = self._painter.alone(index)
            if alone is not None and (self._gain_is_set or not self._shading):
                self._mosaic.put(FusedTile(index, self._fused(alone)))

    def _fuse_the_rest(self) -> None:
        if self._companions.is_on:
            for index, result in fuse_all(
                self._companions.stale(self._places, self._gain()), self._fused_again
            ):
                health.beat()
                self._show_fused(FusedTile(index, result))

    def _fused_again(self, index: int) -> DeblurredTile | None:
        alone = self._painter.alone(index)
        return None if alone is None else self._fused(alone)

    def _fused(self, alone: DeblurredTile) -> DeblurredTile | None:
        return self._companions.fuse(alone.index, self._places, self._gain(), alone, RESIDUAL_LIMIT)

    def _show_fused(self, fused: FusedTile) -> None:
        self._painter.add_fused(fused.index, fused.result)
        shown = fused.result or self._painter.alone(fused.index)
        if shown is not None:
            self._journal.set_deblurred([shown], self.deblurrer.name)

    def _take_blur_out(self, tiles: list[Tile]) -> None:
        for result in self.deblurrer.deblur([(tile, self._read(tile.index)) for tile in tiles]):
            self._gates[result.gate] = self._gates.get(result.gate, 0) + 1
            self.newest = result
            self._mosaic.put(result)

    def _paint(self, items: list[Paint]) -> None:
        for item in items:
            if isinstance(item, DeblurredTile):
                self._painter.add(item)
            elif isinstance(item, dict):
                self._painter.move(item)
            elif isinstance(item, FusedTile):
                self._show_fused(item)
            elif isinstance(item, Lights):
                self._set_lights(item)
            else:
                self._set_gain(item)
        results = [item for item in items if isinstance(item, DeblurredTile)]
        if results:
            self._journal.set_deblurred(results, self.deblurrer.name)

    def _render(self) -> None:
        self._painter.render_due(time.perf_counter())

    def _gain(self) -> NDArray[np.float32] | None:
        return self._placer.shading.gain() if self._shading else None

    def _lights(self) -> Lights:
        return Lights(self._placer.shading.lights() if self._shading else {})

    def _set_lights(self, lights: Lights) -> None:
        self._painter.set_lights(lights.factors)
        self._journal.set_slide("lights", json.dumps(lights.factors))

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
                health.beat()
                on_progress(pipeline.progress.painted)
                if stop is not None and stop.is_set():
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            pipeline.abandon()
            raise
    on_progress(pipeline.progress.painted)
    return future.result()


def describe_fusion(manifest: Mapping[str, Any]) -> str:
    """For people: "fused from 5.2 frames a pixel; frames left out of a field: its motion is not known (3 frames)"."""
    reasons = ", ".join(f"{why} ({n} frames)" for why, n in manifest.get("left_out", {}).items())
    return "; ".join(
        (
            f"fused from {manifest['observations_mean']:.1f} frames a pixel",
            *((f"frames left out of a field: {reasons}",) if reasons else ()),
            *manifest.get("fusion_notes", ()),
        )
    )


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
