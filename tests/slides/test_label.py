"""Barcodes on labels, printed by the library that reads them."""

from __future__ import annotations

import time
from pathlib import Path
from queue import SimpleQueue

import cv2
import numpy as np
import pytest
import zxingcpp

from deblurd.frames import Pixels
from deblurd.slides import label
from deblurd.slides.label import LabelReader, read_barcode


def printed(text: str, kind: str = "DataMatrix", turn_deg: float = 0.0) -> Pixels:
    """A label of 640 x 480, grey paper, a little out of focus."""
    code = np.asarray(
        zxingcpp.write_barcode_to_image(
            zxingcpp.create_barcode(text, getattr(zxingcpp.BarcodeFormat, kind)),
            scale=4,
            add_quiet_zones=True,
        )
    )
    paper = np.full((480, 640), 225, np.uint8)
    y, x = (480 - code.shape[0]) // 2, (640 - code.shape[1]) // 2
    paper[y : y + code.shape[0], x : x + code.shape[1]] = np.minimum(code, 225)
    turned = cv2.warpAffine(
        paper, cv2.getRotationMatrix2D((320, 240), turn_deg, 1.0), (640, 480), borderValue=(225,)
    )
    return np.asarray(cv2.GaussianBlur(turned, (0, 0), 1.0))


@pytest.mark.parametrize("kind", ["DataMatrix", "QRCode", "Code128"])
@pytest.mark.parametrize("turn_deg", [0.0, 90.0, 180.0])
def test_usual_barcodes_are_read_in_any_direction(kind: str, turn_deg: float) -> None:
    assert read_barcode(printed("S26-1234", kind, turn_deg)) == "S26-1234"


def test_no_barcode_and_two_that_differ_say_nothing() -> None:
    assert read_barcode(np.full((480, 640), 225, np.uint8)) is None
    assert read_barcode(np.vstack([printed("S26-1"), printed("S26-2")])) is None


def test_each_new_label_in_a_file_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label, "LOOK_S", 0.01)
    file, told = tmp_path / "label.png", SimpleQueue[str]()
    with LabelReader(file, None, told.put):
        cv2.imwrite(str(file), printed("S26-1234;A1"))
        assert told.get(timeout=10) == "S26-1234-A1"
        file.write_bytes(b"half a picture")
        cv2.imwrite(str(file), printed("S26-1234;A1", turn_deg=90.0))
        cv2.imwrite(str(file), printed("S26-1235"))
        assert told.get(timeout=10) == "S26-1235"
    assert told.empty()


def test_a_camera_that_sends_nothing_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(label, "LOOK_S", 0.01)
    with LabelReader(None, 97, lambda text: None):
        end_s = time.monotonic() + 20
        while "label camera 97 sends no picture" not in caplog.text and time.monotonic() < end_s:
            time.sleep(0.02)
    assert caplog.text.count("sends no picture") == 1
