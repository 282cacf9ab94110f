"""Measure the bundle: reconstruction, prompt adherence, distance to real views, decoding speed.

python studies/bundle_quality/run.py [--quick] [--out results.json]
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
import tomllib
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from megdt import __version__
from megdt.models.bundle import Bundle
from megdt.models.classifier import LABELS
from megdt.models.quality import compare_distributions, extract_features, psnr_db
from megdt.worlds.captions import VALUES, Attributes, phrase
from megdt.worlds.garden import draw_view

HERE = Path(__file__).parent
# Photographs that ship with scikit-image and scikit-learn; the autoencoder never saw them.
PHOTOGRAPHS = {
    "skimage": ("data/astronaut.png", "data/chelsea.png", "data/coffee.png", "data/rocket.jpg"),
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
}


def reconstruct(bundle: Bundle, settings: dict[str, Any]) -> dict[str, Any]:
    """PSNR over pictures and inside flower masks, and what the classifier says of both."""
    whole, inside, originals, decoded = [], [], [], []
    labels: list[tuple[int, ...]] = []
    for number in range(settings["reconstructed_views"]):
        garden, view = draw_view(settings["first_held_out_seed"] + number)
        image = garden.render(view)
        again = bundle.decode(bundle.encode(image[None]))[0]
        whole.append(psnr_db(again, image))
        mask = garden.flower_mask(view)
        if mask.sum() > 200:
            inside.append(psnr_db(again[mask][None], image[mask][None]))
        truth = garden.truth(view)
        if truth.groups and truth.groups[0].share >= 0.6 and truth.groups[0].foreground:
            first = truth.groups[0]
            said = {"species": first.species, "colour": first.colour, "sky": truth.conditions.sky}
            labels.append(tuple(LABELS[n].index(said[n]) for n in LABELS))
            originals.append(image)
            decoded.append(again)
    wanted = np.array(labels)
    found = {"psnr_db": mean(whole), "psnr_inside_flowers_db": mean(inside), "views": len(whole)}
    for name, pictures in (("on_views", originals), ("on_reconstructions", decoded)):
        seen = bundle.classify(np.stack(pictures))
        found[f"classifier_{name}"] = {
            n: round(float((seen[n] == wanted[:, i]).mean()), 4) for i, n in enumerate(LABELS)
        }
    return found


def photographs() -> dict[str, NDArray[np.uint8]]:
    """The sample pictures, their sides cut to multiples of 8."""
    found = {}
    for package, files in PHOTOGRAPHS.items():
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            sys.exit(
                f"{package} is not installed; its sample photographs are needed: pip install 'megdt[studies]'"
            )
        for file in files:
            pixels = np.asarray(Image.open(Path(spec.origin).parent / file).convert("RGB"))
            height, width = (n // 8 * 8 for n in pixels.shape[:2])
            found[Path(file).stem] = pixels[:height, :width]
    return found


def reconstruct_photographs(bundle: Bundle) -> dict[str, Any]:
    each = {
        n: round(psnr_db(bundle.decode(bundle.encode(p[None]))[0], p), 2)
        for n, p in photographs().items()
    }
    return {"psnr_db": mean(list(each.values())), "each": each}


def draw_wishes(count: int) -> list[Attributes]:
    """Species, colour and sky in every prompt; stage, count and weather in some."""
    rng = np.random.default_rng(0)
    wishes = []
    for _ in range(count):
        said = {n: str(rng.choice(VALUES[n])) for n in ("species", "colour", "sky")}
        for name, share in (("density", 0.6), ("weather", 0.2), ("stage", 0.15)):
            if rng.uniform() < share:
                said[name] = str(rng.choice(VALUES[name]))
        wishes.append(Attributes(**said))
    return wishes


def adhere(bundle: Bundle, settings: dict[str, Any]) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    """Does the classifier see what the prompt asked for? Half of the wordings are held out."""
    wishes = draw_wishes(settings["adherence_prompts"])
    rng = np.random.default_rng(1)
    wordings = ["held out" if i % 2 else "training" for i in range(len(wishes))]
    prompts = [phrase(w, rng, wording=k) for w, k in zip(wishes, wordings, strict=True)]
    images = generate(bundle, prompts, settings)
    seen = bundle.classify(images)
    right = {
        n: np.array([LABELS[n].index(getattr(w, n)) for w in wishes]) == seen[n] for n in LABELS
    }
    held_out = np.array([k == "held out" for k in wordings])
    found: dict[str, Any] = {"prompts": len(prompts)}
    found |= {n: round(float(r.mean()), 4) for n, r in right.items()}
    found["held_out_wordings"] = {n: round(float(r[held_out].mean()), 4) for n, r in right.items()}
    plain = np.array([not (w.stage or w.weather) for w in wishes])
    found["plain_prompts"] = {n: round(float(r[plain].mean()), 4) for n, r in right.items()}
    return found, images


def generate(bundle: Bundle, prompts: list[str], settings: dict[str, Any]) -> NDArray[np.uint8]:
    parts = []
    for start in range(0, len(prompts), settings["batch"]):
        some = prompts[start : start + settings["batch"]]
        latents = bundle.denoise(
            bundle.embed(some),
            range(start, start + len(some)),
            size_px=256,
            steps=settings["steps"],
            guidance_scale=settings["guidance_scale"],
        )
        parts.append(bundle.decode(latents))
    return np.concatenate(parts)


def measure_distance(images: NDArray[np.uint8], settings: dict[str, Any]) -> dict[str, Any]:
    """Generated pictures against as many held-out views, beside the floor of views against views.

    The prompts ask for every combination alike, the garden does not; some of the distance is that.
    """
    count = settings["distribution_pictures"]
    # Beyond the seeds that `reconstruct` uses.
    first = settings["first_held_out_seed"] + 1000
    views = [
        garden.render(view) for garden, view in map(draw_view, range(first, first + 2 * count))
    ]
    features = extract_features(np.stack(views))
    return asdict(compare_distributions(extract_features(images[:count]), features))


def time_decoding(bundle: Bundle, settings: dict[str, Any]) -> dict[str, Any]:
    """Pictures a second that the UE's decoder makes at 256 pixels, one at a time."""
    latent = np.random.default_rng(0).standard_normal((1, 4, 32, 32), np.float32)
    for _ in range(3):
        bundle.decode(latent)
    seconds = []
    for _ in range(settings["decode_repeats"]):
        started = time.perf_counter()
        bundle.decode(latent)
        seconds.append(time.perf_counter() - started)
    middle = float(np.median(seconds))
    return {
        "pictures_per_s": round(1 / middle, 1),
        "median_ms": round(middle * 1000, 2),
        "threads": torch.get_num_threads(),
    }


def mean(values: list[float]) -> float:
    return round(float(np.mean(values)), 3)


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
    results: dict[str, Any] = {
        "settings": settings,
        "bundle_sha256": bundle.checksum,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, megdt {__version__}",
        "decoding": time_decoding(bundle, settings),
        "garden": reconstruct(bundle, settings),
        "photographs": reconstruct_photographs(bundle),
    }
    results["adherence"], images = adhere(bundle, settings)
    results["distance"] = measure_distance(images, settings)
    arguments.out.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
