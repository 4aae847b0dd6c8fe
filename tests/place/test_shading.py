"""Light that falls off, found from tiles that show the same specimen at two places of the sensor."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from deblurd.light import from_linear, to_linear
from deblurd.place.pairwise import prepare
from deblurd.place.shading import Shading
from tests.benchmarks.scan_sets import Scan, ScanSet

SMALL = ScanSet(rows=4, columns=4, tile_px=384, overlap=0.2)


def measured(scan: Scan) -> Shading:
    """Shading fed with every overlap along an axis, at the true shifts."""
    shading = Shading(scan.pixels[0].shape, scan.encoding)
    grey = [prepare(pixels).grey for pixels in scan.pixels]
    size = grey[0].shape[0]
    for j in range(len(grey)):
        for i in range(j):
            shift = scan.truth[j] - scan.truth[i]
            if np.prod(np.maximum(0, size - np.abs(shift))) > 0.1 * size**2:
                shading.add(i, j, grey[i], grey[j], shift)
    return shading


@pytest.mark.parametrize("vignetting", [0.15, 0.30])
@pytest.mark.parametrize(("dtype", "color"), [("uint8", True), ("uint16", False)])
def test_vignetting_is_found_to_one_percent(
    scan_of: Callable[[ScanSet], Scan], vignetting: float, dtype: str, color: bool
) -> None:
    scan = scan_of(SMALL.but(vignetting=vignetting, dtype=dtype, color=color))
    gain = measured(scan).gain()
    assert gain is not None
    assert gain.shape == (32, 32)
    assert gain.dtype == np.float32
    assert gain.mean() == pytest.approx(1.0, abs=1e-6)
    truth = cv2.resize(1 / scan.vignette, gain.shape, interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(gain, truth / truth.mean(), atol=0.01)


def test_even_light_stays_as_it_is(scan_of: Callable[[ScanSet], Scan]) -> None:
    gain = measured(scan_of(SMALL.but(vignetting=0.0))).gain()
    assert gain is not None
    np.testing.assert_allclose(gain, 1.0, atol=0.01)


def test_too_little_evidence_gives_nothing() -> None:
    shading = Shading((128, 128), "srgb")
    assert shading.gain() is None
    grey = np.full((128, 128), 100, np.uint8)
    shading.add(0, 1, grey, grey, np.array([0.0, 64.0]))
    assert shading.gain() is None
    shading.add(0, 1, grey, grey, np.array([0.0, 120.0]))
    shading.add(0, 1, grey, grey, np.array([500.0, 0.0]))


def test_dark_and_burnt_out_blocks_have_no_say() -> None:
    shading = Shading((512, 512), "linear")
    for level in (0, 1, 255):
        grey = np.full((512, 512), level, np.uint8)
        for _ in range(20):
            shading.add(0, 1, grey, grey, np.array([0.0, 200.0]))
    assert shading.gain() is None


@pytest.mark.parametrize(("dtype", "color"), [("uint8", True), ("uint16", False)])
def test_exposures_that_differ_are_evened_out(
    scan_of: Callable[[ScanSet], Scan], dtype: str, color: bool
) -> None:
    scan = scan_of(SMALL.but(flicker=0.04, dtype=dtype, color=color))
    lights = measured(scan).lights()
    evened = np.log([scan.lights[n] * lights.get(n, 1.0) for n in range(len(scan.tiles))])
    # light that falls off across the field and exposures that grow from tile to tile look the same
    plane = np.column_stack([np.ones(len(evened)), scan.truth])
    rest = evened - plane @ np.linalg.lstsq(plane, evened)[0]
    assert scan.lights.std() > 0.03
    assert rest.std() < 0.004
    assert evened.std() < 0.02


def test_exposures_that_take_turns_are_evened_out_as_told(scan_of: Callable[[ScanSet], Scan]) -> None:
    scan = scan_of(SMALL.but(dtype="uint16"))
    shading = Shading(scan.pixels[0].shape, scan.encoding)
    grey = [prepare(pixels).grey for pixels in scan.pixels]
    turns = [1.0 if n % 2 else 0.25 for n in range(len(grey))]
    for n, turn in enumerate(turns):
        light = to_linear(grey[n], scan.encoding) * np.float32(turn)
        grey[n] = from_linear(light, grey[n].dtype, scan.encoding)
        shading.expose(n, 8 * turn)
    size = grey[0].shape[0]
    for j in range(len(grey)):
        for i in range(j):
            shift = scan.truth[j] - scan.truth[i]
            if np.prod(np.maximum(0, size - np.abs(shift))) > 0.1 * size**2:
                shading.add(i, j, grey[i], grey[j], shift)
    lights = shading.lights()
    evened = np.log([turn * lights.get(n, 1.0) for n, turn in enumerate(turns)])
    assert np.ptp(evened) < 0.02


def test_a_steady_lamp_is_left_alone(scan_of: Callable[[ScanSet], Scan]) -> None:
    lights = measured(scan_of(SMALL)).lights()
    assert len(lights) <= 4
    assert all(abs(np.log(light)) < 0.006 for light in lights.values())


def test_lights_of_nothing_are_none() -> None:
    assert Shading((128, 128), "srgb").lights() == {}


def test_a_wrong_overlap_hardly_shows(scan_of: Callable[[ScanSet], Scan]) -> None:
    scan = scan_of(SMALL)
    shading = measured(scan)
    grey = [prepare(pixels).grey for pixels in scan.pixels]
    dark = (grey[5] * 0.6).astype(np.uint8)
    shading.add(5, 6, dark, grey[6], scan.truth[6] - scan.truth[5])
    assert all(abs(np.log(light)) < 0.03 for light in shading.lights().values())
