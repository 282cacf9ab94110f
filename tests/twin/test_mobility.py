"""UEs are followed, predicted with an honest spread, and wrong measurements refused."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from megdt.errors import PredictionError
from megdt.twin.mobility import Motion, Tracker, street_motion
from megdt.worlds.tracks import walk_streets


def follow(tracks: np.ndarray, motion: Motion, until: int, rng_seed: int = 0) -> Tracker:
    """A tracker that has measured tracks [steps, ues, 2] of 0.1 s, at irregular times."""
    rng = np.random.default_rng(rng_seed)
    tracker = Tracker(tracks.shape[1], motion)
    for step in range(until + 1):
        seen = np.flatnonzero(rng.uniform(size=tracks.shape[1]) < 0.7)
        place = tracks[step, seen] + rng.standard_normal((len(seen), 2))
        tracker.observe(seen, step * 0.1, place, now_s=step * 0.1)
    return tracker


def test_the_spread_holds_nine_in_ten_and_grows_with_the_horizon() -> None:
    tracks = walk_streets(1, ues=150, duration_s=40, speed_m_s=8.0)
    tracker = follow(tracks, street_motion(8.0), 300)
    sizes = []
    for horizon in (0.1, 1.0, 3.0, 10.0):
        forecast = tracker.predict(30 + horizon)
        inside = forecast.distance(tracks[300 + round(10 * horizon)]) < math.sqrt(4.605)
        assert 0.82 < inside.mean() <= 1
        sizes.append(np.linalg.det(forecast.covariance_m2) ** 0.25)
    assert (np.diff(sizes, axis=0) > 0).all()


def test_it_is_nearer_than_constant_velocity_where_ues_turn_and_stop() -> None:
    tracks = walk_streets(2, ues=150, duration_s=40, speed_m_s=8.0)
    alone = Motion(speed_m_s=8.0, jitter=1.0, stays_s=(("straight", 1.0),), enters=(1.0,))
    errors = [
        np.linalg.norm(follow(tracks, motion, 300).predict(40.0).mean_m - tracks[400], axis=1)
        for motion in (street_motion(8.0), alone)
    ]
    assert np.sqrt(np.mean(errors[0] ** 2)) < 0.95 * np.sqrt(np.mean(errors[1] ** 2))


def test_it_knows_who_stands_and_who_turns() -> None:
    steps = np.arange(101)[:, None] * 0.1
    angle = 0.8 * steps
    tracks = np.stack(
        [
            np.concatenate([4 * steps, 0 * steps], 1),
            np.zeros((101, 2)),
            np.concatenate([5 * np.sin(angle), 5 * (1 - np.cos(angle))], 1),
        ],
        1,
    )
    motion = Motion(speed_m_s=4.0, turn_rad_s=0.8)
    tracker = Tracker(3, motion)
    rng = np.random.default_rng(0)
    for step, place in enumerate(tracks):
        noisy = place + 0.1 * rng.standard_normal(place.shape)
        tracker.observe([0, 1, 2], step * 0.1, noisy, now_s=10.0, noise_m=0.1)
    for ue, mode in enumerate(("straight", "stand", "left")):
        assert tracker.probability(mode)[ue] > 0.8  # type: ignore[arg-type]
    # A corner goes on to the left, give or take that it may end: the tangent is 1.6 m off.
    on = 0.8 * 11
    turned = [5 * math.sin(on), 5 * (1 - math.cos(on))]
    assert np.linalg.norm(tracker.predict(11.0).mean_m[2] - turned) < 1.0


def test_a_prediction_in_small_steps_is_that_in_one() -> None:
    tracks = walk_streets(3, ues=20, duration_s=10)
    tracker = follow(tracks, Motion(), 100)
    one, two = tracker.predict(10.0), tracker.predict(10.0, [4, 2])
    assert np.array_equal(one.mean_m[[4, 2]], two.mean_m)
    assert np.isfinite(one.covariance_m2).all()


def test_ten_thousand_ues_take_well_under_a_second() -> None:
    tracker = Tracker(10_000)
    place = np.random.default_rng(0).uniform(-500, 500, (10_000, 2))
    began = time.process_time()
    for at in (0.0, 0.5):
        tracker.observe(np.arange(10_000), at, place, now_s=at)
    tracker.predict(3.5)
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize(
    ("ue", "time_s", "place", "said"),
    [
        (0, 1.0, [math.nan, 0.0], "finite"),
        (0, 1.0, [0.0, 2e5], "finite metres within"),
        (0, 3.0, [0.0, 0.0], "from the future"),
        (0, math.nan, [0.0, 0.0], "at no time"),
        (0, 0.1, [0.0, 0.0], "before its last"),
        (5, 1.0, [0.0, 0.0], "unknown"),
    ],
)
def test_a_wrong_measurement_is_refused_in_one_line_and_nothing_of_its_batch_kept(
    ue: int, time_s: float, place: list[float], said: str
) -> None:
    tracker = Tracker(2)
    tracker.observe([0, 1], 0.5, [[0.0, 0.0], [9.0, 0.0]], now_s=1.0)
    before = tracker.predict(1.0)
    with pytest.raises(PredictionError, match=said) as told:
        tracker.observe([1, ue], [0.9, time_s], [[5.0, 5.0], place], now_s=2.0)
    assert "\n" not in str(told.value)
    assert np.array_equal(tracker.predict(1.0).mean_m, before.mean_m)


def test_a_ue_that_was_never_measured_and_a_time_before_the_last_are_refused() -> None:
    tracker = Tracker(2)
    with pytest.raises(PredictionError, match="UE0 was never measured"):
        tracker.predict(1.0)
    tracker.observe([0], 5.0, [[0.0, 0.0]], now_s=5.0)
    with pytest.raises(PredictionError, match="measured at 5 s"):
        tracker.predict(4.0, [0])
    with pytest.raises(PredictionError, match="twice"):
        tracker.observe([0, 0], 6.0, [[0.0, 0.0]] * 2, now_s=6.0)


@pytest.mark.parametrize(
    "wrong", [{"speed_m_s": math.nan}, {"enters": (1.0,)}, {"stays_s": (("hover", 1.0),) * 4}]
)
def test_impossible_motion_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(PredictionError):
        Motion(**wrong)  # type: ignore[arg-type]
