"""The way of a series: read, deblur, find, link, deblur each object by its own motion, link again, measure, write."""

from __future__ import annotations

import contextlib
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deblurd.deblur.wiener import wiener
from deblurd.errors import DataError, UsageError
from deblurd.host.disk import make_folder
from deblurd.light import Image, luminance_of, to_linear
from deblurd.trajectory.blobs import LARGEST, usual_range_px
from deblurd.trajectory.detect import Detector, Points, Polarity, Wanted, make_detector
from deblurd.trajectory.files import ABOUT, tables, write_about, write_graph
from deblurd.trajectory.link import Found, LinkRules, link
from deblurd.trajectory.measure import (
    FieldSums,
    exponent,
    fit_msd,
    measure,
    msd,
    place_noise_um,
    usual_noise_um,
)
from deblurd.trajectory.own_motion import LOCATING_NSR, without_own_blur
from deblurd.trajectory.pictures import PICTURE, PLOTS, TrackPicture, plot
from deblurd.trajectory.series import Series
from deblurd.trajectory.spool import Spool

SMALLEST_PX = 3.0
"""Diameter of the smallest objects that are looked for where nobody says; smaller ones cannot be told from noise."""

_PLAIN_PX = (3.0, 15.0)
"""Diameters that are looked for where nothing stands out in the first frame."""

_SHARP_SHARE = 0.8
"""A motion of the whole frame that is shorter than this share of the objects' usual diameter is left alone: there is nothing to gain, and noise would rise."""

_MOST_CURVES = 200
_LIGHTS = 12
"""Frames in memory at once: those that the linker looks at first, and two more."""


@dataclass(frozen=True, slots=True)
class FollowOptions:
    """size_um: smallest and largest diameter; None: around that of what stands out in the first frame. threshold: least contrast over noise; None: found by itself. max_speed_um_s: how far from where
    it is expected an object may turn up, per second; None: found by itself. most_gap: frames that it may be away. least_points: of a track that is kept.
    deblur: both kinds, that of the stage and that of the objects."""

    size_um: tuple[float, float] | None = None
    polarity: Polarity = "auto"
    threshold: float | None = None
    detector: str = "log"
    max_speed_um_s: float | None = None
    most_gap: int = 2
    least_points: int = 3
    deblur: bool = True


@dataclass(frozen=True, slots=True)
class Followed:
    """What came of a series. summary: of the field, for people and programs. notes: sentences for people."""

    folder: Path
    frames: int
    points: int
    tracks: int
    summary: dict[str, Any]
    notes: tuple[str, ...]


def follow(
    series: Series,
    options: FollowOptions,
    output: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    stop: threading.Event | None = None,
) -> Followed:
    """Writes tracks.csv, summary.csv, trajectories.json, tracks.png, plots.png and, where geff is installed, tracks.geff into `output`.

    Files of an earlier time are replaced. Where there is nothing to follow they are valid and empty. stop: ends it early, with what was seen until then.
    Raises UsageError for options that make no sense, ModelError for a detector, OutputError where nothing can be written.
    """
    size_um = series.affine.pixel_size_um
    usual_px = _usual_px(series) if options.size_um is None else None
    wanted = _wanted(options, size_um, usual_px or _PLAIN_PX)
    detector = make_detector(options.detector, wanted)
    make_folder(output)
    rules = LinkRules(
        series.interval_s,
        size_um,
        None if options.max_speed_um_s is None else options.max_speed_um_s * (series.interval_s or 1.0),
        options.most_gap,
    )
    least_px = _SHARP_SHARE * math.sqrt(wanted.size_px[0] * wanted.size_px[1])
    eye = _Eye(series, detector, options.deblur, least_px, on_progress, stop)
    picture = TrackPicture(series)
    seen, sums = 0, FieldSums()
    speeds: list[float] = []
    curves: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    least = min(options.least_points, max(len(series.instants), 1))
    with Spool(output / ".points.part", size_um) as spool:
        linked = link(eye.see(picture), rules)
        if options.deblur and series.exposure_ms > 0:
            linked = link(without_own_blur(linked, series, eye.light, eye.are_dark), rules)
        for each in linked:
            seen += len(each.tracks)
            spool.add(each)
        noise_um = usual_noise_um(spool.tracks(least))
        with tables(output) as written:
            for track in spool.tracks(least):
                measures = measure(track, series.interval_s, noise_um)
                written.add(track, measures)
                sums.add(track, measures, series.interval_s)
                picture.draw(track)
                speeds.append(measures.mean_speed_um_s)
                if len(curves) < _MOST_CURVES:
                    curves.append(msd(track, series.interval_s)[:2])
    picture.write(output / PICTURE)
    plot(output / PLOTS, speeds, curves, sums.msd(series.interval_s))
    notes = [*series.notes, *eye.notes()]
    low, high = (size * size_um for size in wanted.size_px)
    if usual_px is not None:
        notes.append(
            f"objects of {low:.3g} to {high:.3g} um were looked for, by what stands out in the first frame: --size-um sets it"
        )
    elif options.size_um is None:
        widest = min(series.shape[:2]) * size_um * LARGEST
        notes.append(
            f"objects of {low:.3g} to {high:.3g} um were looked for, as nothing of {SMALLEST_PX * size_um:.3g} to {widest:.3g} um (a fifth of the field) stands out in the first frame: --size-um sets it"
        )
    if not seen:
        notes.append(
            f"no objects of {low:.3g} to {high:.3g} um were found: look at tracks.png, and change --size-um or --threshold"
        )
    elif not sums.tracks:
        notes.append(
            f"{seen} objects were found, but none in {least} frames or more: raise --max-speed-um-s, or --threshold"
        )
    if (why_not := write_graph(output, sums.points)) is not None:
        notes.append(why_not)
    summary = _summary(sums, speeds, series.interval_s)
    write_about(output, _about(series, options, wanted, summary, notes))
    return Followed(output, eye.done, sums.points, sums.tracks, summary, tuple(notes))


class _Eye:
    """Frames as light, deblurred where the stage moved, and what a detector finds in them; the last few stay for a second look."""

    def __init__(
        self,
        series: Series,
        detector: Detector,
        deblur: bool,
        least_px: float,
        on_progress: Callable[[int, int], None],
        stop: threading.Event | None,
    ) -> None:
        self._series, self._detector, self._deblur = series, detector, deblur
        self._least_px = least_px
        self._on_progress, self._stop = on_progress, stop
        self._lights: OrderedDict[int, Image] = OrderedDict()
        self._answers = 0.0
        self.done = self._unknown = 0
        self._broken: list[str] = []

    def light(self, number: int) -> Image:
        """Of a frame seen lately."""
        return self._lights[number]

    def are_dark(self) -> bool:
        """Whether the objects seen so far are darker than what is around them."""
        return self._answers < 0

    def see(self, picture: TrackPicture) -> Iterator[Found]:
        instants = self._series.instants
        middle = len(instants) // 2
        for index, instant in enumerate(instants):
            if self._stop is not None and self._stop.is_set():
                return
            try:
                pixels = self._series.read(instant.number)
                if pixels.shape != self._series.shape:
                    raise DataError(f"frame {instant.number} has another size than the frame before")
            except DataError as err:
                self._broken.append(str(err))
                continue
            if self._series.moves or index <= middle:
                picture.show(instant, pixels)
            light = luminance_of(to_linear(pixels, self._series.encoding))
            if self._deblur and not instant.motion.is_known:
                self._unknown += 1
            elif self._deblur and instant.motion.length_px >= self._least_px:
                light = wiener(light, instant.motion, LOCATING_NSR)
            self._lights[instant.number] = light
            while len(self._lights) > _LIGHTS:
                self._lights.popitem(last=False)
            points = self._detector.find(light)
            self._answers += _contrast(light, points)
            self.done += 1
            self._on_progress(index + 1, len(instants))
            yield Found(instant, points, self._series.to_stage(instant, points.yx_px))

    def notes(self) -> list[str]:
        """On what was not as it should be."""
        found = self._broken[:3]
        if len(self._broken) > 3:
            found.append(f"{len(self._broken) - 3} more frames could not be read either")
        if self._unknown:
            found.append(
                f"{self._unknown} frames were followed as they are, because the stage's motion is not known there"
            )
        if self._stop is not None and self._stop.is_set():
            found.append(f"stopped after {self.done} of {len(self._series.instants)} frames")
        return found


def _contrast(light: Image, points: Points) -> float:
    """Sum of how much brighter the objects' middles are than the frame."""
    at = np.clip(np.rint(points.yx_px).astype(int), 0, np.array(light.shape) - 1)
    return float((light[at[:, 0], at[:, 1]] - np.median(light)).sum()) if len(at) else 0.0


def _usual_px(series: Series) -> tuple[float, float] | None:
    """Range of sizes by the first frame; None where nothing stands out in it."""
    for instant in series.instants[:1]:
        with contextlib.suppress(DataError):
            light = luminance_of(to_linear(series.read(instant.number), series.encoding))
            return usual_range_px(light, SMALLEST_PX)
    return None


def _wanted(options: FollowOptions, pixel_size_um: float, usual_px: tuple[float, float]) -> Wanted:
    low, high = options.size_um or (size * pixel_size_um for size in usual_px)
    if not (0 < low <= high < math.inf):
        raise UsageError(
            f"--size-um is {low:g} {high:g}, but must be two numbers above 0, the smaller one first"
        )
    if high / pixel_size_um < 2:
        raise UsageError(
            f"objects of {high:g} um are smaller than 2 pixels of {pixel_size_um:g} um: give a larger --size-um, or the right --pixel-size-um"
        )
    for name, value in (("--threshold", options.threshold), ("--max-speed-um-s", options.max_speed_um_s)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UsageError(f"{name} is {value:g}, but must be a number above 0")
    if options.most_gap < 0 or options.least_points < 1:
        raise UsageError("--max-gap must be 0 or more and --min-points 1 or more")
    return Wanted((low / pixel_size_um, high / pixel_size_um), options.polarity, options.threshold)


def _summary(sums: FieldSums, speeds: list[float], interval_s: float) -> dict[str, Any]:
    lag_s, msd_um2, pairs = sums.msd(interval_s)
    diffusion, offset_um2 = fit_msd(lag_s, msd_um2, pairs)
    noise_um = place_noise_um(offset_um2)
    known = [speed for speed in speeds if math.isfinite(speed)]
    return {
        "tracks": sums.tracks,
        "active": sums.active,
        "still": sums.still,
        "points": sums.points,
        "mean_speed_um_s": sums.path_um / sums.time_s if sums.time_s else math.nan,
        "median_speed_um_s": float(np.median(known)) if known else math.nan,
        "msd_exponent": exponent(lag_s, msd_um2, pairs, noise_um),
        "diffusion_um2_s": diffusion,
        "place_noise_um": noise_um,
    }


def _about(
    series: Series, options: FollowOptions, wanted: Wanted, summary: dict[str, Any], notes: list[str]
) -> dict[str, Any]:
    first = series.instants[0] if series.instants else None
    return {
        "series": series.name,
        "frames": len(series.instants),
        "shape": list(series.shape),
        "pixel_size_um": series.affine.pixel_size_um,
        "affine_um": series.affine.matrix.tolist(),
        "stage_moves": series.moves,
        "stage_um": None if first is None else [first.y_um, first.x_um],
        "t_s": [each.t_s for each in series.instants],
        "interval_s": series.interval_s,
        "exposure_ms": series.exposure_ms,
        "size_um": [size * series.affine.pixel_size_um for size in wanted.size_px],
        "options": asdict(options),
        "summary": summary,
        "notes": notes,
    }


__all__ = ["ABOUT", "FollowOptions", "Followed", "follow"]
