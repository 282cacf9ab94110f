"""What the twin's planner makes of smaller decoders: whether distances add up, what it chooses, whether it holds.

python studies/compression/planned.py --work FOLDER [--quick] [--out planned.json]

FOLDER is that of `run.py --work`, which has made them.
"""

from __future__ import annotations

import argparse
import json
import math
import tomllib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdt import __version__
from megdt.link.energy import load_profile
from megdt.models.bundle import Bundle
from megdt.models.onnx_models import OnnxModels
from megdt.models.quality import PerceptualReference
from megdt.models.variant import VariantModels
from megdt.records import Delivery, Feature, Side
from megdt.scenario import parse_scenario
from megdt.twin.planner import Ask, Decision, Equipment, Planner
from megdt.twin.variants import Variant, read_variant
from megdt.twin.ways import WAYS
from megdt.worlds.captions import attributes, phrase
from megdt.worlds.garden import draw_view

HERE = Path(__file__).parent
ES = "edge_gpu"
FIRST_VIEW = 10_870_000
_TRIES = 50
"""Requests that are drawn for one that is answered by a smaller decoder."""
SHORT = ("seed 0.05", "seed 0.25")


def receive(latent: NDArray[np.float32], way: str) -> NDArray[np.float32]:
    """A latent as a seed of few bits gives it back."""
    plan = WAYS[way].plan(256)
    tables = {
        "request": {"prompt": "?"},
        "plan": {"seed_bits": plan.seed_bits},
        "codecs": dict(plan.codecs),
    }
    codec = parse_scenario(tables).codec("seed")
    payload = codec.encode(Feature(kind="seed", values=latent)).payload
    return codec.decode(Delivery(payload=payload)).values


def add_up(
    bundle: Bundle, variants: Sequence[Variant], views: int, snr_db: Sequence[float]
) -> list[dict[str, Any]]:
    """By what the link does to a seed, and decoder: the distance to the error-free picture of the whole decoder,
    over the sum of what the link and what the decoder come to alone.
    """
    models = {v.name: OnnxModels(bundle.folder, variant=v.folder) for v in variants}
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = defaultdict(list)
    for view in range(FIRST_VIEW, FIRST_VIEW + views):
        garden, seen = draw_view(view)
        latent = bundle.encode(garden.render(seen)[None])[0]
        reference = PerceptualReference(bundle.decode(latent[None]))
        noise = np.random.default_rng(view).standard_normal(latent.shape).astype(np.float32)
        alone = {
            name: float(reference.distance(smaller.decode(latent[None]))[0])
            for name, smaller in models.items()
        }
        received = {way: (receive(latent, way), 0.0) for way in SHORT}
        for snr in snr_db:
            power = 10 ** (-snr / 10)
            received[f"{snr:g} dB"] = latent + np.float32(math.sqrt(power)) * noise, power
        for harm, (values, power) in received.items():
            told = np.full(1, power, np.float32)
            by_link = float(reference.distance(bundle.decode(values[None], told))[0])
            for name, smaller in models.items():
                both = float(reference.distance(smaller.decode(values[None], told))[0])
                found[name, harm].append((by_link, alone[name], both))
    rows = []
    for (name, harm), values_ in found.items():
        link, model, both_ = np.array(values_).T
        ratio = both_ / (link + model)
        rows.append(
            {
                "variant": name, "harm": harm, "link": float(link.mean()), "model": float(model.mean()),
                "both": float(both_.mean()), "ratio": float(ratio.mean()), "ratio_max": float(ratio.max()),
            }
        )  # fmt: skip
    return rows


def equip(entry: Mapping[str, Any], variants: Sequence[Variant]) -> Equipment:
    return Equipment(
        profile=load_profile(entry["device"]),
        memory_mb=entry["memory_mb"],
        variants=tuple(variants),
    )


def compare(
    settings: Mapping[str, Any], planner: Planner, variants: Sequence[Variant]
) -> list[dict[str, Any]]:
    """What plans take with smaller decoders at hand, and without, over a grid of SNRs."""
    rows = []
    for entry in settings["equipment"]:
        for size_px in (256, 512):
            for bound in settings["max_distances"]:
                plans = [
                    planner.plan(
                        [
                            Ask(
                                equipment=equip(entry, having), snr_db=float(snr), snr_sd_db=2.0,
                                size_px=size_px, max_distance=bound,
                            )
                            for snr in settings["snr_db"]
                        ]
                    )
                    for having in ((), variants)
                ]  # fmt: skip
                rows.append(
                    {
                        "objective": planner.objective, **entry, "size_px": size_px,
                        "max_distance": bound, **tell(*plans),
                    }
                )  # fmt: skip
    return rows


def tell(without: Sequence[Decision], having: Sequence[Decision]) -> dict[str, Any]:
    """Two rows of decisions at the same SNRs."""

    def mean(decisions: Sequence[Decision], key: str) -> float:
        return float(np.mean([getattr(d, key) for d in decisions]))

    chosen = Counter(d.candidate.variant.name if d.candidate.variant else "" for d in having)
    return {
        "chosen": dict(chosen.most_common()),
        "latency_ms": [1e3 * mean(d, "latency_s") for d in (without, having)],
        "ue_energy_mj": [1e3 * mean(d, "ue_energy_j") for d in (without, having)],
        "broken": [sum(bool(d.broken) for d in decisions) for decisions in (without, having)],
    }


def carry_out(
    settings: Mapping[str, Any], planner: Planner, variants: Sequence[Variant], bundle: Bundle
) -> list[dict[str, Any]]:
    """Decisions that chose a smaller decoder, in the simulator with the real models."""
    rng = np.random.default_rng(settings["rng_seed"])
    models = {v.folder: VariantModels(v.folder, bundle) for v in variants}
    references: dict[tuple[int, int], PerceptualReference] = {}
    rows: list[dict[str, Any]] = []
    for _ in range(_TRIES * settings["carried_out"]):
        if len(rows) == settings["carried_out"]:
            break
        entry = settings["equipment"][int(rng.integers(len(settings["equipment"])))]
        size_px = 512 if rng.random() < settings["share_large"] else 256
        ask = Ask(
            equipment=equip(entry, variants), snr_db=float(rng.uniform(-6, 24)), size_px=size_px,
            max_distance=float(rng.choice(settings["max_distances"])),
        )  # fmt: skip
        decision = planner.plan([ask])[0]
        variant, way = decision.candidate.variant, decision.candidate.way
        view = FIRST_VIEW + 1000 + int(rng.integers(settings["pictures"]))
        if variant is None:
            continue
        garden, seen = draw_view(view)
        prompt = phrase(attributes(garden.truth(seen)), np.random.default_rng(view))
        tables = {key: dict(table) for key, table in decision.tables.items()}
        tables["request"] |= {"prompt": prompt, "size_px": size_px, "rng_seed": view}
        tables["link"] |= {
            "snr_db": ask.snr_db - decision.candidate.backoff_db,
            "coding": "abstract",
        }
        tables["devices"] = {"es": ES, "ue": entry["device"]}
        if (size_px, view) not in references:
            whole = parse_scenario({"request": tables["request"]}).run(bundle)
            latent = whole.features["denoise"].values
            references[size_px, view] = PerceptualReference(bundle.decode(latent[None]))
        result = parse_scenario(tables).run(models[variant.folder])
        came = result.image is not None
        coding_s = sum(c.seconds for c in result.ledger.computations if not c.flops)
        expected_core_s = sum(planner.costs.core_s(way, size_px))
        rows.append(
            {
                **entry, "size_px": size_px, "snr_db": round(ask.snr_db, 1),
                "max_distance": ask.max_distance, "plan": decision.candidate.name,
                "promised": "quality" not in decision.broken,
                "distance": (
                    float(references[size_px, view].distance(result.image[None])[0]) if came else None
                ),
                "latency_ms": 1e3 * (result.ledger.duration_s - coding_s),
                "expected_ms": 1e3 * (decision.latency_s - expected_core_s),
                "ue_mj": 1e3 * result.ledger.energy_of(Side.UE),
                "expected_ue_mj": 1e3 * decision.ue_energy_j,
            }
        )  # fmt: skip
        print(f"{len(rows)}/{settings['carried_out']} carried out", flush=True)
    return rows


def list_claims(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """What holds of it, with our figures."""
    ratios = [row["ratio"] for row in results["sums"]]
    most = max(row["ratio_max"] for row in results["sums"])
    rows = results["carried_out"]
    kept = [row for row in rows if row["promised"] and row["distance"] is not None]
    poor = sum(row["distance"] > row["max_distance"] for row in kept)
    stated = results["settings"]["violation"]
    gains = {
        objective: [
            1 - row[key][1] / row[key][0]
            for row in results["plans"]
            if row["objective"] == objective and row["broken"] == [0, 0]
        ]
        for objective, key in (("ue_energy", "ue_energy_mj"), ("latency", "latency_ms"))
    }
    shown = "; ".join(
        f"{objective} by {np.median(gain):.0%} (median), {min(gain):.0%} to {max(gain):.0%}"
        for objective, gain in gains.items() if gain
    )  # fmt: skip
    every = [value for gain in gains.values() for value in gain]
    off = [abs(r["expected_ms"] / r["latency_ms"] - 1) for r in rows if r["distance"] is not None]
    return [
        {
            "claim": "What link and smaller decoder do to a picture adds up, to within a quarter",
            "verdict": "holds" if most <= 1.25 else "does not hold",
            "found": f"{min(ratios):.2f} to {max(ratios):.2f} of the sum in the mean, {most:.2f} at most",
        },
        {
            "claim": "Plans with smaller decoders keep the quality that they promise",
            "verdict": "met" if kept and poor <= stated * len(kept) else "missed",
            "found": f"{poor} of {len(kept)} pictures were further off, stated at most {stated:.0%}; latency without "
            f"codecs was expected to {np.median(off):.1%} (median)",
        },
        {
            "claim": "With them at hand a UE takes less of what is planned for, and nowhere more",
            "verdict": "met" if every and max(every) > 0 and min(every) > -0.01 else "missed",
            "found": shown,
        },
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="where run.py keeps its models")
    parser.add_argument("--quick", action="store_true", help="small numbers, for a test")
    parser.add_argument("--out", type=Path, default=HERE / "planned.json")
    arguments = parser.parse_args()
    settings = tomllib.loads((HERE / "planned.toml").read_text())
    quick = settings.pop("quick")
    settings |= quick if arguments.quick else {}
    variants = [read_variant(arguments.work / name) for name in settings["variants"]]
    bundle = Bundle()
    results: dict[str, Any] = {
        "settings": settings, "bundle_sha256": bundle.checksum, "version": __version__,
        "sums": add_up(bundle, variants, settings["views"], settings["harm_snr_db"]),
    }  # fmt: skip
    print("added up", flush=True)
    planners = {
        objective: Planner(
            es=load_profile(ES), objective=objective, violation=settings["violation"]
        )
        for objective in settings["objectives"]
    }
    results["plans"] = [
        row for planner in planners.values() for row in compare(settings, planner, variants)
    ]
    print("planned", flush=True)
    results["carried_out"] = carry_out(
        settings, planners[settings["objectives"][0]], variants, bundle
    )
    results["claims"] = list_claims(results)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"results: {arguments.out}")


if __name__ == "__main__":
    main()
