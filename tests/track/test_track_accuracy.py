"""How well motion is tracked, on paper: exact paths, noisy readings at uneven times, frames that arrive late."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from deblurd.track.along import along
from deblurd.track.clock import FrameClock
from deblurd.track.path import StagePath, Stretch

Floats = NDArray[np.float64]

T0_S = 1000.0
LATENCY_S = 0.012


def trapezoid(t: Floats, speed_um_s: float, ramp_um_s2: float, start_s: float, cruise_s: float) -> Floats:
    """Position (n,) of a stage that is at rest, speeds up at `start_s`, cruises and brakes."""
    ramp_s = speed_um_s / ramp_um_s2
    up = np.clip(t - start_s, 0, ramp_s)
    even = np.clip(t - start_s - ramp_s, 0, cruise_s)
    down = np.clip(t - start_s - ramp_s - cruise_s, 0, ramp_s)
    return np.asarray(
        0.5 * ramp_um_s2 * up**2 + speed_um_s * even + speed_um_s * down - 0.5 * ramp_um_s2 * down**2
    )


@dataclass
class Scan:
    """What a tracker would know, and the truth: errors of pose and travel of each frame."""

    stretches: list[Stretch]
    pose_error_um: Floats
    travel_um: Floats
    true_travel_um: Floats
    middle_s: Floats


def scan(
    true_x: Callable[[Floats], Floats],
    *,
    seconds: float = 40.0,
    angle_deg: float = 30.0,
    poll_s: float = 0.03,
    poll_jitter_s: float = 0.002,
    noise_um: float = 0.1,
    period_s: float = 1 / 30,
    exposure_s: float = 0.01,
    jitter_s: float = 0.003,
    after_s: float = 2.0,
    seed: int = 0,
) -> Scan:
    """Polls and frames a stage that moves by `true_x` (times -> um) along a line, and tracks it as it would be tracked live."""
    rng = np.random.default_rng(seed)
    along = np.array([np.sin(np.radians(angle_deg)), np.cos(np.radians(angle_deg))])
    polls = np.cumsum(np.maximum(poll_s + rng.normal(0, poll_jitter_s, int(seconds / poll_s)), 1e-3))
    readings = true_x(polls)[:, None] * along + rng.normal(0, noise_um, (len(polls), 2))
    path, clock = StagePath(), FrameClock(exposure_s * 1000, LATENCY_S * 1000)
    n = int((seconds - 1) / period_s)
    end = 0.2 + np.arange(n) * period_s + exposure_s
    # late-skewed: a gamma distribution has a tail on the right; its mean is part of the latency
    arrived = end + LATENCY_S + rng.gamma(2, jitter_s / np.sqrt(2), n) - np.sqrt(2) * jitter_s
    stretches, rows = [], []
    j = waiting = 0
    for i in range(n):
        clock.see(i, T0_S + arrived[i])
        while j < len(polls) and polls[j] < arrived[i]:
            path.add(T0_S + float(polls[j]), float(readings[j, 0]), float(readings[j, 1]), 0.5e-3)
            j += 1
        while waiting <= i:
            times = clock.exposure(waiting)
            if times is None or not (clock.is_settled(waiting) and path.covers(times[2])):
                break
            stretch = path.stretch(np.array(times))
            if end[waiting] > after_s and stretch is not None:
                truth = true_x(end[waiting] - exposure_s * np.array([1, 0.5, 0]))[:, None] * along
                stretches.append(stretch)
                rows.append((stretch.yx_um, truth, end[waiting] - exposure_s / 2))
            waiting += 1
    found, truth = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    return Scan(
        stretches,
        np.linalg.norm(found[:, 1] - truth[:, 1], axis=1),
        found[:, 2] - found[:, 0],
        truth[:, 2] - truth[:, 0],
        np.array([r[2] for r in rows]),
    )


def relative(scanned: Scan) -> tuple[Floats, Floats]:
    """Errors of the travel's length (share of it) and direction (degrees)."""
    length = np.linalg.norm(scanned.true_travel_um, axis=1)
    along = (scanned.travel_um * scanned.true_travel_um).sum(axis=1) / length
    found, true = scanned.travel_um, scanned.true_travel_um
    across = (found[:, 0] * true[:, 1] - found[:, 1] * true[:, 0]) / length
    return along / length - 1, np.degrees(np.arctan2(across, along))


@pytest.mark.parametrize("noise_um", [0.05, 0.1])
@pytest.mark.parametrize("angle_deg", [0.0, 30.0, 90.0])
def test_constant_motion_is_known_to_a_fifth_of_a_micrometre_three_percent_and_a_degree(
    noise_um: float, angle_deg: float
) -> None:
    """500 um/s, read every 30 ms, frames with 12 ms latency and 3 ms jitter."""
    scanned = scan(lambda t: 500 * t, noise_um=noise_um, angle_deg=angle_deg)
    length, direction = relative(scanned)
    assert len(scanned.stretches) > 1000
    assert np.sqrt((scanned.pose_error_um**2).mean()) < 0.2
    assert np.abs(length).max() < 0.03
    assert np.abs(direction).max() < 1.0


def test_very_noisy_readings_still_give_the_motion() -> None:
    length, direction = relative(scan(lambda t: 500 * t, noise_um=0.3))
    assert np.sqrt((length**2).mean()) < 0.01
    assert np.percentile(np.abs(length), 99) < 0.03
    assert np.percentile(np.abs(direction), 99) < 1.0


def there_and_back(
    speed_um_s: float, ramp_um_s2: float
) -> tuple[Callable[[Floats], Floats], Callable[[Floats], NDArray[np.bool_]]]:
    """The path of a stage that drives for a second, rests for 0.3 s and drives back, over and over; and when its speed changes."""
    cruise_s, ramp_s = 1.0, speed_um_s / ramp_um_s2
    lap_s = 2 * ramp_s + cruise_s + 0.3

    def path(t: Floats) -> Floats:
        lap = np.floor(t / lap_s)
        way = trapezoid(t - lap * lap_s, speed_um_s, ramp_um_s2, 0.0, cruise_s)
        whole = speed_um_s * (cruise_s + ramp_s)
        return np.asarray(np.where(lap % 2 == 0, way, whole - way))

    def is_ramp(t: Floats) -> NDArray[np.bool_]:
        at = t % lap_s
        return (at < ramp_s) | ((at > ramp_s + cruise_s) & (at < lap_s - 0.3))

    return path, is_ramp


@pytest.mark.parametrize(
    ("speed_um_s", "ramp_um_s2"), [(500.0, 5000.0), (2000.0, 10000.0), (2000.0, 50000.0)]
)
def test_acceleration_is_followed_and_its_uncertainty_is_honest(speed_um_s: float, ramp_um_s2: float) -> None:
    """A stage that is read every 7 ms speeds up and brakes, over and over; the clock's error is none of the path's."""
    path, is_ramp = there_and_back(speed_um_s, ramp_um_s2)
    scanned = scan(path, poll_s=0.007, poll_jitter_s=0.001, jitter_s=1e-5)
    error = np.linalg.norm(scanned.travel_um - scanned.true_travel_um, axis=1)
    ramps = is_ramp(scanned.middle_s)
    full_um = speed_um_s * 0.01
    assert ramps.sum() > 20
    assert np.sqrt((error[ramps] ** 2).mean()) < 0.05 * full_um
    assert np.sqrt((error[~ramps] ** 2).mean()) < 0.01 * full_um
    sigma = np.array([s.travel_sigma_um for s in scanned.stretches])
    assert np.sqrt((error[ramps] ** 2 / 2 / sigma[ramps] ** 2).mean()) < 2.0


@pytest.mark.parametrize(("ramp_um_s2", "in_ramps_um"), [(2000.0, 0.1), (10000.0, 0.2), (50000.0, 0.4)])
def test_ramps_are_known_though_a_serial_port_tells_little_of_them(
    ramp_um_s2: float, in_ramps_um: float
) -> None:
    """500 um/s, read every 30 ms: a ramp of 250 ms holds eight readings, one of 10 ms lies between two, and strays 0.6 um from the lines that it joins."""
    path, is_ramp = there_and_back(500.0, ramp_um_s2)
    scanned = scan(path, noise_um=0.05, jitter_s=1e-4)
    ramps = is_ramp(scanned.middle_s)
    assert ramps.sum() > 10
    assert np.sqrt((scanned.pose_error_um**2).mean()) < 0.1
    assert np.sqrt((scanned.pose_error_um[ramps] ** 2).mean()) < in_ramps_um


def test_the_bend_of_an_accelerating_exposure_is_found() -> None:
    """50 mm/s^2 over 40 ms bend the path by 10 um; a fit of a line would say 0."""
    scanned = scan(
        lambda t: 25000 * t**2, poll_s=0.005, poll_jitter_s=0.0005, exposure_s=0.04, period_s=0.05,
        seconds=3.0, jitter_s=1e-4, after_s=1.0,
    )  # fmt: skip
    bend = np.array([0.5 * (s.yx_um[0] + s.yx_um[2]) - s.yx_um[1] for s in scanned.stretches])
    assert np.linalg.norm(bend, axis=1) == pytest.approx(10.0, rel=0.05)


def test_a_reading_that_took_long_counts_where_the_stage_rested_and_little_where_it_moved() -> None:
    """A stage that stops at 1 s is read every 36 ms; of calls that take 60 ms instead of 30 the moment is not known."""
    path, rng = StagePath(), np.random.default_rng(3)
    for n, t_s in enumerate(np.arange(0.0, 1.6, 0.036)):
        is_long = n % 4 == 3
        read_s = float(t_s) + is_long * rng.uniform(-0.015, 0.015)
        y_um, x_um = rng.normal(0.0, 0.05, 2) + np.array([0.0, 500.0 * min(read_s, 1.0)])
        path.add(float(t_s), float(y_um), float(x_um), 0.03 if is_long else 0.015)
    for at_s in np.arange(0.3, 1.3, 0.01):
        stretch = path.stretch(np.array([at_s, at_s + 0.005, at_s + 0.01]))
        assert stretch is not None
        assert abs(stretch.yx_um[1, 1] - 500.0 * min(at_s + 0.005, 1.0)) < 0.7


def test_readings_of_which_none_is_sure_tell_what_they_can() -> None:
    """All calls took longer than most do, and what they say scatters."""
    t = np.arange(-0.15, 0.16, 0.03)
    um = 500.0 * t + 2.0 * (np.arange(len(t)) % 3)
    found = along(
        t,
        um,
        np.full(len(t), 0.0105),
        np.array([-0.005, 0.0, 0.005]),
        after_s=0.07,
        noise_um=0.05,
        usual_s=0.01,
    )
    assert found.um[1] == pytest.approx(2.0, abs=2.0)


def test_how_far_the_stage_went_meanwhile_is_told_beyond_the_noise_of_its_readings() -> None:
    path, rng = StagePath(), np.random.default_rng(2)
    for t_s in np.arange(0.0, 2.0, 0.005):
        y_um, x_um = rng.normal(0.0, 0.05, 2) + np.array([0.0, 500.0 * max(t_s - 1.0, 0.0)])
        path.add(float(t_s), float(y_um), float(x_um))
    assert path.extent_um(0.2, 0.9) == 0.0
    assert path.extent_um(1.2, 1.4) == pytest.approx(100.0, abs=6.0)
    assert path.extent_um(-0.1, 0.5) == path.extent_um(1.5, 2.5) == math.inf
