"""Single image files: every kind goes in and comes out as it was, and nonsense is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from deblurd.deblur.images import ImageResult, deblur_images
from deblurd.errors import DataError, OutputError, UsageError
from deblurd.frames import MotionVector
from tests.deblur.samples import MakeModel, blurred, psnr, tissue

MOTION = (0.0, 12.0)


def deblur(path: Path, output: Path, motion: tuple[float, float] = MOTION, **options: Any) -> ImageResult:
    (result,) = deblur_images([path], motion=motion, output=output, **({"model": "wiener"} | options))
    return result


def read(path: Path) -> Any:
    """As OpenCV stores it: BGR, BGRA or grey."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return image


def write(path: Path, image: Any) -> Path:
    assert cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 and image.shape[2] == 3 else image)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".jpg"])
@pytest.mark.parametrize("model", ["wiener", "fast"])
def test_each_kind_of_file_comes_back_sharper(tmp_path: Path, suffix: str, model: str) -> None:
    truth = tissue()
    raw = blurred(truth, MotionVector(*MOTION))
    path = write(tmp_path / f"tile{suffix}", raw)
    result = deblur(path, tmp_path / "out", model=model)
    back = read(result.output)[..., ::-1]
    assert result.gate == "deblur"
    assert psnr(back, truth) > psnr(raw, truth) + 1.5
    said = json.loads((tmp_path / "out" / f"tile{suffix}.json").read_text())
    assert said["model"]["name"] == model
    assert said["research_use_only"] is True
    assert not list((tmp_path / "out").glob("*.part"))


def test_alpha_and_16_bit_are_kept(tmp_path: Path) -> None:
    raw = blurred(tissue(), MotionVector(*MOTION)).astype(np.uint16) * 257
    alpha = np.arange(raw.shape[0] * raw.shape[1], dtype=np.uint16).reshape(*raw.shape[:2], 1)
    path = tmp_path / "alpha.png"
    assert cv2.imwrite(str(path), np.concatenate([raw[..., ::-1], alpha], axis=2))
    back = read(deblur(path, tmp_path / "out").output)
    assert back.dtype == np.uint16
    assert np.array_equal(back[..., 3:], alpha)


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 3), (2, 300, 3)])
def test_the_smallest_images_pass_through(tmp_path: Path, shape: tuple[int, ...]) -> None:
    image = np.full(shape, 77, np.uint8)
    result = deblur(write(tmp_path / "dot.png", image), tmp_path / "out")
    assert np.array_equal(read(result.output).reshape(shape), image)


@pytest.mark.parametrize(
    ("motion", "model", "said"),
    [
        ((0.0, 0.0), "wiener", "blurs nothing"),
        ((math.nan, 1.0), "wiener", "is not a number"),
        ((math.inf, 1.0), "wiener", "is not a number"),
        ((0.0, 300.0), "fast", "longer than the model fast can take out"),
    ],
)
def test_a_motion_that_cannot_be_is_refused(
    tmp_path: Path, motion: tuple[float, float], model: str, said: str
) -> None:
    path = write(tmp_path / "a.png", tissue())
    with pytest.raises(UsageError, match=said):
        deblur(path, tmp_path / "out", motion, model=model)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_a_broken_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = write(tmp_path / "cut.png", tissue())
    path.write_bytes(path.read_bytes()[:64] if content is None else content)
    with pytest.raises(DataError, match=r"cut\.png"):
        deblur(path, tmp_path / "out")


def test_floating_point_images_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "float.tif"
    assert cv2.imwrite(str(path), np.ones((8, 8), np.float32))
    with pytest.raises(DataError, match="float32"):
        deblur(path, tmp_path / "out")


def test_an_input_is_never_overwritten(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", tissue())
    before = path.read_bytes()
    with pytest.raises(OutputError, match="overwritten"):
        deblur(path, tmp_path)
    assert path.read_bytes() == before


def test_an_output_that_cannot_be_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", tissue())
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="cannot be written"):
        deblur(path, tmp_path / "out")


def test_an_image_at_rest_is_taken_by_a_model_for_defocus(tmp_path: Path, make_model: MakeModel) -> None:
    folder = make_model(kind="defocus", blur_range_px=[0, 24], defocus_px=4.0)
    cv2.imwrite(str(tmp_path / "a.png"), tissue())
    (result,) = deblur_images([tmp_path / "a.png"], motion=(0, 0), model=str(folder), output=tmp_path / "out")
    assert result.gate == "sharp"  # this one's network changes nothing, so there was nothing to take out
    assert np.array_equal(read(result.output), tissue())
