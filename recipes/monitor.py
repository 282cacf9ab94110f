"""Measure the limits of the twin's monitor: what arrivals score while nobody attacks.

Patrols of gardens, at intervals from two minutes to four days, so that latents are compared at every
age: of eight cameras, which see much the same, and of three, each of which looks where nobody else does.
Each limit is a quantile of the scores: the share of clean arrivals above it is what ALARMS grants that
statistic. Limits of sums are measured with these in force, since who is in quarantine is held against
ever older views meanwhile.

python recipes/monitor.py [--quick] [--out src/megdt/twin/monitor.json]
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from megdt.mechanisms.panorama import VIEW_COLUMNS
from megdt.models.bundle import Bundle
from megdt.twin.evidence import LEVELS, SUMS, Limits, Score, surprises
from megdt.twin.monitor import EXPECTED, Monitor, Quarantine
from megdt.twin.patrol import DAY_S, Patrol, Report
from megdt.twin.replica import Replica
from megdt.twin.store import open_store

OUT = Path(__file__).parent.parent / "src" / "megdt" / "twin" / "monitor.json"

PATROLS = (
    # interval in seconds, cameras, gardens, rounds
    (120.0, 8, 8, 30),
    (120.0, 3, 8, 30),
    (300.0, 8, 8, 30),
    (300.0, 3, 36, 30),
    (1_200.0, 8, 4, 20),
    (1_200.0, 3, 6, 20),
    (7_200.0, 8, 4, 10),
    (7_200.0, 3, 4, 10),
    (43_200.0, 8, 4, 10),
    (43_200.0, 3, 4, 10),
    (345_600.0, 8, 3, 8),
    (345_600.0, 3, 4, 8),
)
START_S = 20 * DAY_S
"""When patrols begin: there are flowers of all ages by then."""
FIRST_GARDEN = 2_000_000

ALARMS = {
    "elsewhere": 0.0005, "sameness": 0.0005, "scene": 0.0005, "own scene": 0.0005,
    "anchor scene": 0.0005, "patch": 0.003, "own patch": 0.0005, "anchor patch": 0.0005,
    "position": 0.0005, "noise": 0.0005, "pulses": 0.0005, "snr": 0.0005, "blocks": 0.0005,
}  # fmt: skip
"""Share of clean arrivals that each may call an attack."""

SUMS_ALARM = 0.0005

FITS_BETTER = math.log(2)
"""A view has to fit twice as well elsewhere to have been seen there, whatever clean runs say."""

MARGIN = 0.05
"""Where fewer clean arrivals were measured than a share asks for: beyond the highest by this share of
what lies between the median and it."""

_NO_PICTURE = np.zeros((0, 0, 3), np.uint8)


@dataclass(frozen=True, kw_only=True)
class Scored:
    """An arrival: its statistics, and whether it was flagged."""

    scores: tuple[Score, ...]
    flagged: bool
    trusted: bool
    """When it came."""


def watch(patrol: Patrol, bundle: Bundle) -> list[Report]:
    """Every arrival in its order; what the world looks like is let go."""
    return [replace(report, picture=_NO_PICTURE) for report in patrol.walk(bundle.encode)]


def measure(patrol: Patrol, reports: list[Report], limits: Limits | None) -> list[list[Scored]]:
    """Arrivals of every source in their order, as a monitor finds them that has these limits."""
    found: dict[str, list[Scored]] = defaultdict(list)
    with open_store() as store:
        monitor = Monitor(
            Replica.blank(VIEW_COLUMNS, patrol.columns),
            store,
            limits=limits,
            quarantine=Quarantine(),
        )
        for report in reports:
            source = report.arrival.source
            trusted = monitor.trusts(source)
            judged = monitor.judge(report.arrival, report.expectation)
            found[source].append(
                Scored(scores=judged.scores, flagged=bool(judged.evidence), trusted=trusted)
            )
    return list(found.values())


def quantile(scores: list[float], share: float) -> float:
    """The least that leaves this share above it, as far as there are enough: conformal."""
    ordered = sorted(scores)
    rank = math.ceil((len(ordered) + 1) * (1 - share))
    if rank <= len(ordered):
        return ordered[rank - 1]
    return ordered[-1] + MARGIN * (ordered[-1] - float(np.median(ordered)))


def limit_sum(sources: list[list[tuple[float, bool]]]) -> float:
    """The least limit at which sums that begin anew after each alarm give SUMS_ALARM of these.

    Args:
        sources: Of each its arrivals: what they add, and whether they were flagged anyhow.
    """
    granted = SUMS_ALARM * sum(map(len, sources))
    limit = 1.0
    while True:
        alarms = 0
        for arrivals in sources:
            reached = 0.0
            for added, flagged in arrivals:
                reached = max(0.0, reached + added - EXPECTED)
                alarms += reached > limit and not flagged
                if flagged or reached > limit:
                    reached = 0.0
        if alarms <= granted:
            return limit
        limit += 0.1


def fit(sources: list[list[Scored]]) -> Limits:
    """Limits of single arrivals, from those of clean sources; of sums none."""
    by: dict[str, list[float]] = defaultdict(list)
    for arrivals in sources:
        for arrival in arrivals:
            for score in arrival.scores:
                by[score.key].append(score.value)
    alarms = {}
    for key, values in sorted(by.items()):
        test = key.partition(",")[0]
        alarms[key] = quantile(values, ALARMS[test])
        if test == "elsewhere":
            alarms[key] = max(alarms[key], FITS_BETTER)
    return Limits(
        scores={
            k: [round(float(np.quantile(v, 1 - level)), 4) for level in LEVELS]
            for k, v in sorted(by.items())
        },
        counts={k: len(v) for k, v in sorted(by.items())},
        alarms={
            k: math.ceil(1e4 * v) / 1e4 for k, v in alarms.items()
        },  # what is equal is believed
        sums=dict.fromkeys(SUMS, math.inf),
    )


def fit_sums(limits: Limits, sources: list[list[Scored]]) -> Limits:
    """The same with limits of sums, from clean sources by which those of single arrivals were held."""
    added: dict[str, list[list[tuple[float, bool]]]] = defaultdict(list)
    for arrivals in sources:
        by_group: dict[str, list[tuple[float, bool]]] = defaultdict(list)
        for arrival in arrivals:
            for group, more in surprises(limits, arrival.scores).items():
                if arrival.trusted or group != "content":
                    by_group[group].append((more, arrival.flagged))
        for group, line in by_group.items():
            added[group].append(line)
    return replace(
        limits, sums={g: round(limit_sum(lines), 4) for g, lines in sorted(added.items())}
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small numbers, for a test")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    bundle = Bundle()
    watched: list[tuple[Patrol, list[Report]]] = []
    garden = FIRST_GARDEN
    for interval_s, cameras, gardens, rounds in PATROLS:
        for _ in range(1 if arguments.quick else gardens):
            patrol = Patrol(
                rng_seed=garden, interval_s=interval_s, ues=cameras, start_s=START_S,
                rounds=3 if arguments.quick else rounds,
            )  # fmt: skip
            watched.append((patrol, watch(patrol, bundle)))
            garden += 1
        print(f"{interval_s:g} s, {cameras} cameras: {len(watched)} gardens so far", flush=True)
    limits = fit([source for p, reports in watched for source in measure(p, reports, None)])
    held = [source for p, reports in watched for source in measure(p, reports, limits)]
    limits = fit_sums(limits, held)
    arrivals = sum(len(source) for source in held)
    kept = {
        "made_by": "recipes/monitor.py",
        "bundle_sha256": bundle.checksum,
        "arrivals": arrivals,
        "levels": LEVELS,
        "scores": limits.scores,
        "counts": limits.counts,
        "alarms": limits.alarms,
        "sums": limits.sums,
    }
    arguments.out.write_text(json.dumps(kept, indent=1) + "\n")
    print(f"limits of {arrivals} arrivals: {arguments.out}")


if __name__ == "__main__":
    main()
