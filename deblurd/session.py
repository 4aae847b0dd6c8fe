"""One slide from its first field to its end."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from deblurd import health
from deblurd.errors import OutputError
from deblurd.host.logs import about_slide
from deblurd.pipeline import Finished, SlidePipeline
from deblurd.record.noted import NotedWarnings
from deblurd.resume import resume
from deblurd.slides.states import State, Story

log = logging.getLogger(__name__)


class Session:
    """A slide at work, and how it came to be. label: what somebody called it, None if nobody did. facts: what its manifest says of the
    microscope. on_end: told its `Finished` and the error that closing it raised, None if it raised none, from the thread that closed it.
    """

    def __init__(
        self,
        slide: SlidePipeline,
        slide_id: str,
        label: str | None,
        facts: Callable[[], dict[str, Any]],
        on_end: Callable[[Session, Finished | None, BaseException | None], None],
    ) -> None:
        self.slide, self.slide_id, self.label = slide, slide_id, label
        self._facts, self._on_end = facts, on_end
        self._story = Story(slide.event)
        self._noted = NotedWarnings(slide.event)
        self._noted.start()
        self.reason = self.begun_by = ""
        self.is_discarded = False
        self.ground: Any = None
        """What the tracker knows of the ground that the slide holds, kept while the slide pauses."""
        self.ended_s = 0.0
        self.lacked_room = False
        """Whether the disk was full while it was at work or being finished: then an error of its own may come of that."""

    @property
    def name(self) -> str:
        return self.slide.folder.name

    @property
    def state(self) -> State:
        return self._story.state

    def to(self, state: State, reason: str) -> None:
        """Its next state, with the reason, in its journal too. Raises ValueError where that does not follow."""
        try:
            self._story.to(state, reason)
        except OutputError as err:
            # it is so nevertheless; a disk that refuses tiles too stops the slide by those
            log.warning("%s", err)
        self.reason = reason
        self.begun_by = self.begun_by or reason
        log.info("slide %s: %s, %s", self.name, state, reason)

    def call(self, label: str) -> None:
        """Gives it a label. Its folder keeps its name: what lies in it is open."""
        self.label = self.slide_id = label
        try:
            self.slide.event("label", label)
            self.write_manifest()
        except OutputError as err:
            # it is called so nevertheless, and its manifest is written again
            log.warning("%s", err)

    def write_manifest(self, state: Literal["growing", "incomplete"] = "growing", reason: str = "") -> None:
        """While it grows; incomplete: it is to be resumed even if this is the last that is heard of it. Raises OutputError."""
        stopped = {"reason": reason} if reason else {}
        self.slide.folder.write_manifest(self._manifest() | {"state": state} | stopped)

    def close(self, after: threading.Thread | None) -> threading.Thread:
        """Finishes its mosaic, on the thread that it returns, which ends after the one before it.

        after: closes the slide before; this one waits for its turn, so that however many have ended, one at a time takes processor and memory from the scan.
        """
        if self.is_discarded:
            self.slide.abandon()
        # the logger's name of the slide goes along
        thread = threading.Thread(
            target=contextvars.Context().run, args=(self._close, after), name="deblurd-finish", daemon=True
        )
        thread.start()
        return thread

    def resume(self, after: threading.Thread | None, stop: threading.Event) -> threading.Thread:
        """Finishes it after all, when what was in the way is gone; as `close`. stop: leaves it to be resumed later."""
        thread = threading.Thread(
            target=contextvars.Context().run,
            args=(self._resume, after, stop),
            name="deblurd-resume",
            daemon=True,
        )
        thread.start()
        return thread

    def _close(self, after: threading.Thread | None) -> None:
        if after is not None and not self.is_discarded:
            after.join()
        finished: Finished | None = None
        failure: BaseException | None = None
        try:
            with about_slide(self.name):
                finished = self._finish()
        except BaseException as err:  # noqa: BLE001 - raised again by the daemon, on the main thread
            failure = err
        self._on_end(self, finished, failure)
        if after is not None:
            after.join()

    def _resume(self, after: threading.Thread | None, stop: threading.Event) -> None:
        if after is not None:
            after.join()
        self.lacked_room = False
        finished: Finished | None = None
        failure: BaseException | None = None
        try:
            with health.watched("resume"), about_slide(self.name):
                log.info("slide %s: there is room, it is being finished", self.name)
                finished, _ = resume(self.slide.folder, stop=stop)
                log.info("slide %s: done, %d fields painted", self.name, finished.tiles)
        except BaseException as err:  # noqa: BLE001 - raised again by the daemon, on the main thread
            failure = err
        self._on_end(self, finished, failure)

    def _finish(self) -> Finished:
        reason = self.reason
        self._noted.stop()
        finished = self.slide.finish()
        content = self._manifest() | finished.to_manifest(reason)
        if self.is_discarded:
            # as somebody wished, and so no failure; what was recorded stays
            finished = replace(finished, failure=None)
            content |= {"reason": reason, "discarded": True}
        self.slide.folder.write_manifest(content)
        self.reason = finished.verdict
        self._story.end(self.slide.folder, content["state"], self.reason)
        log.info("slide %s: %s, %s", self.name, content["state"], self.reason)
        return finished

    def _manifest(self) -> dict[str, Any]:
        slide = self.slide
        return {
            "slide_id": self.slide_id,
            "label": self.label,
            "operator": slide.settings.slide.operator,
            "research_use_only": True,
            "begun": slide.began_utc,
            "config": slide.settings.model_dump(mode="json"),
            "model": slide.deblurrer.model_id,
            "engine": slide.deblurrer.engine_name,
        } | self._facts()
