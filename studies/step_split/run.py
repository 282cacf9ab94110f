"""The step split: the same generations handed over at several steps, over several links.

python studies/step_split/run.py [--quick] [--out results.json]
"""

from __future__ import annotations

import argparse
import json
import platform
import tomllib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from megdt import __version__
from megdt.models import SHIFT
from megdt.models.bundle import Bundle
from megdt.models.classifier import LABELS
from megdt.models.generation import GRID, _on_grid, generate_latents, measure_spread
from megdt.models.quality import PerceptualReference, compare_distributions, extract_features
from megdt.models.sampling import guide, make_sigmas, sample_euler
from megdt.records import Feature, Part, Request, Result, Side
from megdt.scenario import Scenario, parse_scenario
from megdt.worlds.captions import attributes, phrase
from megdt.worlds.garden import draw_view

HERE = Path(__file__).parent
# ST-LPIPS between held-out views and what the autoencoder makes of them (studies/mechanisms).
AUTOENCODER = 0.093

Images = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Generations of the ES, as they are after some of their steps."""

    prompts: list[str]
    wanted: dict[str, NDArray[np.int64]]
    """What the classifier should see, -1 where the prompt does not say. [pictures]"""
    latents: dict[int, NDArray[np.float32]]
    """By step, at unit variance. [pictures, 4, 32, 32]"""
    whole: Images
    """Of the last step, decoded at once. [pictures, 256, 256, 3]"""


def draw_pictures(settings: Mapping[str, Any], bundle: Bundle) -> Pictures:
    """Pictures after sentences about held-out views. The ES's steps are the same for every handoff."""
    count, first = settings["pictures"], settings["first_view"]
    prompts: list[str] = []
    wanted: dict[str, list[int]] = {name: [] for name in LABELS}
    for seed in range(first, first + count):
        garden, view = draw_view(seed)
        said = attributes(garden.truth(view))
        prompts.append(phrase(said, np.random.default_rng(seed)))
        for name, values in LABELS.items():
            value = getattr(said, name)
            wanted[name].append(values.index(value) if value else -1)
    handoffs = settings["handoff_steps"]
    sigmas = make_sigmas(settings["steps"], shift=SHIFT)
    parts: dict[int, list[NDArray[np.float32]]] = {step: [] for step in handoffs}
    for start in range(0, count, settings["batch"]):
        numbers = range(start, min(start + settings["batch"], count))
        embeds = torch.from_numpy(bundle.embed([prompts[n] for n in numbers]))
        flow = guide(
            _on_grid(bundle._denoiser, GRID, GRID, None),
            embeds,
            guidance_scale=settings["guidance_scale"],
        )
        latent = generate_latents(
            bundle._denoiser, bundle._encoder, bundle._decoder, embeds, numbers, size_px=256,
            steps=settings["steps"], guidance_scale=settings["guidance_scale"], handoff_step=0,
        )  # fmt: skip
        for before, step in pairwise((0, *handoffs)):
            with torch.inference_mode():
                latent = sample_euler(flow, latent, sigmas[before : step + 1])
            parts[step].append((latent / measure_spread(float(sigmas[step]))).numpy())
        print(f"{numbers[-1] + 1}/{count} generations", flush=True)
    latents = {step: np.concatenate(some) for step, some in parts.items()}
    whole = np.concatenate([bundle.decode(latent[None]) for latent in latents[settings["steps"]]])
    return Pictures(
        prompts=prompts,
        wanted={name: np.array(values) for name, values in wanted.items()},
        latents=latents,
        whole=whole,
    )


def make_scenario(
    settings: Mapping[str, Any], condition: Mapping[str, Any], step: int | None, prompt: str
) -> Scenario:
    """es_to_ue_steps, or es_to_ue where no step is given."""
    request = {
        "prompt": prompt,
        "steps": settings["steps"],
        "guidance_scale": settings["guidance_scale"],
    }
    return parse_scenario(
        {
            "request": request if step is None else request | {"handoff_step": step},
            "plan": {"mechanism": "es_to_ue" if step is None else "es_to_ue_steps"},
            "codecs": {"seed": condition["codec"]},
            "link": {"snr_db": float(condition["snr_db"]), "coding": "abstract"},
            "devices": {"ue": settings["device"]},
        }
    )


def send(scenario: Scenario, pictures: Pictures, count: int, bundle: Bundle) -> Images:
    """What the UE makes of the first pictures' latents."""
    split = scenario.plan.mechanism == "es_to_ue_steps"
    step = scenario.request.es_steps if split else scenario.request.steps
    images = []
    for number, prompt in enumerate(pictures.prompts[:count]):
        request = replace(scenario.request, prompt=prompt, rng_seed=number)
        done = {
            "ask": Feature(kind="prompt", values=prompt),
            "embed": Feature(kind="prompt_embeds", values=None),
            "denoise_first" if split else "denoise": Feature(
                kind="seed", values=pictures.latents[step][number]
            ),
        }
        result = replace(scenario, request=request).run(bundle, done=Part(features=done))
        # Grey, where the seed was lost.
        images.append(
            np.full_like(pictures.whole[0], 128) if result.image is None else result.image
        )
    return np.stack(images)


class Judge:
    """Distance to the unsplit pictures, whether prompts are followed, and distance to real views."""

    def __init__(self, pictures: Pictures, settings: Mapping[str, Any], bundle: Bundle) -> None:
        self.pictures, self.bundle = pictures, bundle
        self.compared = settings["compared"]
        self.reference = PerceptualReference(pictures.whole[: self.compared])
        first = settings["first_view"] + 1000
        views = [draw_view(first + n) for n in range(2 * settings["pictures"])]
        self.views = extract_features(np.stack([garden.render(view) for garden, view in views]))

    def look(self, images: Images) -> dict[str, float | None]:
        """KID where it is all of the pictures."""
        distance = self.reference.distance(images[: self.compared])
        seen = self.bundle.classify(images)
        found: dict[str, float | None] = {
            "pictures": len(images),
            "perceptual": float(distance.mean()),
            "perceptual_95": half_width(distance),
        }
        for name, wanted in self.pictures.wanted.items():
            asked = wanted[: len(images)] >= 0
            right = seen[name] == wanted[: len(images)]
            found[name] = float(right[asked].mean())
        if len(images) == len(self.pictures.whole):
            report = compare_distributions(extract_features(images), self.views)
            found |= {"kid": report.kid, "kid_floor": report.kid_floor}
        return found


def half_width(values: Sequence[float] | NDArray[np.float32]) -> float:
    """Of a 95 % interval of the mean."""
    spread = float(np.std(values, ddof=1)) / len(values) ** 0.5
    return float(stats.t.ppf(0.975, len(values) - 1)) * spread


def measure_costs(
    scenario: Scenario, bundle: Bundle, condition: Mapping[str, Any], step: int | None, runs: int
) -> dict[str, Any]:
    """One whole generation: operations, seconds and joules of both sides.

    What codecs take is measured here, where others may be at work: the quickest of several runs.
    """
    results: list[Result] = [scenario.run(bundle) for _ in range(runs)]
    ledger = min((r.ledger for r in results), key=lambda ledger: ledger.duration_s)
    found: dict[str, Any] = {**condition, "handoff_step": step}
    for side in (Side.ES, Side.UE):
        lines = [c for c in ledger.computations if c.side == side]
        found[f"{side}_gflop".lower()] = sum(c.flops for c in lines) / 1e9
        found[f"{side}_ms".lower()] = 1000 * sum(c.seconds for c in lines if c.task == "run")
    found["latency_ms"] = 1000 * ledger.duration_s
    found["ue_energy_mj"] = 1000 * ledger.energy_of(Side.UE)
    found["es_energy_mj"] = 1000 * ledger.energy_of(Side.ES)
    found["channel_uses"] = ledger.channel_uses
    return found


def measure(settings: Mapping[str, Any], bundle: Bundle) -> dict[str, Any]:
    """Quality and costs of every handoff over every link, beside es_to_ue as it is, and with a UE that
    has the denoiser itself against noise.
    """
    pictures = draw_pictures(settings, bundle)
    judge = Judge(pictures, settings, bundle)
    results: dict[str, Any] = {"unsplit": judge.look(pictures.whole), "quality": [], "costs": []}
    ways = [
        (condition, step)
        for condition in settings["conditions"]
        for step in (None, *settings["handoff_steps"])
    ]
    ways += [
        ({**c, "codec": "hybrid"}, None) for c, step in ways if c["codec"] == "analog" and not step
    ]
    for number, (condition, step) in enumerate(ways):
        scenario = make_scenario(settings, condition, step, pictures.prompts[0])
        count = settings["pictures" if condition["codec"] == "int8" else "compared"]
        found = judge.look(send(scenario, pictures, count, bundle))
        results["quality"].append({**condition, "handoff_step": step, **found})
        results["costs"].append(
            measure_costs(scenario, bundle, condition, step, settings["timed_runs"])
        )
        print(f"{number + 1}/{len(ways)} ways to hand over", flush=True)
    return results


def list_claims(results: Mapping[str, Any], settings: Mapping[str, Any]) -> list[dict[str, str]]:
    """What the step split is for, with our figures, where it hands over unless told otherwise."""
    key = lambda r: (r["codec"], r["snr_db"], r["handoff_step"])  # noqa: E731
    quality = {key(r): r for r in results["quality"]}
    costs = {key(r): r for r in results["costs"]}
    steps = settings["steps"]
    usual = Request(prompt="any", steps=steps).es_steps
    bits = next((c["codec"], c["snr_db"]) for c in settings["conditions"] if c["codec"] == "int8")
    ours, unsplit = quality[*bits, usual], results["unsplit"]
    drop = {n: unsplit[n] - ours[n] for n in LABELS}
    analog = [(c["codec"], c["snr_db"]) for c in settings["conditions"] if c["codec"] == "analog"]
    nearer = {
        snr: [
            quality[way]["perceptual"]
            for way in ((c, snr, usual), (c, snr, None), ("hybrid", snr, None))
        ]
        for c, snr in analog
    }
    plainly, than_hybrid = ({s < other[n] for s, *other in nearer.values()} for n in (0, 1))
    whole, split = costs[*bits, None], costs[*bits, usual]
    links = [(c["codec"], c["snr_db"]) for c in settings["conditions"]]

    def ratios(what: str) -> list[tuple[float, float]]:
        return [(costs[*way, usual][what], costs[*way, None][what]) for way in links]

    def listed(what: str, unit: str) -> str:
        each = zip(links, ratios(what), strict=True)
        return "; ".join(
            f"{c} at {snr:g} dB {a:.1f} {unit} for {b:.1f}" for (c, snr), (a, b) in each
        )

    spared = 1 - split["es_gflop"] / whole["es_gflop"]
    return [
        {
            "claim": f"Handed over after {usual} of {steps} steps, a picture differs from the unsplit one by "
            f"less than the autoencoder alone costs, {AUTOENCODER} (our target)",
            "verdict": "met" if ours["perceptual"] < AUTOENCODER else "missed",
            "found": f"ST-LPIPS {ours['perceptual']:.3f} +- {ours['perceptual_95']:.3f}",
        },
        {
            "claim": "and shows what was asked for as often, within 2 points (our target)",
            "verdict": "met" if max(drop.values()) <= 0.02 else "missed",
            "found": ", ".join(f"{n} {ours[n]:.1%} of {unsplit[n]:.1%}" for n in LABELS),
        },
        {
            "claim": "The ES is spared the steps that it hands over",
            "verdict": verdict(spared > 0.9 * (1 - usual / steps)),
            "found": f"{spared:.0%} of its operations, {whole['es_gflop']:.1f} to {split['es_gflop']:.1f} "
            f"GFLOP; the UE has {split['ue_gflop'] - whole['ue_gflop']:.2f} more",
        },
        {
            "claim": "On a phone the picture is there no later",
            "verdict": verdict_of({now <= before for now, before in ratios("latency_ms")}),
            "found": listed("latency_ms", "ms"),
        },
        {
            "claim": "for at most 10 % more of the UE's energy (our target)",
            "verdict": "met" if all(now <= 1.1 * before for now, before in ratios("ue_energy_mj")) else "missed",
            "found": listed("ue_energy_mj", "mJ"),
        },
        {
            "claim": "The UE's steps take the noise of the air along: over analog links the picture is nearer to "
            "the unsplit one than es_to_ue's",
            "verdict": verdict_of(plainly),
            "found": "; ".join(f"{snr:g} dB {s:.3f} against {w:.3f}" for snr, (s, w, _) in nearer.items()),
        },
        {
            "claim": "and nearer than with hybrid, where the UE has the denoiser, 14 times as large",
            "verdict": verdict_of(than_hybrid),
            "found": "; ".join(f"{snr:g} dB {s:.3f} against {h:.3f}" for snr, (s, _, h) in nearer.items()),
        },
    ]  # fmt: skip


def verdict_of(cases: Set[bool]) -> str:
    return "holds when" if len(cases) > 1 else verdict(True in cases)


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
    bundle.load("encoder", "decoder", "text_encoder", "denoiser", "student", "classifier")
    results: dict[str, Any] = {
        "settings": settings,
        "bundle_sha256": bundle.checksum,
        "student_sha256": bundle.card("student")["sha256"],
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, megdt {__version__}",
        **measure(settings, bundle),
    }
    results["claims"] = list_claims(results, settings)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"results: {arguments.out}")


if __name__ == "__main__":
    main()
