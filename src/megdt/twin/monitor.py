"""The monitor: tells what the twin can believe from jammed links, replays, forgeries, poison and
spoofed positions.

Each arrival is held against what the twin predicts: SNR, noise and position by numbers, latents by the
replica, by what other UEs saw of the same columns lately, and by the replica of an hour ago. Every
statistic has a limit, measured on clean runs (`recipes/monitor.py`); and how unlikely the arrivals of
a source have been adds up, so that staying just below each limit is found too. What is found is told
with its evidence, and its source kept out of the replica until it has agreed for some time.

What it cannot find: two sources that lie alike about what nobody else sees; changes of a flower's size
where nobody has looked for a day, since flowers change meanwhile; and where nobody but the liar looks,
such a change that stays: it is told once, and believed when its source has agreed with itself for as
long as a quarantine lasts, as a flower that has opened would be.

References:
    Sums of what is unlikely: Page, Continuous Inspection Schemes, Biometrika 41, 1954.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdt.errors import TwinError
from megdt.records import Side
from megdt.twin.arrival import Arrival, Expectation, link_scores, sight_of
from megdt.twin.disagreement import (
    Boxes,
    Sight,
    agree,
    best_elsewhere,
    compare,
    compare_with_others,
    patch_scores,
    sameness,
    scene_scores,
    signature,
)
from megdt.twin.entities import Update
from megdt.twin.evidence import (
    SUMS,
    TESTS,
    AttackKind,
    Evidence,
    Limits,
    Score,
    surprises,
)
from megdt.twin.replica import NEVER, Replica
from megdt.twin.store import Store

EXPECTED = 2.5
"""Taken from minus the logarithm of each p-value before it is added: 8 % of clean arrivals are less
likely than that. The mean of clean ones is 1, but they depend on those before: where a garden is hard to
encode, it is so each time."""

ANCHOR_S = 3_600.0
"""Age from which on a copy of the replica is one that slow changes are told by."""

HISTORY = 4_096
"""Views of which a copy is known."""


@dataclass(frozen=True, kw_only=True)
class Quarantine:
    """How long a source has to agree until it is believed again.

    Args:
        arrivals: One after the other without evidence, at least.
        time_s: From the first to the last of these, at least.
    """

    arrivals: int = 5
    time_s: float = 600.0


@dataclass(kw_only=True)
class Standing:
    """Of one source.

    Args:
        trusted: Whether what it sends is taken.
        agreed: How many of its arrivals have agreed one after the other.
        agreed_since_s: When the first of these came.
        sums: By group, what its arrivals have added up to.
        sequence: Of its newest arrival.
        seen_s: When that was seen.
    """

    trusted: bool = True
    agreed: int = 0
    agreed_since_s: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    sequence: int = -1
    seen_s: float = NEVER

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Standing:
        """As `tell` has told it."""
        seen_s = told.get("seen_s")
        return cls(
            trusted=told.get("status") != "quarantined", agreed=told.get("agreed", 0),
            agreed_since_s=told.get("agreed_since_s", 0.0), sums=dict(told.get("sums", {})),
            sequence=told.get("sequence", -1), seen_s=NEVER if seen_s is None else seen_s,
        )  # fmt: skip

    def tell(self) -> dict[str, Any]:
        """As JSON has words for it, all keys that there can be."""
        return {
            "status": "trusted" if self.trusted else "quarantined",
            "agreed": self.agreed,
            "agreed_since_s": self.agreed_since_s,
            "sums": {group: self.sums.get(group, 0.0) for group in SUMS},
            "sequence": self.sequence,
            "seen_s": None if self.seen_s == NEVER else self.seen_s,
        }


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What became of an arrival.

    Args:
        evidence: Against it, the most telling first.
        trusted: Whether its source is, afterwards.
        tiles: Of the replica that it has changed.
        scores: Every statistic that there was something to compare for.
    """

    evidence: tuple[Evidence, ...]
    trusted: bool
    tiles: tuple[int, ...]
    scores: tuple[Score, ...] = ()

    @property
    def kind(self) -> AttackKind | None:
        """What it is most likely to be; None for nothing."""
        return self.evidence[0].kind if self.evidence else None


class Monitor:
    """Stands before the replica: what is believed goes in.

    Args:
        replica: That it guards; the monitor refreshes it.
        store: Holds tiles and, as desired state of UEs, who is quarantined, why, and how each stands:
            it goes on from that when it is opened again. What views looked like it has forgotten then.
        limits: None believes everything, to measure limits by.
        quarantine: How long it lasts.
    """

    def __init__(
        self, replica: Replica, store: Store, *, limits: Limits | None, quarantine: Quarantine
    ) -> None:
        self.replica, self._store = replica, store
        self._limits, self._quarantine = limits, quarantine
        self._standings: dict[Side, Standing] = {}
        self._sights: dict[Side, Sight] = {}
        self._signatures: deque[NDArray[np.float32]] = deque(maxlen=HISTORY)
        self._anchors: deque[tuple[float, Sight]] = deque(maxlen=2)
        for entity in store.entities("ue"):
            if (told := entity.desired.get("monitor")) is not None:
                self._standings[_side_of(entity.id)] = Standing.read(told)

    def trusts(self, source: Side) -> bool:
        """Whether what a source sends is taken."""
        return self._standing(source).trusted

    @property
    def doubted(self) -> frozenset[Side]:
        """Sources in quarantine."""
        return frozenset(s for s, standing in self._standings.items() if not standing.trusted)

    def forget(self) -> None:
        """Let go of what was seen, as the replica has; who is trusted stays."""
        self._sights.clear()
        self._anchors.clear()

    def judge(self, arrival: Arrival, expectation: Expectation) -> Judgement:
        """Hold an arrival against what was expected, and take it if it is to be believed.

        Raises:
            TwinError: If it does not fit the replica.
        """
        replica, now_s = self.replica, arrival.arrived_s
        columns = arrival.columns
        if columns.start < 0 or columns.stop > replica.width:
            raise TwinError(
                f"{arrival.source} says that it shows columns {columns.start} to {columns.stop - 1}, the "
                f"replica has 0 to {replica.width - 1}; refuse the arrival or widen the replica"
            )
        sight = sight_of(arrival)
        scores = self.measure(arrival, expectation)
        evidence = self._weigh(arrival.source, scores, self._late(arrival))
        told = self._stand(arrival.source, evidence, now_s)
        standing = self._standing(arrival.source)
        tiles: tuple[int, ...] = ()
        if standing.trusted:
            tiles = replica.refresh(
                arrival.observation, columns, source=arrival.source, now_s=now_s, store=self._store
            )
        standing.sequence = max(standing.sequence, arrival.sequence)
        standing.seen_s = max(standing.seen_s, now_s - arrival.observation.age_s)
        state = {"monitor": standing.tell() | told}
        self._store.apply(
            [Update(id=_entity_of(arrival.source), kind="ue", desired=state)], now_s=now_s
        )
        self._sights[arrival.source] = sight
        self._signatures.append(signature(arrival.observation.values))
        if not self._anchors or now_s >= self._anchors[-1][0] + ANCHOR_S:
            self._anchors.append((now_s, Sight.of_replica(replica)))
        return Judgement(
            evidence=evidence, trusted=standing.trusted, tiles=tiles, scores=scores
        )  # fmt: skip

    def measure(self, arrival: Arrival, expectation: Expectation) -> tuple[Score, ...]:
        """Every statistic of an arrival that there is something to compare for."""
        sight, now_s = sight_of(arrival), arrival.arrived_s
        return (
            *link_scores(arrival, expectation),
            *self._position_scores(arrival, expectation, sight),
            *self._content_scores(arrival, sight, now_s),
        )

    def _position_scores(
        self, arrival: Arrival, expectation: Expectation, sight: Sight
    ) -> Iterable[Score]:
        off = abs(arrival.first_column - expectation.column) / expectation.column_std
        yield Score(
            test="position", value=off,
            compared=f"column {arrival.first_column} with {expectation.column:.1f} +- "
            f"{expectation.column_std:.1f} as predicted",
        )  # fmt: skip
        found = best_elsewhere(sight, self.replica, now_s=arrival.arrived_s)
        if found is not None:
            age, value, best = found
            yield Score(
                test="elsewhere", age=age, value=value, column=best,
                compared=f"fit at claimed column {arrival.first_column} with that of the best other",
            )  # fmt: skip

    def _content_scores(self, arrival: Arrival, sight: Sight, now_s: float) -> Iterable[Score]:
        same = sameness(sight.values, self._signatures)
        if same is not None:
            yield Score(test="sameness", value=same, compared="all views before")
        trusted: list[Sight] = []
        doubted: list[Sight] = []
        for side, other in self._sights.items():
            if side != arrival.source:
                (trusted if self.trusts(side) else doubted).append(other)
        boxes = compare_with_others(
            sight, self.replica, trusted, doubted, now_s=now_s, quarantined=self.doubted
        )
        patches, earlier = boxes, self._sights.get(arrival.source)
        if earlier is not None and not self.trusts(arrival.source):
            # A flower that has opened where nobody else looks has been told once; whether the rest is
            # as it was, and nothing new comes on top, is what gets it out of quarantine.
            patches = agree(boxes, compare(sight, earlier, now_s=now_s))
        for prefix, own, compared in (
            ("", False, "the replica and what other UEs saw, up to {} before"),
            ("own ", True, "what it saw itself, up to {} before"),
        ):
            yield from _scene(prefix, boxes.of(own=own), compared)
            yield from _patch(prefix, patches.of(own=own), compared)
        if self._anchors and now_s >= self._anchors[0][0] + ANCHOR_S:
            when_s, anchor = self._anchors[0]
            boxes = compare(sight, anchor, now_s=now_s)
            compared = f"the replica as of {when_s:.0f} s, seen up to {{}} before"
            yield from _scene("anchor ", boxes, compared)
            yield from _patch("anchor ", boxes, compared)

    def _late(self, arrival: Arrival) -> tuple[Evidence, ...]:
        """What comes after its time: its number was used, or it was seen before the last one was."""
        standing = self._standing(arrival.source)
        age_s = arrival.observation.age_s
        behind = float(standing.sequence + 1 - arrival.sequence)
        earlier_s = standing.seen_s - (arrival.arrived_s - age_s)
        # Ages cross within 3 % or two seconds (codecs/observation.py).
        slack_s = 2 * (2.0 + 0.03 * age_s)
        for late, limit, compared in (
            (behind, 0.0, f"number {arrival.sequence} with number {standing.sequence} before it"),
            (earlier_s, slack_s, f"{earlier_s:.0f} s before what came from the same UE"),
        ):
            if late > limit:
                return (
                    Evidence(
                        kind="replayed", test="sequence", statistic=late, limit=limit, p_value=0.0,
                        compared=compared,
                    ),
                )  # fmt: skip
        return ()

    def _weigh(
        self, source: Side, scores: Sequence[Score], late: tuple[Evidence, ...]
    ) -> tuple[Evidence, ...]:
        if self._limits is None:
            return ()
        limits, found = self._limits, list(late)
        for score in scores:
            limit = limits.alarms.get(score.key, math.inf)
            if score.value > limit:
                found.append(
                    Evidence(
                        kind=TESTS[score.test][0], test=score.key, statistic=score.value, limit=limit,
                        p_value=math.exp(-limits.surprise(score)),
                        compared=score.compared, column=score.column,
                    )
                )  # fmt: skip
        ranks = list(TESTS)
        found.sort(key=lambda e: ranks.index(e.test.partition(",")[0]))
        sums = self._standing(source).sums
        for group, added in surprises(limits, scores).items():
            if group == "content" and not self.trusts(source):
                continue  # it is not taken in, so one flower would be as unlikely each time
            sums[group] = max(0.0, sums.get(group, 0.0) + added - EXPECTED)
            limit = limits.sums[group]
            if sums[group] > limit:
                found.append(
                    Evidence(
                        kind=SUMS[group], test=f"sum of {group}", statistic=sums[group], limit=limit,
                        p_value=math.exp(-added), compared="arrival after arrival, each a little unlikely",
                    )
                )  # fmt: skip
        if found:
            sums.clear()  # what has been told counts no more, so that who has stopped gets out again
        return tuple(found)

    def _stand(self, source: Side, evidence: tuple[Evidence, ...], now_s: float) -> dict[str, Any]:
        """Trust a source or not, from now on.

        Returns:
            What has changed of what is desired of the UE: to be kept out, and why; or to be let in.
        """
        standing = self._standing(source)
        if evidence:
            standing.agreed = 0
            if not standing.trusted:
                return {}
            standing.trusted = False
            return {
                "since_s": now_s, "kind": evidence[0].kind,
                "evidence": [str(line) for line in evidence],
            }  # fmt: skip
        if standing.agreed == 0:
            standing.agreed_since_s = now_s
        standing.agreed += 1
        enough = self._quarantine
        if (
            not standing.trusted
            and standing.agreed >= enough.arrivals
            and now_s - standing.agreed_since_s >= enough.time_s
        ):
            standing.trusted = True
            return {"since_s": now_s, "kind": None, "evidence": None}
        return {}

    def _standing(self, source: Side) -> Standing:
        return self._standings.setdefault(source, Standing())


def _scene(prefix: str, boxes: Boxes, compared: str) -> Iterable[Score]:
    for age, value in scene_scores(boxes).items():
        yield Score(
            test=f"{prefix}scene", age=age, value=value, compared=compared.format(age)
        )  # fmt: skip


def _patch(prefix: str, boxes: Boxes, compared: str) -> Iterable[Score]:
    for age, (value, _, column) in patch_scores(boxes).items():
        yield Score(
            test=f"{prefix}patch", age=age, value=value, column=column,
            compared=compared.format(age),
        )  # fmt: skip


def _entity_of(source: Side) -> str:
    return f"ue/{source.removeprefix('UE')}"


def _side_of(id: str) -> Side:
    return Side(f"UE{id.removeprefix('ue/')}")
