"""The four mechanisms for one user: latency, energy, memory and quality on the same request.

python studies/mechanisms/run.py [--quick] [--out results.json]
"""

from __future__ import annotations

import argparse
import json
import platform
import tomllib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from megdt import __version__
from megdt.codecs.observation import NeedsCodec
from megdt.mechanisms.single_user import (
    decode,
    edit,
    embed,
    encode,
    fuse,
    observe,
    seen_in_latents,
)
from megdt.mechanisms.stages import Mechanism
from megdt.models.bundle import Bundle
from megdt.models.quality import PerceptualReference
from megdt.records import Delivery, Feature, Part, Result, Side
from megdt.scenario import parse_scenario
from megdt.worlds.captions import attributes, phrase
from megdt.worlds.garden import draw_view

HERE = Path(__file__).parent
COMPARED = {"U2E": "ue_to_es", "E2U": "es_to_ue", "SEU": "sequential", "PEU": "parallel"}
DAY_S = 86_400.0
CHOSEN = "UE's seed where it saw, ES's elsewhere"
# What a stage's networks are, for the memory that a side needs to hold them.
NETWORKS = {
    encode: ("encoder",), observe: ("encoder",), decode: ("decoder",), embed: ("text_encoder",),
    edit: ("denoiser",), fuse: ("gate",),
}  # fmt: skip

Image = NDArray[np.uint8]


class Scene:
    """A view now, as the UE's camera sees it, and as the ES has it from some days before."""

    def __init__(self, rng_seed: int, settings: Mapping[str, Any]) -> None:
        garden, view = draw_view(rng_seed)
        now = garden.later(settings["days_between"])
        self.now: Image = now.render(view)
        self.prompt = phrase(attributes(now.truth(view)), np.random.default_rng(rng_seed))
        cells = self.now.shape[0] // 8
        seen = np.ones((cells, cells), np.float32)
        # Something square before the camera, in whole cells of the map that crosses.
        side = 4 * max(1, round(cells / 4 * settings["hidden"] ** 0.5))
        rng = np.random.default_rng((rng_seed, 6))
        top, left = 4 * rng.integers(0, (cells - side) // 4 + 1, 2)
        seen[top : top + side, left : left + side] = 0
        hidden = seen.repeat(8, 0).repeat(8, 1) == 0
        pictured = self.now.copy()
        pictured[hidden] = 40
        self.sensed = Feature(kind="image", values=pictured, confidence=seen)
        self.remembered = Feature(
            kind="image", values=garden.render(view), age_s=settings["days_between"] * DAY_S
        )
        self.reference = PerceptualReference(self.now[None])

    def distance(self, image: Image | None) -> float:
        """ST-LPIPS from the view as it is now; grey where there is no picture."""
        shown = np.full_like(self.now, 128) if image is None else image
        return float(self.reference.distance(shown[None])[0])


def run(
    name: str, scene: Scene, rng_seed: int, settings: Mapping[str, Any], bundle: Bundle,
    *, snr_db: float, device: str,
) -> Result:  # fmt: skip
    """One mechanism on one scene. SEU keeps what the UE saw, and draws what was hidden."""
    scenario = parse_scenario(
        {
            "request": {
                "prompt": scene.prompt, "steps": settings["steps"], "rng_seed": rng_seed, "strength": 0.0,
            },
            "plan": {"mechanism": COMPARED[name]},
            "link": {"snr_db": float(snr_db), "coding": "abstract"},
            "devices": {"ue": device},
        }
    )  # fmt: skip
    there = {"sense": scene.sensed, "remember": scene.remembered}
    stages = {stage.name for stage in scenario.mechanism.stages}
    done = Part(features={n: f for n, f in there.items() if n in stages})
    return scenario.run(bundle, done=done)


def mechanism_of(name: str) -> Mechanism:
    """One of those compared."""
    tables = {"request": {"prompt": "?"}, "plan": {"mechanism": COMPARED[name]}}
    return parse_scenario(tables).mechanism


def shown(name: str, result: Result, side: Side) -> Image | None:
    """The last picture that a side has made."""
    pictures = [
        result.features[stage.name].values
        for stage in mechanism_of(name).stages
        if stage.makes == "image" and stage.inputs and stage.side == side
        and stage.name in result.features
    ]  # fmt: skip
    return pictures[-1] if pictures else None


def measure_quality(settings: Mapping[str, Any], bundle: Bundle) -> dict[str, Any]:
    """How far what each side shows is from the view now; means with 95 % intervals."""
    found: dict[str, list[float]] = defaultdict(list)
    for number in range(settings["scenes"]):
        scene = Scene(settings["first_scene"] + number, settings)
        for name in COMPARED:
            result = run(name, scene, number, settings, bundle, snr_db=10, device="phone")
            for side in (Side.UE, Side.ES):
                image = shown(name, result, side)
                if image is not None:
                    found[f"{name}, at the {side}"].append(scene.distance(image))
        # What each side had before anything was sent, and what can be made of both without a gate, by
        # the map that the gate is told: their mean, and the UE's where it saw with the ES's elsewhere.
        own = bundle.encode(np.stack([scene.sensed.values, scene.remembered.values]))
        told = NeedsCodec(shape=own.shape[2:])
        sent = Feature(
            kind="needs", values=None, confidence=seen_in_latents(scene.sensed.confidence)
        )
        seen = told.decode(Delivery(payload=told.encode(sent).payload)).confidence
        assert seen is not None
        mean = (own[0] * seen + own[1]) / (seen + 1)
        chosen = np.where(seen >= 0.5, own[0], own[1])
        for what, latent in (
            ("UE's own seed", own[0]), ("ES's own seed", own[1]), ("mean of both seeds", mean),
            (CHOSEN, chosen),
        ):  # fmt: skip
            found[what].append(scene.distance(bundle.decode(latent[None].astype(np.float32))[0]))
        print(f"{number + 1}/{settings['scenes']} scenes", flush=True)
    means: dict[str, Any] = {
        name: {"perceptual": float(np.mean(v)), "perceptual_95": half_width(v), "scenes": len(v)}
        for name, v in found.items()
    }
    apart = np.subtract(found["PEU, at the UE"], found[CHOSEN]).tolist()
    means[CHOSEN]["gate_minus_it"] = {
        "mean": float(np.mean(apart)),
        "half_width": half_width(apart),
    }
    return means


def half_width(values: Sequence[float]) -> float | None:
    """Of a 95 % interval of the mean."""
    if len(values) < 2:
        return None
    from scipy import stats

    spread = float(np.std(values, ddof=1)) / len(values) ** 0.5
    return float(stats.t.ppf(0.975, len(values) - 1)) * spread


def measure_costs(settings: Mapping[str, Any], bundle: Bundle) -> list[dict[str, Any]]:
    """Latency by part, and the UE's energy, by SNR and device; means over a few scenes."""
    rows = []
    scenes = [Scene(settings["first_scene"] + n, settings) for n in range(settings["timed_scenes"])]
    for name in COMPARED:  # codecs are compiled when they are first used
        run(name, scenes[0], 0, settings, bundle, snr_db=10, device="phone")
    for device in settings["devices"]:
        for snr_db in settings["snr_db"]:
            for name in COMPARED:
                lines = [
                    account(run(name, s, n, settings, bundle, snr_db=snr_db, device=device))
                    for n, s in enumerate(scenes)
                ]
                means = {k: float(np.mean([line[k] for line in lines])) for k in lines[0]}
                rows.append({"mechanism": name, "device": device, "snr_db": snr_db, **means})
    return rows


def account(result: Result) -> dict[str, float]:
    """Of one run: when the picture was there, and what that time went into.

    The parts add up to more than the latency where they overlap.
    """
    ledger = result.ledger
    last = [c for c in ledger.computations if c.task == "run"][-1]
    up, down = (
        sum(c.end_s - c.start_s for c in ledger.crossings if c.to_side.is_ue == to_ue)
        for to_ue in (False, True)
    )
    computed = {
        side: sum(c.seconds for c in ledger.computations if c.side == side)
        for side in (Side.UE, Side.ES)
    }
    return {
        "latency_ms": 1000 * last.end_s,
        "up_ms": 1000 * up,
        "down_ms": 1000 * down,
        "ue_compute_ms": 1000 * computed[Side.UE],
        "es_compute_ms": 1000 * computed[Side.ES],
        "ue_energy_mj": 1000 * ledger.energy_of(Side.UE),
        "es_energy_mj": 1000 * ledger.energy_of(Side.ES),
        "kbit": ledger.bits / 1000,
        "channel_uses": ledger.channel_uses,
    }


def list_memory(bundle: Bundle) -> dict[str, float]:
    """Megabytes of weights that the UE holds, as float32; what runs them comes on top."""
    found = {}
    for name in COMPARED:
        runs = [s.run for s in mechanism_of(name).stages if s.side == Side.UE]
        models = {model for stage in runs for model in NETWORKS.get(stage, ())}
        found[name] = round(sum(4 * bundle.card(m)["parameters"] for m in models) / 1e6, 2)
    return found


def list_claims(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """What the paper says of the mechanisms (section II-C1), with our figures."""
    by = {(r["mechanism"], r["device"], r["snr_db"]): r for r in results["costs"]}
    places = sorted({(d, s) for _, d, s in by})
    ratio = {p: by["PEU", *p]["latency_ms"] / by["SEU", *p]["latency_ms"] for p in places}
    energy = {p: by["PEU", *p]["ue_energy_mj"] / by["SEU", *p]["ue_energy_mj"] for p in places}
    memory = results["ue_memory_mb"]
    quality = results["quality"]
    gate = quality["PEU, at the UE"]["perceptual"]
    others = {
        n: quality[n]["perceptual"]
        for n in ("UE's own seed", "ES's own seed", "mean of both seeds")
    }
    paired = quality[CHOSEN]["gate_minus_it"]
    dearer = [p for p in places if energy[p] > 1]
    return [
        {
            "claim": "PEU has a lower latency than SEU",
            "verdict": verdict(max(ratio.values()) < 1),
            "found": f"{min(ratio.values()):.2f} to {max(ratio.values()):.2f} of SEU's",
        },
        {
            "claim": "at most 0.7 of it (our target)",
            "verdict": "met" if max(ratio.values()) <= 0.7 else "missed",
            "found": f"most {max(ratio.values()):.2f}, on {max(ratio, key=lambda p: ratio[p])}",
        },
        {
            "claim": "PEU costs the UE more",
            "verdict": "holds when"
            if memory["PEU"] > memory["SEU"] and len(dearer) < len(places)
            else verdict(bool(dearer)),
            "found": f"memory {memory['PEU']:.1f} against {memory['SEU']:.1f} MB of weights; energy "
            f"{min(energy.values()):.2f} to {max(energy.values()):.2f} of SEU's, dearer in {len(dearer)} "
            f"of {len(places)} cases: the UE computes more and waits less",
        },
        {
            "claim": "The gate's picture is nearer to the view than either side's own and than their mean "
            "(our target)",
            "verdict": "met" if gate < min(others.values()) else "missed",
            "found": f"ST-LPIPS {gate:.3f}; "
            + ", ".join(f"{n} {v:.3f}" for n, v in others.items()),
        },
        {
            "claim": "It is nearer than what the map alone chooses: the UE's seed where it saw, the ES's "
            "elsewhere (ours)",
            "verdict": "holds" if paired["mean"] + paired["half_width"] < 0
            else "level" if paired["mean"] - paired["half_width"] < 0 else "does not hold",
            "found": f"{gate:.3f} against {quality[CHOSEN]['perceptual']:.3f}; in pairs "
            f"{paired['mean']:+.4f} ± {paired['half_width']:.4f}",
        },
    ]  # fmt: skip


def verdict(holds: bool) -> str:
    return "holds" if holds else "does not hold"


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
    bundle.load("encoder", "decoder", "text_encoder", "denoiser", "gate")
    results: dict[str, Any] = {
        "settings": settings,
        "bundle_sha256": bundle.checksum,
        "gate_sha256": bundle.card("gate")["sha256"],
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, megdt {__version__}",
        "costs": measure_costs(settings, bundle),
        "quality": measure_quality(settings, bundle),
        "ue_memory_mb": list_memory(bundle),
    }
    results["claims"] = list_claims(results)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"results: {arguments.out}")


if __name__ == "__main__":
    main()
