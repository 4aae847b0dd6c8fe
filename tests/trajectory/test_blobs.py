"""Finding blobs: dark and bright, to a fraction of a pixel, with a threshold that nobody set."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from deblurd.errors import UsageError
from deblurd.light import Image, to_linear
from deblurd.trajectory.blobs import BlobDetector, usual_range_px
from deblurd.trajectory.detect import Wanted, detector_names, make_detector
from tests.trajectory.simulated import simulate


def blob(y: float, x: float, sigma: float, contrast: float, side: int = 64) -> Image:
    rows, columns = np.mgrid[0:side, 0:side]
    light = 0.5 + contrast * np.exp(-0.5 * ((rows - y) ** 2 + (columns - x) ** 2) / sigma**2)
    found: Image = light.astype(np.float32)
    return found


@settings(deadline=None, max_examples=40)
@given(
    y=st.floats(15, 48),
    x=st.floats(15, 48),
    sigma=st.floats(1.5, 4.0),
    contrast=st.floats(0.1, 0.4),
    dark=st.booleans(),
)
def test_a_blob_is_found_to_a_tenth_of_a_pixel_with_its_size(
    y: float, x: float, sigma: float, contrast: float, dark: bool
) -> None:
    found = BlobDetector(Wanted((3, 14))).find(blob(y, x, sigma, -contrast if dark else contrast))
    assert len(found) == 1
    assert np.abs(found.yx_px[0] - [y, x]).max() < 0.1
    assert found.size_px[0] == pytest.approx(2 * np.sqrt(2) * sigma, rel=0.2)


@pytest.mark.parametrize("dark", [True, False])
def test_the_threshold_finds_itself(dark: bool) -> None:
    sim = simulate("brownian", 25, frames=6, snr=4, dark=dark, side_px=384, seed=2)
    detector = make_detector("log", Wanted((4, 10)))
    right = wrong = missed = 0
    for number, frame in enumerate(sim.frames):
        truth = sim.truth[sim.truth[:, 1] == number][:, 2:]
        found = detector.find(to_linear(frame, "linear")).yx_px
        near = np.asarray(cKDTree(found).query(truth)[0]) < 3
        right, missed = right + int(near.sum()), missed + int((~near).sum())
        wrong += int((np.asarray(cKDTree(truth).query(found)[0]) > 6).sum())
    assert right > 0.9 * (right + missed)
    # what drifts over the border is seen, and no part of the truth
    assert wrong < 0.05 * right


def test_noise_alone_shows_next_to_nothing() -> None:
    rng = np.random.default_rng(0)
    detector = BlobDetector(Wanted((3, 12), "bright"))
    found = [len(detector.find(rng.normal(0.5, 0.02, (256, 256)).astype(np.float32))) for _ in range(10)]
    assert sum(found) <= 6


def test_a_threshold_can_be_set() -> None:
    frame = to_linear(simulate("brownian", 20, frames=1, snr=10, side_px=256).frames[0], "linear")
    few = BlobDetector(Wanted((4, 10), "dark", threshold=1e6)).find(frame)
    many = BlobDetector(Wanted((4, 10), "dark", threshold=1.0)).find(frame)
    assert len(few) == 0
    assert len(many) > 100


def test_the_size_finds_itself() -> None:
    light = to_linear(simulate("brownian", 20, frames=1, snr=10, side_px=384, sigma_px=4).frames[0], "linear")
    found = usual_range_px(light, 3.0)
    assert found is not None
    assert found[0] < 2 * np.sqrt(2) * 4 < found[1]
    assert found[1] < 30


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_frame_of_one_shade_holds_nothing(value: float) -> None:
    assert len(BlobDetector(Wanted()).find(np.full((80, 80), value, np.float32))) == 0


def test_a_frame_too_small_for_the_sizes_holds_nothing() -> None:
    assert len(BlobDetector(Wanted((40, 60))).find(np.zeros((30, 30), np.float32))) == 0
    assert len(make_detector("trackpy", Wanted((40, 60))).find(np.zeros((30, 30), np.float32))) == 0


def test_trackpy_finds_the_same_objects() -> None:
    sim = simulate("brownian", 10, frames=1, snr=10, side_px=256, seed=4)
    light = to_linear(sim.frames[0], "linear")
    theirs = make_detector("trackpy", Wanted((6, 8), "dark", 100.0)).find(light)
    ours = make_detector("log", Wanted((4, 10), "dark")).find(light)
    away = np.asarray(cKDTree(ours.yx_px).query(theirs.yx_px)[0])
    assert len(theirs) >= 8
    assert np.median(away) < 0.3


def test_an_unknown_detector_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="did you mean 'trackpy'"):
        make_detector("trackpi", Wanted())
    assert {"log", "trackpy"} <= set(detector_names())


@pytest.mark.parametrize("radius", [60, 1000])
def test_the_edge_of_something_larger_is_no_object(radius: int) -> None:
    """A disc that fills the field, and an edge that is straight."""
    rows, columns = np.mgrid[0:200, 0:200]
    inside = np.hypot(rows - 100, columns - 120 + radius - 60) < radius
    light = np.where(inside, 0.3, 0.5) + np.random.default_rng(1).normal(0, 0.01, (200, 200))
    assert len(BlobDetector(Wanted((4, 14))).find(light.astype(np.float32))) == 0
    assert usual_range_px(light.astype(np.float32), 3.0) is None


def test_objects_side_by_side_and_streaks_are_no_edges() -> None:
    pair = np.maximum(blob(30, 24, 2, 0.3), blob(30, 31, 2, 0.3))
    streak = np.max([blob(32, 24 + n, 2, 0.3) for n in range(16)], axis=0)
    dim_beside_bright = np.maximum(blob(30, 20, 2, 0.3), blob(30, 32, 2, 0.1))
    for light, count in ((pair, 2), (streak, 1), (dim_beside_bright, 2)):
        noisy = light + np.random.default_rng(2).normal(0, 0.01, light.shape)
        found = BlobDetector(Wanted((4, 8))).find(noisy.astype(np.float32))
        assert len(found) >= count
