"""Which candidate a request gets, and by how much its odds have to be kept for the promise to hold.

The best of many plans on the pictures that were measured is in part the luckiest of them, so a plan
chosen with a probability of poor pictures of 10 % has more. Therefore the rule of choice is tried on
measured pictures that it does not know, and distances count a margin more for the choice, as large as
it takes for the chosen plans' rate of poor pictures to be what is promised: conformal risk control
of the whole rule, where pictures take turns to be held out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from megdt.twin.hardness import Spread, spread
from megdt.twin.outlook import Outlook

Objective = Literal["latency", "ue_energy", "energy"]
"""What to have little of: seconds until the picture is there, joules of the UE, or of both sides."""

POINTS = 32
"""Of the predicted SNR, equally likely."""

NEAREST = 1e-4
"""ST-LPIPS below which pictures count as the same."""

BOUNDS = (0.03, 0.07, 0.14)
"""Of ST-LPIPS: below, between and above them a margin each."""

BLUR = 0.6
"""Half the width that each measured picture stands for in the logarithm of its distance: so what is
just within a bound on all of them counts as less safe than what is far within it."""

_MARGINS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
"""Added to the logarithm of a distance."""
_TRIED_BOUNDS = (0.008, 0.012, 0.02, 0.035, 0.05, 0.065, 0.08, 0.1, 0.13, 0.15, 0.2, 0.3)
_TRIED_DEADLINES_S = (0.06, 0.12, 0.25, 0.5, math.inf)
_TRIED_EVERY = 12
"""Of the SNRs of an outlook."""
_FOLDS = 8

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]


def price(
    objective: Objective, means: NDArray[np.floating], fails: NDArray[np.floating], deadline_s: NDArray[np.floating]
) -> NDArray[np.floating]:  # fmt: skip
    """What a candidate is expected to take, with asking again where the picture is late or poor.

    In latency the deadline goes by first; in energy, and where there is no deadline, what was
    taken was taken in vain.

    Args:
        objective: What is taken.
        means: Of what arrives. [..., candidates]
        fails: Probability of a late or poor picture. [..., candidates]
        deadline_s: [..., 1]
    """
    lost = means
    if objective == "latency":
        lost = np.where(np.isfinite(deadline_s), deadline_s, means)
    found: NDArray[np.floating] = np.minimum(means + fails * lost, 1e30)
    return found


def choose(
    cost: NDArray[np.floating], late: NDArray[np.floating], poor: NDArray[np.floating], violation: float
) -> NDArray[np.int64]:  # fmt: skip
    """The candidate of least cost that keeps both promises, or else the one that breaks them least.

    All [..., candidates]; returns [...].
    """
    kept = (late <= violation) & (poor <= violation)
    best = np.where(kept, cost, np.inf).argmin(-1)
    excess = np.maximum(late - violation, 0) + np.maximum(poor - violation, 0)
    least = excess <= excess.min(-1, keepdims=True) + 1e-6
    safest = np.where(least, cost, np.inf).argmin(-1)
    found: NDArray[np.int64] = np.where(kept.any(-1), best, safest)
    return found


def exceeds(values: NDArray[np.floating], limits: NDArray[np.floating]) -> NDArray[np.floating]:
    """How likely a picture about as far off as a measured one is above a limit; both logarithms."""
    found: NDArray[np.floating] = np.clip((values - limits) / (2 * BLUR) + 0.5, 0, 1)
    return found


def promised(counted: NDArray[np.floating], pictures: int) -> NDArray[np.floating]:
    """The probability that a share of n pictures can promise: the one to come may be the worst."""
    found: NDArray[np.floating] = (counted * pictures + 1) / (pictures + 1)
    return found


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How far off each candidate's pictures are, of a known hardness or of none.

    Args:
        spread: Of the logarithm of the distance. [candidates, snr]
        margins: That distances count more by for the choice, by BOUNDS.
    """

    spread: Spread
    margins: Floats

    @property
    def pictures(self) -> int:
        """Measured."""
        return int(self.spread.residual.shape[-1])

    @cached_property
    def by_point(self) -> Singles:
        """Distance of middling hardness as each point of the SNR meets it. [points, snr, candidates]"""
        values = self.spread.base[..., None] + np.sort(self.spread.residual, -1)
        return by_point(values, seed=1)

    @cached_property
    def slope(self) -> Singles:
        """[snr, candidates, bands]"""
        return np.ascontiguousarray(self.spread.slope.swapaxes(0, 1), np.float32)

    def limit(self, max_distance: NDArray[np.floating]) -> NDArray[np.floating]:
        """Bounds as the choice sees them: logarithms, less the margin. [asks]"""
        margin = self.margins[np.searchsorted(BOUNDS, max_distance, side="right")]
        found: NDArray[np.floating] = np.log(np.maximum(max_distance, NEAREST / 2)) - margin
        return found


def by_point(values: Floats, *, seed: int) -> Singles:
    """Sorted draws or pictures, the last axis, as each point of the SNR meets them.

    A Latin hypercube: quantiles of the SNR, of the link's draws and of the pictures are each
    gone through evenly, and none goes with another. [points, snr, candidates]
    """
    order = np.random.default_rng(seed).permutation(POINTS) + 0.5
    places = (order * values.shape[-1] / POINTS).astype(int)
    # In the order in which they are looked up, and as small as will do: many UEs are many.
    return np.ascontiguousarray(values[..., places].T, np.float32)


def learn_quality(
    outlook: Outlook, hardness: Floats, objective: Objective, violation: float
) -> Quality:
    """Fit distances to hardness, and find the margins.

    Args:
        outlook: What candidates take and give.
        hardness: Of the measured pictures; [pictures, 0] for a planner that does not know it.
        objective: Of which little is to be taken.
        violation: That is promised.
    """
    values = np.log(np.maximum(outlook.distance, NEAREST))
    groups = np.searchsorted(BOUNDS, _TRIED_BOUNDS, side="right")
    bad, asked = _try_margins(outlook, values, hardness, objective, violation)
    count, margins = len(hardness), []
    for group in range(len(BOUNDS) + 1):
        some = groups == group
        risk = bad[:, some].sum(1) / np.maximum(asked[:, some].sum(1), 1e-9)
        holds = promised(risk, count) <= violation
        margins.append(_MARGINS[int(holds.argmax()) if holds.any() else -1])
    return Quality(spread=spread(values, hardness), margins=np.array(margins))


def _try_margins(
    outlook: Outlook, values: Floats, hardness: Floats, objective: Objective, violation: float
) -> tuple[Floats, Floats]:
    """How often plans were chosen that promised quality, and how many of these pictures were poor.

    References:
        Angelopoulos et al., Conformal Risk Control, arXiv:2208.02814; Cohen et al., arXiv:2401.11974,
        for data that take turns.

    Returns:
        Poor ones and all. [margins, bounds], [margins, bounds]
    """
    tried = slice(_TRIED_EVERY // 2, None, _TRIED_EVERY)
    values = values[:, tried]
    count, limits = len(hardness), np.log(_TRIED_BOUNDS)
    means = {"latency": outlook.mean_s, "ue_energy": outlook.ue_j, "energy": outlook.both_j}
    mean = means[objective][:, tried].T  # [snr, candidates]
    late = [(outlook.latency_s[:, tried] > d).mean(-1).T for d in _TRIED_DEADLINES_S]
    bad, asked = np.zeros((2, len(_MARGINS), len(limits)))
    for fold in range(min(_FOLDS, count)):
        out = np.arange(fold, count, min(_FOLDS, count))
        known = np.setdiff1d(np.arange(count), out)
        fit = spread(values[..., known], hardness[known])
        for picture in out:
            expected = (fit.at(hardness[picture])[..., None] + fit.residual)[..., None]
            is_poor = values[..., picture, None] > limits  # [candidates, snr, bounds]
            for row, margin in enumerate(_MARGINS):
                poor = exceeds(expected, limits - margin).mean(2).T
                odds = promised(poor, len(known))
                for deadline_s, tardy in zip(_TRIED_DEADLINES_S, late, strict=True):
                    fails = poor + tardy - poor * tardy
                    cost = price(objective, mean, fails, np.array(deadline_s))
                    chosen = choose(cost, tardy, odds, violation)[..., None]
                    says = np.take_along_axis(odds, chosen, -1)[..., 0] <= violation
                    came = np.take_along_axis(is_poor.T, chosen, -1)[..., 0]
                    asked[row] += says.sum(1)
                    bad[row] += (says & came).sum(1)
    return bad, asked
