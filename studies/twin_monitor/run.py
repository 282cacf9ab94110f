"""The twin's monitor on clean and attacked patrols, adaptive attackers, and the twin's own validation.

python studies/twin_monitor/run.py [--quick] [--out results.json]
"""

from __future__ import annotations

import argparse
import json
import platform
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from adaptive import measure_adaptive
from attacks import Attack, Attacker, list_attacks
from jamming import jam_unnoticed, measure_jamming

from megdt import __version__
from megdt.models.bundle import Bundle
from megdt.records import Side
from megdt.twin.disagreement import Sight
from megdt.twin.evidence import bundled_limits
from megdt.twin.monitor import Judgement, Monitor, Quarantine
from megdt.twin.patrol import DAY_S, Patrol, Report
from megdt.twin.replica import Replica
from megdt.twin.store import open_store
from megdt.twin.validation import (
    DriftAlarm,
    assess_replica,
    coverage,
    entity_f1,
    kernel_distance,
    piece_distances,
    tile_errors,
)

HERE = Path(__file__).parent


def patrol_of(garden: int, settings: Mapping[str, Any], interval_s: float, **other: Any) -> Patrol:
    """A held-out one."""
    return Patrol(
        rng_seed=settings["first_garden"] + garden, interval_s=interval_s,
        start_s=settings["start_days"] * DAY_S, **{"rounds": settings["rounds"], **other},
    )  # fmt: skip


def wilson(hits: int, count: int) -> list[float]:
    """95 % interval of a share."""
    z, share = 1.96, hits / count
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * (share * (1 - share) / count + (z / (2 * count)) ** 2) ** 0.5 / (1 + z**2 / count)
    return [round(middle - half, 4), round(middle + half, 4)]


def judge(
    reports: Sequence[Report], attack: Attack | None = None, attacker: Attacker | None = None
) -> list[tuple[Report, Judgement]]:
    """Every report, and what became of its arrival."""
    found: list[tuple[Report, Judgement]] = []
    with open_store() as store:
        monitor = Monitor(
            Replica.blank(32, 96), store, limits=bundled_limits(), quarantine=Quarantine()
        )
        for report in reports:
            arrival = report.arrival
            if attack is not None and attacker is not None and attacker.acts(report):
                arrival = attack.change(arrival, attacker)
            found.append((report, monitor.judge(arrival, report.expectation)))
    return found


def measure_clean(settings: Mapping[str, Any], bundle: Bundle) -> list[dict[str, Any]]:
    """False alarms where nobody attacks, by interval."""
    rows = []
    for interval_s in settings["clean_intervals_s"]:
        # The first interval is the one that attacks are measured at; the others tell less.
        gardens = settings["clean_gardens"] // (1 if not rows else 3) or 1
        kinds: dict[str, int] = {}
        arrivals = alarmed_runs = 0
        for garden in range(gardens):
            patrol = patrol_of(1000 + garden, settings, interval_s)
            judged = [j.kind for _, j in judge(list(patrol.walk(bundle.encode)))]
            arrivals += len(judged)
            alarmed_runs += any(judged)
            for kind in filter(None, judged):
                kinds[kind] = kinds.get(kind, 0) + 1
        alarms = sum(kinds.values())
        rows.append(
            {
                "interval_s": interval_s, "arrivals": arrivals, "false_alarms": alarms,
                "share": round(alarms / arrivals, 4), "share_95": wilson(alarms, arrivals),
                "by_kind": kinds, "runs": gardens, "runs_with_one": alarmed_runs,
            }
        )  # fmt: skip
        print(f"clean at {interval_s} s: {alarms} false alarms in {arrivals}", flush=True)
    return rows


def measure_long(settings: Mapping[str, Any], bundle: Bundle) -> list[dict[str, Any]]:
    """False alarms of long runs where nobody attacks: seen by others too, and by one camera alone."""
    rows = []
    for cameras, gardens in settings["long_gardens"].items():
        kinds: dict[str, int] = {}
        arrivals = alarms = kept_out = alarmed_runs = 0
        for garden in range(gardens):
            patrol = patrol_of(
                3000 + garden, settings, settings["adaptive_interval_s"], ues=int(cameras),
                rounds=settings["long_rounds"],
            )  # fmt: skip
            judged = judge(list(patrol.walk(bundle.encode)))
            flagged = [j.kind for _, j in judged if j.kind is not None]
            arrivals, alarms = arrivals + len(judged), alarms + len(flagged)
            kept_out += sum(not j.trusted for _, j in judged)
            alarmed_runs += bool(flagged)
            for kind in flagged:
                kinds[kind] = kinds.get(kind, 0) + 1
        rows.append(
            {
                "place": "seen by others too" if cameras == "8" else "seen by it alone",
                "cameras": int(cameras), "interval_s": settings["adaptive_interval_s"],
                "arrivals": arrivals, "false_alarms": alarms, "share": round(alarms / arrivals, 4),
                "share_95": wilson(alarms, arrivals), "kept_out": round(kept_out / arrivals, 4),
                "by_kind": kinds, "runs": gardens, "runs_with_one": alarmed_runs,
            }
        )  # fmt: skip
        print(f"clean with {cameras} cameras: {alarms} false alarms in {arrivals}", flush=True)
    return rows


def measure_attacks(
    settings: Mapping[str, Any], bundle: Bundle, interval_s: float, gardens: int,
    kinds: Sequence[str], **other: Any,
) -> list[dict[str, Any]]:  # fmt: skip
    """What is found of each attack."""
    attacks = [a for a in list_attacks(settings) if a.kind in kinds]
    rows: dict[str, dict[str, Any]] = {
        a.name: {
            "attack": a.name, "kind": a.kind, "interval_s": interval_s, "runs": 0, "found": 0,
            "found_at_once": 0, "named_rightly": 0, "arrivals": 0, "arrivals_flagged": 0,
            "honest_arrivals": 0, "honest_flagged": 0,
        }
        for a in attacks
    }  # fmt: skip
    for garden in range(gardens):
        patrol = patrol_of(garden, settings, interval_s, **other)
        reports = list(patrol.walk(bundle.encode))
        for number in range(settings["attackers"]):
            side = Side.ue(1 + (3 * number + garden) % patrol.ues)
            attacker = Attacker.prepare(patrol, reports, side, settings, bundle.encode)
            for attack in attacks:
                row = rows[attack.name]
                judged = [(r, j.kind) for r, j in judge(reports, attack, attacker)]
                attacked = [kind for report, kind in judged if attacker.acts(report)]
                honest = [
                    kind for report, kind in judged
                    if report.round >= settings["attack_from"] and report.arrival.source != side
                ]  # fmt: skip
                first = next(filter(None, attacked), None)
                row["runs"] += 1
                row["found"] += first is not None
                row["found_at_once"] += attacked[0] is not None
                row["named_rightly"] += first == attack.kind
                row["arrivals"] += len(attacked)
                row["arrivals_flagged"] += sum(k is not None for k in attacked)
                row["honest_arrivals"] += len(honest)
                row["honest_flagged"] += sum(k is not None for k in honest)
        print(f"{garden + 1}/{gardens} attacked gardens at {interval_s} s", flush=True)
    return list(rows.values())


def measure_staleness(settings: Mapping[str, Any], bundle: Bundle) -> list[dict[str, Any]]:
    """The replica against the world, days after the last refresh, and the twin's own verdict."""
    found: dict[float, dict[str, list[Any]]] = {
        days: {"rmse": [], "distance": [], "f1": [], "pictures": [], "worlds": [], "verdicts": []}
        for days in settings["stale_days"]
    }
    for number in range(settings["stale_gardens"]):
        patrol = patrol_of(2000 + number, settings, 120)
        with open_store() as store:
            replica = Replica.blank(32, 96)
            for report in patrol.walk(bundle.encode):
                if report.round > 1:
                    break
                arrival = report.arrival
                replica.refresh(
                    arrival.observation, arrival.columns, source=arrival.source,
                    now_s=arrival.arrived_s, store=store,
                )  # fmt: skip
        # The edges of the panorama are nobody's middle: what was never seen is not compared.
        picture, last_s = replica.picture(bundle), arrival.arrived_s
        for days, row in found.items():
            now_s = last_s + days * DAY_S
            garden = patrol.garden(now_s)
            world = garden.panorama(256)
            row["rmse"].append(float(tile_errors(picture, world)[1:-1].mean()))
            row["distance"].append(float(piece_distances(picture, world).mean()))
            row["f1"].append(entity_f1(picture, garden, bundle))
            row["pictures"].append(picture)
            row["worlds"].append(world)
            latents = bundle.encode(world[None, :, 256:512])[0]
            check = Sight(
                values=latents[:, :, 4:-4], seen_s=np.full((32, 24), now_s), columns=range(36, 60)
            )
            row["verdicts"].append(
                assess_replica(replica, now_s=now_s, spot_checks=[check]).verdict
            )
    return [
        {
            "days": days,
            "pixel_rmse": round(float(np.mean(row["rmse"])), 2),
            "perceptual_distance": round(float(np.mean(row["distance"])), 4),
            "entity_f1": round(float(np.mean(row["f1"])), 3),
            "kid": round(kernel_distance(row["pictures"], row["worlds"], bundle), 5),
            "verdicts": {v: row["verdicts"].count(v) for v in ("fresh", "stale", "wrong")},
        }
        for days, row in found.items()
    ]


def measure_snr(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Coverage of the predicted intervals of SNR, and the drift alarm, where predictions are off."""
    rng = np.random.default_rng(settings["first_garden"])
    rows = []
    for off_db in (0.0, 1.0, 2.0, 4.0):
        residuals = rng.normal(-off_db, 2, (200, 100))
        held = coverage(np.zeros(100), np.full(100, 2.0), residuals[0])
        firsts = []
        for run in residuals:
            alarm = DriftAlarm()
            firsts.append(next((n for n, r in enumerate(run) if alarm.update(r / 2)), None))
        found = [n for n in firsts if n is not None]
        rows.append(
            {
                "off_db": off_db, "std_db": 2.0, "covered_of_90": held.found, "holds": held.holds,
                "drift_found_in_100": round(len(found) / len(firsts), 3),
                "median_arrivals": float(np.median(found)) if found else None,
            }
        )  # fmt: skip
    return rows


def list_claims(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """The targets, with what was found."""
    attacks, clean = results["attacks"], results["clean"]
    found, runs = (sum(r[k] for r in attacks) for k in ("found", "runs"))
    alarms, arrivals = (sum(r[k] for r in clean) for k in ("false_alarms", "arrivals"))
    missed = [f"{r['attack']} {r['found']}/{r['runs']}" for r in attacks if r["found"] < r["runs"]]
    return [
        {
            "claim": "95 % of attacks are found",
            "verdict": "met" if found >= 0.95 * runs else "missed",
            "found": f"{found} of {runs} ({found / runs:.1%}); not all of: {', '.join(missed) or 'none'}",
        },
        {
            "claim": "at most 1 % false alarms on clean runs of ten rounds",
            "verdict": "met" if alarms <= 0.01 * arrivals else "missed",
            "found": f"{alarms} of {arrivals} arrivals ({alarms / arrivals:.2%})",
        },
        *(
            {
                "claim": f"the same over thirty rounds, five minutes apart, what is {r['place']}",
                "verdict": "met" if r["false_alarms"] <= 0.01 * r["arrivals"] else "missed",
                "found": f"{r['false_alarms']} of {r['arrivals']} arrivals ({r['share']:.2%})",
            }
            for r in results["clean_long"]
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small numbers, for a test")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    arguments = parser.parse_args()
    settings = tomllib.loads((HERE / "study.toml").read_text())
    quick = settings.pop("quick")
    settings |= quick if arguments.quick else {}
    bundle = Bundle()
    bundle.load("encoder", "decoder")
    everything = [a.kind for a in list_attacks(settings)]
    results: dict[str, Any] = {
        "settings": settings,
        "bundle_sha256": bundle.checksum,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, megdt {__version__}",
        "clean": measure_clean(settings, bundle),
        "clean_long": measure_long(settings, bundle),
        "attacks": measure_attacks(settings, bundle, 120, settings["attacked_gardens"], everything),
        "attacks_on_an_older_twin": [
            row
            for interval_s in settings["late_intervals_s"]
            for row in measure_attacks(
                settings, bundle, interval_s, settings["late_gardens"], ("forged", "poisoned")
            )
        ],
        "attacks_where_nobody_else_looks": measure_attacks(
            settings | {"attackers": 1},
            bundle,
            settings["adaptive_interval_s"],
            settings["lone_gardens"],
            ("forged", "poisoned"),
            ues=3,
        ),
        "weak_jamming": measure_jamming(settings),
        "jammer_unnoticed": jam_unnoticed(Patrol(rng_seed=0)),
        "adaptive": measure_adaptive(settings, bundle),
        "staleness": measure_staleness(settings, bundle),
        "snr": measure_snr(settings),
    }
    results["claims"] = list_claims(results)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"results: {arguments.out}")


if __name__ == "__main__":
    main()
