"""The shape of the configuration: what can be set, in which units, within which limits, and why."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationInfo, field_validator

from deblurd.frames import Encoding
from deblurd.naming import FOLDER_FIELDS, NAME_FIELDS, check_template

NonNegativeFinite = Annotated[FiniteFloat, Field(ge=0)]
Positive = Annotated[FiniteFloat, Field(gt=0)]
Mebibytes = Annotated[int, Field(gt=0, le=1_000_000)]
Rolling = Annotated[FiniteFloat, Field(ge=-1000, le=1000)]
Side = Annotated[int, Field(ge=32, le=16384)]


class Section(BaseModel):
    """One table of the TOML file: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class MicroscopeSettings(Section):
    """Which Micro-Manager microscope."""

    backend: Literal["mmcore", "studio", "simulator", "replay"] = Field(
        "mmcore",
        description="mmcore: a microscope with a Micro-Manager .cfg; studio: one that a running Micro-Manager holds; "
        "simulator: a virtual slide under the same core; replay: what was recorded",
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
    rolling_ms: Rolling | None = Field(
        None,
        description="of a rolling shutter: from the exposure of a frame's first row to that of its last, ms, negative where rows are read from the bottom up; "
        "what `deblurd calibrate` measured, else 0, which is a global shutter, if absent",
    )
    most_frames_per_s: Positive = Field(
        120.0,
        description="of a faster camera every second, third ... frame is handed on, and the others are counted as surplus: they show what their neighbours "
        "show, and cost as much; all are handed on where scan.observations is more than 1",
    )
    buffer_mb: Mebibytes = Field(512, description="size of Micro-Manager's image buffer, MiB")
    stage_poll_ms: Positive = Field(5.0, description="pause between two readings of the stage, ms")
    stage_readings: bool = Field(
        True,
        description="false: the stage is moved by hand and its readings tell nothing; where it is, and how fast, is seen in the frames",
    )
    hang_s: Positive = Field(5.0, description="a camera silent for longer, s, is reported as hanging")
    studio_port: Annotated[int, Field(gt=0, le=65535)] = Field(
        4827, description="where a running Micro-Manager listens, by its Tools > Options > Run server on port"
    )
    isolated: bool = Field(
        True,
        description="true: the devices live in a process of their own, which is started again where an adapter crashes or hangs",
    )

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
    light_e_ms: Positive | None = Field(
        None,
        description="photo-electrons of a white pixel per ms of exposure; if absent, white is full scale whatever the exposure",
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
    rolling_ms: Rolling = Field(
        0.0, description="true time from the exposure of a frame's first row to that of its last, ms"
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
    stage_skew: bool = Field(
        False,
        description="true: x is read a quarter into each stage reading and y at three quarters; false: both in its middle",
    )
    acceleration_um_s2: Positive = Field(50000.0, description="acceleration of the stage, um/s^2")
    wobble_um: NonNegativeFinite = Field(
        0.0, description="slow true deviation from the commanded path that readings do not show, um"
    )


class ReplaySettings(Section):
    """Recorded data in place of a microscope."""

    path: Path = Field(
        Path("recording"),
        validate_default=False,
        description="a slide's folder, a folder with tiles.csv, an OME-TIFF with stage positions, or an NDTiff",
    )
    pace: Literal["recorded", "fast"] = Field(
        "fast", description="recorded: with the pauses of the recording; fast: as fast as it goes"
    )
    moving: bool = Field(
        False,
        description="whether the stage moved while an OME-TIFF or NDTiff was exposed; the others say so themselves",
    )


class ScanSettings(Section):
    """How new ground comes under the objective."""

    mode: Literal["watch", "serpentine", "stop_and_stare"] = Field(
        "watch",
        description="watch: somebody else moves the stage; serpentine: deblurd drives over the area without stopping; stop_and_stare: it "
        "stops at each field",
    )
    area_mm: tuple[Positive, Positive] | None = Field(
        None,
        description="width, height of the area to scan, mm; its top left corner is that of the first field; without any area deblurd drives until there is "
        "no more tissue",
    )
    start_um: tuple[FiniteFloat, FiniteFloat] | None = Field(
        None, description="stage x, y of the middle of the first field, um; where the stage stands if absent"
    )
    polygon_um: Annotated[tuple[tuple[FiniteFloat, FiniteFloat], ...], Field(min_length=2)] | None = Field(
        None,
        description="goes before area_mm: two opposite corners of the area, or all corners of a polygon, each stage x, y, um",
    )
    plan: Path | None = Field(
        None,
        description="goes before polygon_um: a useq-schema file in JSON, a grid plan or a sequence with one, as Micro-Manager's Python tools write it",
    )
    speed_um_s: Positive | None = Field(
        None,
        description="speed of the stage along the lanes, um/s; times exposure over pixel size it is the blur in px; the largest that model, "
        "exposure and camera allow if absent",
    )
    ramp_ms: NonNegativeFinite = Field(
        100.0,
        description="how long the stage takes to its speed, ms: lanes begin and end so far outside the area",
    )
    settle_ms: NonNegativeFinite = Field(
        250.0, description="how long the stage stands at a field before it is believed to be still, ms"
    )
    calibrate: Literal["auto", "always", "never"] = Field(
        "auto",
        description="whether scans measure by their own frames how the camera sees the stage, and its noise; one that deblurd drives begins with it, for some "
        "seconds, unless that is known from before; auto: the former where microscope.latency_ms is not set",
    )
    focus_points_um: (
        Annotated[tuple[tuple[FiniteFloat, FiniteFloat, FiniteFloat], ...], Field(min_length=3)] | None
    ) = Field(
        None,
        description="three or more places in focus, each stage x, y and focus drive z, um: the focus follows the plane through them",
    )
    autofocus: bool = Field(
        False,
        description="true: Micro-Manager's autofocus finds the plane at three places of the area, unless focus_points_um says it",
    )
    go_back: bool = Field(
        True,
        description="true: at the end of a scan gaps, and tiles whose motion is unknown or that failed the check, are taken again at rest",
    )
    stage_limits_um: tuple[tuple[FiniteFloat, FiniteFloat], tuple[FiniteFloat, FiniteFloat]] | None = Field(
        None,
        description="two opposite corners, each stage x, y, um: deblurd never moves the stage out of them",
    )
    overlap: Annotated[FiniteFloat, Field(ge=0.02, le=0.9)] = Field(
        0.2, description="how far neighbouring tiles overlap, as a share of a tile"
    )
    rests: bool = Field(
        True, description="whether the stage stands at both ends of a lane for two frames, which are sharp"
    )
    crossed: bool = Field(
        False,
        description="serpentine: whether a second pass goes across the first, so that each place is blurred in two directions",
    )
    lane_overlap: Annotated[FiniteFloat, Field(gt=0, le=1)] | None = Field(
        None, description="how far neighbouring lanes overlap, as a share of a field; as tiles do if absent"
    )
    lane_exposures_ms: tuple[Positive, ...] = Field(
        (), description="exposures, ms, that take turns lane by lane; always microscope.exposure_ms if empty"
    )
    observations: Annotated[int, Field(ge=1, le=60)] = Field(
        1,
        description="frames of each place, along the way of the stage, that are recorded and fused, at most: more frames bring back what one blur took, and "
        "need more disk; 1: only those that the mosaic needs",
    )
    exposures_ms: Annotated[tuple[Positive, ...], Field(max_length=60)] = Field(
        (),
        description="exposures, ms, that take turns frame by frame, by a camera that can sequence them; wants scan.observations above 1; always "
        "microscope.exposure_ms if empty",
    )

    @field_validator("exposures_ms")
    @classmethod
    def _fused_and_by_frames_alone(cls, value: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        if value and info.data.get("lane_exposures_ms"):
            raise ValueError("exposures take turns by frame or by lane: leave lane_exposures_ms empty")
        if value and (info.data.get("observations") == 1 or info.data.get("mode") == "stop_and_stare"):
            raise ValueError(
                "exposures that take turns pay only where frames in motion are fused: set observations to more than 1, and no mode that stops"
            )
        return value


class DeblurSettings(Section):
    """Which model takes the blur out."""

    model: str = Field(
        "fast",
        min_length=1,
        description='folder name under models/, a path to one, "wiener" (no network) or "raw" (nothing)',
    )
    device: Literal["auto", "cpu", "cuda", "tensorrt"] = Field(
        "auto",
        description="auto: the GPU where it works, else the CPU; cuda, or tensorrt (compiles for minutes at first): that or an error",
    )
    threads: Annotated[int, Field(ge=0, le=1024)] = Field(
        0, description="CPU threads of ONNX Runtime; 0: all cores"
    )
    batch: Annotated[int, Field(gt=0, le=1024)] = Field(2, description="tiles handed to the model at once")
    sharp_below_px: NonNegativeFinite = Field(
        0.7, description="a tile whose motion is shorter, px, stays as it is"
    )
    consistency_limit: Positive = Field(
        0.7,
        description="deblurred pixels, blurred again, may leave this share of what the blur does unexplained; the raw pixels stand beyond it, and are mixed in from 0.2 below it",
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
    shading: Literal["auto", "off"] = Field(
        "auto", description="auto: even out vignetting, measured from overlapping tiles; off: leave it"
    )
    least_free_mb: Annotated[int, Field(ge=0, le=10_000_000)] = Field(
        500,
        description="with less room on the disk than this, MB, a scan is paused until there is more; painting may use what is left",
    )


class SlideSettings(Section):
    """When a slide begins and ends, and what it is called."""

    name: str = Field(
        "slide",
        description="slide_id of a slide without a label: the name of its folders; letters, digits and . _ -, and {counter}, {date}, {operator}",
    )
    folder: str = Field(
        "{slide_id}_{utc}",
        description="name of the folder of each scan, in the slide's folder: {slide_id} and {utc}, and {counter}, {operator}",
    )
    operator: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_-]{1,32}$",
        description="who works at this microscope, for names and manifests",
    )
    label_image: Path | None = Field(
        None,
        description="picture of the slide's label, written by another program; a new barcode in it is the next slide's name",
    )
    label_camera: Annotated[int, Field(ge=0, le=99)] | None = Field(
        None, description="number of a webcam that sees the label, in place of label_image"
    )
    start: Literal["tissue", "field", "asked"] = Field(
        "tissue",
        description="tissue: a slide begins when tissue moves under the objective; field: with any new field; asked: only when it is asked for",
    )
    idle_end_s: Positive = Field(60.0, description="a slide ends after this long without a new tile, s")
    resume_s: NonNegativeFinite = Field(
        30.0,
        description="a slide that ended by itself goes on if its own tissue is seen again within this time, s; its mosaic waits for so long",
    )
    far_um: Positive = Field(
        20000.0, description="a blank field ends a slide when all of its tissue is farther away, um"
    )
    home_um: tuple[FiniteFloat, FiniteFloat] | None = Field(
        None, description="stage x, y of the load position, where a slide ends, um; nowhere if absent"
    )
    home_radius_um: Positive = Field(200.0, description="how near to home_um counts as there, um")
    home_s: NonNegativeFinite = Field(
        2.0, description="so long at home_um ends a slide, s: passing it does not"
    )

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, value: str) -> str:
        check_template(value, NAME_FIELDS)
        return value

    @field_validator("folder")
    @classmethod
    def _names_each_scan(cls, value: str) -> str:
        check_template(value, FOLDER_FIELDS)
        if "{slide_id}" not in value or "{utc}" not in value:
            raise ValueError("without {slide_id} and {utc} two scans could have the same folder: write both")
        return value


class ServeSettings(Section):
    """The page in the browser, and the HTTP API behind it."""

    enabled: bool = Field(True, description="whether there is a page")
    host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="address that the page is served at; 127.0.0.1: to this machine only; 0.0.0.0: to the network",
    )
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        8765, description="the page's port; 0: any that is free"
    )
    names: tuple[str, ...] = Field(
        (), description="host names that the page goes by, beside localhost and bare addresses"
    )
    token_file: Path | None = Field(
        None,
        description="file with the token that whoever opens the page must type in; needed unless host is this machine only",
    )

    @field_validator("token_file")
    @classmethod
    def _needed_beyond_loopback(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        host = info.data.get("host")
        if value is None and host is not None and not is_loopback(host):
            raise ValueError(f'host "{host}" can be reached from other machines, and so needs token_file')
        return value


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class ServiceSettings(Section):
    """How `deblurd run` behaves as a service of this machine."""

    drain_s: Positive = Field(
        60.0,
        description="after SIGTERM, painting may go on for so long, s; what is not done by then is left for the next start",
    )
    stuck_s: Annotated[FiniteFloat, Field(ge=5)] = Field(
        60.0,
        description="a part of deblurd that has work and does not move on for so long, s, is reported, and no longer vouched for to systemd",
    )


class TrajectorySettings(Section):
    """Objects followed through time while the stage rests."""

    enabled: bool = Field(
        False,
        description="whether frames are kept as a series while the stage rests, and its objects followed",
    )
    frames_per_s: Positive = Field(
        10.0, description="frames of a series per second, at most; the camera's if that is slower"
    )
    longest_s: Positive = Field(60.0, description="a series ends after so long, s, though the stage rests on")
    least_frames: Annotated[int, Field(ge=2, le=1_000_000)] = Field(
        20, description="a shorter series is deleted: the stage only paused"
    )
    size_um: tuple[Positive, Positive] | None = Field(
        None, description="smallest and largest diameter of the objects, um; those that stand out if absent"
    )


class NotifySettings(Section):
    """Who else hears of it."""

    webhook: str | None = Field(
        None,
        pattern=r"^https?://[^/\s]+(/\S*)?$",
        description="http address that is sent {event, text, utc} as JSON when a slide is done or something stopped; nothing is sent if absent",
    )


class Settings(Section):
    """All of it."""

    microscope: MicroscopeSettings
    simulator: SimulatorSettings | None = None
    replay: ReplaySettings | None = None
    scan: ScanSettings = Field(default_factory=lambda: ScanSettings())
    deblur: DeblurSettings = Field(default_factory=lambda: DeblurSettings())
    mosaic: MosaicSettings = Field(default_factory=lambda: MosaicSettings())
    slide: SlideSettings = Field(default_factory=lambda: SlideSettings())
    serve: ServeSettings = Field(default_factory=lambda: ServeSettings())
    notify: NotifySettings = Field(default_factory=lambda: NotifySettings())
    service: ServiceSettings = Field(default_factory=lambda: ServiceSettings())
    trajectories: TrajectorySettings = Field(default_factory=lambda: TrajectorySettings())

    @field_validator("replay")
    @classmethod
    def _needed_by_replay(cls, value: ReplaySettings | None, info: ValidationInfo) -> ReplaySettings | None:
        microscope = info.data.get("microscope")
        if value is None and isinstance(microscope, MicroscopeSettings) and microscope.backend == "replay":
            raise ValueError('backend "replay" needs [replay] with the path of a recording')
        return value

    @property
    def learns_calibration(self) -> bool:
        """Whether scans measure how the camera sees the stage. Beside a latency that is told it costs more than it gains: the frames of a busy
        computer tell less than a measurement made once (`deblurd calibrate`)."""
        how = self.scan.calibrate
        return how == "always" or (how == "auto" and self.microscope.latency_ms is None)

    @property
    def at_one_exposure(self) -> Settings:
        """Without exposures that take turns: for what measures by frames alike."""
        return self.model_copy(update={"scan": self.scan.model_copy(update={"exposures_ms": ()})})

    @field_validator("simulator")
    @classmethod
    def _there_if_asked_for(
        cls, value: SimulatorSettings | None, info: ValidationInfo
    ) -> SimulatorSettings | None:
        microscope = info.data.get("microscope")
        if value is None and isinstance(microscope, MicroscopeSettings) and microscope.backend == "simulator":
            return SimulatorSettings()
        return value
