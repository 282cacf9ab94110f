"""The planner: from a predicted SNR and a device, the plan of each request, before anything is sent.

A candidate is a way to answer (`ways.py`) over a link with an MCS table and a transmit power; within
the table, link adaptation chooses slot by slot what no forecast can. Every candidate that the UE has
the memory for is looked up at points of the predicted SNR, each paired with one draw of the link and
one measured picture. Of those that keep every constraint with the stated probability the quickest
is taken, or the one that costs least energy. Where none does, the one that breaks least, and the
decision says what it is likely to break.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import NormalDist
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from megdt.errors import TwinError
from megdt.link.energy import DeviceProfile
from megdt.records import Plan
from megdt.twin.ways import STEP_DB, Costs, Sending, Way, load_costs

Objective = Literal["latency", "ue_energy", "energy"]
"""What to have little of: seconds until the picture is there, joules of the UE, or of both sides."""
Constraint = Literal["deadline", "quality"]

BACKOFFS_DB = (0, 6)
"""Below the power that the costs were measured with: candidates for the transmit power."""

POINTS = 32
"""Of the predicted SNR, equally likely."""

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Equipment:
    """What a UE is.

    Args:
        profile: Its speed and power.
        memory_mb: What it may fill with weights of models; 0 for a UE that shows pictures only.
    """

    profile: DeviceProfile
    memory_mb: float = math.inf


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A request, with what is predicted and what has to hold.

    Args:
        equipment: Of the UE that asks.
        snr_db: Mean of the prediction for when it will be sent, at full power.
        snr_sd_db: Standard deviation of the prediction.
        size_px: Of the picture, one that costs were measured at.
        deadline_s: From the request until the picture is there.
        max_distance: ST-LPIPS to the error-free picture.

    Raises:
        TwinError: If a number is out of its range.
    """

    equipment: Equipment
    snr_db: float
    snr_sd_db: float = 0.0
    size_px: int = 256
    deadline_s: float = math.inf
    max_distance: float = math.inf

    def __post_init__(self) -> None:
        if not math.isfinite(self.snr_db):
            raise TwinError(f"snr_db is {self.snr_db}, a prediction is a number; give its mean")
        for name in ("snr_sd_db", "deadline_s", "max_distance"):
            value = getattr(self, name)
            if not value >= 0 or (name == "snr_sd_db" and math.isinf(value)):  # also catches nan
                raise TwinError(f"{name} is {value}, it goes from 0 up; give what is meant")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A way over a link.

    Args:
        way: What runs where, and how it crosses.
        mcs_table: Of TS 38.214; see `LinkAdaptation`.
        backoff_db: Transmit power below the full one.
    """

    way: Way
    mcs_table: int
    backoff_db: int

    @property
    def name(self) -> str:
        """For people."""
        power = f", {-self.backoff_db} dB" if self.backoff_db else ""
        return f"{self.way.name}, MCS table {self.mcs_table}{power}"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The plan of one request, and what is expected of it."""

    candidate: Candidate
    plan: Plan
    tx_power_dbm: float
    latency_s: float
    """Expected, of what arrives."""
    ue_energy_j: float
    energy_j: float
    """Of both sides."""
    late: float
    """Probability that the picture is not there by the deadline, lost ones included."""
    poor: float
    """Probability that it is further from the error-free picture than allowed."""
    broken: tuple[Constraint, ...] = ()
    """Constraints that no plan keeps with the stated probability: then this is the safest plan."""

    @property
    def tables(self) -> Mapping[str, Mapping[str, Any]]:
        """What a scenario needs of it; the request's prompt and size, and the link's SNR, are the caller's.

        A scenario's `snr_db` is that at the power which is sent: take `backoff_db` off.
        """
        plan, step = self.plan, self.candidate.way.handoff_step
        budgets = {n: getattr(plan, n) for n in ("image_bits", "seed_bits", "sketch_bits")}
        return {
            "request": {} if step is None else {"handoff_step": step},
            "plan": {
                "mechanism": plan.mechanism,
                **{name: bits for name, bits in budgets.items() if bits is not None},
            },
            "codecs": {str(kind): name for kind, name in plan.codecs.items()},
            "link": {"mcs_table": self.candidate.mcs_table, "tx_power_dbm": self.tx_power_dbm},
        }


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What each candidate takes and gives on one kind of UE at one size, by SNR.

    SNR is that at full power; a candidate's own is `backoff_db` below.
    """

    candidates: tuple[Candidate, ...]
    latency_s: Floats
    """Of each draw, rising; without end for lost. [candidates, snr, draws]"""
    mean_s: Floats
    """[candidates, snr]"""
    ue_j: Floats
    """[candidates, snr]"""
    both_j: Floats
    """[candidates, snr]"""
    distance: Floats
    """Of each picture, rising. [candidates, snr, pictures]"""

    @cached_property
    def by_point(self) -> tuple[Singles, Singles]:
        """Latency and distance as each point of the SNR meets them. [points, snr, candidates]

        A Latin hypercube: quantiles of the SNR, of the link's draws and of the pictures are each
        gone through evenly, and none goes with another.
        """
        rng = np.random.default_rng(0)
        found = []
        for values in (self.latency_s, self.distance):
            places = (rng.permutation(POINTS) * values.shape[-1] // POINTS).astype(int)
            # In the order in which they are looked up, and as small as will do: many UEs are many.
            found.append(np.ascontiguousarray(values[..., places].T, np.float32))
        return found[0], found[1]

    @cached_property
    def means(self) -> Singles:
        """Mean latency, joules of the UE and of both. [snr, 3, candidates]"""
        stacked = np.stack([self.mean_s, self.ue_j, self.both_j])
        return np.ascontiguousarray(stacked.transpose(2, 0, 1), np.float32)


@dataclass(frozen=True, kw_only=True)
class Planner:
    """Plans requests.

    Args:
        es: What the ES is.
        objective: Of what a plan is to take least.
        violation: Probability with which a constraint may be broken, each for itself.
        costs: Measured beforehand.

    Raises:
        TwinError: If the objective is not known, or so small a probability cannot be promised.
    """

    es: DeviceProfile
    objective: Objective = "latency"
    violation: float = 0.1
    costs: Costs = field(default_factory=load_costs, repr=False)
    _outlooks: dict[tuple[Equipment, int], Outlook] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if self.objective not in get_args(Objective):
            raise TwinError(
                f"objective is {self.objective!r}, known: {', '.join(get_args(Objective))}; choose "
                "one of these"
            )
        least = 1 / (self.costs.pictures + 1)
        if not least <= self.violation < 1:  # also catches nan
            raise TwinError(
                f"violation is {self.violation:g}; {self.costs.pictures} measured pictures can promise "
                f"{least:.3f} to 1, take one in between or measure more with recipes/planner.py"
            )

    def plan(self, asks: Sequence[Ask]) -> list[Decision]:
        """One decision a request, in the same order.

        Raises:
            TwinError: If nothing was measured at a size that is asked for.
        """
        groups: dict[tuple[Equipment, int], list[int]] = {}
        for number, ask in enumerate(asks):
            groups.setdefault((ask.equipment, ask.size_px), []).append(number)
        found: dict[int, Decision] = {}
        for (equipment, size_px), numbers in groups.items():
            some = [asks[number] for number in numbers]
            decisions = self._decide(self.outlook(equipment, size_px), size_px, some)
            found |= dict(zip(numbers, decisions, strict=True))
        return [found[number] for number in range(len(asks))]

    def outlook(self, equipment: Equipment, size_px: int) -> Outlook:
        """What the candidates that a UE can hold take and give; worked out once."""
        key = equipment, size_px
        if key not in self._outlooks:
            self._outlooks[key] = _look_out(self.costs, self.es, equipment, size_px)
        return self._outlooks[key]

    def _decide(self, outlook: Outlook, size_px: int, asks: Sequence[Ask]) -> list[Decision]:
        mean_db, sd_db, deadline_s, max_distance = np.array(
            [(a.snr_db, a.snr_sd_db, a.deadline_s, a.max_distance) for a in asks]
        ).T
        latencies, distances = outlook.by_point
        shape = len(asks), len(outlook.candidates)
        late, poor = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        means = np.zeros((len(asks), 3, len(outlook.candidates)), np.float32)
        middles = [NormalDist().inv_cdf((n + 0.5) / POINTS) for n in range(POINTS)]
        for number, middle in enumerate(middles):
            place = self.snr_place(mean_db + middle * sd_db)
            late += latencies[number][place] > deadline_s[:, None]
            poor += distances[number][place] > max_distance[:, None]
            if number % 4 == 2:  # means are smooth
                means += outlook.means[place] / (POINTS / 4)
        late /= POINTS
        # Of n pictures and the one to come any may be the worst: n pictures promise 1 / (n + 1).
        # An endless bound asks for nothing.
        pictures = self.costs.pictures
        bound = np.isfinite(max_distance)[:, None]
        poor = np.where(bound, (poor / POINTS * pictures + 1) / (pictures + 1), 0)
        price = means[:, get_args(Objective).index(self.objective)]
        kept = (late <= self.violation) & (poor <= self.violation)
        best = np.where(kept, price, np.inf).argmin(1)
        excess = np.maximum(late - self.violation, 0) + np.maximum(poor - self.violation, 0)
        least = excess <= excess.min(1, keepdims=True) + 1e-6
        safest = np.where(least, np.minimum(price, 1e30), np.inf).argmin(1)
        chosen = np.where(kept.any(1), best, safest)
        rows = np.arange(len(asks))
        told = zip(
            chosen.tolist(), *means[rows, :, chosen].T.tolist(), late[rows, chosen].tolist(),
            poor[rows, chosen].tolist(), strict=True,
        )  # fmt: skip
        plans = [candidate.way.plan(size_px) for candidate in outlook.candidates]
        return [self._tell(outlook.candidates[at], plans[at], *numbers) for at, *numbers in told]

    def snr_place(self, snr_db: Floats) -> NDArray[np.int64]:
        """Where an SNR is looked up; beyond the measured ones at the last of them."""
        place = np.rint((snr_db - self.costs.snr_db[0]) / STEP_DB)
        found: NDArray[np.int64] = np.clip(place, 0, self.costs.snr_db.size - 1).astype(np.int64)
        return found

    def _tell(
        self, candidate: Candidate, plan: Plan, latency_s: float, ue_j: float, both_j: float,
        late: float, poor: float,
    ) -> Decision:  # fmt: skip
        odds: dict[Constraint, float] = {"deadline": late, "quality": poor}
        return Decision(
            candidate=candidate,
            plan=plan,
            tx_power_dbm=self.costs.tx_power_dbm - candidate.backoff_db,
            latency_s=latency_s,
            ue_energy_j=ue_j,
            energy_j=both_j,
            late=late,
            poor=poor,
            broken=tuple(name for name, odd in odds.items() if odd > self.violation),
        )


def decision_map(
    planner: Planner,
    equipments: Mapping[str, Equipment],
    *,
    snr_db: Sequence[float],
    snr_sd_db: float = 0.0,
    deadline_s: float = math.inf,
    max_distance: float = math.inf,
) -> dict[tuple[str, int], list[Decision]]:
    """What is planned where: by name of the equipment and size, one decision an SNR."""
    found = {}
    for size_px in planner.costs.sizes_px:
        for name, equipment in equipments.items():
            found[name, size_px] = planner.plan(
                [
                    Ask(
                        equipment=equipment, snr_db=snr, snr_sd_db=snr_sd_db, size_px=size_px,
                        deadline_s=deadline_s, max_distance=max_distance,
                    )
                    for snr in snr_db
                ]
            )  # fmt: skip
    return found


def _look_out(costs: Costs, es: DeviceProfile, equipment: Equipment, size_px: int) -> Outlook:
    """Every candidate that the UE has the memory for. A way of pictures needs none, so there is one."""
    candidates: list[Candidate] = []
    columns: list[tuple[Floats, ...]] = []
    ask = costs.sending(None, size_px)
    for way in costs.ways(size_px):
        if costs.memory_mb(way) > equipment.memory_mb:
            continue
        down = costs.sending(way, size_px)
        distance = costs.distance(way, size_px)
        for backoff_db in BACKOFFS_DB:
            # At less power the SNR is that much lower, and below the measured ones like the lowest.
            place = np.maximum(np.arange(costs.snr_db.size) - round(backoff_db / STEP_DB), 0)
            per_table = _price(costs, way, size_px, es, equipment.profile, ask, down, backoff_db)
            for row, table in enumerate(costs.mcs_tables):
                candidates.append(Candidate(way=way, mcs_table=table, backoff_db=backoff_db))
                columns.append((*(v[row][place] for v in per_table), distance[place]))
    latency_s, mean_s, ue_j, both_j, distances = (
        np.stack(values) for values in zip(*columns, strict=True)
    )
    return Outlook(
        candidates=tuple(candidates), latency_s=latency_s, mean_s=mean_s, ue_j=ue_j, both_j=both_j,
        distance=distances,
    )  # fmt: skip


def _price(
    costs: Costs, way: Way, size_px: int, es: DeviceProfile, ue: DeviceProfile, ask: Sending,
    down: Sending, backoff_db: int,
) -> tuple[Floats, Floats, Floats, Floats]:  # fmt: skip
    """Latency of each draw, its mean, and joules of the UE and of both: the ledger's sums, in expectation.

    Mechanisms with one UE are chains, so what they take adds up.
    """
    (es_flops, ue_flops), (es_core_s, ue_core_s) = (
        costs.flops(way, size_px), costs.core_s(way, size_px),
    )  # fmt: skip
    es_s, ue_s = es.compute_s(1.0) * es_flops, ue.compute_s(1.0) * ue_flops
    computing_s = es_s + ue_s + es_core_s + ue_core_s
    latency_s, on_air_s = down.latency_s, down.mean_s
    asked = way.crosses != "recipe"  # with a recipe the ES has the prompt already
    if asked:
        # Both directions are drawn apart: any draw of one goes with any of the other.
        mixed = np.random.default_rng(0).permutation(ask.latency_s.shape[-1])
        latency_s = np.sort(latency_s + ask.latency_s[..., mixed], -1)
        on_air_s = on_air_s + ask.mean_s
    mean_s = on_air_s + computing_s
    power = 10 ** (-backoff_db / 10)
    sender, taker = _radio_j(down, es, ue, power)
    radio = {"es": sender, "ue": taker}
    if asked:
        sender, taker = _radio_j(ask, ue, es, power)
        radio = {"es": radio["es"] + taker, "ue": radio["ue"] + sender}
    joules = {}
    for side, device, seconds, core_s in (
        ("es", es, es_s, es_core_s), ("ue", ue, ue_s, ue_core_s),
    ):  # fmt: skip
        joules[side] = (
            radio[side]
            + device.compute_power_w * seconds
            + device.core_power_w * core_s
            + device.compute_idle_power_w * (mean_s - seconds - core_s)
            + device.radio_idle_power_w * computing_s
        )
    return latency_s + computing_s[:, None], mean_s, joules["ue"], joules["es"] + joules["ue"]


def _radio_j(
    sending: Sending, sender: DeviceProfile, taker: DeviceProfile, power: float
) -> tuple[Floats, Floats]:
    """Joules of the radios of who sends and who takes, as `mechanisms.execute` charges them."""
    waiting_s = np.maximum(sending.mean_s - sending.airtime_s - sending.feedback_s, 0)
    sender_j = (
        power * sending.radiated_j / sender.amplifier_efficiency
        + sending.airtime_s * sender.transmit_circuit_power_w
        + sending.feedback_s * sender.receive_power_w
        + waiting_s * sender.radio_idle_power_w
    )
    taker_j = (
        sending.airtime_s * taker.receive_power_w
        + power * sending.feedback_radiated_j / taker.amplifier_efficiency
        + sending.feedback_s * taker.transmit_circuit_power_w
        + waiting_s * taker.radio_idle_power_w
    )
    return sender_j, taker_j
