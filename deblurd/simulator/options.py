"""What ``deblurd demo`` can be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deblurd.errors import NoInputError, UsageError

MIN_FOV_PX, MAX_FOV_PX = 64, 8192
LEAST = 0.001
"""Of everything that is measured: above what could be meant, below what breaks arithmetic."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """One virtual scan.

    slide: image of a slide, None for generated tissue. pixel_size_um: None for the image's own, else 0.5.
    area_mm: width, height, where there is most to see; None for the whole slide. overlap: share of a tile. speed_um_s, blur_px: one of them or
    neither, since with the exposure each follows from the other. latency_ms: None for 15, which deblurd is told; a number is
    for deblurd to find out, together with rolling_ms. rolling_ms, jitter_ms, backlash_um, stage_read_ms, stage_skew, rotation_deg: as of `SimulatorSettings`. plan: a way of
    `deblurd.scan.plan` or "auto", None for one frame of each place at the given speed; scan_s: the time that it has, None for half of what stopping takes;
    light_e_ms: electrons of a white pixel per ms, for plans; fps: frames per second, None for as many as it takes. report: JSON
    file to write.
    Raises UsageError where a value makes no sense, NoInputError where the slide is missing.
    """

    slide: Path | None = None
    pixel_size_um: float | None = None
    area_mm: tuple[float, float] | None = None
    fov_px: int = 512
    overlap: float = 0.2
    exposure_ms: float = 10.0
    speed_um_s: float | None = None
    blur_px: float | None = None
    model: str = "fast"
    seed: int = 1
    output: Path = Path("deblurd-slides")
    report: Path | None = None
    latency_ms: float | None = None
    rolling_ms: float = 0.0
    jitter_ms: float = 1.0
    backlash_um: float = 0.0
    stage_read_ms: float = 2.0
    stage_skew: bool = False
    rotation_deg: float = 0.0
    plan: str | None = None
    scan_s: float | None = None
    light_e_ms: float = 1000.0
    fps: float | None = None

    def __post_init__(self) -> None:
        for option, value, most in (
            ("--pixel-size-um", self.pixel_size_um, 100.0),
            ("--exposure-ms", self.exposure_ms, 60_000.0),
            ("--speed-um-s", self.speed_um_s, 1e6),
            ("--blur-px", self.blur_px, 1000.0),
            ("--scan-s", self.scan_s, 1e6),
            ("--light", self.light_e_ms, 1e9),
            ("--fps", self.fps, 10_000.0),
            # no slide is larger
            *(("--area-mm", side, 200.0) for side in self.area_mm or ()),
        ):
            # NaN fails every comparison
            if value is not None and not LEAST <= value <= most:
                raise UsageError(
                    f"{option} is {value:g}, but must be a positive number, from {LEAST:g} to {most:g}"
                )
        for option, value, least, most in (
            ("--latency-ms", self.latency_ms, 0.0, 1000.0),
            ("--rolling-ms", self.rolling_ms, -1000.0, 1000.0),
            ("--jitter-ms", self.jitter_ms, 0.0, 1000.0),
            ("--backlash-um", self.backlash_um, 0.0, 1000.0),
            ("--stage-read-ms", self.stage_read_ms, 0.0, 1000.0),
            ("--rotation-deg", self.rotation_deg, -180.0, 180.0),
        ):
            if value is not None and not least <= value <= most:
                raise UsageError(f"{option} is {value:g}, but must lie between {least:g} and {most:g}")
        if not MIN_FOV_PX <= self.fov_px <= MAX_FOV_PX:
            raise UsageError(
                f"--fov-px is {self.fov_px}, but must lie between {MIN_FOV_PX}, which it takes to match tiles, and {MAX_FOV_PX}"
            )
        if not 0.02 <= self.overlap <= 0.9:
            raise UsageError(
                f"--overlap is {self.overlap:g}, but must lie between 0.02 and 0.9, as a share of a tile"
            )
        if self.plan is None and self.scan_s is not None:
            raise UsageError("--scan-s is the time of a plan: say --plan too, such as auto")
        if self.plan is not None and (self.blur_px is not None or self.speed_um_s is not None):
            raise UsageError(
                "a plan chooses speed and exposure by itself: leave --blur-px and --speed-um-s away"
            )
        if self.seed < 0:
            raise UsageError(f"--seed is {self.seed}, but must not be negative")
        if self.speed_um_s is not None and self.blur_px is not None:
            raise UsageError(
                "--speed-um-s and --blur-px say the same thing, since blur is speed times exposure: give one of them"
            )
        if self.slide is not None and not self.slide.is_file():
            raise NoInputError(
                f"the slide {self.slide} is not there: give the path of an image file after --slide"
            )
        if self.report is not None and self.report.is_dir():
            raise UsageError(f"--report {self.report} is a folder: name a file, such as report.json")
