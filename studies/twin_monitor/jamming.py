"""How weak a jammer may be, and how much the noise may wander without one, until it is not found.

Links alone, of many runs: no camera looks at anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from attacks import Attack, jam, pulse

from megdt.records import Side
from megdt.twin.arrival import Arrival, link_scores
from megdt.twin.evidence import LEVELS, Limits, Score, bundled_limits, surprises
from megdt.twin.monitor import EXPECTED
from megdt.twin.patrol import Patrol, as_observation

_NOTHING = as_observation(np.zeros((4, 32, 32), np.float32))


def measure_jamming(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Runs in which weak jammers are found, by how far the honest noise wanders."""
    attacks = [
        *(Attack(f"jammed by {x} dB", "jammed", jam(x)) for x in settings["weak_jam_db"]),
        *(
            Attack(f"pulses of {x} dB to a BLER of 0.2", "jammed", pulse(0.2, rise_db=x))
            for x in settings["weak_pulse_db"]
        ),
    ]  # fmt: skip
    first, limits = settings["attack_from"], bundled_limits()
    rows = []
    for noise_std_db in settings["noise_std_db"]:
        for attack in attacks:
            found = []
            for garden in range(settings["jamming_gardens"]):
                patrol = Patrol(
                    rng_seed=settings["first_garden"] + 4000 + garden, rounds=settings["rounds"],
                    noise_std_db=noise_std_db,
                )  # fmt: skip
                found += [
                    any(flags[first:]) for flags in (
                        flag(source, limits) for source in _sources(patrol, attack, first)
                    ) if not any(flags[:first])
                ]  # fmt: skip
            rows.append(
                {
                    "noise_std_db": noise_std_db, "attack": attack.name, "runs": len(found),
                    "found": sum(found),
                }
            )  # fmt: skip
            print(f"noise +- {noise_std_db} dB, {attack.name}: {np.mean(found):.3f}", flush=True)
    return rows


def flag(arrivals: Sequence[Sequence[Score]], limits: Limits) -> list[bool]:
    """Which of a source's arrivals the monitor would flag by their link."""
    reached, flags = 0.0, []
    for scores in arrivals:
        reached = max(0.0, reached + surprises(limits, scores)["link"] - EXPECTED)
        flags.append(
            reached > limits.sums["link"] or any(s.value > limits.alarms[s.key] for s in scores)
        )
        if flags[-1]:
            reached = 0.0
    return flags


def jam_unnoticed(patrol: Patrol) -> list[dict[str, Any]]:
    """What a jammer that knows the detector can take: until the sum would grow at each arrival."""
    limits = bundled_limits()
    # Each statistic of the link may be less likely than EXPECTED by how many are looked at.
    allowed = EXPECTED + np.log(len([test for test in limits.scores if test in _LINK]))
    rows = []
    for test, std_db in (("snr", patrol.snr_std_db), ("noise", patrol.noise_std_db)):
        lost = float(np.interp(allowed, -np.log(LEVELS), limits.scores[test]))
        rows.append(
            {
                "statistic": test, "lost_in_standard_deviations": round(lost, 3),
                "lost_db": round(lost * std_db, 2),
            }
        )  # fmt: skip
    return rows


_LINK = ("snr", "noise", "pulses", "blocks")


def _sources(patrol: Patrol, attack: Attack, first: int) -> list[list[tuple[Score, ...]]]:
    """Scores of every UE's arrivals, each attacked from a round on."""
    found: list[list[tuple[Score, ...]]] = [[] for _ in range(patrol.ues)]
    for number, links in enumerate(patrol.links()):
        for ue, link in enumerate(links):
            arrival = Arrival(
                source=Side.ue(ue + 1), sequence=number, observation=_NOTHING,
                first_column=ue, snr_db=link.snr_db, blocks=patrol.blocks,
                block_errors=link.block_errors, noise_db=link.noise_db, arrived_s=0.0,
            )  # fmt: skip
            if number >= first:
                arrival = attack.change(arrival, None)
            found[ue].append(tuple(link_scores(arrival, patrol.expect(link, 0.0))))
    return found
