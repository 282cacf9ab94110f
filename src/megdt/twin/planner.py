"""The planner: from a predicted SNR and a device, the plan of each request, before anything is sent.

A candidate is a way to answer (`ways.py`) over a link with an MCS table and a transmit power; within
the table, link adaptation chooses slot by slot what no forecast can. Every candidate that the UE has
the memory for is looked up at points of the predicted SNR, each paired with one draw of the link and
one measured picture; where the hardness of the picture is known, for pictures of such hardness. Of
those that keep every constraint with the stated probability the one is taken that is expected to take
least, time or energy, failures included. Where none does, the one that breaks least, and the decision
says what it is likely to break. Where validation says that predictions are stale or wrong, the plan is
a safer one, and the decision says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from megdt.errors import TwinError
from megdt.link.energy import DeviceProfile
from megdt.records import Plan
from megdt.twin.hardness import Hardness
from megdt.twin.outlook import Candidate, Equipment, Outlook, look_out
from megdt.twin.selection import (
    POINTS,
    Objective,
    Quality,
    by_point,
    choose,
    exceeds,
    learn_quality,
    price,
    promised,
)
from megdt.twin.ways import STEP_DB, WAYS, Costs, load_costs

if TYPE_CHECKING:
    from megdt.twin.validation import Validity

Constraint = Literal["deadline", "quality"]

WIDENED_DB: Mapping[str, float] = {"fresh": 0.0, "stale": 4.0, "wrong": 8.0}
"""Standard deviation that a prediction gains by what validation says of the twin."""

_PROMPT = "prompt"
"""The way that begins no picture at the ES."""

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]


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
        hardness: Of the picture, from `foresee` or `measure_hardness`; None where it is not known.

    Raises:
        TwinError: If a number is out of its range.
    """

    equipment: Equipment
    snr_db: float
    snr_sd_db: float = 0.0
    size_px: int = 256
    deadline_s: float = math.inf
    max_distance: float = math.inf
    hardness: Hardness | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.snr_db):
            raise TwinError(f"snr_db is {self.snr_db}, a prediction is a number; give its mean")
        for name in ("snr_sd_db", "deadline_s", "max_distance"):
            value = getattr(self, name)
            if not value >= 0 or (name == "snr_sd_db" and math.isinf(value)):  # also catches nan
                raise TwinError(f"{name} is {value}, it goes from 0 up; give what is meant")
        if self.hardness is not None and not (
            len(self.hardness) == 2 and all(map(math.isfinite, self.hardness))
        ):
            raise TwinError(
                f"hardness is {self.hardness}, expected two finite numbers; take "
                "measure_hardness of the latent, or leave it out"
            )


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
    fallback: str = ""
    """Why predictions were not planned by, a line; "" where they were."""
    ahead_s: float = 0.0
    """Of the ES, for foreseeing the picture before this was planned; on top of `latency_s`."""

    @property
    def tables(self) -> Mapping[str, Mapping[str, Any]]:
        """What a scenario needs of it; the request's prompt and size, and the link's SNR, are the caller's.

        A scenario's `snr_db` is that at the power which is sent: take `backoff_db` off.
        """
        plan, variant = self.plan, self.candidate.variant
        step = self.candidate.way.handoff_step
        budgets = {n: getattr(plan, n) for n in ("image_bits", "seed_bits", "sketch_bits")}
        return {
            "request": {} if step is None else {"handoff_step": step},
            "plan": {
                "mechanism": plan.mechanism,
                **{name: bits for name, bits in budgets.items() if bits is not None},
            },
            "codecs": {str(kind): name for kind, name in plan.codecs.items()},
            "link": {"mcs_table": self.candidate.mcs_table, "tx_power_dbm": self.tx_power_dbm},
            **({} if variant is None else {"model": {"variant": str(variant.folder)}}),
        }


@dataclass(frozen=True, kw_only=True)
class _Knowledge:
    """Of one kind of UE at one size, as `Planner` looks it up."""

    outlook: Outlook
    quality: Quality
    latency_s: Singles
    """[points, snr, candidates]"""
    means: Singles
    """Latency, joules of the UE and of both. [snr, 3, candidates]"""


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
    _known: dict[tuple[Equipment, int, bool], _Knowledge] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if self.objective not in get_args(Objective):
            raise TwinError(
                f"objective is {self.objective!r}, known: {', '.join(get_args(Objective))}; choose "
                "one of these"
            )
        least = float(promised(np.zeros(1), self.costs.pictures)[0])
        if not least <= self.violation < 1:  # also catches nan
            raise TwinError(
                f"violation is {self.violation:g}; {self.costs.pictures} measured pictures can promise "
                f"{least:.3f} to 1, take one in between or measure more with recipes/planner.py"
            )

    def plan(
        self,
        asks: Sequence[Ask],
        *,
        validity: Validity | None = None,
        look: Callable[[int], Hardness] | None = None,
    ) -> list[Decision]:
        """One decision a request, in the same order.

        Args:
            asks: The requests.
            validity: What `validation.assess_predictions` says. If they are stale or wrong, the SNR
                counts as less certain and the picture as unknown; if they are wrong, the safest plan is
                taken instead of the one that takes least.
            look: Begins the picture of the numbered request and gives its hardness (`foresee`). Called
                where the plan is not the prompt anyway and predictions are fresh; then it is planned again.

        Raises:
            TwinError: If nothing was measured at a size that is asked for.
        """
        fresh = validity is None or validity.fresh
        if look is None or not fresh:
            return self._plan(asks, validity)
        decisions = self._plan([replace(ask, hardness=None) for ask in asks], validity)
        begun = [n for n, d in enumerate(decisions) if d.candidate.way.name != _PROMPT]
        again = self._plan([replace(asks[n], hardness=look(n)) for n in begun], validity)
        for number, decision in zip(begun, again, strict=True):
            ahead_s = self._look_s(in_vain=decision.candidate.way.name == _PROMPT)
            decisions[number] = replace(decision, ahead_s=ahead_s)
        return decisions

    def _look_s(self, *, in_vain: bool) -> float:
        """What foreseeing takes the ES: the student's steps; those of the denoiser too if nobody goes on
        from them. They are those of splitting the steps in the middle.
        """
        es_flops, student_flops = self.costs.flops(WAYS["steps 12 int8"], 256)
        flops = student_flops[0] - self.costs.decoder_flops(256)
        return self.es.compute_s(float(flops + es_flops[0] if in_vain else flops))

    def _plan(self, asks: Sequence[Ask], validity: Validity | None) -> list[Decision]:
        fallback, safest = "", False
        if validity is not None and not validity.fresh:
            fallback = (
                f"predictions are {validity.verdict}, so the plan is the safe one: "
                f"{'; '.join(validity.reasons)}"
            )
            safest = validity.verdict == "wrong"
            widened_db = WIDENED_DB[validity.verdict]
            asks = [
                replace(a, snr_sd_db=math.hypot(a.snr_sd_db, widened_db), hardness=None)
                for a in asks
            ]
        groups: dict[tuple[Equipment, int, bool], list[int]] = {}
        for number, ask in enumerate(asks):
            key = ask.equipment, ask.size_px, ask.hardness is not None
            groups.setdefault(key, []).append(number)
        found: dict[int, Decision] = {}
        for key, numbers in groups.items():
            decisions = self._decide(key, [asks[number] for number in numbers], safest, fallback)
            found |= dict(zip(numbers, decisions, strict=True))
        return [found[number] for number in range(len(asks))]

    def outlook(self, equipment: Equipment, size_px: int) -> Outlook:
        """What the candidates that a UE can hold take and give; worked out once."""
        key = equipment, size_px
        if key not in self._outlooks:
            self._outlooks[key] = look_out(self.costs, self.es, equipment, size_px)
        return self._outlooks[key]

    def quality(self, equipment: Equipment, size_px: int, *, by_hardness: bool) -> Quality:
        """How far off pictures of such candidates are, and the margins of the choice."""
        return self._know((equipment, size_px, by_hardness)).quality

    def _know(self, key: tuple[Equipment, int, bool]) -> _Knowledge:
        if key not in self._known:
            equipment, size_px, by_hardness = key
            outlook = self.outlook(equipment, size_px)
            hardness = self.costs.hardness(size_px)
            means = np.stack([outlook.mean_s, outlook.ue_j, outlook.both_j]).transpose(2, 0, 1)
            self._known[key] = _Knowledge(
                outlook=outlook,
                quality=learn_quality(
                    outlook, hardness if by_hardness else hardness[:, :0], self.objective,
                    self.violation,
                ),
                latency_s=by_point(outlook.latency_s, seed=0),
                means=np.ascontiguousarray(means, np.float32),
            )  # fmt: skip
        return self._known[key]

    def _decide(
        self, key: tuple[Equipment, int, bool], asks: Sequence[Ask], safest: bool, fallback: str
    ) -> list[Decision]:
        known = self._know(key)
        quality, candidates = known.quality, known.outlook.candidates
        mean_db, sd_db, deadline_s, max_distance = np.array(
            [(a.snr_db, a.snr_sd_db, a.deadline_s, a.max_distance) for a in asks]
        ).T
        away = np.array([a.hardness or () for a in asks], float) - quality.spread.middle
        # What hardness does changes slowly with the SNR: the mean's stands for all.
        shift = np.einsum("acb,ab->ac", quality.slope[self.snr_place(mean_db)], away)
        limit = (quality.limit(max_distance)[:, None] - shift).astype(np.float32)
        shape = len(asks), len(candidates)
        late, poor = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        means = np.zeros((len(asks), 3, len(candidates)), np.float32)
        for number in range(POINTS):
            place = self.snr_place(mean_db + NormalDist().inv_cdf((number + 0.5) / POINTS) * sd_db)
            late += known.latency_s[number][place] > deadline_s[:, None]
            poor += exceeds(quality.by_point[number][place], limit)
            if number % 4 == 2:  # means are smooth
                means += known.means[place] / (POINTS / 4)
        late /= POINTS
        poor /= POINTS
        fails = late + poor - late * poor
        # An endless bound asks for nothing.
        odds = np.where(np.isfinite(max_distance)[:, None], promised(poor, quality.pictures), 0)
        mean = means[:, get_args(Objective).index(self.objective)]
        cost = (
            1e3 * fails + np.minimum(mean, 1)
            if safest
            else price(self.objective, mean, fails, deadline_s[:, None])
        )
        chosen = choose(cost, late, odds, self.violation)
        rows = np.arange(len(asks))
        told = zip(
            chosen.tolist(), *means[rows, :, chosen].T.tolist(), late[rows, chosen].tolist(),
            odds[rows, chosen].tolist(), strict=True,
        )  # fmt: skip
        plans = [candidate.way.plan(key[1]) for candidate in candidates]
        return [
            self._tell(candidates[at], plans[at], *numbers, fallback=fallback)
            for at, *numbers in told
        ]

    def snr_place(self, snr_db: Floats) -> NDArray[np.int64]:
        """Where an SNR is looked up; beyond the measured ones at the last of them."""
        place = np.rint((snr_db - self.costs.snr_db[0]) / STEP_DB)
        found: NDArray[np.int64] = np.clip(place, 0, self.costs.snr_db.size - 1).astype(np.int64)
        return found

    def _tell(
        self, candidate: Candidate, plan: Plan, latency_s: float, ue_j: float, both_j: float,
        late: float, poor: float, *, fallback: str,
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
            fallback=fallback,
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
