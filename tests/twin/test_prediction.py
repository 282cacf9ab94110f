"""The SNR that UEs will measure is told with intervals that hold it as often as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from megdt.errors import PredictionError
from megdt.twin.calibration import measure_coverage
from megdt.twin.mobility import Tracker, street_motion
from megdt.twin.prediction import SnrForecast, SnrPredictor
from megdt.twin.radio_map import RadioMap, distance_law
from megdt.worlds.radio_field import RadioField
from megdt.worlds.tracks import walk_streets

HORIZONS_S = (0.5, 2.0, 5.0)
UES, SPEED_M_S, STEP_S = 20, 8.0, 0.5


@pytest.fixture(scope="module")
def told() -> dict[float, list[tuple[SnrForecast, np.ndarray, np.ndarray]]]:
    """Forecasts of two minutes in a world that changes, what was measured then, and last before."""
    tracks = walk_streets(5, ues=UES, duration_s=120, speed_m_s=SPEED_M_S, step_s=STEP_S, blocks=2)
    field = RadioField(rng_seed=6, change_s=300.0)
    rng = np.random.default_rng(7)
    measured = [field.snr_db(places, n * STEP_S)[:, 0] for n, places in enumerate(tracks)]
    measured = np.clip(np.array(measured) + rng.standard_normal(tracks.shape[:2]), -40, 60)
    tracker = Tracker(UES, street_motion(SPEED_M_S))
    predictor = SnrPredictor(tracker, RadioMap(distance_law((0.0, 0.0))), horizons_s=HORIZONS_S)
    found: dict[float, list[tuple[SnrForecast, np.ndarray, np.ndarray]]] = {
        h: [] for h in HORIZONS_S
    }
    for n, places in enumerate(tracks):
        now = n * STEP_S
        noisy = places + rng.standard_normal(places.shape)
        tracker.observe(np.arange(UES), now, noisy, now_s=now)
        predictor.observe(np.arange(UES), now, measured[n], now_s=now)
        for horizon in HORIZONS_S:
            then = n + round(horizon / STEP_S)
            if now > 20 and then < len(tracks):
                forecast = predictor.predict(now, horizon)
                found[horizon].append((forecast, measured[then], measured[n]))
    return found


def test_intervals_of_nine_in_ten_hold_nine_in_ten(
    told: dict[float, list[tuple[SnrForecast, np.ndarray, np.ndarray]]],
) -> None:
    for forecasts in told.values():
        low, high, then = (
            np.stack(part)
            for part in zip(*((f.low_db, f.high_db, m) for f, m, _ in forecasts), strict=True)
        )
        assert measure_coverage(low, high, then).within(0.9)


def test_the_spread_grows_with_the_horizon_and_is_not_all_there_is(
    told: dict[float, list[tuple[SnrForecast, np.ndarray, np.ndarray]]],
) -> None:
    deviation = [np.mean([f.deviation_db for f, _, _ in told[h]]) for h in HORIZONS_S]
    assert deviation[0] < deviation[1] < deviation[2]
    widths = [np.mean([f.high_db - f.low_db for f, _, _ in told[h]]) for h in HORIZONS_S]
    assert widths[0] < 0.8 * widths[2]
    assert widths[2] < 60


def test_the_mean_is_nearer_than_the_last_measurement(
    told: dict[float, list[tuple[SnrForecast, np.ndarray, np.ndarray]]],
) -> None:
    for horizon in (2.0, 5.0):
        ours = np.mean([(f.mean_db - then) ** 2 for f, then, _ in told[horizon]])
        last = np.mean([(before - then) ** 2 for _, then, before in told[horizon]])
        assert ours < 0.8 * last


def ready() -> SnrPredictor:
    tracker = Tracker(2)
    predictor = SnrPredictor(tracker, RadioMap(distance_law((0.0, 0.0))))
    tracker.observe([0, 1], 1.0, [[50.0, 0.0], [0.0, 80.0]], now_s=1.0)
    predictor.observe([0], 1.0, [20.0], now_s=1.0)
    return predictor


@pytest.mark.parametrize(
    ("time_s", "snr_db", "said"),
    [(2.5, 10.0, "future"), (math.nan, 10.0, "no time"), (1.0, math.nan, "SNR"), (1.0, 99.0, "60")],
)
def test_a_wrong_measurement_is_refused_in_one_line(
    time_s: float, snr_db: float, said: str
) -> None:
    predictor = ready()
    before = predictor.predict(1.0, 1.0, [0]).mean_db
    with pytest.raises(PredictionError, match=said) as told:
        predictor.observe([0], time_s, [snr_db], now_s=2.0)
    assert "\n" not in str(told.value)
    assert predictor.predict(1.0, 1.0, [0]).mean_db == before


def test_a_ue_without_a_measurement_and_an_infinite_horizon_are_refused() -> None:
    predictor = ready()
    with pytest.raises(PredictionError, match="UE1 has measured no SNR"):
        predictor.predict(1.0, 1.0)
    with pytest.raises(PredictionError, match="horizon_s"):
        predictor.predict(1.0, math.inf, [0])


def test_just_after_a_measurement_that_is_what_is_predicted() -> None:
    told = ready().predict(1.0, 0.0, [0])
    assert told.mean_db[0] == pytest.approx(20.0, abs=1.0)


def test_forecasts_are_judged_when_each_ue_measures_and_only_about_their_time() -> None:
    tracker = Tracker(3)
    predictor = SnrPredictor(tracker, RadioMap(distance_law((0.0, 0.0))), horizons_s=(1.0,))
    batches: list[int] = []
    predictor.factors[0].update = lambda scores, missed: batches.append(len(scores))  # type: ignore[method-assign]

    def measure(ue: list[int], time_s: float) -> None:
        tracker.observe(ue, time_s, [[10.0 * (1 + u), 5.0] for u in ue], now_s=time_s)
        predictor.observe(ue, time_s, [20.0] * len(ue), now_s=time_s)

    measure([0, 1, 2], 0.0)
    predictor.predict(0.0, 1.0)
    predictor.predict(0.0, 0.7)  # of no horizon that is kept
    measure([0], 0.9)  # too early
    measure([0], 1.0)
    measure([0, 1], 1.2)  # UE0 again
    measure([2], 1.8)  # too late
    assert sum(batches) == 2
