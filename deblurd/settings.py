"""The shape of the configuration: what can be set, in which units, within which limits, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveInt, model_validator

from deblurd.frames import Encoding

NonNegativeFinite = Annotated[FiniteFloat, Field(ge=0)]
Positive = Annotated[FiniteFloat, Field(gt=0)]


class Section(BaseModel):
    """One table of the TOML file: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class MicroscopeSettings(Section):
    """Which Micro-Manager microscope."""

    backend: Literal["mmcore", "simulator"] = Field(
        "mmcore", description="mmcore: a Micro-Manager .cfg; simulator: a virtual slide under the same core"
    )
    config_file: Path | None = Field(None, description="Micro-Manager .cfg; needed by backend mmcore")
    adapter_path: Path | None = Field(
        None, description="folder of the device adapters; found by itself if absent"
    )
    pixel_size_um: Positive | None = Field(
        None, description="micrometres per camera pixel on the slide; taken from the .cfg if absent"
    )
    rotation_deg: FiniteFloat | None = Field(
        None, description="turn of the camera from stage x towards stage y; taken from the .cfg if absent"
    )
    mirrored: bool | None = Field(None, description="whether the camera sees the slide as in a mirror")
    exposure_ms: Positive | None = Field(None, description="exposure set at start; the .cfg's if absent")
    encoding: Encoding = Field(
        "linear", description="linear: counts follow light; srgb: the camera applies a gamma"
    )
    latency_ms: NonNegativeFinite | None = Field(
        None, description="end of exposure to arrival of the frame, mean; what the device says, else 0"
    )
    buffer_mb: PositiveInt = Field(512, description="Micro-Manager's image buffer")
    stage_poll_ms: Positive = Field(5.0, description="pause between two readings of the stage")
    hang_s: Positive = Field(5.0, description="a camera silent for longer is reported as hanging")

    @model_validator(mode="after")
    def _config_file_needed(self) -> MicroscopeSettings:
        if self.backend == "mmcore" and self.config_file is None:
            raise ValueError('backend "mmcore" needs config_file, the Micro-Manager .cfg of the microscope')
        return self


class SimulatorSettings(Section):
    """The virtual microscope: what lies under it and how imperfect it is."""

    slide: Path | None = Field(
        None, description="image of a slide (PNG, TIFF, SVS); generated tissue if absent"
    )
    slide_size_mm: tuple[Positive, Positive] = Field(
        (4.0, 3.0), description="width, height of generated tissue"
    )
    seed: int = Field(1, ge=0, description="of the generated tissue and of all noise")
    fov_px: tuple[PositiveInt, PositiveInt] = Field((512, 512), description="camera height, width")
    color: bool = Field(True, description="RGB, or mono")
    bit_depth: Literal[8, 16] = 8
    frames_per_s: Positive = 30.0
    electrons_full_scale: Positive = Field(
        20000.0, description="photo-electrons at full scale: sets photon noise"
    )
    read_noise_e: NonNegativeFinite = 4.0
    vignetting: Annotated[FiniteFloat, Field(ge=0, lt=1)] = Field(
        0.15, description="light lost in the corners"
    )
    defocus_px: NonNegativeFinite = Field(0.0, description="sigma of the defocus blur")
    pixel_size_um: Positive | None = Field(
        None, description="of the camera on the slide; the slide image's own, else 0.5"
    )
    rotation_deg: FiniteFloat = Field(0.0, description="true turn of the camera from stage x towards stage y")
    mirrored: bool = Field(False, description="whether the camera truly sees the slide as in a mirror")
    encoding: Encoding = Field("srgb", description="how the virtual camera encodes light")
    latency_ms: NonNegativeFinite = Field(15.0, description="true time from end of exposure to arrival, mean")
    jitter_ms: NonNegativeFinite = Field(1.0, description="of the frames' arrival, standard deviation")
    stage_noise_um: NonNegativeFinite = Field(0.05, description="of each stage reading, standard deviation")
    backlash_um: NonNegativeFinite = Field(0.0, description="true position lags this far behind after a turn")
    stage_read_ms: NonNegativeFinite = Field(
        2.0, description="how long one stage reading takes (serial stages: 20-50)"
    )
    acceleration_um_s2: Positive = 50000.0
    wobble_um: NonNegativeFinite = Field(
        0.0, description="slow true deviation from the commanded path that readings do not show"
    )


class ScanSettings(Section):
    """How new ground comes under the objective."""

    mode: Literal["watch", "serpentine"] = Field(
        "watch", description="watch: somebody else moves the stage; serpentine: deblurd drives over area_mm"
    )
    area_mm: tuple[Positive, Positive] | None = Field(
        None, description="width, height; its top left corner is that of the first field"
    )
    start_um: tuple[FiniteFloat, FiniteFloat] | None = Field(
        None, description="stage x, y of the middle of the first field; where the stage stands if absent"
    )
    speed_um_s: Positive | None = Field(None, description="speed along the lanes")
    overlap: Annotated[FiniteFloat, Field(ge=0.02, le=0.9)] = Field(
        0.2, description="of neighbouring tiles, share of a tile"
    )

    @model_validator(mode="after")
    def _area_needed(self) -> ScanSettings:
        if self.mode == "serpentine" and (self.area_mm is None or self.speed_um_s is None):
            raise ValueError('mode "serpentine" needs area_mm and speed_um_s')
        return self


class DeblurSettings(Section):
    """Which model takes the blur out."""

    model: str = Field(
        "fast",
        description='folder name under models/, a path to one, "wiener" (no network) or "raw" (nothing)',
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[int, Field(ge=0)] = Field(0, description="CPU threads of ONNX Runtime; 0: all cores")
    batch: PositiveInt = Field(4, description="tiles handed to the model at once")
    sharp_below_px: NonNegativeFinite = Field(0.7, description="shorter motion leaves the tile as it is")
    consistency_limit: Positive = Field(
        1.4, description="reblurred against raw, over the noise floor; above it the raw pixels stand"
    )


class MosaicSettings(Section):
    """How the mosaic is written."""

    output: Path = Field(Path("deblurd-slides"), description="folder that gets one folder for each slide")
    chunk_px: Literal[128, 256, 512] = 256
    shard_px: Literal[512, 1024, 2048] = 1024
    refresh_s: Positive = Field(
        5.0, description="an unfinished part of the mosaic is written this long after its last tile"
    )
    memory_mb: PositiveInt = Field(64, description="cap of the tile cache")
    shading: Literal["auto", "off"] = Field(
        "auto", description="even out vignetting, measured from overlapping tiles"
    )
    keep_raw: bool = Field(
        True, description="false deletes raw.zarr of a finished slide, and with it the way back"
    )


class SlideSettings(Section):
    """When a slide ends, and what it is called."""

    name: str = Field("slide", pattern=r"^[A-Za-z0-9._-]{1,64}$", description="slide_id")
    idle_end_s: Positive = Field(60.0, description="a slide ends after this long without a new tile")
    home_um: tuple[FiniteFloat, FiniteFloat] | None = Field(None, description="stage x, y where a slide ends")
    home_radius_um: Positive = 200.0


class Settings(Section):
    """All of it."""

    microscope: MicroscopeSettings
    simulator: SimulatorSettings | None = None
    scan: ScanSettings = Field(default_factory=lambda: ScanSettings())
    deblur: DeblurSettings = Field(default_factory=lambda: DeblurSettings())
    mosaic: MosaicSettings = Field(default_factory=lambda: MosaicSettings())
    slide: SlideSettings = Field(default_factory=lambda: SlideSettings())
