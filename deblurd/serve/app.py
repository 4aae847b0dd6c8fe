"""The routes: each asks the `View` and says what it said."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi import Path as InPath
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException as StarletteHTTPException

from deblurd import __version__
from deblurd.errors import DataError, DeblurdError, NoInputError, UsageError
from deblurd.serve import metrics
from deblurd.serve.guard import COOKIE, Access, Guard
from deblurd.serve.pictures import empty_tile
from deblurd.serve.series import Shelf, add_series
from deblurd.serve.view import (
    FOLDER_PATTERN,
    MOST_FOLDER,
    Action,
    Alert,
    Event,
    Mosaic,
    Picture,
    Slide,
    SlideField,
    Status,
    View,
)

STATIC = Path(__file__).parent / "static"

_PAINTERS = 2
"""Pictures made at once: more would only take the processor from the scan."""

_FOREVER = "private, max-age=31536000, immutable"
_ZARR_FILES = {"zarr.json": "application/json"}

T = TypeVar("T")
Folder = Annotated[
    str, InPath(pattern=FOLDER_PATTERN, max_length=MOST_FOLDER, description="name of a slide's folder")
]
Number = Annotated[int, InPath(ge=0, lt=2**31)]


class Sentence(BaseModel):
    """What was done, or why it was not."""

    detail: str


class Order(BaseModel):
    """What an action needs beside its name."""

    model_config = ConfigDict(extra="forbid")
    text: str = Field("", max_length=64, pattern=r"^[A-Za-z0-9._-]*$", description='the label, of "label"')


class Login(BaseModel):
    """The text of the token file."""

    model_config = ConfigDict(extra="forbid")
    token: str = Field(max_length=1024)


def _may(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Sentence} for status in statuses}


def create_app(view: View, access: Access, shelf: Shelf | None = None) -> FastAPI:
    """The page and its API before `view`, for those whom `access` lets in. shelf: of the series that are followed, if they are."""
    app = FastAPI(
        title="deblurd",
        version=__version__,
        description="A microscope at work: its state, its slides, its mosaics. For research use only.",
        # its pages would load scripts from elsewhere
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=_may(401, 403, 421, 422),
    )
    app.add_middleware(Guard, access=access)
    painters = ThreadPoolExecutor(_PAINTERS, thread_name_prefix="deblurd-page-picture")
    app.add_exception_handler(DeblurdError, _explain)
    app.add_exception_handler(RequestValidationError, _point_out)
    app.add_exception_handler(StarletteHTTPException, _not_json)
    _add_health(app, view)
    _add_control(app, view, access)
    _add_slides(app, view)
    _add_pictures(app, view, painters)
    if shelf is not None:
        add_series(app, shelf, STATIC / "trajectories.html", _may(404, 409))
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


def _explain(request: Request, err: Exception) -> Response:
    """A DeblurdError is a sentence for people already."""
    status = 404 if isinstance(err, NoInputError) else 409 if isinstance(err, UsageError | DataError) else 503
    return JSONResponse({"detail": str(err)}, status)


async def _point_out(request: Request, err: Exception) -> Response:
    """What is wrong with a request, as a sentence too."""
    faults = err.errors() if isinstance(err, RequestValidationError) else []
    text = "; ".join(
        f"{'.'.join(str(part) for part in f['loc'][1:]) or f['loc'][0]}: {f['msg']}" for f in faults
    )
    return JSONResponse({"detail": f"this request is not understood ({text}): see /openapi.json"}, 422)


async def _not_json(request: Request, err: Exception) -> Response:
    """FastAPI answers 400 to a body that breaks its reader of JSON (not UTF-8, nested too deep), and 422 to one that is none."""
    assert isinstance(err, StarletteHTTPException)
    if err.status_code == 400:
        return JSONResponse({"detail": "the body of this request is not JSON: see /openapi.json"}, 422)
    return await http_exception_handler(request, err)


def _add_health(app: FastAPI, view: View) -> None:
    @app.get("/", response_class=FileResponse, include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})

    @app.get("/healthz")
    async def healthz() -> Sentence:
        """Whether the process answers."""
        return Sentence(detail="ok")

    @app.get("/readyz", responses=_may(503))
    def readyz() -> Sentence:
        """Whether a slide could be scanned now."""
        if (why := view.unready()) is not None:
            raise HTTPException(503, why)
        return Sentence(detail="ok")

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    def prometheus() -> Response:
        """The same figures as in the status, for Prometheus."""
        return Response(metrics.render(view), media_type=metrics.CONTENT_TYPE)


def _add_control(app: FastAPI, view: View, access: Access) -> None:
    @app.get("/api/status")
    def status() -> Status:
        """The state of the scan."""
        return view.status()

    @app.post("/api/actions/{action}", responses=_may(408, 409, 413, 503))
    def act(action: Action, order: Order) -> Sentence:
        """Starts, finishes, pauses, resumes or discards the slide at work, gives the label of the next one, or ends a scan and drives home."""
        if action == "label" and not order.text:
            raise UsageError("the label is empty: type it, or scan the slide's barcode")
        return Sentence(detail=view.act(action, order.text))

    @app.get("/api/alerts")
    def alerts() -> list[Alert]:
        """The newest things that were said, oldest first."""
        return view.alerts()

    @app.post("/api/login", responses=_may(408, 413))
    def login(login: Login, response: Response) -> Sentence:
        """Gives a browser the cookie that stands for the token."""
        if not access.knows_token(login.token):
            raise HTTPException(401, "this is not the token: it is the text of the file serve.token_file")
        if (kept := access.cookie_for(login.token)) is not None:
            response.set_cookie(COOKIE, kept, max_age=30 * 86400, httponly=True, samesite="strict")
        return Sentence(detail="ok")


def _add_slides(app: FastAPI, view: View) -> None:
    @app.get("/api/slides")
    def slides() -> list[Slide]:
        """Every slide in the output folder, the newest first."""
        return view.slides()

    @app.get("/api/slides/{folder}/events", responses=_may(404, 409))
    def events(folder: Folder) -> list[Event]:
        """What happened to a slide."""
        return view.events(folder)

    @app.get("/api/slides/{folder}/fields", responses=_may(404, 409))
    def fields(folder: Folder) -> list[SlideField]:
        """Where the fields of a slide lie, and how they were treated."""
        return view.fields(folder)

    @app.get("/api/slides/{folder}/mosaic", responses=_may(404, 409))
    def mosaic(folder: Folder) -> Mosaic | None:
        """How the mosaic of a slide is divided into pictures; null while there is nothing to see."""
        return view.mosaic(folder)

    @app.get(
        "/api/slides/{folder}/thumbnail.png",
        response_class=FileResponse,
        responses={200: {"content": {"image/png": {}}}, **_may(404)},
    )
    def thumbnail(folder: Folder) -> FileResponse:
        """The whole slide, small."""
        return FileResponse(_inside(view.folder(folder), "thumbnail.png"), media_type="image/png")

    @app.head("/slides/{folder}/mosaic.ome.zarr/{path:path}", include_in_schema=False)
    @app.get(
        "/slides/{folder}/mosaic.ome.zarr/{path:path}",
        response_class=FileResponse,
        responses={200: {"content": {"application/octet-stream": {}}}, 206: {}, 416: {}, **_may(404)},
    )
    def zarr(folder: Folder, path: str) -> FileResponse:
        """The files of a mosaic, whole or in ranges, for readers of OME-Zarr."""
        file = _inside(view.folder(folder) / "mosaic.ome.zarr", path)
        kind = _ZARR_FILES.get(file.name, "application/octet-stream")
        return FileResponse(file, media_type=kind, headers={"cache-control": "no-cache"})


def _add_pictures(app: FastAPI, view: View, painters: ThreadPoolExecutor) -> None:
    def jpeg(content: bytes, cache: str) -> Response:
        return Response(content, media_type="image/jpeg", headers={"cache-control": cache})

    nothing = empty_tile()
    answers = {200: {"content": {"image/jpeg": {}}}, **_may(404, 409)}

    @app.get("/api/live/{picture}.jpg", response_class=Response, responses={**answers, 204: {}})
    async def live(picture: Picture) -> Response:
        """The camera's newest frame, or the newest field before and after deblurring; empty (204) before there is one."""
        content = await _on(painters, lambda: view.picture(picture))
        return Response(status_code=204) if content is None else jpeg(content, "no-store")

    @app.get(
        "/api/slides/{folder}/mosaic/{level}/{row}/{column}.jpg", response_class=Response, responses=answers
    )
    async def tile(folder: Folder, level: Number, row: Number, column: Number, revision: int = 0) -> Response:
        """A part of the mosaic; grey beyond it. revision: of its shard, so that a browser can keep the answer."""
        content = await _on(painters, lambda: view.mosaic_tile(folder, level, row, column))
        # a mosaic shrinks when it is trimmed: who asks for the old one has not heard of it yet, and that is no error
        return jpeg(nothing, "no-store") if content is None else jpeg(content, _FOREVER)


async def _on(pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(pool, work)


def _inside(root: Path, path: str) -> Path:
    """The file `path` below `root`. Raises NoInputError where it is not there, and for whatever would lead out of `root`."""
    missing = NoInputError(f"there is no file {path!r} in this slide: look at the list of slides")
    if "\x00" in path or "\\" in path or ":" in path:
        raise missing
    try:
        file = (root / path).resolve(strict=True)
        if not file.is_file() or not file.is_relative_to(root.resolve(strict=True)):
            raise missing
    except (OSError, ValueError) as err:
        raise missing from err
    return file
