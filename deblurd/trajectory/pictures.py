"""What tracks look like: over the field they were seen in, and as curves."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from deblurd.errors import OutputError
from deblurd.frames import Pixels
from deblurd.trajectory.measure import Track, fit_msd
from deblurd.trajectory.series import Instant, Series

PICTURE, PLOTS = "tracks.png", "plots.png"

LONGEST_PX, SHORTEST_PX = 2048, 1024
"""Of the picture's longer side: larger fields are shown smaller, smaller ones larger."""

_GOLDEN = 0.618034
_DIM = 0.8


class TrackPicture:
    """The field that a series saw, and over it its tracks; drawn frame by frame and track by track.

    Its axes are those of the stage, turned as the camera is where the stage rests: x to the right, y down.
    """

    def __init__(self, series: Series) -> None:
        self._series = series
        height, width = series.shape[:2]
        corners_px = np.array(
            [[0, 0], [0, width - 1], [height - 1, 0], [height - 1, width - 1]], dtype=np.float64
        )
        first = series.instants[0] if series.instants else Instant(0, 0.0)
        # where the stage rests, the picture is the camera's; where it moves, the plane of the stage turned like the camera
        ends = [self._plane(series.to_stage(each, corners_px)) for each in series.instants or (first,)]
        low, high = (
            np.min([end.min(axis=0) for end in ends], axis=0),
            np.max([end.max(axis=0) for end in ends], axis=0),
        )
        size = high - low + 1
        self.scale = (
            min(max(SHORTEST_PX / size.max(), 1.0), 4.0)
            if size.max() < LONGEST_PX
            else LONGEST_PX / size.max()
        )
        self._low = low
        shape = np.maximum(np.ceil(size * self.scale).astype(int), 1)
        self._canvas = np.zeros((*shape, 3), np.uint8)
        self._lines: NDArray[np.uint8] = np.zeros_like(self._canvas)
        self._range: tuple[float, float] | None = None

    def _plane(self, yx_um: NDArray[np.float64]) -> NDArray[np.float64]:
        """Camera pixels of the whole plane."""
        return self._series.affine.to_pixels(yx_um)

    def _on_canvas(self, yx_um: NDArray[np.float64]) -> NDArray[np.float64]:
        at: NDArray[np.float64] = (self._plane(yx_um) - self._low + 0.5) * self.scale - 0.5
        return at

    def show(self, instant: Instant, pixels: Pixels) -> None:
        """A frame, where it lies."""
        grey = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        if self._range is None:
            low, high = (float(value) for value in np.percentile(grey, (0.1, 99.9)))
            self._range = low, max(high - low, 1.0)
        light = np.clip((grey - self._range[0]) * (_DIM * 255 / self._range[1]), 0, 255).astype(np.uint8)
        way = cv2.INTER_AREA if self.scale < 1 else cv2.INTER_LINEAR
        small = cv2.resize(light, None, fx=self.scale, fy=self.scale, interpolation=way)
        corner = self._series.to_stage(instant, np.zeros((1, 2)))
        y, x = np.rint(self._on_canvas(corner)[0] - 0.5 * (self.scale - 1)).astype(int)
        y, x = max(y, 0), max(x, 0)
        part = self._canvas[y : y + small.shape[0], x : x + small.shape[1]]
        part[:] = small[: part.shape[0], : part.shape[1], None]

    def draw(self, track: Track) -> None:
        """A line along a track, and a ring around where the object was last."""
        colour = colour_of(track.number)
        at = np.rint(16 * self._on_canvas(track.yx_um)[:, ::-1]).astype(np.int32)
        cv2.polylines(self._lines, [at.reshape(-1, 1, 2)], False, colour, 1, cv2.LINE_AA, shift=4)
        radius = max(track.size_um[-1] / self._series.affine.pixel_size_um * self.scale * 0.6, 2.0)
        cv2.circle(
            self._lines, (int(at[-1, 0]), int(at[-1, 1])), round(16 * radius), colour, 1, cv2.LINE_AA, shift=4
        )

    def write(self, path: Path) -> None:
        """As a PNG, with a scale bar. Raises OutputError."""
        picture = self._canvas.copy()
        covered = self._lines.max(axis=2, keepdims=True)
        picture = (picture.astype(np.uint16) * (255 - covered) // 255).astype(np.uint8) + self._lines
        _scale_bar(picture, self._series.affine.pixel_size_um / self.scale)
        _write(path, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))


def colour_of(number: int) -> tuple[int, int, int]:
    """RGB; neighbours in number are far apart in hue."""
    red, green, blue = colorsys.hsv_to_rgb((number * _GOLDEN) % 1, 0.85, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def plot(
    path: Path,
    speeds_um_s: Sequence[float],
    curves: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
    field: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
) -> None:
    """Speeds as a histogram; mean squared displacements over time: of some tracks, and of all together with the line that gives D. Raises OutputError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    known = [speed for speed in speeds_um_s if math.isfinite(speed)]
    if known:
        left.hist(known, bins=min(max(len(known) // 4, 8), 60), color="#3b75af")
    left.set(xlabel="mean speed, \u00b5m/s", ylabel="tracks", title=f"{len(known)} tracks")
    for lag_s, msd_um2 in curves:
        right.plot(lag_s, np.maximum(msd_um2, 1e-9), color="0.75", linewidth=0.6)
    lag_s, msd_um2, pairs = field
    if len(lag_s) > 1:
        diffusion, offset_um2 = fit_msd(lag_s, msd_um2, pairs)
        right.plot(lag_s, msd_um2, "o", color="#c0392b", label="all tracks")
        line_um2 = 4 * diffusion * lag_s + offset_um2
        right.plot(
            lag_s, line_um2, color="#c0392b", label=f"4 D t + offset, D = {diffusion:.3g} \u00b5m\u00b2/s"
        )
        right.set(xscale="log", yscale="log")
        # in less than a decade the numbers between the powers of ten would lie on one another
        for axis in (right.xaxis, right.yaxis):
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
        right.legend(fontsize=8, loc="upper left")
    right.set(xlabel="lag, s", ylabel="mean squared displacement, \u00b5m\u00b2")
    figure.suptitle("For research use only", fontsize=8, color="0.4")
    try:
        figure.savefig(path, dpi=130)
    except OSError as err:
        raise OutputError(
            f"{path} cannot be written ({err.strerror}): make room, or choose another folder"
        ) from err


def _scale_bar(picture: NDArray[np.uint8], um_per_px: float) -> None:
    height, width = picture.shape[:2]
    if width < 200 or height < 60:
        return
    longest_um = 0.2 * width * um_per_px
    step = 10.0 ** math.floor(math.log10(longest_um))
    bar_um = step * max(times for times in (1, 2, 5) if times * step <= longest_um)
    length, y, x = round(bar_um / um_per_px), height - 20, 20
    cv2.rectangle(picture, (x - 6, y - 24), (x + max(length, 70) + 6, y + 12), (0, 0, 0), cv2.FILLED)
    cv2.rectangle(picture, (x, y), (x + length, y + 5), (255, 255, 255), cv2.FILLED)
    cv2.putText(
        picture, f"{bar_um:g} um", (x, y - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA
    )


def _write(path: Path, image: NDArray[np.uint8]) -> None:
    ok, encoded = cv2.imencode(".png", image)
    try:
        if ok:
            path.write_bytes(encoded.tobytes())
    except OSError as err:
        raise OutputError(
            f"{path} cannot be written ({err.strerror}): make room, or choose another folder"
        ) from err
