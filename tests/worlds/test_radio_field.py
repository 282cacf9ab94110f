"""The radio field has the statistics of TR 38.901, and is the same from the same seed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from megdt.errors import WorldError
from megdt.worlds.radio_field import RadioField, path_loss_db, sight_probability

PLACES = np.random.default_rng(0).uniform(-400, 400, (1500, 2))


def shadowing_db(field: RadioField, places: np.ndarray, time_s: float = 0.0) -> np.ndarray:
    loss = path_loss_db(np.linalg.norm(places, axis=-1), 3.5e9, line_of_sight=False)
    return field.snr_db(places, time_s)[:, 0] - field.budget_db + loss


def test_path_loss_is_that_of_the_table() -> None:
    # 32.4 + 21 log10(d) + 20 log10(3.5) with d = hypot(100, 8.5); and 35.3, 22.4, 21.3 hidden.
    d = math.log10(math.hypot(100, 8.5))
    near = path_loss_db(np.array([100.0]), 3.5e9, line_of_sight=True)[0]
    hidden = path_loss_db(np.array([100.0]), 3.5e9, line_of_sight=False)[0]
    assert near == pytest.approx(32.4 + 21 * d + 20 * math.log10(3.5))
    assert hidden == pytest.approx(35.3 * d + 22.4 + 21.3 * math.log10(3.5))
    # Both sides of the break point, 210 m, meet.
    ends = path_loss_db(np.array([209.0, 212.0]), 3.5e9, line_of_sight=True)
    assert 0 < ends[1] - ends[0] < 0.5


def test_shadowing_has_the_deviation_and_correlation_of_the_tables() -> None:
    fields = [RadioField(rng_seed=seed, sight="never") for seed in range(6)]
    here = np.concatenate([shadowing_db(f, PLACES) for f in fields])
    assert np.std(here) == pytest.approx(7.82, abs=0.3)
    for apart_m in (3.0, 13.0, 30.0):
        there = np.concatenate([shadowing_db(f, PLACES + np.array([apart_m, 0])) for f in fields])
        assert np.corrcoef(here, there)[0, 1] == pytest.approx(math.exp(-apart_m / 13), abs=0.08)


def test_a_field_that_changes_forgets_itself_and_one_that_stays_does_not() -> None:
    stays, changes = (
        RadioField(rng_seed=1, sight="never", change_s=change_s) for change_s in (math.inf, 60.0)
    )
    assert np.array_equal(stays.snr_db(PLACES), stays.snr_db(PLACES, 600.0))
    before, after = shadowing_db(changes, PLACES), shadowing_db(changes, PLACES, 60.0)
    assert np.corrcoef(before, after)[0, 1] == pytest.approx(math.exp(-1), abs=0.1)


def test_as_many_places_see_the_station_as_the_model_says() -> None:
    seen = []
    for seed in range(100):
        ring = 100 * np.array([[math.cos(a), math.sin(a)] for a in np.arange(0, 6.28, 0.7)])
        mixed = RadioField(rng_seed=seed).snr_db(ring)[:, 0]
        hidden = RadioField(rng_seed=seed, sight="never").snr_db(ring)[:, 0]
        seen.append(np.mean(mixed - hidden > 10))
    assert np.mean(seen) == pytest.approx(sight_probability(np.array([100.0]))[0], abs=0.06)


def test_the_seed_decides_the_field() -> None:
    field = RadioField(rng_seed=3, stations_m=((0.0, 0.0), (200.0, 0.0)))
    assert field.snr_db(PLACES[:5]).shape == (5, 2)
    assert field.snr_db(PLACES[:6].reshape(2, 3, 2)).shape == (2, 3, 2)
    assert np.array_equal(
        field.snr_db(PLACES),
        RadioField(rng_seed=3, stations_m=field.stations_m).snr_db(PLACES),
    )
    assert not np.array_equal(RadioField(rng_seed=4).snr_db(PLACES), field.snr_db(PLACES)[:, :1])


@pytest.mark.parametrize(
    "settings",
    [{"sight": "often"}, {"stations_m": ()}, {"change_s": math.nan}, {"bandwidth_hz": 0.0}],
)
def test_an_impossible_field_is_refused_in_one_line(settings: dict[str, object]) -> None:
    with pytest.raises(WorldError, match=next(iter(settings))) as told:
        RadioField(rng_seed=0, **settings)  # type: ignore[arg-type]
    assert "\n" not in str(told.value)


def test_a_place_that_is_nowhere_is_refused() -> None:
    with pytest.raises(WorldError, match="finite"):
        RadioField(rng_seed=0).snr_db(np.array([[math.nan, 0.0]]))
