"""The twin's loop: generation builds and refreshes the twin, the twin steers generation.

`run_round` is the whole story; `Twin` is what the edge server knows, `Site` the world that it knows it
of. A site may be simulated or real: the loop sees only what UEs tell and send.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from megdt.records import Outcome, Request, Side
from megdt.twin.arrival import Arrival
from megdt.twin.entities import Update
from megdt.twin.maintenance import Refresh
from megdt.twin.monitor import Judgement
from megdt.twin.network import Beacon, Place, Prediction
from megdt.twin.outlook import Equipment
from megdt.twin.planner import Ask, Decision
from megdt.twin.twin import Twin
from megdt.twin.validation import Assessment


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a UE wants to have generated, and what has to hold.

    Args:
        side: The UE.
        request: Prompt, size and the rest.
        deadline_s: Until the picture is there.
        max_distance: ST-LPIPS to the error-free picture.
    """

    side: Side
    request: Request
    deadline_s: float
    max_distance: float


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A view that a UE was asked for, as `ue_to_es` brought it.

    Args:
        side: Who was asked.
        arrival: What came; None for nothing.
        bits: Sent.
        energy_j: Of both sides.
    """

    side: Side
    arrival: Arrival | None
    bits: int
    energy_j: float


@dataclass(frozen=True, kw_only=True)
class Served:
    """What became of a wish.

    Args:
        outcome: Of the picture.
        latency_s: From the request until it was there, or given up.
        bits: Sent in all.
        ue_energy_j: The UE's part.
        energy_j: Of both sides.
        distance: ST-LPIPS to the error-free picture; None where nobody measured it.
    """

    outcome: Outcome
    latency_s: float
    bits: int
    ue_energy_j: float
    energy_j: float
    distance: float | None = None


class Site(Protocol):
    """The world: what UEs tell, send and get."""

    @property
    def place(self) -> Place:
        """What is known of it beforehand."""
        ...

    @property
    def equipment(self) -> Equipment:
        """What its UEs are."""
        ...

    @property
    def conditions(self) -> Mapping[str, str]:
        """Sky and weather now, by the ES's own clock and gauge."""
        ...

    def tick(self) -> float:
        """Go on to the next round. Returns its time in seconds."""
        ...

    def beacons(self) -> Sequence[Beacon]:
        """What UEs have told in the last seconds, the oldest first, the last one now."""
        ...

    def upload(self, side: Side) -> Upload:
        """Have a UE send what it sees."""
        ...

    def wishes(self) -> Sequence[Wish]:
        """What UEs want, in this round."""
        ...

    def serve(self, wish: Wish, decision: Decision, station: int) -> Served:
        """Generate and send it as planned, from a station."""
        ...


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A wish, the plan for it, and what became of both."""

    wish: Wish
    prediction: Prediction
    decision: Decision
    served: Served

    @property
    def late(self) -> bool:
        """Whether it was not there in time, or not at all."""
        return self.served.outcome != "delivered" or self.served.latency_s > self.wish.deadline_s

    @property
    def poor(self) -> bool | None:
        """Whether it was further off than allowed; None where nobody measured it."""
        distance = self.served.distance
        return None if distance is None else distance > self.wish.max_distance


@dataclass(frozen=True, kw_only=True)
class Round:
    """What a round has brought.

    Args:
        number: From 0 on.
        now_s: On the twin's clock.
        revision: Of the store, at the end.
        validity: Whether to believe the twin, and whether its predictions were planned by.
        refreshes: What was asked for.
        uploads: What came of that.
        judgements: By UE, what the monitor made of it.
        answers: To what UEs wanted.
    """

    number: int
    now_s: float
    revision: int
    validity: Assessment
    refreshes: tuple[Refresh, ...]
    uploads: tuple[Upload, ...]
    judgements: Mapping[Side, Judgement]
    answers: tuple[Answer, ...] = field(default=())


def run_round(twin: Twin, site: Site, *, refresh_bits: int) -> Round:
    """One round.

    Args:
        twin: What is known; it is wiser afterwards.
        site: The world, one round on afterwards.
        refresh_bits: What UEs may send up for the replica.

    Raises:
        MeasurementError, PredictionError: If something that was told is out of range.
        ConflictError: If somebody else follows the scene into the same store.
    """
    now_s = site.tick()
    twin.see_conditions(site.conditions, now_s=now_s)

    # UEs tell where they are and how well they hear each station. Each time it was predicted first,
    # so predictions are judged, and what follows is expected.
    for beacon in site.beacons():
        twin.listen(beacon, now_s=now_s)

    # Generation builds the twin: who sees what has most likely changed sends a seed of it up, and
    # what the monitor believes goes into the replica.
    refreshes = twin.ask_for_views(now_s=now_s, budget_bits=refresh_bits)
    uploads = tuple(site.upload(refresh.side) for refresh in refreshes)
    arrivals = [upload.arrival for upload in uploads if upload.arrival is not None]
    validity = twin.validate(arrivals, now_s=now_s)
    judgements = {arrival.source: twin.judge(arrival, now_s=now_s) for arrival in arrivals}
    twin.name_objects(now_s=now_s)

    # The twin steers generation: what each UE will hear when its picture is sent chooses station,
    # mechanism, codec, rate and power. Pictures that the ES draws it has begun by then, so their
    # hardness is known too.
    wishes = site.wishes()
    heard = twin.predict(now_s)
    predictions = [heard[wish.side.number - 1] for wish in wishes]
    asks = [
        Ask(
            equipment=site.equipment,
            snr_db=prediction.snr_db,
            snr_sd_db=prediction.snr_sd_db,
            size_px=wish.request.size_px,
            deadline_s=wish.deadline_s,
            max_distance=wish.max_distance,
        )
        for wish, prediction in zip(wishes, predictions, strict=True)
    ]
    decisions = twin.plan(asks, [wish.request for wish in wishes], validity.predictions)

    # What it took goes back into the twin, with what was planned and why.
    answers = []
    for wish, prediction, decision in zip(wishes, predictions, decisions, strict=True):
        served = site.serve(wish, decision, prediction.station)
        answers.append(Answer(wish=wish, prediction=prediction, decision=decision, served=served))
    number = twin.end_round([_update(answer) for answer in answers], now_s=now_s)
    return Round(
        number=number,
        now_s=now_s,
        revision=twin.store.revision,
        validity=validity,
        refreshes=refreshes,
        uploads=uploads,
        judgements=judgements,
        answers=tuple(answers),
    )


def _update(answer: Answer) -> Update:
    """The link of a UE: what was desired of it, and what came of that."""
    decision, served, prediction = answer.decision, answer.served, answer.prediction
    variant = decision.candidate.variant
    return Update(
        id=f"link/{answer.wish.side.number}",
        kind="link",
        desired={
            "way": decision.candidate.way.name,
            "variant": None if variant is None else variant.name,
            "mcs_table": decision.candidate.mcs_table,
            "backoff_db": decision.candidate.backoff_db,
            "station": prediction.station,
            "broken": list(decision.broken),
        },
        reported={
            "expected": {"snr_db": prediction.snr_db, "snr_sd_db": prediction.snr_sd_db},
            "outcome": served.outcome,
            "latency_s": served.latency_s,
            "bits": served.bits,
            "energy_j": served.energy_j,
            "distance": served.distance,
        },
    )
