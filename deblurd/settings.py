"""The shape of the configuration: what can be set, in which units, within which limits, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationInfo, field_validator

from deblurd.frames import Encoding

NonNegativeFinite = Annotated[FiniteFloat, Field(ge=0)]
Positive = Annotated[FiniteFloat, Field(gt=0)]
Mebibytes = Annotated[int, Field(gt=0, le=1_000_000)]
Side = Annotated[int, Field(ge=32, le=16384)]


class Section(BaseModel):
    """One table of the TOML file: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class MicroscopeSettings(Section):
    """Which Micro-Manager microscope."""

    backend: Literal["mmcore", "simulator"] = Field(
        "mmcore",
        description="mmcore: a microscope with a Micro-Manager .cfg; simulator: a virtual slide under the same core",
    )
    config_file: Path | None = Field(
        None,
        description="Micro-Manager .cfg, needed by backend mmcore; looked for beside this file, then beside the device adapters",
    )
    adapter_path: Path | None = Field(
        None, description="folder of the device adapters; found by itself if absent"
    )
    pixel_size_um: Positive | None = Field(
        None, description="micrometres per camera pixel on the slide; taken from the .cfg if absent"
    )
    rotation_deg: FiniteFloat | None = Field(
        None,
        description="turn of the camera from stage x towards stage y, degrees; taken from the .cfg if absent",
    )
    mirrored: bool | None = Field(
        None, description="whether the camera sees the slide as in a mirror; taken from the .cfg if absent"
    )
    exposure_ms: Positive | None = Field(
        None, description="exposure time, ms, set at start; the .cfg's if absent"
    )
    encoding: Encoding = Field(
        "linear", description="linear: counts follow light; srgb: the camera applies a gamma"
    )
    latency_ms: NonNegativeFinite | None = Field(
        None, description="end of exposure to arrival of the frame, ms, mean; what the device says, else 0"
    )
    buffer_mb: Mebibytes = Field(512, description="size of Micro-Manager's image buffer, MiB")
    stage_poll_ms: Positive = Field(5.0, description="pause between two readings of the stage, ms")
    hang_s: Positive = Field(5.0, description="a camera silent for longer, s, is reported as hanging")

    # a rule between settings belongs to the one that is to be changed: so it is reported with its line, beside all other mistakes
    @field_validator("config_file")
    @classmethod
    def _needed_by_mmcore(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is None and info.data.get("backend") == "mmcore":
            raise ValueError('backend "mmcore" needs config_file, the Micro-Manager .cfg of the microscope')
        return value


class SimulatorSettings(Section):
    """The virtual microscope: what lies under it and how imperfect it is."""

    slide: Path | None = Field(
        None, description="image of a slide (PNG, TIFF, SVS); generated tissue if absent"
    )
    slide_size_mm: tuple[Positive, Positive] = Field(
        (4.0, 3.0), description="width, height of generated tissue, mm"
    )
    seed: int = Field(
        1, ge=0, description="start of the random numbers that make the generated tissue and all noise"
    )
    fov_px: tuple[Side, Side] = Field((512, 512), description="height, width of the camera, px")
    color: bool = Field(True, description="true: the camera is RGB; false: it is mono")
    bit_depth: Literal[8, 16] = Field(8, description="bits of a pixel value")
    frames_per_s: Positive = Field(30.0, description="frames of the camera per second")
    electrons_full_scale: Positive = Field(
        20000.0, description="photo-electrons at full scale: sets photon noise"
    )
    read_noise_e: NonNegativeFinite = Field(
        4.0, description="noise of reading a pixel, electrons, standard deviation"
    )
    vignetting: Annotated[FiniteFloat, Field(ge=0, lt=1)] = Field(
        0.15, description="share of the light that is lost in the corners"
    )
    defocus_px: NonNegativeFinite = Field(0.0, description="sigma of the defocus blur, px")
    pixel_size_um: Positive | None = Field(
        None, description="micrometres per camera pixel on the slide; the slide image's own, else 0.5"
    )
    rotation_deg: FiniteFloat = Field(
        0.0, description="true turn of the camera from stage x towards stage y, degrees"
    )
    mirrored: bool = Field(False, description="whether the camera truly sees the slide as in a mirror")
    encoding: Encoding = Field("srgb", description="how the virtual camera encodes light")
    latency_ms: NonNegativeFinite = Field(
        15.0, description="true time from end of exposure to arrival of the frame, ms, mean"
    )
    jitter_ms: NonNegativeFinite = Field(
        1.0, description="scatter of the frames' arrival, ms, standard deviation"
    )
    stage_noise_um: NonNegativeFinite = Field(
        0.05, description="scatter of each stage reading, um, standard deviation"
    )
    backlash_um: NonNegativeFinite = Field(
        0.0, description="true position lags this far behind after a turn, um"
    )
    stage_read_ms: NonNegativeFinite = Field(
        2.0, description="how long one stage reading takes, ms (serial stages: 20-50)"
    )
    acceleration_um_s2: Positive = Field(50000.0, description="acceleration of the stage, um/s^2")
    wobble_um: NonNegativeFinite = Field(
        0.0, description="slow true deviation from the commanded path that readings do not show, um"
    )


class ScanSettings(Section):
    """How new ground comes under the objective."""

    mode: Literal["watch", "serpentine"] = Field(
        "watch", description="watch: somebody else moves the stage; serpentine: deblurd drives over area_mm"
    )
    area_mm: tuple[Positive, Positive] | None = Field(
        None,
        description="width, height of the area to scan, mm; its top left corner is that of the first field",
    )
    start_um: tuple[FiniteFloat, FiniteFloat] | None = Field(
        None, description="stage x, y of the middle of the first field, um; where the stage stands if absent"
    )
    speed_um_s: Positive | None = Field(
        None,
        description="speed of the stage along the lanes, um/s; times exposure over pixel size it is the blur in px",
    )
    overlap: Annotated[FiniteFloat, Field(ge=0.02, le=0.9)] = Field(
        0.2, description="how far neighbouring tiles overlap, as a share of a tile"
    )

    @field_validator("area_mm", "speed_um_s")
    @classmethod
    def _needed_by_serpentine(cls, value: object, info: ValidationInfo) -> object:
        if value is None and info.data.get("mode") == "serpentine":
            raise ValueError(f'mode "serpentine" needs {info.field_name}')
        return value


class DeblurSettings(Section):
    """Which model takes the blur out."""

    model: str = Field(
        "fast",
        min_length=1,
        description='folder name under models/, a path to one, "wiener" (no network) or "raw" (nothing)',
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto: the GPU where it works, else the CPU; cuda: the GPU or an error"
    )
    threads: Annotated[int, Field(ge=0, le=1024)] = Field(
        0, description="CPU threads of ONNX Runtime; 0: all cores"
    )
    batch: Annotated[int, Field(gt=0, le=1024)] = Field(2, description="tiles handed to the model at once")
    sharp_below_px: NonNegativeFinite = Field(
        0.7, description="a tile whose motion is shorter, px, stays as it is"
    )
    consistency_limit: Positive = Field(
        1.4,
        description="deblurred pixels, blurred again, may differ from the raw ones by this many times the noise; else the raw pixels stand",
    )


class MosaicSettings(Section):
    """How the mosaic is written."""

    output: Path = Field(
        Path("deblurd-slides"),
        validate_default=False,
        description="folder that gets one folder for each slide",
    )
    chunk_px: Literal[128, 256, 512] = Field(
        256, description="side of a chunk, the least that a viewer reads, px"
    )
    shard_px: Literal[512, 1024, 2048] = Field(
        1024, description="side of a shard, one file of the mosaic, px"
    )
    refresh_s: Positive = Field(
        5.0, description="an unfinished part of the mosaic is written this long after its last tile, s"
    )
    memory_mb: Mebibytes = Field(64, description="cap of the tile cache, MiB")
    shading: Literal["auto", "off"] = Field(
        "auto", description="auto: even out vignetting, measured from overlapping tiles; off: leave it"
    )
    keep_raw: bool = Field(
        True,
        description="true: keep raw.zarr; false deletes raw.zarr of a finished slide, and with it the way back",
    )


class SlideSettings(Section):
    """When a slide ends, and what it is called."""

    name: str = Field(
        "slide",
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="slide_id: the name of the slides' folders; letters, digits and . _ -",
    )
    idle_end_s: Positive = Field(60.0, description="a slide ends after this long without a new tile, s")
    home_um: tuple[FiniteFloat, FiniteFloat] | None = Field(
        None, description="stage x, y where a slide ends, um; nowhere if absent"
    )
    home_radius_um: Positive = Field(200.0, description="how near to home_um counts as there, um")


class Settings(Section):
    """All of it."""

    microscope: MicroscopeSettings
    simulator: SimulatorSettings | None = None
    scan: ScanSettings = Field(default_factory=lambda: ScanSettings())
    deblur: DeblurSettings = Field(default_factory=lambda: DeblurSettings())
    mosaic: MosaicSettings = Field(default_factory=lambda: MosaicSettings())
    slide: SlideSettings = Field(default_factory=lambda: SlideSettings())

    @field_validator("simulator")
    @classmethod
    def _there_if_asked_for(
        cls, value: SimulatorSettings | None, info: ValidationInfo
    ) -> SimulatorSettings | None:
        microscope = info.data.get("microscope")
        if value is None and isinstance(microscope, MicroscopeSettings) and microscope.backend == "simulator":
            return SimulatorSettings()
        return value
