"""What the page wants to know of a microscope at work, and what it may ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import BaseModel, Field

State = Literal["idle", "armed", "scanning", "paused", "closing", "failed"]
Action = Literal["start", "finish", "pause", "resume", "discard", "label", "home"]
Picture = Literal["camera", "before", "after"]

TILE_PX = 256
"""Side of a picture of the mosaic that the page loads."""

LABEL_PATTERN = r"^[A-Za-z0-9._-]{1,64}$"
"""What a slide may be called."""

FOLDER_PATTERN = r"^\.*[A-Za-z0-9_-][A-Za-z0-9._-]*$"
MOST_FOLDER = 128
"""What a slide's folder is called, and in how many letters: its name, when it began, and a number; never `.` or `..`."""


Pair = Annotated[list[float], Field(min_length=2, max_length=2)]
Pixel = Annotated[list[int], Field(min_length=2, max_length=2)]
Box = Annotated[list[int], Field(min_length=4, max_length=4)]
"""Lists, because tuples of fixed length are not told alike by every dialect of JSON Schema."""


class Gpu(BaseModel):
    """How busy the GPU is, with all that runs on it."""

    name: str
    busy_percent: int
    used_bytes: int
    total_bytes: int


class Status(BaseModel):
    """What a technician wants to see several times a second. Vectors are (y, x)."""

    sentence: str = Field(description="the state in plain words")
    state: State
    slide: str | None = Field(description="name of the slide's folder")
    label: str | None = Field(description="what the next slide, or this one, is called")
    actions: list[Action] = Field(description="what makes sense now")
    frames: int
    frames_per_s: float
    lost: dict[str, int] = Field(description="lost frames by cause")
    fields: int = Field(description="fields of view that were recorded")
    placed: int
    deblurred: int
    painted: int
    backlog: dict[str, int] = Field(description="what waits in front of each stage")
    gaps: int = Field(description="places inside the slide that no field covers")
    stage_um: Pair | None
    speed_um_s: float
    speed_limit_um_s: float | None = Field(
        description="the fastest that leaves neither gaps nor too much blur"
    )
    advice: str | None = Field(
        None,
        description="a better exposure for the speed that the stage is driven at; null: none, or the camera was not measured",
    )
    engine: str
    model: str
    gpu: Gpu | None = Field(None, description="null: there is none, or it cannot be looked at")
    free_bytes: int
    disk_hours: float | None = Field(description="until the disk is full at this rate; unknown at rest")
    newest_field: int | None = Field(description="number of the field in the pictures before and after")
    newest_frame: int | None = Field(description="number of the frame in the picture camera")
    mosaic_revision: int | None = Field(
        description="goes up whenever a part of the slide's mosaic is painted"
    )
    alerts: int = Field(description="goes up with every alert")


class Alert(BaseModel):
    """Something that was said, to the log too."""

    number: int
    utc: str
    level: Literal["info", "warning", "error"]
    text: str


class Slide(BaseModel):
    """One slide on the disk, the newest first in a list."""

    folder: str
    slide_id: str
    state: str
    verdict: str = Field(description="how it went, in plain words")
    begun: str | None
    fields: int | None
    has_thumbnail: bool
    has_mosaic: bool


class Event(BaseModel):
    """A line of a slide's journal."""

    utc: str
    kind: str
    text: str


class Mosaic(BaseModel):
    """Where a mosaic's pictures are. Vectors are (y, x); pixels are those of level 0."""

    size_px: Pixel
    used_px: Box = Field(description="y0, x0, y1, x1: what holds pixels")
    levels: int = Field(description="level n + 1 has half as many pixels a side as level n")
    tile_px: int = TILE_PX
    shard_px: int
    pixel_size_um: float
    origin_um: Pair = Field(description="stage position of pixel 0, 0")
    revision: int
    shards: dict[str, int] | None = Field(
        description='revision of each painted shard, as "row,column"; null: everything is there, and stays'
    )
    field_px: Pair | None = Field(description="height, width of a field of view")


class SlideField(BaseModel):
    """A field of view in the mosaic: its middle, how it was treated, and how sharp it is (1: at rest)."""

    y_um: float
    x_um: float
    gate: str | None
    sharpness: float | None


class View(Protocol):
    """The daemon as the page sees it. Any thread may call; nothing here waits for the scan.

    `folder` has passed FOLDER_PATTERN. Raises NoInputError for what is not there, DataError for what is damaged, UsageError for an
    action that makes no sense now.
    """

    def status(self) -> Status: ...

    def unready(self) -> str | None:
        """Why no slide could be scanned now; None if one could."""

    def act(self, action: Action, text: str = "") -> str:
        """Does it, or sees to it that it is done; returns a sentence. text: the label of "label"."""

    def picture(self, kind: Picture) -> bytes | None:
        """A JPEG; None if there is nothing yet."""

    def alerts(self) -> list[Alert]: ...

    def slides(self) -> list[Slide]: ...

    def folder(self, folder: str) -> Path:
        """The slide's folder, inside the output folder."""

    def events(self, folder: str) -> list[Event]: ...

    def mosaic(self, folder: str) -> Mosaic | None:
        """None while there is nothing to see."""

    def mosaic_tile(self, folder: str, level: int, row: int, column: int) -> bytes | None:
        """A JPEG of at most TILE_PX a side, grey where nothing is painted; None beyond the mosaic."""

    def fields(self, folder: str) -> list[SlideField]: ...
