"""A slide worked through again from its raw tiles and its journal: after a power cut, or with another model.

The mosaic is a function of the raw tiles, the journal and the model: this gives the pixels that an undisturbed scan would have given.
"""

from __future__ import annotations

import contextlib
import logging
import math
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import zarr
from pydantic import ValidationError

from deblurd import health
from deblurd.deblur.model import Model, find_model
from deblurd.errors import DataError, DeblurdError, ModelError, OutputError
from deblurd.host.disk import DiskGuard
from deblurd.host.logs import about_slide
from deblurd.host.priority import step_back
from deblurd.pipeline import Finished, SlidePipeline, finish_in_sight, make_deblurrer
from deblurd.record.journal import Journal
from deblurd.record.raw import RawStore
from deblurd.record.recorder import damaged_tiles
from deblurd.settings import DeblurSettings, MicroscopeSettings, MosaicSettings, ScanSettings, Settings
from deblurd.slides.camera import Camera
from deblurd.slides.catalog import Entry, slides
from deblurd.slides.folder import SlideFolder, utc_now
from deblurd.slides.join import UNFINISHED

log = logging.getLogger(__name__)

OnProgress = Callable[[int, int], None]

_LOOK_S = 0.2
_ROOM_S = 1.0


def resume(
    folder: SlideFolder,
    model: str | None = None,
    settings: Settings | None = None,
    fuses: bool | None = None,
    on_progress: OnProgress = lambda painted, tiles: None,
    stop: threading.Event | None = None,
) -> tuple[Finished, list[int]]:
    """Makes the mosaic of a slide anew and ends the slide; also returns the tiles whose raw pixels are damaged, which are left out.

    model: in place of the slide's own. settings: whose overlap, deblurring and mosaic count in place of the slide's own. fuses: whether each
    tile is made of all recorded frames that see it; as before, None. on_progress:
    told tiles painted and all tiles. A finished mosaic is kept until the new one is finished, and comes back where that fails.
    stop: leaves the slide as it was, or to be resumed. The caller holds the lock of the output folder.
    Raises NoInputError, DataError, ModelError, OutputError, and KeyboardInterrupt where it was stopped.
    """
    manifest = folder.read_manifest() if folder.manifest.is_file() else {}
    is_done = manifest.get("state") == "done" and folder.mosaic.is_dir()
    if not is_done and _is_empty(folder):
        return _end_empty(folder, manifest), []
    camera, count, damaged = recorded(folder, is_done)
    if len(damaged) == count:
        raise DataError(
            f"none of the {count} raw tiles of {folder.path} is what was recorded: nothing was changed; restore raw.zarr"
        )
    settings = settings_of(folder, manifest, model, settings)
    deblurrer = make_deblurrer(model_of(settings.deblur.model, folder, manifest), camera, settings.deblur)
    content = without_version(manifest)
    with deblurrer, replaced_mosaic(folder, content, keep=is_done):
        told = manifest.get("fused") if fuses is None else fuses
        pipeline = SlidePipeline(folder, camera, deblurrer, settings, told)
        pipeline.event("resume", f"worked through again with {deblurrer.name}")
        for index in damaged:
            pipeline.event("damaged", f"the raw pixels of tile {index} are not what was recorded; left out")
        pipeline.again(without=damaged)
        finished = finish_in_sight(pipeline, lambda painted: on_progress(painted, count), stop)
        if is_done and finished.failure is not None:
            raise finished.failure
    made_with = settings.model_dump(mode="json", include={"scan", "deblur", "mosaic"})
    folder.write_manifest(
        content
        | {"config": manifest.get("config", {}) | made_with}
        | {"model": deblurrer.model_id, "engine": deblurrer.engine_name, "damaged": damaged}
        | {"order": "deblur-first"}
        | finished.to_manifest(str(manifest.get("reason", "resumed")))
    )
    if finished.failure is not None:
        raise finished.failure
    shutil.rmtree(folder.mosaic_before, ignore_errors=True)
    return finished, damaged


@contextlib.contextmanager
def replaced_mosaic(folder: SlideFolder, content: dict[str, Any], keep: bool) -> Iterator[None]:
    """While a slide's mosaic is made anew: its manifest says "growing", and a finished one (`keep`) lies aside and comes back where that fails.

    content: of the slide's manifest.
    """
    _clear(folder, keep_mosaic=keep)
    folder.write_manifest(content | {"state": "growing"})
    try:
        yield
    except BaseException:
        if keep:
            _clear(folder, keep_mosaic=False)
            folder.mosaic_before.rename(folder.mosaic)
            folder.write_manifest(content)
        raise


def resume_all(output: Path, on_event: Callable[[str], None], stop: threading.Event) -> None:
    """Ends every slide below `output` that was not: what a kill or a full disk left. on_event: told in a sentence for each.

    One that cannot be ended is left as it is. stop: no further slide is begun. The caller holds the lock of `output`.
    """
    _resume_each(_left(output), on_event, stop)


@contextlib.contextmanager
def resuming(
    output: Path, on_event: Callable[[str], None], stop: threading.Event, disk: DiskGuard
) -> Iterator[None]:
    """`resume_all` on a thread of its own, so that no new slide waits for old ones; each waits until `disk` has room. The end of the `with` waits for
    it; an error sets `stop`."""
    left = _left(output)

    def wait_for_room() -> None:
        while disk.trouble is not None and not stop.wait(_ROOM_S):
            pass

    def work() -> None:
        step_back()
        _resume_each(left, on_event, stop, wait_for_room)

    _start_shared_threads()
    thread = threading.Thread(target=work, name="deblurd-resume", daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        stop.set()
        raise
    finally:
        while thread.is_alive():
            health.beat()
            thread.join(_LOOK_S)


def _start_shared_threads() -> None:
    """Those that zarr and OpenCV start once for all who call them: begun by a thread that has stepped back, they would hold up the scan."""
    zarr.open_group(store={}, mode="w")
    cv2.GaussianBlur(np.zeros((1024, 1024), np.float32), (0, 0), 2.0)


def _left(output: Path) -> list[Entry]:
    """The slides below `output` that are not done, but for discarded ones; half of a joined one is made again where it is wanted."""
    shutil.rmtree(output / UNFINISHED, ignore_errors=True)
    found = slides(output, in_use=False) if output.is_dir() else ()
    return [each for each in found if each.state != "done" and not each.manifest.get("discarded")]


def _resume_each(
    left: Sequence[Entry],
    on_event: Callable[[str], None],
    stop: threading.Event,
    wait: Callable[[], None] = lambda: None,
) -> None:
    for found in left:
        wait()
        if stop.is_set():
            return
        name = found.folder.name
        try:
            with health.watched("resume"), about_slide(name):
                log.info("the slide %s is %s and is being finished", name, found.state)
                finished, damaged = resume(found.folder, stop=stop)
        except KeyboardInterrupt:
            on_event(f"the slide {name} is {found.state} still: stopped")
            return
        except (DeblurdError, OSError) as err:
            on_event(f"the slide {name} is {found.state} and could not be finished: {err}")
            continue
        without = f", without {len(damaged)} damaged ones" if damaged else ""
        on_event(f"the slide {name} was {found.state}: finished with {finished.tiles} tiles{without}")


# --- what is there ---


def without_version(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest's content, to be written again by this deblurd when the slide is worked through again."""
    return {key: value for key, value in manifest.items() if key not in ("schema", "deblurd", "discarded")}


def _is_empty(folder: SlideFolder) -> bool:
    """Whether the slide was interrupted before its first tile reached the disk."""
    if not folder.journal.is_file() or folder.journal.stat().st_size == 0:
        return not any(folder.raw.glob("c.*"))
    journal = Journal(folder.journal)
    try:
        return journal.count() == 0
    finally:
        journal.close()


def recorded(folder: SlideFolder, is_done: bool) -> tuple[Camera, int, list[int]]:
    """The camera, the number of acknowledged tiles, and those whose raw pixels are damaged."""
    # what a kill left may have to be rolled back by whoever reads it
    journal = Journal(SlideFolder.open(folder.path).journal, read_only=is_done)
    try:
        camera = Camera.from_json(journal.slide("camera"))
        return camera, journal.count(), damaged_tiles(RawStore.open(folder.raw), journal)
    finally:
        journal.close()


def settings_of(
    folder: SlideFolder, manifest: dict[str, Any], model: str | None, given: Settings | None
) -> Settings:
    """Those of the slide, or what was given in their place; its microscope is not asked for any more."""
    config = manifest.get("config", {}) if given is None else given.model_dump(mode="json")
    try:
        deblur = DeblurSettings.model_validate(config.get("deblur", {}))
        return Settings(
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
            "use the deblurd that wrote it, or give --config"
        ) from err


def model_of(name: str, folder: SlideFolder, manifest: dict[str, Any]) -> Model:
    """The model of that name; warns where it is not the one that the slide began with. Raises ModelError."""
    try:
        found = find_model(name)
    except ModelError as err:
        raise ModelError(
            f"{err}; the slide {folder.name} was left as it is: install the model, or take another with `deblurd slides repaint`"
        ) from err
    known = manifest.get("model", {})
    if known.get("name") == found.identity["name"] and known.get("sha256") != found.identity["sha256"]:
        log.warning(
            "the model %s is version %s and the slide began with %s: the mosaic is made with today's",
            name,
            found.identity["version"],
            known.get("version"),
        )
    return found


def _clear(folder: SlideFolder, keep_mosaic: bool) -> None:
    """Only a finished mosaic is worth keeping meanwhile; half of one and other leavings of a kill can be made again."""
    try:
        if keep_mosaic:
            if folder.mosaic_before.is_dir():
                shutil.rmtree(folder.mosaic_before)
            folder.mosaic.rename(folder.mosaic_before)
        for left in (folder.mosaic, folder.scratch, *folder.path.glob("*.part"), *folder.raw.glob("*.part*")):
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink(missing_ok=True)
    except OSError as err:
        raise OutputError(
            f"{folder.path} cannot be cleared of what an interrupted scan left ({err.strerror}): give write access, then resume"
        ) from err


def _end_empty(folder: SlideFolder, manifest: dict[str, Any]) -> Finished:
    finished = Finished(folder, 0, 0, None, {}, {}, (), math.nan, 0.0, None)
    _clear(folder, keep_mosaic=False)
    if folder.journal.is_file() and folder.journal.stat().st_size == 0:
        for half in folder.path.glob(f"{folder.journal.name}*"):
            half.unlink()
    content = without_version(manifest)
    folder.write_manifest(
        {"research_use_only": True, "begun": utc_now()}
        | content
        | finished.to_manifest("interrupted before the first tile")
    )
    return finished
