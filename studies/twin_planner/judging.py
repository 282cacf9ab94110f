"""What each plan turns out to take and give, and what a strategy pays for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdt.link.energy import DeviceProfile
from megdt.twin.hardness import Hardness
from megdt.twin.planner import Ask, Decision, Planner
from megdt.twin.selection import Objective, price

HELD_OUT = Path(__file__).parent / "held_out.json"

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class HeldOut:
    """Pictures that the planner's costs were not measured on."""

    def __init__(self, planner: Planner, path: Path = HELD_OUT) -> None:
        self.costs, self.found = planner.costs, json.loads(path.read_text())
        self._tables: dict[int, dict[str, Floats]] = {}

    def count(self, size_px: int) -> int:
        """Of a size."""
        return len(self.found["hardness"][str(size_px)])

    def hardness(self, size_px: int, picture: int) -> Hardness:
        return tuple(self.found["hardness"][str(size_px)][picture])

    def table(self, size_px: int) -> dict[str, Floats]:
        """Distances by way. [snr, pictures]"""
        if size_px not in self._tables:
            self._tables[size_px] = {
                way.name: self._distance(self.found["ways"][way.name][str(size_px)]["distance"])
                for way in self.costs.ways(size_px)
            }
        return self._tables[size_px]

    def _distance(self, rows: list[list[float]]) -> Floats:
        """At the SNRs of the costs."""
        values = np.array(rows)
        if len(values) == 1:
            return np.repeat(values, self.costs.snr_db.size, 0)
        columns = [np.interp(self.costs.snr_db, self.found["snr_db"], c) for c in values.T]
        return np.stack(columns, 1)


@dataclass(frozen=True, kw_only=True)
class Luck:
    """What nobody knows when a plan is made."""

    snr_db: float
    """True, at full power."""
    air: float
    """Quantile of the link's draws."""
    picture: int


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What each candidate turns out to take and give for one request. [candidates]"""

    cost: Floats
    """Of the objective, without what breaking a constraint costs."""
    latency_s: Floats
    distance: Floats
    poor_of_all: Floats
    """Share of all held-out pictures that would be poor: what who knows the channel alone can tell."""
    names: tuple[str, ...]


def judge(planner: Planner, held_out: HeldOut, ask: Ask, luck: Luck) -> Truth:
    """Every candidate at the true SNR, with the same luck on the air and the same picture."""
    outlook = planner.outlook(ask.equipment, ask.size_px)
    place = int(planner.snr_place(np.array(luck.snr_db)))
    latency_s = outlook.latency_s[:, place, int(luck.air * outlook.latency_s.shape[2])]
    table = held_out.table(ask.size_px)
    distances = np.stack(
        [
            table[c.way.name][int(planner.snr_place(np.array(luck.snr_db - c.backoff_db)))]
            for c in outlook.candidates
        ]
    )
    energy = {"energy": outlook.both_j, "ue_energy": outlook.ue_j}
    return Truth(
        cost=latency_s if planner.objective == "latency" else energy[planner.objective][:, place],
        latency_s=latency_s,
        distance=distances[:, luck.picture],
        poor_of_all=(distances > ask.max_distance).mean(1),
        names=tuple(c.name for c in outlook.candidates),
    )


class Payment:
    """What a request costs when it is answered by a candidate.

    Who gets no picture, or a poor one, asks again, and then gets what the oracle would have sent:
    in latency the deadline goes by first; in energy both are paid.
    """

    def __init__(
        self, asks: Sequence[Ask], truths: Sequence[Truth], objective: Objective, es: DeviceProfile
    ) -> None:
        self.asks, self.truths, self.objective, self.es = asks, truths, objective, es
        self.best = np.array(
            [
                np.where(self.late(n) | self.poor(n), np.inf, t.cost).min()
                for n, t in enumerate(truths)
            ]
        )
        self.possible = np.isfinite(self.best)
        """Requests that no candidate could have served are nobody's fault."""

    def late(self, number: int, extra_s: float = 0.0) -> Flags:
        found: Flags = self.truths[number].latency_s + extra_s > self.asks[number].deadline_s
        return found

    def poor(self, number: int) -> Flags:
        found: Flags = self.truths[number].distance > self.asks[number].max_distance
        return found

    def __call__(self, number: int, name: str, extra_s: float = 0.0) -> float:
        """Of the numbered request; a candidate that the UE cannot hold counts as no picture."""
        truth, ask, best = self.truths[number], self.asks[number], float(self.best[number])
        if name not in truth.names:
            return best + (ask.deadline_s if self.objective == "latency" else best)
        at = truth.names.index(name)
        cost = float(truth.cost[at]) + self._extra(ask, extra_s)
        if not (self.late(number, extra_s)[at] or self.poor(number)[at]):
            return cost
        return best + (ask.deadline_s if self.objective == "latency" else cost)

    def _extra(self, ask: Ask, seconds: float) -> float:
        """Of seconds that the ES computes and the UE waits."""
        if self.objective == "latency":
            return seconds
        ue, es = ask.equipment.profile, self.es
        watts = ue.compute_idle_power_w + ue.radio_idle_power_w
        if self.objective == "energy":
            watts += es.compute_power_w + es.radio_idle_power_w
        return watts * seconds

    def knowing_the_channel(self) -> list[str]:
        """The best that somebody could do who knows SNR and luck, but of the picture only what all are like."""
        found = []
        for number, (ask, truth) in enumerate(zip(self.asks, self.truths, strict=True)):
            late = self.late(number).astype(float)
            fails = late + truth.poor_of_all - late * truth.poor_of_all
            cost = np.minimum(truth.cost, 1e30)
            expected = price(self.objective, cost, fails, np.array(ask.deadline_s))
            found.append(truth.names[int(expected.argmin())])
        return found


def choose_fixed(paid: Payment, numbers: Sequence[int]) -> tuple[str, Floats]:
    """The one candidate that is best in hindsight for all of these requests."""
    names = sorted({name for n in numbers for name in paid.truths[n].names})
    found = {name: np.array([paid(n, name) for n in numbers]) for name in names}
    counted = paid.possible[list(numbers)]
    best = min(names, key=lambda name: found[name][counted].sum())
    return best, found[best]


def outcomes(paid: Payment, decisions: Sequence[Decision]) -> dict[str, Any]:
    """How often each constraint was broken where it was promised to hold, and what the regret is made of.

    Regret is split by what became of the request: poor, late, or neither, where the plan was too
    careful or not the best.
    """
    late, poor = np.zeros((2, len(decisions)), bool)
    regret = np.zeros(len(decisions))
    for n, decision in enumerate(decisions):
        name, ahead_s = decision.candidate.name, decision.ahead_s
        at = paid.truths[n].names.index(name)
        late[n], poor[n] = paid.late(n, ahead_s)[at], paid.poor(n)[at]
        regret[n] = paid(n, name, ahead_s) - paid.best[n] if paid.possible[n] else 0
    promised = np.array([not d.broken for d in decisions])
    count = max(int(paid.possible.sum()), 1)
    return {
        "fallbacks": float(1 - promised.mean()),
        "promised": int(promised.sum()),
        "late": share(late, promised),
        "poor": share(poor, promised),
        "late_stated": share(np.array([d.late for d in decisions]), promised),
        "poor_stated": share(np.array([d.poor for d in decisions]), promised),
        "regret of poor ones": float(regret[poor].sum() / count),
        "regret of late ones": float(regret[late & ~poor].sum() / count),
        "regret of others": float(regret[~late & ~poor].sum() / count),
    }


def share(values: NDArray[Any], of: Flags) -> float:
    """Their mean over some."""
    return float(values[of].mean()) if of.any() else 0.0
