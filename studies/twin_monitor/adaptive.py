"""Attackers that know the detector: its limits, its sums, and all that it compares with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from attacks import OTHER_GARDEN, with_values

from megdt.models.bundle import Bundle
from megdt.models.quality import perceptual_distance
from megdt.records import Side
from megdt.twin.arrival import Arrival, Expectation
from megdt.twin.disagreement import Sight
from megdt.twin.evidence import Limits, bundled_limits, surprises
from megdt.twin.monitor import EXPECTED, Monitor, Quarantine
from megdt.twin.patrol import DAY_S, Patrol, Report, look
from megdt.twin.replica import Replica
from megdt.twin.store import open_store
from megdt.twin.validation import Validity, assess_replica

HALVINGS = 6
PATCH = 8


def passes(monitor: Monitor, limits: Limits, arrival: Arrival, expectation: Expectation) -> bool:
    """Whether no limit is reached and no sum grows."""
    scores = monitor.measure(arrival, expectation)
    if any(score.value > limits.alarms.get(score.key, np.inf) for score in scores):
        return False
    return all(added <= EXPECTED for added in surprises(limits, scores).values())


def push(monitor: Monitor, limits: Limits, report: Report, target: np.ndarray[Any, Any]) -> Arrival:
    """The arrival nearest to a target scene that passes: a mix of what is there, or of what the
    twin already believes, with the target, whichever gets further.
    """
    arrival, best, gone = report.arrival, report.arrival, 0.0
    believed = monitor.replica.values[:, :, arrival.columns.start : arrival.columns.stop]
    distance = np.mean((arrival.observation.values - target) ** 2)
    for start in (arrival.observation.values, believed):
        low, high = 0.0, 1.0
        for _ in range(HALVINGS):
            share = (low + high) / 2
            tried = with_values(arrival, (1 - share) * start + share * target)
            if passes(monitor, limits, tried, report.expectation):
                low = share
                left = np.mean((tried.observation.values - target) ** 2)
                if 1 - left / distance > gone:
                    best, gone = tried, 1 - left / distance
            else:
                high = share
    return best


class Stage:
    """One patrol, and for each arrival of UE 2 what it wants the twin to believe instead."""

    side = Side.ue(2)

    def __init__(self, patrol: Patrol, bundle: Bundle, first_round: int) -> None:
        self.first_round, self.columns = first_round, patrol.columns
        self.reports = list(patrol.walk(bundle.encode))
        rng = np.random.default_rng(patrol.rng_seed)
        alien = replace(patrol, rng_seed=patrol.rng_seed + OTHER_GARDEN)
        self.other = alien.garden(patrol.start_s).panorama(256)
        self.targets = {
            r.round: look(
                self.other, np.array([r.arrival.first_column]), bundle.encode, rng,
                noise=patrol.camera_noise,
            )[0]
            for r in self.reports if self.acts(r)
        }  # fmt: skip

    def acts(self, report: Report) -> bool:
        """Whether it attacks now."""
        return report.arrival.source == self.side and report.round >= self.first_round

    def play(self, attack: str, limits: Limits | None, bundle: Bundle) -> dict[str, float]:
        """The patrol with an attack; how far it gets."""
        flagged = honest = 0
        with open_store() as store:
            monitor = Monitor(
                Replica.blank(32, self.columns), store, limits=limits, quarantine=Quarantine()
            )
            for report in self.reports:
                arrival = report.arrival
                if attack != "none" and self.acts(report):
                    target = self.targets[report.round]
                    if attack == "plain":
                        arrival = with_values(arrival, target)
                    elif attack == "patch":
                        arrival = self.patch(arrival, target)
                    else:
                        arrival = push(monitor, bundled_limits(), report, target)
                judged = monitor.judge(arrival, report.expectation)
                if report.round >= self.first_round and judged.evidence:
                    flagged += arrival.source == self.side
                    honest += arrival.source != self.side
            shown = monitor.replica.picture(bundle)
            patched = self.shows_patch(monitor.replica)
            validity = self.validate(monitor.replica, bundle)
        last = [r for r in self.reports if r.arrival.source == self.side][-1]
        left = 8 * last.arrival.first_column
        window = slice(left + 32, left + 224)  # what it is believed to see: without its edges
        pictures = np.stack([last.picture[:, window], self.other[:, window]])
        world, target_distance = perceptual_distance(np.stack([shown[:, window]] * 2), pictures)
        return {
            "distance_to_world": float(world), "distance_to_target": float(target_distance),
            "shows_patch": float(patched),
            "flagged": float(flagged), "honest_flagged": float(honest),
            "twin_says_wrong": float(validity.verdict == "wrong"),
        }  # fmt: skip

    @property
    def begun(self) -> Report:
        """Its first report as an attacker."""
        return next(r for r in self.reports if self.acts(r))

    def patch(self, arrival: Arrival, target: np.ndarray[Any, Any]) -> Arrival:
        """A square of the other scene, at one place however it moves."""
        left = self.begun.arrival.first_column + 12 - arrival.first_column
        part = (slice(None), slice(12, 12 + PATCH), slice(max(left, 0), max(left + PATCH, 0)))
        values = arrival.observation.values.copy()
        values[part] = target[part]
        return with_values(arrival, values)

    def shows_patch(self, replica: Replica) -> bool:
        """Whether the replica is nearer to the other scene there than to the world."""
        left = self.begun.arrival.first_column + 12
        rows, inside = slice(12, 12 + PATCH), slice(12, 12 + PATCH)
        shown = replica.values[:, rows, left : left + PATCH]
        world = self.begun.arrival.observation.values[:, rows, inside]
        other = self.targets[self.begun.round][:, rows, inside]
        return bool(np.mean((shown - other) ** 2) < np.mean((shown - world) ** 2))

    def validate(self, replica: Replica, bundle: Bundle) -> Validity:
        """The twin's verdict, had somebody trusted looked where the attacker does."""
        last = [r for r in self.reports if self.acts(r)][-1]
        column, now_s = last.arrival.first_column, self.reports[-1].arrival.arrived_s
        view = last.picture[None, :, 8 * column : 8 * column + 256]
        check = Sight(
            values=bundle.encode(view)[0][:, :, 4:-4],
            seen_s=np.full((replica.height, 24), now_s),
            columns=range(column + 4, column + 28),
        )
        return assess_replica(replica, now_s=now_s, spot_checks=[check])


def measure_adaptive(settings: Mapping[str, Any], bundle: Bundle) -> list[dict[str, Any]]:
    """Damage in the attacker's view, by perceptual distance, seen by others too and by it alone."""
    rows = []
    limits = bundled_limits()
    cases = (
        ("nobody attacks", "none", limits),
        ("another scene at once, no monitor", "plain", None),
        ("another scene at once", "plain", limits),
        ("as far as it goes unnoticed", "adaptive", limits),
        ("a patch of 8 x 8 that stays", "patch", limits),
    )
    rounds = settings["adaptive_rounds"]
    for place, ues in (("seen by others too", 8), ("seen by it alone", 3)):
        stages = [
            Stage(
                Patrol(
                    rng_seed=settings["first_garden"] + 3000 + garden, ues=ues, rounds=rounds,
                    interval_s=settings["adaptive_interval_s"],
                    start_s=settings["start_days"] * DAY_S,
                ),
                bundle,
                min(2, rounds - 1),
            )
            for garden in range(settings["adaptive_gardens"])
        ]  # fmt: skip
        for name, attack, held in cases:
            found = [stage.play(attack, held, bundle) for stage in stages]
            means = {key: round(float(np.mean([f[key] for f in found])), 4) for key in found[0]}
            # Of one run: the attacker's, and those of all others.
            arrivals = rounds - min(2, rounds - 1)
            rows.append(
                {
                    "place": place, "attack": name, "runs": len(found), **means,
                    "arrivals": arrivals, "honest_arrivals": arrivals * (ues - 1),
                }
            )  # fmt: skip
            print(f"adaptive: {place}, {name}: {means}", flush=True)
    return rows
