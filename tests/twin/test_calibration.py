"""Intervals cover as often as they say, under a wrong model and under drift."""

from __future__ import annotations

import math

import numpy as np
import pytest

from megdt.errors import PredictionError
from megdt.twin.calibration import AdaptiveFactor, measure_coverage, split_factor


def cover(deviations: np.ndarray, factor: AdaptiveFactor, batch: int = 10) -> np.ndarray:
    """Whether each truth of a stream was covered; the model says mean 0 and deviation 1."""
    held = []
    for part in deviations.reshape(-1, batch):
        inside = np.abs(part) <= factor.factor
        factor.update(np.abs(part), ~inside)
        held.append(inside)
    return np.concatenate(held)


def test_a_split_factor_covers_new_scores() -> None:
    rng = np.random.default_rng(0)
    shares = [
        np.mean(rng.exponential(size=500) <= split_factor(rng.exponential(size=200), 0.9))
        for _ in range(200)
    ]
    assert np.mean(shares) == pytest.approx(0.9, abs=0.01)


def test_too_few_scores_for_a_level_give_an_infinite_factor() -> None:
    assert split_factor(np.ones(8), 0.9) == math.inf
    assert split_factor(np.ones(9), 0.9) == 1


def test_a_wrong_model_is_covered_all_the_same() -> None:
    stream = 3 * np.random.default_rng(1).standard_t(3, 20_000)
    assert np.mean(cover(stream, AdaptiveFactor(0.9))[500:]) == pytest.approx(0.9, abs=0.01)


def test_drift_is_followed_and_without_a_gain_it_is_not() -> None:
    growing = np.random.default_rng(2).standard_normal(8000) * np.geomspace(1, 60, 8000)
    followed = cover(growing, AdaptiveFactor(0.9))
    left = cover(growing, AdaptiveFactor(0.9, gain=0.0))
    assert np.mean(followed) == pytest.approx(0.9, abs=0.03)
    assert np.mean(left) < 0.87


def test_before_it_has_seen_anything_it_is_a_gaussian() -> None:
    assert AdaptiveFactor(0.9).factor == pytest.approx(1.645, abs=0.001)


def test_after_many_misses_an_interval_is_infinite_and_comes_back() -> None:
    factor = AdaptiveFactor(0.9, gain=0.2)
    for _ in range(5):
        factor.update(np.full(20, 9.0), np.ones(20, bool))
    assert factor.factor == math.inf
    for _ in range(60):
        factor.update(np.full(20, 1.0), np.zeros(20, bool))
    assert factor.factor < 10


def test_coverage_is_counted_with_ends_and_the_width_without_infinite_ones() -> None:
    found = measure_coverage([0, 0, 0, -math.inf], [1, 1, 1, math.inf], [0, 1, 1.1, 50])
    assert (found.share, found.width, found.count) == (0.75, 1.0, 4)
    assert found.within(0.77)
    assert not found.within(0.9)


@pytest.mark.parametrize(
    "wrong", [{"level": 1.0}, {"level": math.nan}, {"gain": 2.0}, {"window": 0}]
)
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(PredictionError):
        AdaptiveFactor(**wrong)  # type: ignore[arg-type]


def test_a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(PredictionError, match="score"):
        AdaptiveFactor().update([math.nan], [True])
    with pytest.raises(PredictionError, match="nan"):
        measure_coverage([math.nan], [1], [0])
