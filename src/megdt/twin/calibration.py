"""Calibration: intervals that cover as often as they say, whatever is wrong with the model.

A model says a value and a standard deviation; a score is how many of those deviations the truth was
off. Intervals are the value plus and minus a factor of the deviation, and the factor is a quantile
of the scores so far (conformal prediction). Where the world drifts away from its past scores, the
quantile is moved by what was missed (adaptive conformal inference).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from megdt.errors import PredictionError


def split_factor(scores: NDArray[np.floating[Any]], level: float) -> float:
    """The factor under which a new score falls with at least this probability.

    Args:
        scores: Of a calibration set that is exchangeable with what comes. [scores]
        level: 0 to 1; 1 or more asks for certainty, which is infinite.

    Returns:
        Infinite where there are too few scores for the level.

    References:
        Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005; Lei et al.,
        arXiv:1604.04173, section 2.

    >>> split_factor(np.arange(1.0, 100.0), 0.9)
    90.0
    """
    rank = math.ceil((len(scores) + 1) * level)
    if rank > len(scores):
        return math.inf
    return float(np.partition(scores, max(rank, 1) - 1)[max(rank, 1) - 1])


class AdaptiveFactor:
    """The factor of intervals that keep their level while the world drifts.

    After each batch of scores the level asked of past scores goes up by `gain` times the share
    that was missed too much, or down likewise. So the share missed over T batches is within
    (1 + gain) / (gain * T) of what was promised, whatever the scores are.

    Args:
        level: Share of truths that intervals shall cover, 0 to 1.
        gain: How fast it follows.
        window: How many scores it remembers.

    Raises:
        PredictionError: If a setting is out of its range.

    References:
        Gibbs and Candes, arXiv:2106.00170, equation 2 and proposition 4.1.
    """

    def __init__(self, level: float = 0.9, *, gain: float = 0.02, window: int = 2000) -> None:
        if not 0 < level < 1:
            raise PredictionError(f"level is {level:g}, an interval covers above 0 and below 1")
        if not 0 <= gain <= 1 or window < 1:
            raise PredictionError(
                f"gain is {gain:g} and window {window}; they go from 0 to 1, and from 1 score on"
            )
        self.level, self.gain, self.window = level, gain, window
        self._missable = 1 - level
        self._scores = np.zeros(0)

    @property
    def factor(self) -> float:
        """Half of an interval's width, in standard deviations; a Gaussian's before enough scores.

        Infinite while past scores hold nothing wide enough for what was missed lately.
        """
        if len(self._scores) < 2 / (1 - self.level):
            return NormalDist().inv_cdf(0.5 + self.level / 2)
        if self._missable <= 0:
            return math.inf
        return split_factor(self._scores, 1 - self._missable)

    def update(self, scores: ArrayLike, missed: ArrayLike) -> None:
        """Learn what became of intervals.

        Args:
            scores: How many standard deviations the truths were off, as one batch. [batch]
            missed: Whether each was outside the interval that was told at its time. [batch]

        Raises:
            PredictionError: If a score is not a number, or below 0.
        """
        new = np.atleast_1d(np.asarray(scores, np.float64))
        if not (new >= 0).all():  # also catches nan
            raise PredictionError("a score is below 0 or not a number; scores are absolute values")
        if not new.size:
            return
        self._missable += self.gain * (
            1 - self.level - float(np.asarray(missed, np.float64).mean())
        )
        self._scores = np.concatenate([self._scores, new])[-self.window :]


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How often intervals held the truth."""

    share: float
    """0 to 1."""
    width: float
    """Mean of the finite ones, in the truth's unit."""
    count: int

    def within(self, level: float, tolerance: float = 0.03) -> bool:
        """Whether the share is what was promised, give or take."""
        return abs(self.share - level) <= tolerance


def measure_coverage(low: ArrayLike, high: ArrayLike, truth: ArrayLike) -> Coverage:
    """Hold intervals against the truth, ends included.

    Args:
        low: Lower ends. [any]
        high: Upper ends. [any]
        truth: [any]

    Raises:
        PredictionError: If there is nothing to measure, or something is not a number.
    """
    lower, upper, true = (np.asarray(part, np.float64) for part in (low, high, truth))
    if not true.size or np.isnan(lower).any() or np.isnan(upper).any() or np.isnan(true).any():
        raise PredictionError("coverage needs one interval and truth or more, none of them nan")
    width = upper - lower
    finite = width[np.isfinite(width)]
    return Coverage(
        share=float(np.mean((lower <= true) & (true <= upper))),
        width=float(finite.mean()) if finite.size else math.inf,
        count=int(true.size),
    )
