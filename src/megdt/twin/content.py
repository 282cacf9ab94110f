"""Content: how much a tile of the garden will have changed since it was seen.

A tile is one view. Change is the perceptual distance (ST-LPIPS) between what was seen and what
stands there now, told as a mean, an interval, and the probability that it matters. Flowers change
it with age, another sky at once; whether the sky is another follows from clock and clouds.

The curves were measured by `python recipes/change.py` and are kept in `change.json`.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from megdt.errors import PredictionError
from megdt.worlds.days import by_the_clock
from megdt.worlds.scene import SKIES

MATTERS = 0.1
"""A distance that a fresh seed has by itself (`studies/mechanisms`): less is not seen."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """How much a tile will have changed; distances 0 (the same) to about 1."""

    mean: float
    low: float
    high: float
    """Nine tiles in ten are between low and high."""
    matters: float
    """Probability that it is above MATTERS."""


def predict_change(age_days: float, *, other_sky: float = 0.0) -> Change:
    """How much a tile will have changed that was seen so long ago.

    Args:
        age_days: Since it was seen. What was measured last, nine days, holds for all that is older.
        other_sky: Probability that the sky is another; see `predict_other_sky`.

    Raises:
        PredictionError: If the age is below 0 or not finite, or no probability.

    >>> predict_change(3.0).mean > predict_change(1.0).mean
    True
    """
    if not 0 <= age_days < math.inf:
        raise PredictionError(f"age_days is {age_days:g}; a tile was seen 0 or more days ago")
    if not 0 <= other_sky <= 1:
        raise PredictionError(f"other_sky is {other_sky:g}; a probability goes from 0 to 1")
    same, other = (_at(age_days, curve) for curve in ("same_sky", "other_sky"))
    # An interval that covers nine in ten whichever sky it is, unless one is as good as sure.
    return Change(
        mean=(1 - other_sky) * same.mean + other_sky * other.mean,
        low=other.low if other_sky > 0.95 else same.low,
        high=same.high if other_sky < 0.05 else other.high,
        matters=(1 - other_sky) * same.matters + other_sky * other.matters,
    )


def predict_other_sky(sky: str, seen_days: float, time_days: float) -> float:
    """Probability that the sky will not be the one that was seen.

    Args:
        sky: That was seen, one of `scene.SKIES`.
        seen_days: When, in days since a midnight.
        time_days: For when, not before that.

    Raises:
        PredictionError: If the sky is unknown, or a time not finite or before it was seen.
    """
    if sky not in SKIES:
        raise PredictionError(f"sky is {sky!r}, known: {', '.join(SKIES)}; choose one of these")
    if not (math.isfinite(time_days) and seen_days <= time_days):
        raise PredictionError(
            f"no sky can be told for day {time_days:g} from one seen on day {seen_days:g}; predict "
            "a finite time after it"
        )
    sun = by_the_clock(time_days)
    if sun is not None:
        return float(sky != sun)
    clouds = _curves()["clouds"]
    (clear,), (changes_days,) = clouds["clear_share"], clouds["change_days"]
    if sky not in ("clear", "cloudy"):  # the sun's sky has hidden the clouds, and is over
        return 1.0
    share = clear if sky == "clear" else 1 - clear
    return float((1 - share) * (1 - math.exp(-(time_days - seen_days) / changes_days)))


def fit_clouds(skies: Sequence[str], step_days: float) -> tuple[float, float]:
    """Share of clear skies, and the time over which clouds become others, from a record.

    Args:
        skies: Seen every `step_days`; nights and sunsets are passed over.
        step_days: Small against the time that is to be found.

    Raises:
        PredictionError: If clouds never changed in it.
    """
    pairs = [(a, b) for a, b in itertools.pairwise(skies) if {a, b} <= {"clear", "cloudy"}]
    changed = [(a, b) for a, b in pairs if a != b]
    if not changed:
        raise PredictionError("the record has no change of clouds; give a longer one")
    clear = sum(a == "clear" for a, _ in pairs) / len(pairs)
    # Of a chain with two states, P(change) = 2 share (1 - share) (1 - exp(-step / time)).
    rate = len(changed) / len(pairs) / (2 * clear * (1 - clear))
    return clear, -step_days / math.log(max(1 - rate, 1e-9))


@cache
def _curves() -> dict[str, dict[str, list[float]]]:
    return json.loads((Path(__file__).parent / "change.json").read_text())["curves"]  # type: ignore[no-any-return]


def _at(age_days: float, name: str) -> Change:
    curve = _curves()[name]
    ages = curve["age_days"]
    return Change(
        **{
            part: float(np.interp(age_days, ages, curve[part]))
            for part in ("mean", "low", "high", "matters")
        }
    )
