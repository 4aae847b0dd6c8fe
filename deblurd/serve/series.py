"""The routes of the series that were followed: which there are, their tracks, their frames."""

from __future__ import annotations

from typing import Annotated, Any, Protocol

from fastapi import FastAPI, Response
from fastapi import Path as InPath
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field

from deblurd.serve.view import FOLDER_PATTERN, MOST_FOLDER

Name = Annotated[
    str, InPath(pattern=FOLDER_PATTERN, max_length=MOST_FOLDER, description="name of a series' folder")
]


class SeriesEntry(BaseModel):
    """A series that was followed, the newest first in a list."""

    name: str
    frames: int
    tracks: int
    sentence: str = Field(description="what came of it, in plain words")


class SeriesTrack(BaseModel):
    """One object. points: [frame, y, x, diameter] in pixels of the frames, in order of time."""

    id: int
    points: list[Annotated[list[float], Field(min_length=4, max_length=4)]]


class SeriesTracks(BaseModel):
    """All of a series. Vectors are (y, x)."""

    shape_px: Annotated[list[int], Field(min_length=2, max_length=2)]
    pixel_size_um: float
    t_s: list[float] = Field(description="when each frame was taken")
    tracks: list[SeriesTrack]
    left_out: int = Field(description="tracks that are not in the list, because there are too many to draw")


class Shelf(Protocol):
    """Series on the disk. Any thread may call. Raises NoInputError for what is not there, DataError for what is damaged."""

    def series(self) -> list[SeriesEntry]: ...

    def tracks(self, name: str) -> SeriesTracks: ...

    def frame(self, name: str, number: int) -> bytes:
        """A JPEG of the frame that `t_s` names at that place."""


def add_series(app: FastAPI, shelf: Shelf, page: Any, answers: dict[int | str, dict[str, Any]]) -> None:
    """page: the file of the page that shows them. answers: how errors are answered."""

    @app.get("/trajectories", response_class=FileResponse, include_in_schema=False)
    def show() -> FileResponse:
        return FileResponse(page, headers={"cache-control": "no-cache"})

    @app.get("/api/series")
    def series() -> list[SeriesEntry]:
        """Every series that was kept while the stage rested, and followed."""
        return shelf.series()

    @app.get("/api/series/{name}", responses=answers)
    def tracks(name: Name) -> SeriesTracks:
        """The tracks of a series, in pixels of its frames."""
        return shelf.tracks(name)

    @app.get(
        "/api/series/{name}/{number}.jpg",
        response_class=Response,
        responses={200: {"content": {"image/jpeg": {}}}, **answers},
    )
    def frame(name: Name, number: Annotated[int, InPath(ge=0, lt=2**31)]) -> Response:
        """A frame of a series."""
        content = shelf.frame(name, number)
        return Response(content, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})
