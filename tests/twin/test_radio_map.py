"""The map is nearer to the field than its law, knows how near, and refuses wrong measurements."""

from __future__ import annotations

import math

import numpy as np
import pytest

from megdt.errors import PredictionError
from megdt.twin.radio_map import RadioMap, distance_law, sigma_points, traced_law
from megdt.worlds.city import TracedMap
from megdt.worlds.radio_field import RadioField, expected_loss_db


def learn(field: RadioField, count: int, rng_seed: int = 0, **settings: float) -> RadioMap:
    rng = np.random.default_rng(rng_seed)
    places = rng.uniform(-100, 100, (count, 2))
    measured = field.snr_db(places)[:, 0] + rng.standard_normal(count)
    made = RadioMap(distance_law((0.0, 0.0)), **settings)  # type: ignore[arg-type]
    made.observe(0.0, places, np.clip(measured, -40, 60), now_s=0.0)
    return made


HELD_OUT = np.random.default_rng(9).uniform(-95, 95, (800, 2))
FIELD = RadioField(rng_seed=2, sight="never")
TRUTH = FIELD.snr_db(HELD_OUT)[:, 0]


def test_the_map_beats_its_law_and_its_variance_is_its_error() -> None:
    made = learn(FIELD, 3000)
    mean, variance = made.predict(HELD_OUT)
    law = made.offset_db + made.slope * made.law(HELD_OUT)
    error, plain = mean - TRUTH, law - TRUTH
    assert np.sqrt(np.mean(error**2)) < 0.6 * np.sqrt(np.mean(plain**2))
    assert 0.8 < np.mean(error**2 / variance) < 1.25
    assert np.mean(np.abs(error) < 1.645 * np.sqrt(variance)) == pytest.approx(0.9, abs=0.04)


def test_what_is_fitted_is_what_the_field_was_made_of() -> None:
    made = learn(FIELD, 4000)
    made.fit()
    assert 6.0 < made.shadowing_db < 10.0
    assert made.correlation_m in (13.0, 25.0)
    assert made.change_s == math.inf
    assert made.slope == pytest.approx(1.0, abs=0.3)


def test_more_measurements_and_near_ones_tell_more() -> None:
    few, many = (learn(FIELD, count).predict(HELD_OUT) for count in (150, 3000))
    assert np.mean((many[0] - TRUTH) ** 2) < 0.7 * np.mean((few[0] - TRUTH) ** 2)
    made = learn(FIELD, 1000)
    near, far = made.predict(np.array([[0.0, 20.0], [0.0, 400.0]]))[1]
    assert near < 0.7 * far


def test_a_place_that_is_uncertain_is_told_with_more_variance() -> None:
    made = learn(FIELD, 2000)
    spread = np.tile(np.diag([100.0, 25.0]), (len(HELD_OUT), 1, 1))
    exact, blurred = made.predict(HELD_OUT)[1], made.predict(HELD_OUT, spread)[1]
    assert np.mean(blurred) > 1.3 * np.mean(exact)
    assert np.allclose(made.predict(HELD_OUT, spread * 1e-12)[1], exact, rtol=1e-3)


def test_old_measurements_count_less_where_the_field_changes() -> None:
    field = RadioField(rng_seed=4, sight="never", change_s=60.0)
    rng = np.random.default_rng(0)
    made = RadioMap(distance_law((0.0, 0.0)), remembered=2)
    for at in range(0, 200, 2):
        places = rng.uniform(-60, 60, (40, 2))
        made.observe(at, places, np.clip(field.snr_db(places, at)[:, 0], -40, 60), now_s=at)
    soon = made.predict(HELD_OUT / 2, time_s=200.0)
    late = made.predict(HELD_OUT / 2, time_s=600.0)
    assert made.change_s < 1000
    assert np.mean(late[1]) > 1.5 * np.mean(soon[1])
    error = soon[0] - field.snr_db(HELD_OUT / 2, 200.0)[:, 0]
    assert 0.7 < np.mean(error**2 / soon[1]) < 1.4


def test_measurements_of_one_bin_are_averaged() -> None:
    made = RadioMap(distance_law((0.0, 0.0)))
    made.observe(0.0, [[5.2, 5.2]] * 4 + [[9.5, 5.2]], [10.0, 12.0, 14.0, 12.0, 3.0], now_s=0.0)
    assert len(made) == 2
    assert made.predict(np.array([[5.2, 5.2]]))[0][0] == pytest.approx(12, abs=0.5)


def test_what_is_found_does_not_depend_on_the_order_of_the_measurements() -> None:
    places = np.random.default_rng(3).uniform(-50, 50, (300, 2))
    measured = np.clip(FIELD.snr_db(places)[:, 0], -40, 60)
    one, two = RadioMap(distance_law((0.0, 0.0))), RadioMap(distance_law((0.0, 0.0)))
    one.observe(0.0, places, measured, now_s=0.0)
    two.observe(0.0, places[::-1], measured[::-1], now_s=0.0)
    for made in (one, two):
        made.fit()
        made.correlation_m, made.nugget, made.shadowing_db = 13.0, 0.03, 7.8
    apart = one.predict(HELD_OUT / 2)[0] - two.predict(HELD_OUT / 2)[0]
    assert np.abs(apart).mean() < 0.05


def test_a_traced_map_tells_the_mean_and_the_formula_what_no_ray_told() -> None:
    gains = np.full((4, 4), -80.0)
    gains[0] = math.nan
    traced = TracedMap(gain_db=gains, station_m=(0.0, 0.0), cell_m=50.0)
    law = traced_law(traced, 3.5e9)(np.array([[10.0, 10.0], [10.0, -80.0]]))
    beyond = expected_loss_db(np.array([math.hypot(10, 80)]), 3.5e9)[0]
    assert law.tolist() == [-80.0, pytest.approx(-beyond)]


def test_sigma_points_have_mean_and_covariance() -> None:
    covariance = np.array([[[4.0, 1.0], [1.0, 9.0]]])
    points, weights = sigma_points(np.array([[3.0, -2.0]]), covariance)
    mean = (points * weights[:, None]).sum(1)
    off = points - mean[:, None]
    assert np.allclose(mean, [[3.0, -2.0]])
    assert np.allclose(
        (off[..., None] * off[:, :, None] * weights[:, None, None]).sum(1), covariance
    )


@pytest.mark.parametrize(
    ("time_s", "place", "snr_db", "said"),
    [
        (1.0, [math.inf, 0.0], 10.0, "finite"),
        (1.0, [0.0, 0.0], math.nan, "SNR"),
        (1.0, [0.0, 0.0], 61.0, "-40 to 60"),
        (1.5, [0.0, 0.0], 10.0, "from the future"),
    ],
)
def test_a_wrong_measurement_is_refused_in_one_line(
    time_s: float, place: list[float], snr_db: float, said: str
) -> None:
    made = RadioMap(distance_law((0.0, 0.0)))
    with pytest.raises(PredictionError, match=said) as told:
        made.observe([0.0, time_s], [[1.0, 1.0], place], [5.0, snr_db], now_s=1.2)
    assert "\n" not in str(told.value)
    assert len(made) == 0
    with pytest.raises(PredictionError, match="no measurement yet"):
        made.predict(np.zeros((1, 2)))
