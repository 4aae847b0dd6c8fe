"""A slide worked through again from its raw tiles and its journal: after a power cut, or with another model.

The mosaic is a function of the raw tiles, the journal and the model: this gives the pixels that an undisturbed scan would have given.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from deblurd.deblur.model import Model, find_model
from deblurd.errors import DataError, DeblurdError
from deblurd.pipeline import Finished, SlidePipeline, finish_in_sight, make_deblurrer
from deblurd.record.journal import Journal
from deblurd.record.recorder import Recorder
from deblurd.settings import DeblurSettings, MicroscopeSettings, MosaicSettings, ScanSettings, Settings
from deblurd.slides.catalog import entry, slides
from deblurd.slides.folder import SlideFolder
from deblurd.slides.painter import Camera

log = logging.getLogger(__name__)


def resume(
    folder: SlideFolder,
    model: str | None = None,
    on_progress: Callable[[int, int], None] = lambda painted, tiles: None,
) -> tuple[Finished, list[int]]:
    """Makes the mosaic of a slide anew and ends the slide; also returns the tiles whose raw pixels are damaged, which are left out.

    model: in place of the slide's own. on_progress: told tiles painted and all tiles. A mosaic that is there is kept until the new
    one is finished. The caller holds the lock of the output folder. Raises NoInputError, DataError, ModelError, OutputError.
    """
    journal = Journal(folder.journal)
    try:
        camera, count = Camera.from_json(journal.slide("camera")), journal.count()
    finally:
        journal.close()
    if count == 0:
        raise DataError(f"{folder.path} holds no tile: there is nothing to make a mosaic of")
    manifest = folder.read_manifest() if folder.manifest.is_file() else {}
    settings = _settings(folder, manifest, model)
    found = find_model(settings.deblur.model)
    deblurrer = make_deblurrer(_checked(found, manifest) if model is None else found, camera, settings.deblur)
    before = folder.mosaic.with_name("mosaic.before.ome.zarr")
    _put_aside(folder, before)
    content = {key: value for key, value in manifest.items() if key not in ("schema", "deblurd")}
    folder.write_manifest(content | {"state": "growing"})
    try:
        pipeline = SlidePipeline(folder, camera, deblurrer, settings)
        pipeline.event("resume", f"worked through again with {deblurrer.name}")
        damaged = pipeline.again()
        for index in damaged:
            pipeline.event("damaged", f"the raw pixels of tile {index} are not what was recorded; left out")
        finished = finish_in_sight(pipeline, lambda painted: on_progress(painted, count))
    finally:
        deblurrer.close()
    folder.write_manifest(
        content
        | {"config": settings.model_dump(mode="json") | {"microscope": _microscope(manifest)}}
        | {"model": deblurrer.model_id, "engine": deblurrer.engine_name, "damaged": damaged}
        | finished.to_manifest(str(manifest.get("reason", "resumed")))
    )
    if finished.failure is not None:
        raise finished.failure
    shutil.rmtree(before, ignore_errors=True)
    return finished, damaged


def resume_all(output: Path, on_event: Callable[[str], None]) -> None:
    """Ends every slide below `output` that was not: what a kill or a full disk left. on_event: told in a sentence for each.

    One that cannot be ended is left as it is. The caller holds the lock of `output`.
    """
    for found in slides(output) if output.is_dir() else ():
        if found.state == "done":
            continue
        try:
            finished, damaged = resume(found.folder)
        except DeblurdError as err:
            on_event(f"the slide {found.folder.name} is {found.state} and could not be finished: {err}")
            continue
        without = f", without {len(damaged)} damaged ones" if damaged else ""
        on_event(
            f"the slide {found.folder.name} was {found.state}: finished with {finished.tiles} tiles{without}"
        )


def _put_aside(folder: SlideFolder, before: Path) -> None:
    """Only a finished mosaic is worth keeping meanwhile; half of one and other leavings of a kill can be made again."""
    done = folder.manifest.is_file() and folder.read_manifest().get("state") == "done"
    if done and folder.mosaic.is_dir():
        shutil.rmtree(before, ignore_errors=True)
        folder.mosaic.rename(before)
    for left in (folder.mosaic, folder.scratch, *folder.path.glob("*.part")):
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink(missing_ok=True)


def _settings(folder: SlideFolder, manifest: dict[str, Any], model: str | None) -> Settings:
    """Those of the slide; its microscope is not asked for any more."""
    config = manifest.get("config", {})
    try:
        deblur = DeblurSettings.model_validate(config.get("deblur", {}))
        settings = Settings(
            microscope=MicroscopeSettings(backend="simulator"),
            scan=ScanSettings.model_validate(config.get("scan", {})),
            deblur=deblur if model is None else deblur.model_copy(update={"model": model}),
            mosaic=MosaicSettings.model_validate(
                config.get("mosaic", {}) | {"output": folder.path.parent.parent}
            ),
        )
    except ValidationError as err:
        raise DataError(
            f"{folder.manifest} has a configuration that this deblurd does not know ({err.errors()[0]['msg']}): "
            "use the deblurd that wrote it"
        ) from err
    return settings


def _microscope(manifest: dict[str, Any]) -> dict[str, Any]:
    found = manifest.get("config", {}).get("microscope", {})
    return found if isinstance(found, dict) else {}


def _checked(found: Model, manifest: dict[str, Any]) -> Model:
    known = manifest.get("model", {}).get("sha256")
    if known and known != found.identity.get("sha256"):
        log.warning(
            "the model %s is not the one that the slide began with: the mosaic is made with today's",
            found.name,
        )
    return found


def verify(folder: SlideFolder) -> list[str]:
    """What is not as it was recorded, a sentence each; empty for a whole slide. Reads every raw tile. Raises DataError, OutputError."""
    journal = Journal(folder.journal)
    try:
        camera, count = Camera.from_json(journal.slide("camera")), journal.count()
    finally:
        journal.close()
    recorder = Recorder(folder.path, camera.shape, camera.dtype)
    try:
        faults = [f"the raw pixels of tile {index} are damaged" for index in recorder.verify()]
    finally:
        recorder.journal.close()
    found = entry(folder)
    if found.state != "done":
        faults.append(f"the slide is {found.state}: finish it with `deblurd slides resume`")
    elif found.manifest.get("tiles") != count - len(found.manifest.get("damaged", [])):
        faults.append(f"slide.json speaks of {found.manifest.get('tiles')} tiles, the journal of {count}")
    elif not (folder.mosaic / "zarr.json").is_file():
        faults.append("the mosaic is missing: make it anew with `deblurd slides resume`")
    return faults
