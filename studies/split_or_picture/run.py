"""Send the same generations as a seed and as a picture, at every SNR, as the paper does.

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
from megdt.models.bundle import Bundle
from megdt.models.quality import (
    FEATURES,
    extract_features,
    frechet_distance,
    perceptual_distance,
    psnr_db,
)
from megdt.records import Result
from megdt.scenario import Scenario, parse_scenario
from megdt.worlds.captions import attributes, phrase
from megdt.worlds.garden import draw_view

HERE = Path(__file__).parent
# name, mechanism, codec of what crosses
SCHEMES = (
    ("split", "es_to_ue", {"seed": "analog"}),
    ("centralized", "centralized", {"image": "analog"}),
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
    mechanism: str, codecs: dict[str, str], request: dict[str, Any], snr_db: float
) -> Scenario:
    plan = {"mode": "paper", "mechanism": mechanism}
    tables = {"request": request, "plan": plan, "codecs": codecs, "link": {"snr_db": float(snr_db)}}
    return parse_scenario(tables, source="study")


def measure(
    results: list[Result], error_free: np.ndarray, reference: np.ndarray, pairs: int
) -> dict[str, float]:
    """Costs without the prompt, and quality against the error-free pictures."""
    images = np.stack([result.image for result in results])
    sent = [next(c for c in r.ledger.crossings if c.kind != "prompt") for r in results]
    # Pictures without any error count as 60 dB, better than any eye can tell.
    quality = [min(psnr_db(a, b), 60.0) for a, b in zip(images, error_free, strict=True)]
    perceptual = perceptual_distance(images[:pairs], error_free[:pairs])
    return {
        "perceptual": round(float(np.mean(perceptual)), 5),
        "psnr_db": round(float(np.mean(quality)), 3),
        "bits": round(float(np.mean([c.bits for c in sent]))),
        "paper_bits": sent[0].paper_bits,
        "channel_uses": sent[0].channel_uses,
        "frechet": round(frechet_distance(extract_features(images), reference), 5),
    }


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
    lossless = {"seed": "float32"}
    perfect = [build("es_to_ue", lossless, request, 10).run(bundle) for request in requests]
    error_free = np.stack([result.image for result in perfect])
    reference = extract_features(error_free)
    parts = [result.part(SHARED) for result in perfect]
    curves: dict[str, list[dict[str, float]]] = {}
    for name, mechanism, codecs in SCHEMES:
        curves[name] = []
        for snr_db in settings["snr_db"]:
            results = [
                build(mechanism, codecs, request, snr_db).run(bundle, done=part)
                for request, part in zip(requests, parts, strict=True)
            ]
            found = measure(results, error_free, reference, settings["perceptual_pictures"])
            curves[name].append({"snr_db": snr_db, **found})
            print(name, curves[name][-1], flush=True)
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
