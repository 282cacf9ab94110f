"""Plans from predicted SNR against fixed plans, stale knowledge, chance, and an oracle.

python studies/twin_planner/run.py [--quick] [--out results.json]
"""

from __future__ import annotations

import argparse
import json
import platform
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tracks import STEP_S, draw_tracks, forecast

from megdt import __version__
from megdt.link.energy import load_profile
from megdt.models.bundle import Bundle
from megdt.models.quality import PerceptualReference
from megdt.records import Part, Side
from megdt.scenario import parse_scenario
from megdt.twin.planner import Ask, Decision, Equipment, Objective, Planner, decision_map
from megdt.twin.ways import WAYS
from megdt.worlds.captions import attributes, phrase
from megdt.worlds.garden import draw_view

HERE = Path(__file__).parent
ES = "edge_gpu"
STRATEGIES = ("planner", "mean alone", "stale", "random", "fixed", "fixed by device and size")
WARM_S = 30.0

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What each candidate turns out to take and give for one request. [candidates]"""

    cost: Floats
    """Of the objective, without what breaking a constraint costs."""
    late: NDArray[np.bool_]
    poor: NDArray[np.bool_]
    names: tuple[str, ...]


class HeldOut:
    """Distances of pictures that the planner's costs were not measured on."""

    def __init__(self, planner: Planner) -> None:
        found = json.loads((HERE / "held_out.json").read_text())
        self.costs, self.found = planner.costs, found
        self.pictures = int(found["pictures"])
        self._tables: dict[int, dict[str, Floats]] = {}

    def table(self, size_px: int) -> dict[str, Floats]:
        """By way. [snr, pictures]"""
        if size_px not in self._tables:
            self._tables[size_px] = {
                way.name: self._distance(way.name, size_px) for way in self.costs.ways(size_px)
            }
        return self._tables[size_px]

    def _distance(self, name: str, size_px: int) -> Floats:
        """Large ones were not held out: the small ones' are moved as the planner's are."""
        values = np.array(self.found["ways"][name]["distance"])
        columns = [
            np.full(self.costs.snr_db.size, c[0])
            if len(c) == 1
            else np.interp(self.costs.snr_db, self.found["snr_db"], c)
            for c in values.T
        ]
        small = np.stack(columns, 1)
        if size_px == 256:
            return small
        way = WAYS[name]
        ours = self.costs.distance(way, 256).mean(1, keepdims=True)
        return (
            small
            * self.costs.distance(way, size_px).mean(1, keepdims=True)
            / np.maximum(ours, 1e-6)
        )


def judge(
    planner: Planner, held_out: HeldOut, ask: Ask, snr_db: float, luck: tuple[float, int]
) -> Truth:
    """Every candidate at the true SNR, with the same luck on the air and the same picture.

    Args:
        planner: Whose candidates they are.
        held_out: Distances of pictures.
        ask: The request.
        snr_db: True, at full power.
        luck: Quantile of the link's draws, and number of the picture.
    """
    outlook = planner.outlook(ask.equipment, ask.size_px)
    place = int(planner.snr_place(np.array(snr_db)))
    draws = outlook.latency_s.shape[2]
    latency = outlook.latency_s[:, place, int(luck[0] * draws)]
    table = held_out.table(ask.size_px)
    distance = np.array(
        [
            table[c.way.name][int(planner.snr_place(np.array(snr_db - c.backoff_db))), luck[1]]
            for c in outlook.candidates
        ]
    )
    energy = {"energy": outlook.both_j, "ue_energy": outlook.ue_j}
    return Truth(
        cost=latency if planner.objective == "latency" else energy[planner.objective][:, place],
        late=latency > ask.deadline_s,
        poor=distance > ask.max_distance,
        names=tuple(c.name for c in outlook.candidates),
    )


def run_cell(
    settings: Mapping[str, Any], scenario: str, mix: Mapping[str, Any], planner: Planner,
    held_out: HeldOut,
) -> dict[str, Any]:  # fmt: skip
    """One scenario with one mix of devices: every strategy on the same requests."""
    rng = np.random.default_rng((settings["rng_seed"], settings["scenarios"].index(scenario)))
    steps = round(settings["seconds"] / STEP_S)
    true_db = draw_tracks(scenario, settings["ues"], steps, rng)
    measured_db = true_db + rng.normal(0, settings["measurement_sd_db"], true_db.shape)
    seen = forecast(
        measured_db, settings["measurement_sd_db"], settings["ahead_steps"], settings["memory_steps"]
    )  # fmt: skip
    equipments = [equip(*entry) for entry in mix.values()]
    stale_steps = round(settings["stale_s"] / STEP_S)
    asks: dict[str, list[Ask]] = {"planner": [], "mean alone": [], "stale": []}
    truths: list[Truth] = []
    kinds: list[tuple[int, int]] = []
    covered = 0.0
    for ue in range(settings["ues"]):
        for _ in range(settings["asks_a_ue"]):
            step = int(rng.integers(round(WARM_S / STEP_S), steps))
            kind = ue % len(equipments)
            mean_db, sd_db = float(seen.mean_db[ue, step]), float(seen.sd_db[ue, step])
            ask = Ask(
                equipment=equipments[kind],
                snr_db=mean_db,
                snr_sd_db=sd_db,
                size_px=512 if rng.random() < settings["share_large"] else 256,
                deadline_s=float(rng.choice(settings["deadlines_s"])),
                max_distance=float(rng.choice(settings["max_distances"])),
            )
            snr_db = float(true_db[ue, step])
            covered += abs(snr_db - mean_db) < 1.645 * sd_db
            luck = float(rng.random()), int(rng.integers(held_out.pictures))
            truths.append(judge(planner, held_out, ask, snr_db, luck))
            kinds.append((kind, ask.size_px))
            asks["planner"].append(ask)
            asks["mean alone"].append(replace(ask, snr_sd_db=0.0))
            old_db = float(measured_db[ue, step - stale_steps])
            asks["stale"].append(replace(ask, snr_db=old_db, snr_sd_db=0.0))
    decisions = {name: planner.plan(some) for name, some in asks.items()}
    # Requests that no candidate could have served are nobody's fault.
    best = np.array([np.where(t.late | t.poor, np.inf, t.cost).min() for t in truths])
    possible = np.isfinite(best)
    paid = Payment(asks["planner"], truths, best, planner.objective)
    costs = {
        name: np.array([paid(n, d.candidate.name) for n, d in enumerate(some)])
        for name, some in decisions.items()
    }
    costs["random"] = np.array([paid(n, str(rng.choice(t.names))) for n, t in enumerate(truths)])
    fixed, costs["fixed"] = choose_fixed(paid, range(len(truths)), possible)
    costs["fixed by device and size"] = np.zeros(len(truths))
    for kind in set(kinds):
        numbers = [n for n, k in enumerate(kinds) if k == kind]
        _, some = choose_fixed(paid, numbers, possible)
        costs["fixed by device and size"][numbers] = some
    regret = {name: float(np.mean(costs[name][possible] - best[possible])) for name in STRATEGIES}
    return {
        "scenario": scenario,
        "objective": planner.objective,
        "asks": len(truths),
        "impossible": int((~possible).sum()),
        "forecast_coverage_90": covered / len(truths),
        "oracle": float(best[possible].mean()),
        "fixed_plan": fixed,
        **{f"regret {name}": value for name, value in regret.items()},
        "regret_ratio": regret["planner"] / regret["fixed"],
        **violations(decisions["planner"], truths),
        **{
            f"{name}: {key}": value
            for name in ("mean alone", "stale")
            for key, value in violations(decisions[name], truths).items()
        },
    }


class Payment:
    """What a request costs when it is answered by a candidate.

    Who gets no picture, or a poor one, asks again, and then gets what the oracle would have sent:
    in latency the deadline goes by first; in energy both are paid.
    """

    def __init__(
        self, asks: Sequence[Ask], truths: Sequence[Truth], best: Floats, objective: Objective
    ) -> None:
        self.asks, self.truths, self.best, self.objective = asks, truths, best, objective

    def __call__(self, number: int, name: str) -> float:
        """Of the numbered request; a candidate that the UE cannot hold counts as no picture."""
        truth, ask = self.truths[number], self.asks[number]
        if name not in truth.names:
            return float(
                self.best[number]
                + (ask.deadline_s if self.objective == "latency" else self.best[number])
            )
        at = truth.names.index(name)
        if not (truth.late[at] or truth.poor[at]):
            return float(truth.cost[at])
        lost = ask.deadline_s if self.objective == "latency" else float(truth.cost[at])
        return float(self.best[number]) + lost


def choose_fixed(
    paid: Payment, numbers: Sequence[int], possible: NDArray[np.bool_]
) -> tuple[str, Floats]:
    """The one candidate that is best in hindsight for all of these requests."""
    names = sorted({name for n in numbers for name in paid.truths[n].names})
    found = {name: np.array([paid(n, name) for n in numbers]) for name in names}
    counted = possible[list(numbers)]
    best = min(names, key=lambda name: found[name][counted].sum())
    return best, found[best]


def violations(decisions: Sequence[Decision], truths: Sequence[Truth]) -> dict[str, Any]:
    """How often each constraint was broken where it was promised to hold, and how often no plan could."""
    promised = [n for n, d in enumerate(decisions) if not d.broken]
    kept = [decisions[n] for n in promised], [truths[n] for n in promised]
    return {
        "fallbacks": 1 - len(promised) / len(decisions),
        "late": share_broken(*kept, "late"),
        "poor": share_broken(*kept, "poor"),
        "late_stated": float(np.mean([d.late for d in kept[0]])),
        "poor_stated": float(np.mean([d.poor for d in kept[0]])),
    }


def share_broken(decisions: Sequence[Decision], truths: Sequence[Truth], what: str) -> float:
    """Of decisions, by the truth."""
    broken = [
        getattr(t, what)[t.names.index(d.candidate.name)]
        for d, t in zip(decisions, truths, strict=True)
    ]
    return float(np.mean(broken)) if broken else 0.0


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
    for objective in settings["objectives"]:
        planner = Planner(es=load_profile(ES), objective=objective, violation=settings["violation"])
        held_out = HeldOut(planner)
        for scenario in settings["scenarios"]:
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
