"""The barcode on a slide's label, from a picture that a label camera takes or another program writes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import zxingcpp

from deblurd.frames import Pixels
from deblurd.naming import as_slide_id

log = logging.getLogger(__name__)

LOOK_S = 1.0


def read_barcode(picture: Pixels) -> str | None:
    """The text of the barcode, of any usual kind and in any direction, in (h, w) or (h, w, 3); None where there is none, or several differ."""
    texts = {found.text for found in zxingcpp.read_barcodes(np.ascontiguousarray(picture)) if found.valid}
    return texts.pop() if len(texts) == 1 else None


class LabelReader:
    """Looks at labels once a second from `with` to the end of it, and tells `on_label` each new one, as a slide_id.

    image: of a file that is read whenever it has changed. camera: number of a webcam. With neither it does nothing.
    """

    def __init__(self, image: Path | None, camera: int | None, on_label: Callable[[str], None]) -> None:
        self._image, self._camera, self._on_label = image, camera, on_label
        self._newest: str | None = None
        self._said = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="deblurd-label", daemon=True)

    def __enter__(self) -> LabelReader:
        if self._image is not None or self._camera is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _look(self) -> None:
        for picture in self._pictures():
            text = read_barcode(picture)
            if text is None or text == self._newest:
                continue
            self._newest = text
            label = as_slide_id(text)
            if label is None:
                log.warning("the barcode %r cannot be a slide's name: type one on the page", text)
                continue
            log.info("the label says %r", text)
            self._on_label(label)

    def _pictures(self) -> Iterator[Pixels]:
        if self._image is not None:
            yield from self._of_file(self._image)
        elif self._camera is not None:
            yield from self._of_camera(self._camera)

    def _of_file(self, path: Path) -> Iterator[Pixels]:
        before: tuple[int, int] | None = None
        while not self._ended.wait(LOOK_S):
            try:
                status = path.stat()
                changed = status.st_mtime_ns, status.st_size
                if changed == before:
                    continue
                picture = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_GRAYSCALE)
            except (OSError, cv2.error):
                # not there yet, or just being written
                continue
            if picture is not None:
                before = changed
                yield np.asarray(picture)

    def _of_camera(self, number: int) -> Iterator[Pixels]:
        capture = cv2.VideoCapture(number)
        try:
            while not self._ended.wait(LOOK_S):
                ok, picture = capture.read()
                if ok:
                    yield np.asarray(picture)
                elif not self._said:
                    self._said = True
                    log.warning(
                        "the label camera %d sends no picture: look at its cable, or correct slide.label_camera",
                        number,
                    )
        finally:
            capture.release()
