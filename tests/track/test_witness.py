"""What a scan's own frames may change of what is known: on paper, without a thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from deblurd.geometry import PixelToStage
from deblurd.track.calibrate import Sighting, fit
from deblurd.track.calibration import Calibration
from deblurd.track.path import StagePath
from deblurd.track.witness import Witness
from tests.track.test_calibrate import CONFIGURED, rolled, sightings_of

LAG_S = (0.012, 0.012)


class Blind:
    """A registrar that is never asked."""

    def prepare(self, pixels: Any, motion: Any) -> Any:
        raise AssertionError

    def shift(self, a: Any, b: Any, expected_px: Any, radius_px: float) -> None:
        raise AssertionError

    def skew(self, a: Any, b: Any, shift_px: Any) -> None:
        raise AssertionError


def later(seen: Sequence[Sighting], by_s: float) -> list[Sighting]:
    """As a clock would have it that counts the second frame of each pair wrongly."""
    return [replace(s, second_s=s.second_s + by_s) for s in seen]


def witness_of(path: StagePath, seen: Sequence[Sighting], configured: PixelToStage = CONFIGURED) -> Witness:
    """One that has fitted all of them."""
    witness = Witness(Blind(), path, (512, 512), configured, Calibration.configured(configured))
    show(witness, seen)
    return witness


def show(witness: Witness, seen: Sequence[Sighting]) -> None:
    witness._sightings.extend(seen)
    witness.seen += len(seen)
    witness._fit()


def test_frames_of_a_stage_without_play_find_none() -> None:
    seen, path = sightings_of(CONFIGURED, LAG_S, poll_s=0.035)
    found = fit(seen, path.stretch, Calibration.configured(CONFIGURED))
    assert found is not None
    assert np.abs(found.play_um).max() < 0.01
    assert np.abs(found.lag_s - LAG_S).max() < 4e-4


def test_a_batch_of_frames_that_were_timed_wrongly_hardly_moves_what_is_known() -> None:
    seen, path = sightings_of(CONFIGURED, LAG_S, poll_s=0.007)
    witness = witness_of(path, seen[:150])
    known = witness.calibration
    assert known.is_good
    show(witness, later(seen[:80], 0.033))
    assert np.abs(witness.calibration.lag_s - known.lag_s).max() < 4e-4
    show(witness, seen[80:200])
    assert np.abs(witness.calibration.lag_s - LAG_S).max() < 4e-4


def test_what_is_known_becomes_no_less_sure_by_a_few_good_frames() -> None:
    seen, path = sightings_of(CONFIGURED, LAG_S, poll_s=0.035)
    witness = witness_of(path, seen)
    known = witness.calibration
    assert known.is_good
    show(witness, seen[:40])
    assert witness.calibration is not known
    assert (witness.calibration.lag_sigma_s < 1.2 * known.lag_sigma_s + 1e-4).all()


def test_a_clock_that_is_set_otherwise_for_good_is_followed() -> None:
    seen, path = sightings_of(CONFIGURED, LAG_S, poll_s=0.007)
    witness = witness_of(path, seen[:150])
    moved = [replace(s, first_s=s.first_s + 0.02, second_s=s.second_s + 0.02) for s in seen]
    for _ in range(4):
        show(witness, moved[:150])
    assert np.abs(witness.calibration.lag_s - np.subtract(LAG_S, 0.02)).max() < 1e-3


def test_lags_are_told_for_the_clock_as_it_is_now() -> None:
    """All frames were believed to be 3 ms later than they are believed to have been when what they show is asked for; then another 2 ms."""
    seen, path = sightings_of(CONFIGURED, LAG_S, poll_s=0.007)
    moved_s = -0.003
    believed = [
        replace(
            s,
            first_s=s.first_s + 0.003,
            second_s=s.second_s + 0.003,
            first_later=lambda: moved_s,
            second_later=lambda: moved_s,
        )
        for s in seen
    ]
    witness = witness_of(path, believed[:150])
    assert np.abs(witness.calibration.lag_s - LAG_S).max() < 4e-4
    moved_s = -0.005
    assert np.abs(witness.calibration.lag_s - np.add(LAG_S, 0.002)).max() < 4e-4
    show(witness, believed[150:200])
    assert np.abs(witness.calibration.lag_s - np.add(LAG_S, 0.002)).max() < 4e-4


def test_each_frame_counts_once() -> None:
    seen, path = sightings_of(CONFIGURED, LAG_S, poll_s=0.007)
    witness = witness_of(path, seen[:150])
    known = witness.calibration
    show(witness, seen[150:170])
    assert witness.calibration is known
    assert len(witness._sightings) == 20


def test_a_wrong_scale_is_said_by_the_second_fit_that_sees_it() -> None:
    seen, path = sightings_of(PixelToStage.from_scale(0.53), LAG_S, poll_s=0.007)
    witness = witness_of(path, seen[:150])
    assert witness.failure is None
    show(witness, seen[:150])
    assert witness.failure is not None
    assert "pixel_size_um" in witness.failure


def test_a_camera_that_rolls_otherwise_than_was_known_is_believed_by_the_third_batch() -> None:
    seen, path = sightings_of(CONFIGURED, LAG_S, poll_s=0.007)
    witness = witness_of(path, rolled(seen[:150], 2e-5, CONFIGURED))
    assert witness.calibration.is_good
    assert witness.calibration.rolling_ms(512) > 5
    for batch in range(2):
        show(witness, rolled(seen[:80], 0.0, CONFIGURED, seed=batch))
        assert witness.calibration.rolling_ms(512) > 5
    for batch in range(2):
        show(witness, rolled(seen[:150], 0.0, CONFIGURED, seed=batch))
    assert witness.calibration.rolling_ms(512) == 0.0
