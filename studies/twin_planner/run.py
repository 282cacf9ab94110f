"""Plans from predicted SNR against fixed plans, stale knowledge, chance, and an oracle.

python studies/twin_planner/run.py [--quick] [--out results.json]
"""

from __future__ import annotations

import argparse
import json
import platform
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from judging import (
    HeldOut,
    Luck,
    Payment,
    Truth,
    choose_fixed,
    judge,
    outcomes,
)
from tracks import STEP_S, draw_tracks, forecast

from megdt import __version__
from megdt.link.energy import load_profile
from megdt.models.bundle import Bundle
from megdt.models.quality import PerceptualReference
from megdt.records import Part, Side
from megdt.scenario import parse_scenario
from megdt.twin.hardness import Hardness
from megdt.twin.planner import Ask, Decision, Equipment, Planner, decision_map
from megdt.twin.validation import Validity
from megdt.worlds.captions import attributes, phrase
from megdt.worlds.garden import draw_view

HERE = Path(__file__).parent
ES = "edge_gpu"
STRATEGIES = (
    "planner", "without the picture", "mean alone", "stale", "stale, told so", "random", "fixed",
    "fixed by device and size", "knowing the channel",
)  # fmt: skip
WARM_S = 30.0


def draw_scenario(settings: Mapping[str, Any], scenario: str) -> dict[str, Any]:
    """True, measured and predicted SNR of one scenario."""
    rng = np.random.default_rng((settings["rng_seed"], settings["scenarios"].index(scenario)))
    steps = round(settings["seconds"] / STEP_S)
    tracks = draw_tracks(scenario, settings["ues"], steps, rng)
    noise_db = settings["measurement_sd_db"]
    measured_db = tracks.snr_db + rng.normal(0, noise_db, tracks.snr_db.shape)
    seen = forecast(tracks, measured_db, noise_db, settings["ahead_steps"], rng)
    return {"name": scenario, "true_db": tracks.snr_db, "measured_db": measured_db, "seen": seen}


def run_cell(
    settings: Mapping[str, Any], scenario: Mapping[str, Any], mix: Mapping[str, Any],
    planner: Planner, held_out: HeldOut,
) -> dict[str, Any]:  # fmt: skip
    """One scenario with one mix of devices: every strategy on the same requests."""
    number = settings["scenarios"].index(scenario["name"])
    rng = np.random.default_rng((settings["rng_seed"], number, len(mix)))
    true_db, measured_db, seen = scenario["true_db"], scenario["measured_db"], scenario["seen"]
    equipments = [equip(*entry) for entry in mix.values()]
    stale_steps = round(settings["stale_s"] / STEP_S)
    asks: list[Ask] = []
    old_db: list[float] = []
    truths: list[Truth] = []
    kinds: list[tuple[int, int]] = []
    covered = 0.0
    for ue in range(settings["ues"]):
        for _ in range(settings["asks_a_ue"]):
            step = int(rng.integers(round(WARM_S / STEP_S), true_db.shape[1]))
            size_px = 512 if rng.random() < settings["share_large"] else 256
            luck = Luck(
                snr_db=float(true_db[ue, step]),
                air=float(rng.random()),
                picture=int(rng.integers(held_out.count(size_px))),
            )
            mean_db, sd_db = float(seen.mean_db[ue, step]), float(seen.sd_db[ue, step])
            ask = Ask(
                equipment=equipments[ue % len(equipments)],
                snr_db=mean_db,
                snr_sd_db=sd_db,
                size_px=size_px,
                deadline_s=float(rng.choice(settings["deadlines_s"])),
                max_distance=float(rng.choice(settings["max_distances"])),
                hardness=held_out.hardness(size_px, luck.picture),
            )
            covered += abs(luck.snr_db - mean_db) < 1.645 * sd_db
            asks.append(ask)
            old_db.append(float(measured_db[ue, step - stale_steps]))
            truths.append(judge(planner, held_out, ask, luck))
            kinds.append((ue % len(equipments), size_px))
    paid = Payment(asks, truths, planner.objective, planner.es)
    plans = plan_all(planner, asks, old_db)
    costs = {
        name: np.array([paid(n, d.candidate.name, d.ahead_s) for n, d in enumerate(decisions)])
        for name, decisions in plans.items()
    }
    costs["random"] = np.array([paid(n, str(rng.choice(t.names))) for n, t in enumerate(truths)])
    fixed, costs["fixed"] = choose_fixed(paid, range(len(truths)))
    costs["fixed by device and size"] = np.zeros(len(truths))
    for kind in set(kinds):
        numbers = [n for n, k in enumerate(kinds) if k == kind]
        costs["fixed by device and size"][numbers] = choose_fixed(paid, numbers)[1]
    costs["knowing the channel"] = np.array(
        [paid(n, name) for n, name in enumerate(paid.knowing_the_channel())]
    )
    possible = paid.possible
    regret = {
        name: float(np.mean(costs[name][possible] - paid.best[possible])) for name in STRATEGIES
    }
    return {
        "scenario": scenario["name"],
        "objective": planner.objective,
        "asks": len(truths),
        "impossible": int((~possible).sum()),
        "forecast_coverage_90": covered / len(truths),
        "oracle": float(paid.best[possible].mean()),
        "fixed_plan": fixed,
        **{f"regret {name}": value for name, value in regret.items()},
        "regret_ratio": regret["planner"] / regret["fixed"],
        **outcomes(paid, plans["planner"]),
        **{
            f"{name}: {key}": value
            for name in plans
            if name != "planner"
            for key, value in outcomes(paid, plans[name]).items()
        },
    }


def plan_all(
    planner: Planner, asks: Sequence[Ask], old_db: Sequence[float]
) -> dict[str, list[Decision]]:
    """The planner, which begins pictures to see how hard they are, and the planner told less."""
    stale = [replace(a, snr_db=db, snr_sd_db=0.0) for a, db in zip(asks, old_db, strict=True)]
    validity = Validity(verdict="stale", reasons=("the SNR is of 3 s ago",))

    def look(number: int) -> Hardness:
        hardness = asks[number].hardness
        assert hardness is not None
        return hardness

    return {
        "planner": planner.plan(asks, look=look),
        "without the picture": planner.plan([replace(a, hardness=None) for a in asks]),
        "mean alone": planner.plan([replace(a, snr_sd_db=0.0) for a in asks], look=look),
        "stale": planner.plan(stale, look=look),
        "stale, told so": planner.plan(stale, validity=validity),
    }


def equip(device: str, memory_mb: float) -> Equipment:
    return Equipment(profile=load_profile(device), memory_mb=memory_mb)


def validate(settings: Mapping[str, Any], planner: Planner, bundle: Bundle) -> list[dict[str, Any]]:
    """Decisions carried out by the simulator with the real models, beside what was expected."""
    rng = np.random.default_rng((settings["rng_seed"], 99))
    devices = {name: entry for mix in settings["mixes"].values() for name, entry in mix.items()}
    rows, drawn = [], {}
    for number in range(settings["validated"]):
        name = sorted(devices)[number % len(devices)]
        size_px = 512 if number % 8 == 7 else 256
        snr_db = float(rng.uniform(-6, 24))
        ask = Ask(
            equipment=equip(*devices[name]), snr_db=snr_db, size_px=size_px,
            deadline_s=float(rng.choice(settings["deadlines_s"])),
            max_distance=float(rng.choice(settings["max_distances"])),
        )  # fmt: skip
        decision = planner.plan([ask])[0]
        view = 10_000_200 + number % 2
        garden, seen = draw_view(view)
        prompt = phrase(attributes(garden.truth(seen)), np.random.default_rng(view))
        tables = {key: dict(table) for key, table in decision.tables.items()}
        tables["request"] |= {"prompt": prompt, "size_px": size_px, "rng_seed": view}
        tables["link"] |= {"snr_db": snr_db - decision.candidate.backoff_db, "coding": "abstract"}
        tables["devices"] = {"es": ES, "ue": devices[name][0]}
        scenario = parse_scenario(tables)
        result = scenario.run(bundle)
        key = view, size_px
        if key not in drawn:
            whole = replace(
                scenario,
                plan=replace(scenario.plan, mechanism="centralized"),
            )
            latent = whole.run(bundle, done=Part()).features["denoise"].values
            drawn[key] = PerceptualReference(bundle.decode(latent[None]))
        came = result.image is not None
        coding_s = sum(c.seconds for c in result.ledger.computations if not c.flops)
        expected_core_s = sum(planner.costs.core_s(decision.candidate.way, size_px))
        rows.append(
            {
                "device": name,
                "size_px": size_px,
                "snr_db": round(snr_db, 1),
                "plan": decision.candidate.name,
                "broken": ", ".join(decision.broken),
                "came": came,
                "latency_ms": 1000 * (result.ledger.duration_s - coding_s),
                "expected_ms": 1000 * (decision.latency_s - expected_core_s),
                "codecs_ms": 1000 * coding_s,
                "expected_codecs_ms": 1000 * expected_core_s,
                "ue_mj": 1000 * result.ledger.energy_of(Side.UE),
                "expected_ue_mj": 1000 * decision.ue_energy_j,
                "distance": float(drawn[key].distance(result.image[None])[0]) if came else None,
                "expected_distance": float(
                    planner.costs.distance(decision.candidate.way, size_px)[
                        int(planner.snr_place(np.array(snr_db - decision.candidate.backoff_db)))
                    ].mean()
                ),
            }
        )
        print(f"{number + 1}/{settings['validated']} carried out", flush=True)
    return rows


def draw_map(settings: Mapping[str, Any], violation: float) -> list[dict[str, Any]]:
    """The decision map as rows: one a device, size, objective and demand, the ways by SNR."""
    devices = {name: equip(*e) for mix in settings["mixes"].values() for name, e in mix.items()}
    rows = []
    for objective in ("latency", "ue_energy"):
        planner = Planner(es=load_profile(ES), objective=objective, violation=violation)
        for bound in settings["map_distances"]:
            found = decision_map(
                planner, devices, snr_db=settings["map_snr_db"], max_distance=bound
            )
            for (device, size_px), decisions in found.items():
                rows.append(
                    {
                        "objective": objective,
                        "max_distance": bound,
                        "device": device,
                        "size_px": size_px,
                        "ways": [d.candidate.way.name for d in decisions],
                        "broken": [bool(d.broken) for d in decisions],
                    }
                )
    return rows


def list_claims(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """The targets, with our figures."""
    claims = []
    for objective in results["settings"]["objectives"]:
        cells = [c for c in results["cells"] if c["objective"] == objective]
        ratios = [c["regret_ratio"] for c in cells]
        claims.append(
            {
                "claim": f"Regret in {objective} at most a quarter of the best fixed plan's (our target)",
                "verdict": "met" if max(ratios) <= 0.25 else "missed",
                "found": f"{min(ratios):.2f} to {max(ratios):.2f} over {len(cells)} cells, within a quarter in "
                f"{sum(r <= 0.25 for r in ratios)}",
            }
        )
        worst = {what: max(cells, key=lambda c: c[what]) for what in ("late", "poor")}
        allowed = results["settings"]["violation"]
        claims.append(
            {
                "claim": f"No constraint is broken more often than stated, planning for {objective} (our target)",
                "verdict": "met" if all(worst[w][w] <= allowed for w in worst) else "missed",
                "found": "; ".join(
                    f"{w} at most {c[w]:.1%} ({c['scenario']}, {c['mix']})" for w, c in worst.items()
                ) + f", stated {allowed:.0%}",
            }
        )  # fmt: skip
    rows = [r for r in results["validation"] if r["came"]]
    if rows:
        off = [abs(r["expected_ms"] / r["latency_ms"] - 1) for r in rows]
        apart = [abs(r["expected_distance"] - r["distance"]) for r in rows]
        claims.append(
            {
                "claim": "What is expected is what the simulator does with the real models",
                "verdict": "holds" if np.median(off) < 0.1 else "does not hold",
                "found": f"latency without codecs off by {np.median(off):.1%} (median), {max(off):.1%} at most; "
                f"ST-LPIPS by {np.median(apart):.3f}, {max(apart):.3f} at most, over {len(rows)} decisions",
            }
        )
    return claims


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
    cells = []
    scenarios = [draw_scenario(settings, name) for name in settings["scenarios"]]
    print("predicted", flush=True)
    for objective in settings["objectives"]:
        planner = Planner(es=load_profile(ES), objective=objective, violation=settings["violation"])
        held_out = HeldOut(planner)
        for scenario in scenarios:
            for name, mix in settings["mixes"].items():
                found = run_cell(settings, scenario, mix, planner, held_out)
                cells.append({"mix": name, **found})
        print(f"planned for {objective}", flush=True)
    bundle = Bundle()
    bundle.load("encoder", "decoder", "text_encoder", "denoiser", "student", "sketch_adapter")
    planner = Planner(es=load_profile(ES), violation=settings["violation"])
    results: dict[str, Any] = {
        "settings": settings,
        "bundle_sha256": bundle.checksum,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, megdt {__version__}",
        "cells": cells,
        "map": draw_map(settings, settings["violation"]),
        "validation": validate(settings, planner, bundle),
    }
    results["claims"] = list_claims(results)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"results: {arguments.out}")


if __name__ == "__main__":
    main()
