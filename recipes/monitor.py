"""Measure the limits of the twin's monitor: what arrivals score while nobody attacks.

Patrols of gardens, at intervals from two minutes to four days, so that latents are compared at every
age. Each limit is a quantile of the scores: the share of clean arrivals above it is what ALARMS grants
that statistic. Sums likewise, with those that begin anew after an alarm.

python recipes/monitor.py [--quick] [--out src/megdt/twin/monitor.json]
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from pathlib import Path

import numpy as np

from megdt.models.bundle import Bundle
from megdt.twin.evidence import LEVELS, Limits, Score, surprises
from megdt.twin.monitor import EXPECTED, Monitor, Quarantine
from megdt.twin.patrol import Patrol
from megdt.twin.replica import Replica
from megdt.twin.store import open_store

OUT = Path(__file__).parent.parent / "src" / "megdt" / "twin" / "monitor.json"

PATROLS = (
    # interval in seconds, gardens, rounds
    (120.0, 20, 12),
    (1_200.0, 6, 12),
    (7_200.0, 4, 10),
    (43_200.0, 4, 10),
    (345_600.0, 3, 8),
)
FIRST_GARDEN = 2_000_000

ALARMS = {
    "elsewhere": 0.0005, "sameness": 0.0005, "scene": 0.0005, "anchor scene": 0.0005,
    "patch": 0.002, "anchor patch": 0.0005, "position": 0.001, "snr": 0.001, "blocks": 0.001,
}  # fmt: skip
"""Share of clean arrivals that each may call an attack."""

SUMS_ALARM = 0.0005

FITS_BETTER = math.log(2)
"""A view has to fit twice as well elsewhere to have been seen there, whatever clean runs say."""

MARGIN = 0.05
"""Where fewer clean arrivals were measured than a share asks for: beyond the highest by this share of
what lies between the median and it."""


def measure(patrol: Patrol, bundle: Bundle) -> dict[str, list[tuple[Score, ...]]]:
    """Scores of every arrival, by source in their order."""
    found: dict[str, list[tuple[Score, ...]]] = defaultdict(list)
    with open_store() as store:
        monitor = Monitor(
            Replica.blank(32, patrol.columns), store, limits=None, quarantine=Quarantine()
        )
        for report in patrol.walk(bundle.encode):
            scores = monitor.measure(report.arrival, report.expectation)
            found[report.arrival.source].append(scores)
            monitor.judge(report.arrival, report.expectation)
    return dict(found)


def quantile(scores: list[float], share: float) -> float:
    """The least that leaves this share above it, as far as there are enough: conformal."""
    ordered = sorted(scores)
    rank = math.ceil((len(ordered) + 1) * (1 - share))
    if rank <= len(ordered):
        return ordered[rank - 1]
    return ordered[-1] + MARGIN * (ordered[-1] - float(np.median(ordered)))


def limit_sum(sources: list[list[float]]) -> float:
    """The least limit at which sums that begin anew after each alarm give SUMS_ALARM of these."""
    granted = SUMS_ALARM * sum(map(len, sources))
    limit = 1.0
    while True:
        alarms = 0
        for arrivals in sources:
            reached = 0.0
            for added in arrivals:
                reached = max(0.0, reached + added - EXPECTED)
                if reached > limit:
                    alarms, reached = alarms + 1, 0.0
        if alarms <= granted:
            return limit
        limit += 0.1


def fit(sources: list[list[tuple[Score, ...]]]) -> Limits:
    """Limits from the scores of clean sources."""
    by: dict[str, list[float]] = defaultdict(list)
    for arrivals in sources:
        for scores in arrivals:
            for score in scores:
                by[score.key].append(score.value)
    alarms = {}
    for key, values in sorted(by.items()):
        test = key.partition(",")[0]
        alarms[key] = quantile(values, ALARMS[test])
        if test == "elsewhere":
            alarms[key] = max(alarms[key], FITS_BETTER)
    found = Limits(
        scores={
            k: [round(float(np.quantile(v, 1 - level)), 4) for level in LEVELS]
            for k, v in sorted(by.items())
        },
        counts={k: len(v) for k, v in sorted(by.items())},
        alarms={k: round(v, 4) for k, v in alarms.items()},
        sums={},
    )
    added: dict[str, list[list[float]]] = defaultdict(list)
    for arrivals in sources:
        by_group: dict[str, list[float]] = defaultdict(list)
        for scores in arrivals:
            for group, more in surprises(found, scores).items():
                by_group[group].append(more)
        for group, line in by_group.items():
            added[group].append(line)
    sums_found = {group: round(limit_sum(lines), 4) for group, lines in sorted(added.items())}
    return Limits(
        scores=found.scores, counts=found.counts, alarms=found.alarms, sums=sums_found
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small numbers, for a test")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    bundle = Bundle()
    sources: list[list[tuple[Score, ...]]] = []
    garden = FIRST_GARDEN
    for interval_s, gardens, rounds in PATROLS:
        for _ in range(1 if arguments.quick else gardens):
            patrol = Patrol(
                rng_seed=garden, interval_s=interval_s, rounds=3 if arguments.quick else rounds
            )
            sources.extend(measure(patrol, bundle).values())
            garden += 1
        print(f"{interval_s:g} s: {len(sources)} sources so far", flush=True)
    limits = fit(sources)
    arrivals = sum(len(source) for source in sources)
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
