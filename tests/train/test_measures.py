from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from deblurd.train.measures import Nuclei, count_nuclei, gmsd, psnr_db, ssim

Drawing = Callable[[int, tuple[int, int]], NDArray[np.uint8]]


def test_a_picture_is_like_itself(draw: Drawing) -> None:
    image = draw(0, (64, 64))
    assert psnr_db(image, image) == pytest.approx(60)
    assert ssim(image, image) == pytest.approx(1)
    assert gmsd(image, image) == 0


def test_psnr_of_two_greys() -> None:
    black, grey = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 51, np.uint8)
    assert psnr_db(black, grey) == pytest.approx(13.979, abs=1e-3)


def test_gmsd_rises_with_blur_and_with_edges_that_are_made_up(draw: Drawing) -> None:
    image = draw(0, (96, 96))
    slight, strong = (cv2.GaussianBlur(image, (0, 0), sigma).astype(np.uint8) for sigma in (1, 3))
    assert 0 < gmsd(image, slight) < gmsd(image, strong)
    drawn = image.copy()
    drawn[40:42] = 0
    assert gmsd(image, drawn) > 0.05
    assert gmsd(image, image // 2 + 60) < gmsd(image, strong)  # paler, but its edges are where they were


def field(*places: tuple[int, int]) -> NDArray[np.uint8]:
    image = np.full((120, 160, 3), (230, 200, 220), np.uint8)
    for y, x in places:
        cv2.circle(image, (x, y), 7, (110, 60, 140), -1)
    return image


def test_nuclei_are_counted_and_those_that_are_not_there_are_named() -> None:
    truth = field((30, 30), (60, 100), (90, 50))
    assert count_nuclei(truth, truth) == Nuclei(3, 0)
    assert count_nuclei(truth, field((30, 30), (60, 100))) == Nuclei(2, 0)
    assert count_nuclei(truth, field((30, 30), (60, 100), (90, 50), (100, 130))) == Nuclei(4, 1)
    assert count_nuclei(truth, field((31, 32))) == Nuclei(1, 0)  # a little to the side is still the same


def test_specks_are_no_nuclei_and_nothing_has_none() -> None:
    truth = field((30, 30))
    speck = truth.copy()
    speck[80:84, 80:84] = 50
    assert count_nuclei(truth, speck) == Nuclei(1, 0)
    assert count_nuclei(field(), field((30, 30))) == Nuclei(0, 0)
