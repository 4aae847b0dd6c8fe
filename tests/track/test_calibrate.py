"""Calibration on paper: a stage that goes there and back along each axis, and frames that are shifted as they truly would be."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from deblurd.geometry import PixelToStage
from deblurd.track.calibrate import Sighting, fit
from deblurd.track.calibration import Calibration, turn_between_deg
from deblurd.track.path import StagePath

Floats = NDArray[np.float64]

SPEED_UM_S, LEG_UM, REST_S = 300.0, 120.0, 0.4
LEG_S = LEG_UM / SPEED_UM_S
LAP_S = 4 * (LEG_S + REST_S)
CONFIGURED = PixelToStage.from_scale(0.5)


def commanded(t: Floats) -> Floats:
    """(n, 2): in each lap there and back along x, then along y."""
    at = np.zeros((len(t), 2))
    lap = t % LAP_S
    for axis, start in ((1, 0.0), (0, LAP_S / 2)):
        there = np.clip((lap - start) / LEG_S, 0, 1)
        back = np.clip((lap - start - LEG_S - REST_S) / LEG_S, 0, 1)
        at[:, axis] = LEG_UM * (there - back)
    return at


def ways(t: float) -> Floats:
    """The way that each axis drove last."""
    lap = t % LAP_S
    x = 1.0 if lap < LEG_S + REST_S else -1.0
    y = -1.0 if lap < LAP_S / 2 or lap > LAP_S / 2 + LEG_S + REST_S else 1.0
    return np.array([y if t > LAP_S / 2 else 0.0, x])


def sightings_of(
    true: PixelToStage,
    lag_s: tuple[float, float],
    play_um: float = 0.0,
    *,
    poll_s: float = 0.035,
    wrong: int = 0,
    axes: tuple[int, ...] = (0, 1),
    seed: int = 0,
) -> tuple[list[Sighting], StagePath]:
    """Every frame against the first one. A reading at t shows each axis where it truly was at t - lag."""
    rng = np.random.default_rng(seed)
    path = StagePath()
    for t in np.cumsum(rng.normal(poll_s, 0.001, int(9.0 / poll_s))):
        y = commanded(np.array([t - lag_s[0]]))[0, 0]
        x = commanded(np.array([t - lag_s[1]]))[0, 1]
        path.add(t, *(np.array([y, x]) + rng.normal(0, 0.05, 2)))
    first = np.array([0.5, 0.505, 0.51])
    inverse = np.linalg.inv(true.matrix)

    def mean(start_s: float) -> Floats:
        middle = start_s + 0.01 * (np.arange(16) + 0.5) / 16
        return np.asarray(commanded(middle).mean(axis=0) + play_um * (ways(start_s) < 0))

    found: list[Sighting] = []
    for start_s in np.arange(1.0, 8.0, 1 / 30):
        step = mean(start_s) - mean(0.5)
        # where only one axis drives, the other one's legs are left out
        if any(abs(step[axis]) > 1 + play_um for axis in (0, 1) if axis not in axes):
            continue
        shift = inverse @ step + rng.normal(0, 0.1, 2)
        if len(found) < wrong:
            shift = shift + rng.uniform(-50, 50, 2)
        times = start_s + np.array([0, 0.005, 0.01])
        found.append(Sighting(first, times, shift, 0.1, ways(0.5), ways(start_s)))
    return found, path


@pytest.mark.parametrize("poll_s", [0.007, 0.035])
@pytest.mark.parametrize("lag_s", [(0.0, 0.0), (-0.0195, -0.0045), (0.012, 0.012)])
def test_affine_and_the_lag_of_each_axis_come_out(poll_s: float, lag_s: tuple[float, float]) -> None:
    true = PixelToStage.from_scale(0.505, rotation_deg=1.5)
    seen, path = sightings_of(true, lag_s, poll_s=poll_s)
    found = fit(seen, path.stretch, Calibration.configured(CONFIGURED))
    assert found is not None
    assert found.is_known
    assert np.abs(found.affine.matrix / true.pixel_size_um - true.rotation).max() < 2e-3
    assert np.abs(found.lag_s - lag_s).max() < 4e-4
    assert found.disagreement(CONFIGURED) is None


def test_play_is_told_from_lag() -> None:
    seen, path = sightings_of(CONFIGURED, (0.01, 0.01), play_um=3.0, poll_s=0.007)
    found = fit(seen, path.stretch, Calibration.configured(CONFIGURED))
    assert found is not None
    assert np.abs(found.play_um - 3.0).max() < 0.3
    assert np.abs(found.lag_s - 0.01).max() < 5e-4


def test_wrong_matches_hardly_count() -> None:
    seen, path = sightings_of(CONFIGURED, (0.01, 0.01), wrong=30)
    found = fit(seen, path.stretch, Calibration.configured(CONFIGURED))
    assert found is not None
    assert np.abs(found.affine.matrix - CONFIGURED.matrix).max() < 2e-3
    assert np.abs(found.lag_s - 0.01).max() < 1e-3


@pytest.mark.parametrize(
    ("true", "word"),
    [
        (PixelToStage.from_scale(0.52), "pixel_size_um"),
        (PixelToStage.from_scale(0.5, mirrored=True), "mirrored"),
        (PixelToStage.from_scale(0.5, rotation_deg=90), "rotation_deg"),
    ],
)
def test_a_camera_that_is_not_as_configured_is_named(true: PixelToStage, word: str) -> None:
    seen, path = sightings_of(true, (0.0, 0.0))
    found = fit(seen, path.stretch, Calibration.configured(CONFIGURED))
    assert found is not None
    sentence = found.disagreement(CONFIGURED)
    assert sentence is not None
    assert word in sentence


def test_what_did_not_move_stays_as_expected_and_raises_no_alarm() -> None:
    true = PixelToStage.from_scale(0.55)
    seen, path = sightings_of(true, (0.0, 0.0), axes=(1,))
    found = fit(seen, path.stretch, Calibration.configured(CONFIGURED))
    assert found is not None
    assert found.affine.matrix.tolist() == CONFIGURED.matrix.tolist()
    assert not found.is_known
    assert found.disagreement(CONFIGURED) is None


def test_too_few_sightings_tell_nothing() -> None:
    seen, path = sightings_of(CONFIGURED, (0.0, 0.0))
    assert fit(seen[:7], path.stretch, Calibration.configured(CONFIGURED)) is None


def test_a_calibration_survives_json() -> None:
    seen, path = sightings_of(CONFIGURED, (0.01, 0.02), axes=(1,))
    found = fit(seen, path.stretch, Calibration.configured(CONFIGURED))
    assert found is not None
    again = Calibration.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False)))
    assert again.to_dict() == found.to_dict()


@pytest.mark.parametrize(
    "damage", [{"lag_s": [0.0]}, {"affine_um": [[0, 0], [0, 0]]}, {"lag_s": [math.nan, 0]}]
)
def test_a_damaged_one_is_refused(damage: dict[str, object]) -> None:
    kept = Calibration.configured(CONFIGURED).to_dict() | damage
    with pytest.raises(ValueError, match="values"):
        Calibration.from_dict(kept)


def test_turns_between_cameras_of_one_handedness() -> None:
    for mirrored in (False, True):
        a, b = (PixelToStage.from_scale(0.5, rotation_deg=d, mirrored=mirrored) for d in (10, 40))
        assert turn_between_deg(a, b) == pytest.approx(30)


def rolled(seen: list[Sighting], row_s: float, true: PixelToStage, seed: int = 1) -> list[Sighting]:
    """The same by a camera whose rows are exposed `row_s` after one another."""
    rng = np.random.default_rng(seed)
    inverse = np.linalg.inv(true.matrix)

    def speed_px_s(times: Floats) -> Floats:
        at = commanded(times[[0, 2]])
        return np.asarray(-inverse @ (at[1] - at[0]) / (times[2] - times[0]))

    found = []
    for s in seen:
        first, second = speed_px_s(s.first_s), speed_px_s(s.second_s)
        shift = s.shift_px + row_s * s.shift_px[0] / 2 * (first + second)
        skew = row_s * (first - second) + rng.normal(0, 4e-4, 2)
        found.append(replace(s, shift_px=shift, skew=(skew, 3e-4)))
    return found


@pytest.mark.parametrize("row_ms", [0.02, -0.04])
def test_a_rolling_shutter_is_found_and_takes_no_part_of_the_lag(row_ms: float) -> None:
    true = PixelToStage.from_scale(0.5, rotation_deg=1.5)
    seen, path = sightings_of(true, (0.01, 0.01), poll_s=0.007)
    found = fit(rolled(seen, row_ms / 1000, true), path.stretch, Calibration.configured(CONFIGURED))
    assert found is not None
    assert found.rolling_ms(512) == pytest.approx(row_ms * 511, rel=0.03)
    assert abs(found.row_s - row_ms / 1000) < found.row_sigma_s
    assert np.abs(found.lag_s - 0.01).max() < 5e-4
    assert np.abs(found.affine.matrix - true.matrix).max() < 1e-3


def test_what_is_known_of_a_rolling_shutter_counts_with_what_is_seen() -> None:
    seen, path = sightings_of(CONFIGURED, (0.01, 0.01), poll_s=0.007)
    known = replace(Calibration.configured(CONFIGURED), row_s=2e-5, row_sigma_s=2e-6)
    # frames that were not looked at for it tell nothing
    found = fit(seen, path.stretch, known)
    assert found is not None
    assert (found.row_s, found.row_sigma_s) == pytest.approx((2e-5, 2e-6))
    more = fit(rolled(seen, 2e-5, CONFIGURED), path.stretch, known)
    assert more is not None
    assert more.row_sigma_s < 1e-6


def test_a_global_shutter_is_none() -> None:
    seen, path = sightings_of(CONFIGURED, (0.01, 0.01), poll_s=0.007)
    found = fit(rolled(seen, 0.0, CONFIGURED), path.stretch, Calibration.configured(CONFIGURED))
    assert found is not None
    assert found.rolling_ms(512) == 0.0
    assert found.other_rolling(512, 0.0, False) is None
    assert found.other_rolling(512, 10.0, True) is not None


def test_a_rolling_shutter_that_is_not_as_said_is_named() -> None:
    known = replace(
        Calibration.configured(CONFIGURED), row_s=2e-5, row_sigma_s=1e-7, lag_sigma_s=np.full(2, 1e-3)
    )
    for used_ms, is_told, words in (
        (0.0, False, "10.2 ms apart .* from the next slide on"),
        (5.0, True, "and not 5 ms.*change .microscope. rolling_ms"),
    ):
        sentence = known.other_rolling(512, used_ms, is_told)
        assert sentence is not None
        assert re.search(words, sentence)
    assert known.other_rolling(512, 10.1, True) is None
    assert replace(known, lag_sigma_s=np.full(2, 5e-3)).other_rolling(512, 0.0, False) is None
    assert replace(known, row_sigma_s=math.inf).other_rolling(512, 0.0, False) is None
    # where it is not sure, or does not show, none is taken for it
    assert replace(known, row_sigma_s=1e-5).rolling_ms(512) == 0.0
    assert replace(known, row_s=2e-7, row_sigma_s=1e-9).rolling_ms(512) == 0.0


def test_one_from_before_rolling_shutters_were_looked_for_is_read() -> None:
    kept = Calibration.configured(CONFIGURED).to_dict()
    del kept["row_s"], kept["row_sigma_s"]
    assert Calibration.from_dict(kept).rolling_ms(512) == 0.0
