"""One UE lies, or is jammed: what the twin shows of it, with its monitor and without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from megdt.models.bundle import Bundle
from megdt.records import Side
from megdt.scenario.twin import read_twin_scenario
from megdt.site import SimulatedSite, open_twin
from megdt.twin.loop import run_round
from megdt.twin.monitor import Monitor, Quarantine
from megdt.twin.store import open_store
from megdt.twin.validation import piece_distances


def measure(
    settings: Mapping[str, Any], bundle: Bundle
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Every attack in every garden, with the monitor and without; figures and claims."""
    rows = []
    for kind in ("none", *settings["kinds"]):
        for guarded in (True, False):
            runs = [run(kind, garden, guarded, settings, bundle) for garden in settings["gardens"]]
            counts = {
                name: sum(found[name] for found in runs)
                for name in ("sent", "flagged", "honest_sent", "honest_flagged", "found")
            }
            distances = {
                name: float(np.mean([found[name] for found in runs]))
                for name in ("distance", "worst_distance")
            }
            delays = [found["found_after"] for found in runs if found["found"]]
            rows.append(
                {
                    "attack": kind, "monitor": guarded, "runs": len(runs), **counts, **distances,
                    "found_after": float(np.mean(delays)) if delays else None,
                    "wrong": float(np.mean([found["wrong"] for found in runs])),
                }
            )  # fmt: skip
        print(f"attack: {kind}", flush=True)
    return {"rows": rows}, claim(rows)


def run(
    kind: str, garden: int, guarded: bool, settings: Mapping[str, Any], bundle: Bundle
) -> dict[str, Any]:
    """One run of the loop. Distances are means over the rounds with the attack on."""
    scenario = read_twin_scenario(
        "garden_drones",
        [
            f"scene.rng_seed={garden}", "requests.each_round=0",
            f"twin.interval_s={settings['interval_s']}",
            f"twin.refresh_bits={settings['refresh_bits']}", f"attack.kind={kind}",
            f"attack.ue={settings['ue']}", f"attack.from_round={settings['from_round']}",
        ],
    )  # fmt: skip
    site, liar = SimulatedSite(scenario, bundle), Side.ue(settings["ue"])
    counts = {"sent": 0, "flagged": 0, "honest_sent": 0, "honest_flagged": 0}
    means, worsts, wrong, found_after = [], [], [], None
    with open_store() as store:
        twin = open_twin(scenario, site, store, bundle)
        if not guarded:
            twin.monitor = Monitor(twin.replica, store, limits=None, quarantine=Quarantine())
        for number in range(settings["rounds"]):
            found = run_round(twin, site, refresh_bits=scenario.twin.refresh_bits)
            if number < settings["from_round"]:
                continue
            for side, judged in found.judgements.items():
                who = "" if side == liar else "honest_"
                counts[f"{who}sent"] += 1
                counts[f"{who}flagged"] += bool(judged.evidence)
                if side == liar and judged.evidence and found_after is None:
                    found_after = counts["sent"]
            pieces = piece_distances(twin.picture, site.panorama)
            means.append(float(pieces.mean()))
            worsts.append(float(pieces.max()))
            wrong.append(found.validity.verdict == "wrong")
    return {
        **counts, "found": found_after is not None, "found_after": found_after,
        "distance": float(np.mean(means)), "worst_distance": float(np.mean(worsts)),
        "wrong": float(np.mean(wrong)),
    }  # fmt: skip


def claim(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """What was to be shown, and what was found."""
    by = {(row["attack"], row["monitor"]): row for row in rows}
    clean = by["none", True]["distance"]
    attacked = [row for row in rows if row["attack"] != "none" and row["monitor"]]
    met = [row for row in attacked if row["sent"]]
    found, runs = sum(row["found"] for row in met), sum(row["runs"] for row in met)
    worst = max(attacked, key=lambda row: row["distance"])
    honest = by["none", True]
    flagged = honest["flagged"] + honest["honest_flagged"]
    sent = honest["sent"] + honest["honest_sent"]
    return [
        {
            "claim": "In the loop, who lies or is jammed is found in every run (our target)",
            "verdict": "met" if found == runs else "missed",
            "found": f"in {found} of {runs}",
        },
        {
            "claim": "What the twin shows stays within a tenth of what it shows unattacked (our target)",
            "verdict": "met" if worst["distance"] <= 1.1 * clean else "missed",
            "found": f"ST-LPIPS {clean:.3f} unattacked, at most {worst['distance']:.3f} "
            f"({worst['attack']})",
        },
        {
            "claim": "Nobody is accused where nobody attacks, at most 1 % of what comes (our target)",
            "verdict": "met" if flagged <= 0.01 * sent else "missed",
            "found": f"{flagged} of {sent}",
        },
    ]
