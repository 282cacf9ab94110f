"""What an edge server knows of its world, in one object: store, network, replica, monitor, planner.

All of it follows from the store, so a twin that is opened again, or forked, goes on as it was: where UEs
are and what they hear is learned anew from the history; the replica, and who is quarantined, are read.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdt.errors import MeasurementError
from megdt.mechanisms.panorama import VIEW_COLUMNS, Camera, Panorama
from megdt.mechanisms.stages import Models
from megdt.models import LATENT_CHANNELS
from megdt.records import Request, Side
from megdt.twin.arrival import Arrival, Expectation, sight_of
from megdt.twin.content import predict_change
from megdt.twin.entities import Entity, Update
from megdt.twin.evidence import bundled_limits
from megdt.twin.hardness import foresee
from megdt.twin.maintenance import Refresh, plan_views
from megdt.twin.monitor import Judgement, Monitor, Quarantine
from megdt.twin.network import Beacon, Network, Place, Prediction
from megdt.twin.objects import Namer, name_objects
from megdt.twin.planner import Ask, Decision, Planner
from megdt.twin.replica import Replica
from megdt.twin.store import Store
from megdt.twin.validation import (
    Assessment,
    Validity,
    assess_predictions,
    assess_replica,
    flag,
)

VIEW_BITS = 8 * LATENT_CHANNELS * VIEW_COLUMNS**2
"""Of a view as int8 seeds."""

SERVER = "es/1"

_DAY_S = 86_400.0
_RELEARNED = 2_000
"""Revisions of which the network is learned again when a twin is opened."""


class Twin:
    """Everything that the edge server knows.

    Args:
        place: What was known beforehand.
        ues: How many UEs there are: UE1, UE2, ...
        store: Holds all of it; closing it is the caller's.
        planner: Plans requests.
        models: Decode the replica.
        namer: Names what it shows; None where its models do not know such scenes.
        horizon_s: From a request until its picture is sent: how far ahead SNR is predicted.
        told: By UEs, that the network is learned from; what the store has of it where left out.

    Raises:
        TwinError: If the store is of another place.
    """

    def __init__(
        self,
        place: Place,
        ues: int,
        *,
        store: Store,
        planner: Planner,
        models: Models,
        namer: Namer | None = None,
        horizon_s: float = 1.0,
        told: Sequence[Beacon] | None = None,
    ) -> None:
        self.store, self.planner, self.horizon_s = store, planner, horizon_s
        self._models, self._namer = models, namer
        self.network = Network(place, ues)
        self.replica = Replica.read(store, VIEW_COLUMNS, place.columns)
        self.monitor = Monitor(
            self.replica, store, limits=bundled_limits(), quarantine=Quarantine()
        )
        self._expected: dict[Side, Expectation] = {}
        self._picture: tuple[int, NDArray[np.uint8]] | None = None
        self._told: deque[Beacon] = deque(maxlen=_RELEARNED)
        for beacon in _beacons(store, ues, len(place.laws)) if told is None else told:
            if beacon.snr_db.shape[1] == len(place.laws):
                first = Beacon(
                    time_s=beacon.time_s,
                    position_m=beacon.position_m[:ues],
                    snr_db=beacon.snr_db[:ues],
                )
                self._expected = self.network.learn(first)
                self._told.append(first)
        self._server_at = next((e.revision for e in store.entities("es") if e.id == SERVER), 0)

    def fork(
        self, place: Place | None = None, ues: int | None = None, *, at: int | None = None
    ) -> Twin:
        """A twin in memory that goes on from here; whatever is tried on it, this one stays as it is.

        Args:
            place: Another one, with as many columns.
            ues: Another number of UEs.
            at: Of this revision, not the newest.
        """
        store = self.store.fork(at=at)
        return Twin(
            self.network.place if place is None else place,
            self.network.tracker.ues if ues is None else ues,
            store=store,
            planner=self.planner,
            models=self._models,
            namer=self._namer,
            horizon_s=self.horizon_s,
            told=[beacon for beacon in self._told if beacon.time_s <= store.now_s],
        )

    @property
    def conditions(self) -> Mapping[str, str]:
        """Sky and weather as last told; empty before the first round."""
        told: Mapping[str, str] = self._server().get("conditions", {})
        return told

    @property
    def rounds(self) -> int:
        """That are over."""
        return int(self._server().get("rounds", 0))

    @property
    def picture(self) -> NDArray[np.uint8]:
        """What the replica shows. RGB [256, 8 * panorama, 3]"""
        if self._picture is None or self._picture[0] != self.replica.revision:
            self._picture = self.replica.revision, self.replica.picture(self._models)
        return self._picture[1]

    def see_conditions(self, conditions: Mapping[str, str], *, now_s: float) -> None:
        """Under another sky everything looks different: what was seen before is history by then."""
        before = self.conditions
        if before == dict(conditions):
            return
        self._tell({"conditions": dict(conditions)}, now_s=now_s)
        if before:
            self.replica.forget(store=self.store, now_s=now_s)
            self.monitor.forget()

    def listen(self, beacon: Beacon, *, now_s: float) -> None:
        """Keep what UEs tell, hold it against what was predicted, and learn it.

        Raises:
            MeasurementError, PredictionError: If something is out of range, out of order or from the
                future: then nothing of it is kept.
        """
        self.network.check(beacon)
        if not beacon.time_s <= now_s:  # also catches nan
            raise MeasurementError(
                f"UEs tell of {beacon.time_s:g} s, it is {now_s:g} s; set their clocks"
            )
        told = zip(beacon.position_m.tolist(), beacon.snr_db.tolist(), strict=True)
        updates = [
            Update(
                id=f"ue/{number}",
                kind="ue",
                reported={
                    "position_m": place,
                    "heard": {"snr_db": [None if math.isnan(snr) else snr for snr in heard]},
                },
                at_s=beacon.time_s,
            )
            for number, (place, heard) in enumerate(told, 1)
        ]
        up = [not all(map(math.isnan, heard)) for heard in beacon.snr_db.T.tolist()]
        cells = [
            Update(id=f"cell/{number}", kind="cell", reported={"up": works})
            for number, works in enumerate(up, 1)
        ]
        self.store.apply([*updates, *cells], now_s=beacon.time_s)
        self._expected = self.network.learn(beacon)
        self._told.append(beacon)

    def ask_for_views(self, *, now_s: float, budget_bits: int) -> tuple[Refresh, ...]:
        """Who shall send what it sees, most worth for the bits first."""
        place = self.network.place
        x_m = self.network.tracker.predict(now_s).mean_m[:, 0]
        cameras = tuple(
            Camera(side=Side.ue(number), column=round(place.first_column(float(x))))
            for number, x in enumerate(x_m, 1)
        )
        trusted = tuple(c for c in cameras if self.monitor.trusts(c.side))
        # Who is kept out has to be heard to be let in again: one of them a round, in turn.
        doubted = [c for c in cameras if c not in trusted]
        heard = doubted[self.rounds % len(doubted)] if doubted else None
        if heard is not None and VIEW_BITS * (2 if trusted else 1) > budget_bits:
            heard = None
        asked = (
            plan_views(
                self.replica,
                Panorama(width=place.columns, cameras=trusted, margin=0),
                now_s=now_s,
                budget=budget_bits - (VIEW_BITS if heard else 0),
                cost=lambda side, columns: VIEW_BITS * columns / VIEW_COLUMNS,
                novelty=lambda age_s: predict_change(age_s / _DAY_S).mean,
                doubted=self.monitor.doubted,
            )
            if trusted
            else ()
        )
        return (
            asked
            if heard is None
            else (*asked, Refresh(side=heard.side, columns=tuple(heard.view)))
        )

    def validate(self, arrivals: Sequence[Arrival], *, now_s: float) -> Assessment:
        """Whether to believe the twin; told to the store.

        Args:
            arrivals: What has just come and was not judged yet: spot checks, of those that are trusted.
            now_s: On the twin's clock.
        """
        network = self.network
        checks = [sight_of(a) for a in arrivals if self.monitor.trusts(a.source)]
        coverage = network.coverage
        found = Assessment(
            replica=assess_replica(
                self.replica, now_s=now_s, spot_checks=checks, doubted=self.monitor.doubted
            ),
            predictions=assess_predictions(
                silence_s=now_s - network.time_s,
                coverages={} if coverage is None else {"SNR": coverage},
                drifting=("SNR",) if network.drifts else (),
            ),
        )
        self._server_at = flag(
            self.store, found, server=SERVER, now_s=now_s, expected=self._server_at
        )
        return found

    def judge(self, arrival: Arrival, *, now_s: float) -> Judgement:
        """Let the monitor hold an arrival against what was expected; what it believes is in the replica.

        Raises:
            MeasurementError: If it comes from the future.
        """
        if arrival.arrived_s > now_s:
            raise MeasurementError(
                f"what {arrival.source} sent arrived at {arrival.arrived_s:g} s, it is {now_s:g} s; "
                "stamp arrivals by the twin's clock"
            )
        expected = self._expected[arrival.source]
        bler = self.network.place.expected_bler(arrival.snr_db)
        return self.monitor.judge(arrival, replace(expected, bler=bler))

    def name_objects(self, *, now_s: float) -> None:
        """Keep the list of what stands where, as the replica shows it."""
        if self._namer is not None and np.isfinite(self.replica.seen_s).any():
            name_objects(self.replica, self.picture, self._namer, now_s=now_s, store=self.store)

    def predict(self, now_s: float) -> tuple[Prediction, ...]:
        """What each UE will hear when what it asks for now is sent to it."""
        return self.network.predict(now_s, self.horizon_s)

    def plan(
        self, asks: Sequence[Ask], requests: Sequence[Request], validity: Validity
    ) -> list[Decision]:
        """Plans, by predictions where they are fresh, else safer ones that say so.

        Args:
            asks: What each request needs.
            requests: Of these; what the ES draws of them, it begins before it decides how to send it.
            validity: Of predictions, now.
        """
        return self.planner.plan(
            asks, validity=validity, look=lambda number: foresee(self._models, requests[number])
        )

    def end_round(self, updates: Sequence[Update], *, now_s: float) -> int:
        """Keep what a round has brought; returns its number, from 0 on."""
        number = self.rounds
        self._tell({"rounds": number + 1, "round_s": now_s}, *updates, now_s=now_s)
        return number

    def _tell(self, reported: Mapping[str, Any], *others: Update, now_s: float) -> None:
        """Write what the ES says of itself, unless somebody else has: two that follow one scene would
        lose each other's updates.
        """
        update = Update(id=SERVER, kind="es", reported=reported, expected=self._server_at)
        self._server_at = self.store.apply([*others, update], now_s=now_s)

    def _server(self) -> dict[str, Any]:
        known = [e.reported for e in self.store.entities("es") if e.id == SERVER]
        return known[0] if known else {}


def whole_revision(store: Store) -> int:
    """The newest revision at which no round was under way."""
    told = next((e.reported for e in store.entities("es") if e.id == SERVER), {})
    return store.revision_at(told["round_s"]) if "round_s" in told else store.revision


def begin_s(store: Store, interval_s: float) -> float:
    """When the next round's interval begins: at the end of the last whole round, or, where one was cut
    off, an interval later.
    """
    told = next((e.reported for e in store.entities("es") if e.id == SERVER), {})
    last_s = float(told.get("round_s", 0.0))
    return last_s + interval_s * math.ceil((store.now_s - last_s) / interval_s - 1e-9)


def _beacons(store: Store, ues: int, stations: int) -> list[Beacon]:
    """What UEs have told, of the newest revisions; at most so many of them."""
    found: list[Beacon] = []
    since = max(store.revision - _RELEARNED, 0)
    told: list[Entity] = [e for e in store.history(since=since) if e.kind == "ue"]
    for _, batch in itertools.groupby(told, key=lambda e: e.revision):
        states = {e.id: e for e in batch if "heard" in e.reported}
        rows = list(
            itertools.takewhile(
                lambda row: row is not None, (states.get(f"ue/{n}") for n in range(1, ues + 1))
            )
        )
        whole = [r for r in rows if r and len(r.reported["heard"]["snr_db"]) == stations]
        # What was written for another reason tells what was heard before once more.
        if not whole or len(whole) < len(rows) or (found and whole[0].at_s <= found[-1].time_s):
            continue
        heard = [
            [math.nan if s is None else s for s in r.reported["heard"]["snr_db"]] for r in whole
        ]
        place = [r.reported["position_m"] for r in whole]
        found.append(
            Beacon(
                time_s=whole[0].at_s, position_m=np.array(place), snr_db=np.array(heard, np.float64)
            )
        )
    return found
