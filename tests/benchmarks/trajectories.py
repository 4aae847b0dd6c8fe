"""Trajectories against the truth, beside trackpy and laptrack: tables for ``python -m tests.benchmarks.trajectories``.

Simulated series, scored by `trajectory_score`; frames as they are against
deblurred ones, and frames per second beside trackpy in the same run. Real series: the diffusion coefficient of 1 um spheres in water. TRA needs traccuracy, and the
linkers laptrack: ``pip install 'deblurd[bench]'`` into an environment of their own.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from deblurd.deblur.deblurrer import Deblurrer
from deblurd.deblur.model import find_model
from deblurd.frames import Pixels, Pose, Tile
from deblurd.geometry import PixelToStage
from deblurd.imagefiles import read_image
from deblurd.trajectory.follow import Followed, FollowOptions, follow
from deblurd.trajectory.measure import FieldSums, Track, fit_msd, measure
from deblurd.trajectory.series import Instant, Series, numbered
from tests.benchmarks.trajectory_score import Rows, Score, score
from tests.trajectory.simulated import Kind, Simulated, simulate

SIZES_PX = (4.0, 14.0)

_console = Console(width=190)


def series_of(
    sim: Simulated, frames: Sequence[Pixels] | None = None, motion: bool = True, own: bool = True
) -> Series:
    """frames: others in place of the simulated ones. motion, own: whether the stage's motion, and the exposure, are told."""
    shown = sim.frames if frames is None else frames
    instants = tuple(
        Instant(n, n / sim.fps, 0.0, 0.0, sim.motion) if motion else Instant(n, n / sim.fps)
        for n in range(len(shown))
    )
    return Series(
        "simulated", instants, shown[0].shape, PixelToStage.from_scale(1.0), "linear", sim.exposure_ms if own else 0.0,
        lambda number: shown[number],
    )  # fmt: skip


def rows_of(series: Series, options: FollowOptions) -> Rows:
    """Every object that was seen, also those of a single frame."""
    with tempfile.TemporaryDirectory() as folder:
        follow(series, options, Path(folder))
        with (Path(folder) / "tracks.csv").open(encoding="utf-8", newline="") as file:
            found = [
                (float(r["track_id"]), float(r["t_s"]), float(r["y_um"]), float(r["x_um"]))
                for r in csv.DictReader(file)
            ]
    rows = np.array(found).reshape(-1, 4)
    rows[:, 1] = np.rint(rows[:, 1] / series.interval_s)
    rows[:, 2:] += (np.array(series.shape[:2]) - 1) / 2
    return rows


OURS = FollowOptions(size_um=SIZES_PX, least_points=1)


# --- peers ---


def trackpy_rows(
    images: Sequence[NDArray[Any]], diameter: int, minmass: float, reach_px: float, adaptive_stop: float
) -> Rows:
    """trackpy alone: bright objects located, and linked with its adaptive search and memory."""
    import trackpy

    trackpy.quiet()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [
            trackpy.locate(image, diameter, minmass=minmass, engine="python")[["y", "x"]].to_numpy()
            for image in images
        ]
        linked = trackpy.link_iter(enumerate(found), reach_px, memory=2, adaptive_stop=adaptive_stop)
        return np.array(
            [
                (track, frame, *at)
                for (frame, tracks), places in zip(linked, found, strict=True)
                for track, at in zip(tracks, places, strict=True)
            ]
        ).reshape(-1, 4)


def best_trackpy(sim: Simulated, reach_px: float) -> tuple[Score, float]:
    """Its best links over thresholds, which it does not find by itself; and frames per second of the best."""
    tried = []
    for minmass in (80, 160):
        start_s = time.perf_counter()
        images = [255 - frame.astype(np.float32) / 257 for frame in sim.frames]
        rows = trackpy_rows(images, 7, minmass, reach_px, 0.1 * reach_px)
        rate = len(sim.frames) / (time.perf_counter() - start_s)
        tried.append((score(rows, sim.truth), rate))
    best = max(tried, key=lambda each: each[0].links)
    return best[0], best[1]


def by_model(sim: Simulated, model: str) -> list[Pixels]:
    """Every frame deblurred for looks, as tiles of a mosaic are."""
    with Deblurrer(find_model(model), encoding="linear") as deblurrer:
        tiles = [
            (Tile(n, 0, n, Pose(0, 0, 0), sim.motion, 1.0, f.shape, ""), f) for n, f in enumerate(sim.frames)
        ]
        return [each.pixels for tile in tiles for each in deblurrer.deblur([tile])]


# --- tables ---


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _cells(found: Score) -> str:
    tra = "" if np.isnan(found.tra) else f"  {found.tra:.3f}"
    return f"{found.f1:.3f}  {found.rmse_px:.2f}  {found.links:.3f}{tra}"


def _gain(raw: Score, ours: Score) -> str:
    tra = "" if np.isnan(ours.tra) else f"  {ours.tra - raw.tra:+.3f}"
    return (
        f"{ours.f1 - raw.f1:+.3f}  {ours.rmse_px / raw.rmse_px - 1:+.0%}  {ours.links - raw.links:+.3f}{tra}"
    )


HEAD = "F1, RMSE px, links F1, TRA"


def own_motion(quick: bool) -> None:
    """Objects that swim, blurred by their own motion."""
    table = _table(
        f"objects' own blur: {HEAD}",
        "objects",
        "kind",
        "SNR",
        "blur px",
        "raw",
        "deblurred",
        "deblurring gains",
        "trackpy, best threshold",
        "frames/s ours",
        "trackpy",
    )
    # every blur in the middle of the grid, the longer ones along each of its axes
    cases: list[tuple[int, Kind, float, tuple[int, ...]]] = [(60, "directed", 5, (0, 5, 10, 15))]
    if not quick:
        along: list[tuple[int, Kind, float]] = [
            (60, "run-and-tumble", 5),
            (60, "directed", 2),
            (60, "directed", 10),
        ]
        along += [(10, "directed", 5), (200, "directed", 5)]
        cases += [(*each, (10, 15)) for each in along]
    for objects, kind, snr, blurs in cases:
        for blur in blurs:
            sim = simulate(kind, objects, snr=snr, own_blur_px=blur, frames=24, seed=11)
            raw = score(rows_of(series_of(sim, own=False), OURS), sim.truth)
            start_s = time.perf_counter()
            rows = rows_of(series_of(sim), OURS)
            rate = len(sim.frames) / (time.perf_counter() - start_s)
            ours = score(rows, sim.truth)
            theirs, their_rate = best_trackpy(sim, max(2.0 * blur, 8.0) * 1.3)
            table.add_row(
                str(objects),
                kind,
                f"{snr:g}",
                str(blur),
                _cells(raw),
                _cells(ours),
                _gain(raw, ours),
                _cells(theirs),
                f"{rate:.1f}",
                f"{their_rate:.1f}",
            )
    _console.print(table)


def stage_motion(quick: bool) -> None:
    """Objects that diffuse under a stage that moves, so that the whole frame is blurred by a known motion."""
    table = _table(
        f"the stage's blur: {HEAD}",
        "objects",
        "SNR",
        "blur px",
        "raw",
        "deblurred for places",
        "by the model wiener",
        "by the model fast",
    )
    for objects, snr in [(60, 5.0)] if quick else [(60, 2.0), (60, 5.0), (60, 10.0), (200, 5.0)]:
        for blur in (0, 5, 10, 15):
            sim = simulate(
                "brownian",
                objects,
                snr=snr,
                stage_blur_px=(0.4 * blur, 0.9165 * blur),
                frames=8 if quick else 16,
                seed=12,
            )
            row = [_cells(score(rows_of(series_of(sim, motion=False, own=False), OURS), sim.truth))]
            row.append(_cells(score(rows_of(series_of(sim, own=False), OURS), sim.truth)))
            for model in ("wiener", "fast"):
                row.append(
                    _cells(
                        score(rows_of(series_of(sim, by_model(sim, model), False, False), OURS), sim.truth)
                    )
                    if blur
                    else ""
                )
            table.add_row(str(objects), f"{snr:g}", str(blur), *row)
    _console.print(table)


def linkers() -> None:
    """The same detections, linked by three libraries."""
    table = _table(
        "linking the same detections: links F1 and ms per frame",
        "objects",
        "kind",
        "step px",
        "ours",
        "trackpy",
        "laptrack",
    )
    import pandas as pd
    import trackpy

    from deblurd.light import to_linear
    from deblurd.trajectory.detect import Wanted, make_detector
    from deblurd.trajectory.link import Found, LinkRules, link

    trackpy.quiet()
    cases: list[tuple[int, Kind, float]] = [
        (40, "brownian", 3),
        (150, "brownian", 3),
        (150, "directed", 6),
        (80, "run-and-tumble", 6),
        (80, "directed", 20),
    ]
    for objects, kind, step in cases:
        sim = simulate(kind, objects, snr=5, step_px=step, exposed=0.04, frames=24, seed=13)
        detector = make_detector("log", Wanted(SIZES_PX))
        points = [detector.find(to_linear(frame, "linear")) for frame in sim.frames]
        places = [each.yx_px for each in points]
        reach_px = max(1.3 * step, 10.0)

        def ours(points: Any = points, reach_px: float = reach_px) -> list[Any]:
            founds = [Found(Instant(n, n / 10), each, each.yx_px) for n, each in enumerate(points)]
            return [each.tracks for each in link(founds, LinkRules(0.1, 1.0, reach_px))]

        def theirs(places: Any = places, reach_px: float = reach_px) -> list[Any]:
            linked = trackpy.link_iter(enumerate(places), reach_px, memory=2, adaptive_stop=0.1 * reach_px)
            return [tracks for _, tracks in linked]

        def laptrack(places: Any = places, reach_px: float = reach_px) -> list[Any]:
            from laptrack import LapTrack

            rows = pd.DataFrame(
                [(n, *at) for n, each in enumerate(places) for at in each], columns=["frame", "y", "x"]
            )
            solver = LapTrack(
                cutoff=reach_px**2,
                gap_closing_cutoff=reach_px**2,
                gap_closing_max_frame_count=2,
                splitting_cutoff=False,
                merging_cutoff=False,
            )
            tracked, _, _ = solver.predict_dataframe(
                rows, ["y", "x"], frame_col="frame", only_coordinate_cols=False
            )
            names = {
                (row.frame_y if hasattr(row, "frame_y") else row.frame, row.y, row.x): row.track_id
                for row in tracked.reset_index().itertuples()
            }
            return [[names[n, *at] for at in each] for n, each in enumerate(places)]

        cells = []
        for linker in (ours, theirs, laptrack):
            if linker is laptrack and importlib.util.find_spec("laptrack") is None:
                cells.append("not installed")
                continue
            cells.append(_timed(linker, places, sim))
        table.add_row(str(objects), kind, f"{step:g}", *cells)
    _console.print(table)


def _timed(linker: Callable[[], list[Any]], places: Sequence[NDArray[np.float64]], sim: Simulated) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start_s = time.perf_counter()
        tracks = linker()
        each_ms = 1000 * (time.perf_counter() - start_s) / len(places)
    rows = [
        (track, n, *at)
        for n, (names, each) in enumerate(zip(tracks, places, strict=True))
        for track, at in zip(names, each, strict=True)
    ]
    return f"{score(np.array(rows).reshape(-1, 4), sim.truth).links:.3f}  {each_ms:.1f}"


def activity() -> None:
    """How many tracks are called active where objects rest, and where they move."""
    table = _table(
        "share of 60 objects' tracks that are called active",
        "SNR",
        "at rest",
        "diffuse, 2 px a frame",
        "swim, 3 px a frame",
    )
    cases: list[tuple[Kind, float]] = [("brownian", 0.0), ("brownian", 2.0), ("directed", 3.0)]
    for snr in (2, 3, 5, 10):
        row = []
        for kind, step in cases:
            sim = simulate(kind, 60, snr=snr, step_px=step, side_px=400, frames=24, seed=21)
            with tempfile.TemporaryDirectory() as folder:
                field = follow(
                    series_of(sim, own=False), FollowOptions(size_um=SIZES_PX), Path(folder)
                ).summary
            row.append(f"{field['active']} / {field['tracks']}")
        table.add_row(f"{snr}", *row)
    _console.print(table)


def real(data: Path) -> None:
    """Real series, ours beside trackpy's own way with the settings of its tutorials."""
    table = _table(
        "real series",
        "series",
        "frames",
        "tracks ours",
        "trackpy",
        "D um^2/s ours",
        "trackpy",
        "exponent ours",
        "frames/s ours",
        "trackpy",
    )
    cases: list[tuple[str, float, float, tuple[float, float], int, float, bool]] = [
        ("t3-trackpy-bulk_water", 24.0, 1 / 2.85, (1.0, 3.0), 11, 20.0, True),
        ("t3-trackpy-brightfield", 10.0, 0.1, (2.4, 8.0), 31, 4000.0, False),
        ("t3-basic-brightfield", 1 / 60, 0.5, (5.0, 14.0), 17, 2000.0, True),
    ]
    for name, fps, size_um, sizes_um, diameter, minmass, dark in cases:
        files = sorted((data / name).glob("*.webp"))
        if not files:
            _console.print(f"{data / name} is not there: left out")
            continue
        frames = [read_image(path) for path in files]
        frames = [frame if frame.ndim == 2 else np.ascontiguousarray(frame[..., 1]) for frame in frames]
        series = Series(
            name,
            tuple(numbered(len(frames), fps)),
            frames[0].shape,
            PixelToStage.from_scale(size_um),
            "srgb",
            0.0,
            frames.__getitem__,
        )
        start_s = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            ours: Followed = follow(series, FollowOptions(size_um=sizes_um), Path(folder))
        rate = len(frames) / (time.perf_counter() - start_s)
        start_s = time.perf_counter()
        images = [255.0 - frame if dark else frame.astype(np.float64) for frame in frames]
        reach_px = 5 if name != "t3-trackpy-brightfield" else 15
        rows = trackpy_rows(images, diameter, minmass, reach_px, 1.0)
        their_rate = len(frames) / (time.perf_counter() - start_s)
        sums = FieldSums()
        for track in np.unique(rows[:, 0]):
            part = rows[rows[:, 0] == track]
            if len(part) >= 3:
                each = Track(
                    int(track),
                    part[:, 1] / fps,
                    part[:, 2:] * size_um,
                    np.ones(len(part)),
                    np.ones(len(part)),
                )
                sums.add(each, measure(each, 1 / fps), 1 / fps)
        s = ours.summary
        table.add_row(
            name, str(len(frames)), str(ours.tracks), str(sums.tracks), f"{s['diffusion_um2_s']:.3g}", f"{fit_msd(*sums.msd(1 / fps))[0]:.3g}",
            f"{s['msd_exponent']:.2f}", f"{rate:.1f}", f"{their_rate:.1f}",
        )  # fmt: skip
    _console.print(table)
    # Stokes and Einstein at 20 C, water of 1.002 mPa s, radius 0.5 um
    expected_um2_s = 1.380649e-23 * 293.15 / (6 * np.pi * 1.002e-3 * 0.5e-6) * 1e12
    _console.print(
        f"1 um spheres in water at 20 C: kT / 6 pi eta r = {expected_um2_s:.3f} um^2/s. The other two do not say how large their pixels are, nor their pace: 0.1 um at 10, and "
        "0.5 um at one a minute, are taken"
    )


def memory() -> None:
    """Of this process, after series of more and more frames that go forth and back."""
    import psutil

    sim = simulate("brownian", 20, frames=20, side_px=256, snr=8, seed=1)
    table = _table("memory over the length of a series", "frames", "MB after it")
    for count in (50, 100, 400):
        series = Series(
            "long",
            tuple(numbered(count, 10.0)),
            sim.frames[0].shape,
            PixelToStage.from_scale(1.0),
            "linear",
            0.0,
            lambda number: sim.frames[min(number % 38, 38 - number % 38)],
        )
        with tempfile.TemporaryDirectory() as folder:
            follow(series, FollowOptions(size_um=SIZES_PX), Path(folder))
        table.add_row(str(count), f"{psutil.Process().memory_info().rss / 1e6:.0f}")
    _console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="folder of the real series (%(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="fewer cases")
    parser.add_argument("--only", choices=("own", "stage", "linkers", "active", "real", "memory"))
    options = parser.parse_args()
    parts: dict[str, Callable[[], None]] = {
        "own": lambda: own_motion(options.quick),
        "stage": lambda: stage_motion(options.quick),
        "linkers": linkers,
        "active": activity,
        "real": lambda: real(options.data),
        "memory": memory,
    }
    if missing := [name for name in ("traccuracy", "laptrack") if importlib.util.find_spec(name) is None]:
        _console.print(
            f"left out, as they are not installed: {', '.join(missing)}; pip install 'deblurd[bench]' brings them",
            markup=False,
        )
    for name, part in parts.items():
        if options.only in (None, name):
            part()


if __name__ == "__main__":
    main()
