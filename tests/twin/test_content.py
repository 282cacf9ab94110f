"""Tiles change with age and sky as fresh gardens do."""

from __future__ import annotations

import math
from importlib.util import find_spec

import numpy as np
import pytest

from megdt.errors import PredictionError
from megdt.twin.content import fit_clouds, predict_change, predict_other_sky
from megdt.worlds.days import Days
from megdt.worlds.garden import draw_view

HELD_OUT = 10_000_000


def test_nothing_has_changed_yet_and_more_has_with_age() -> None:
    assert predict_change(0.0).mean == 0
    found = [predict_change(age) for age in (0.5, 1.0, 3.0, 6.0, 9.0)]
    for part in ("mean", "low", "high", "matters"):
        assert (np.diff([getattr(change, part) for change in found]) >= 0).all()
    assert all(change.low <= change.mean <= change.high for change in found)
    assert predict_change(9.0) == predict_change(40.0)


def test_another_sky_changes_more_than_a_week_does() -> None:
    assert predict_change(0.0, other_sky=1.0).mean > predict_change(7.0).mean
    half = predict_change(2.0, other_sky=0.5)
    assert predict_change(2.0).mean < half.mean < predict_change(2.0, other_sky=1.0).mean
    assert half.high == predict_change(2.0, other_sky=1.0).high


@pytest.mark.skipif(
    find_spec("stlpips_pytorch") is None, reason="needs the network weights in stlpips-pytorch"
)
def test_gardens_that_it_has_not_seen_change_as_it_says() -> None:
    from megdt.models.quality import perceptual_distance

    told = predict_change(3.0)
    before, after = [], []
    for number in range(10):
        garden, view = draw_view(HELD_OUT + number)
        before.append(garden.render(view))
        after.append(garden.later(3.0).render(view))
    distances = perceptual_distance(np.stack(after), np.stack(before))
    assert np.mean(distances) == pytest.approx(told.mean, abs=0.03)
    assert np.mean((told.low <= distances) & (distances <= told.high)) >= 0.7
    assert np.mean(distances > 0.1) == pytest.approx(told.matters, abs=0.3)


def test_the_sky_is_told_by_the_clock_and_by_how_long_clouds_last() -> None:
    assert predict_other_sky("night", 0.1, 1.1) == 0
    assert predict_other_sky("clear", 0.5, 0.95) == 1
    assert predict_other_sky("night", 0.1, 0.5) == 1
    soon, later = (predict_other_sky("clear", 0.4, at) for at in (0.42, 0.7))
    assert 0 < soon < later < 0.5


def test_told_skies_come_as_often_as_told() -> None:
    days = Days(HELD_OUT, length_days=4000)
    rng = np.random.default_rng(0)
    seen = rng.uniform(0, 3990, 3000)
    then = seen + rng.exponential(0.3, 3000)
    told = np.array([predict_other_sky(days.sky(a), a, b) for a, b in zip(seen, then, strict=True)])
    came = np.array([days.sky(a) != days.sky(b) for a, b in zip(seen, then, strict=True)])
    sure = (told == 0) | (told == 1)
    assert np.array_equal(came[sure], told[sure] == 1)
    for low, high in ((0, 0.2), (0.2, 0.4), (0.4, 0.7)):
        some = ~sure & (told > low) & (told <= high)
        assert np.mean(came[some]) == pytest.approx(np.mean(told[some]), abs=0.08)


def test_clouds_are_fitted_from_a_record() -> None:
    days = Days(3, length_days=2000)
    clear, change_days = fit_clouds([days.sky(0.02 * n) for n in range(100_000)], 0.02)
    assert clear == pytest.approx(0.6, abs=0.04)
    assert change_days == pytest.approx(0.24, abs=0.03)
    with pytest.raises(PredictionError, match="longer"):
        fit_clouds(["clear"] * 9, 0.02)


@pytest.mark.parametrize("age_days", [-1.0, math.nan, math.inf])
def test_an_age_that_is_none_is_refused(age_days: float) -> None:
    with pytest.raises(PredictionError, match="age_days"):
        predict_change(age_days)


def test_an_unknown_sky_and_a_time_before_it_are_refused() -> None:
    with pytest.raises(PredictionError, match="green"):
        predict_other_sky("green", 0.0, 1.0)
    with pytest.raises(PredictionError, match="after it"):
        predict_other_sky("clear", 2.0, 1.0)
    with pytest.raises(PredictionError, match="probability"):
        predict_change(1.0, other_sky=1.5)
