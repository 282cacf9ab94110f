"""Send the same generations as a seed and as a picture, at every SNR, in both modes.

python studies/split_or_picture/run.py [--quick] [--out results.json]
"""

from __future__ import annotations

import argparse
import json
import platform
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from megdt import __version__
from megdt.link.channels import capacity_bits
from megdt.models.bundle import Bundle
from megdt.models.quality import (
    FEATURES,
    extract_features,
    frechet_distance,
    perceptual_distance,
    psnr_db,
)
from megdt.records import Result
from megdt.report import seed_uses
from megdt.scenario import Scenario, parse_scenario
from megdt.worlds.captions import attributes, phrase
from megdt.worlds.garden import draw_view

HERE = Path(__file__).parent
# mode, name, mechanism, codec of what crosses
SCHEMES = (
    ("paper", "split", "es_to_ue", {"seed": "analog"}),
    ("paper", "centralized", "centralized", {"image": "analog"}),
    ("fair", "split, analog seed", "es_to_ue", {"seed": "analog"}),
    ("fair", "split, int8 seed", "es_to_ue", {"seed": "int8"}),
    ("fair", "centralized, raw pixels", "centralized", {"image": "analog"}),
    ("fair", "centralized, WebP in the analog seed's uses", "centralized", {"image": "webp"}),
)
SHARED = ("ask", "embed", "denoise")


def make_prompts(count: int) -> list[str]:
    prompts = []
    for seed in range(20_000_000, 20_000_000 + count):
        garden, view = draw_view(seed)
        prompts.append(phrase(attributes(garden.truth(view)), np.random.default_rng(seed)))
    return prompts


def start(prompt: str, number: int, settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "rng_seed": number,
        "size_px": settings["size_px"],
        "steps": settings["steps"],
        "guidance_scale": settings["guidance_scale"],
    }


def build(
    scheme: tuple[str, str, str, dict[str, str]],
    request: dict[str, Any],
    snr_db: float,
    image_bits: int | None = None,
) -> Scenario:
    mode, _, mechanism, codecs = scheme
    plan: dict[str, Any] = {"mode": mode, "mechanism": mechanism}
    if image_bits is not None:
        plan["image_bits"] = image_bits
    tables = {"request": request, "plan": plan, "codecs": codecs, "link": {"snr_db": float(snr_db)}}
    return parse_scenario(tables, source="study")


def measure(
    results: list[Result], error_free: np.ndarray, reference: np.ndarray | None, pairs: int
) -> dict[str, float]:
    """Costs without the prompt, and quality against the error-free pictures."""
    images = np.stack([result.image for result in results])
    sent = [next(c for c in r.ledger.crossings if c.kind != "prompt") for r in results]
    # Pictures without any error count as 60 dB, better than any eye can tell.
    quality = [min(psnr_db(a, b), 60.0) for a, b in zip(images, error_free, strict=True)]
    perceptual = perceptual_distance(images[:pairs], error_free[:pairs])
    found = {
        "perceptual": round(float(np.mean(perceptual)), 5),
        "psnr_db": round(float(np.mean(quality)), 3),
        "bits": round(float(np.mean([c.bits for c in sent]))),
        "paper_bits": sent[0].paper_bits,
        "channel_uses": round(float(np.mean([seed_uses(r.ledger) for r in results]))),
    }
    if reference is not None:
        found["frechet"] = round(frechet_distance(extract_features(images), reference), 5)
    return found


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
    requests = [start(p, n, settings) for n, p in enumerate(make_prompts(settings["pictures"]))]
    # One generation each; what follows only sends it again under other conditions.
    ideal = ("fair", "", "es_to_ue", {"seed": "float32"})
    perfect = [build(ideal, request, 10).run(bundle) for request in requests]
    error_free = np.stack([result.image for result in perfect])
    reference = extract_features(error_free)
    parts = [result.part(SHARED) for result in perfect]
    curves: dict[str, dict[str, list[dict[str, float]]]] = {"paper": {}, "fair": {}}
    for scheme in SCHEMES:
        mode, name, _, codecs = scheme
        # The paper's own figure is a distance between sets; `fair` compares pair by pair.
        count = len(parts) if mode == "paper" else settings["fair_pictures"]
        points = []
        for snr_db in settings["snr_db"]:
            results = []
            for request, part in zip(requests[:count], parts[:count], strict=True):
                budget = None
                if codecs.get("image") == "webp":
                    seed = build(SCHEMES[2], request, snr_db).run(bundle, done=part)
                    budget = int(seed_uses(seed.ledger) * capacity_bits(snr_db))
                results.append(build(scheme, request, snr_db, budget).run(bundle, done=part))
            against = reference if mode == "paper" else None
            points.append(
                {
                    "snr_db": snr_db,
                    **measure(results, error_free[:count], against, settings["fair_pictures"]),
                }
            )
            print(mode, name, points[-1], flush=True)
        curves[mode][name] = points
    found = {
        "settings": settings,
        "features": FEATURES,
        "bundle_sha256": bundle.checksum,
        "machine": f"{platform.machine()}, torch {torch.__version__}, megdt {__version__}",
        "curves": curves,
    }
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"results: {arguments.out}")


if __name__ == "__main__":
    main()
