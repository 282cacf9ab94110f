"""Train the feature gate: what several sides saw of one view, at other times and through noise.

    python recipes/gate.py draw --minutes 5
    python recipes/gate.py train --minutes 10
    python recipes/gate.py measure              # anew, into the card

`draw` renders scenes at several ages and encodes them. In training each sample is one scene and two
to four observations of it: of another age, hidden in places, with noise of the air. The gate is to
make of them what the scene looks like now.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data import CACHE, HELD_OUT
from torch import Tensor
from training import BUNDLE, Average, Run, pick_device, save_model

from megdt.models.bundle import Bundle
from megdt.models.gate import FeatureGate
from megdt.models.quality import perceptual_distance
from megdt.worlds.garden import draw_view
from megdt.worlds.scene import SKIES, Conditions

AGES_DAYS = (0.0, 0.04, 1.0, 3.0, 8.0)
"""At which a scene is rendered; the second is another hour of the same day."""
BATCH = 12
MEASURED = 64
"""Held-out scenes."""
MAX_SOURCES = 4


def draw_scene(rng_seed: int, bundle: Bundle) -> tuple[np.ndarray, np.ndarray]:
    """A scene from the oldest age to now: its pictures and latents. [ages, ...]

    What was seen on an older day may have been seen under another sky.
    """
    garden, view = draw_view(rng_seed)
    rng = np.random.default_rng((rng_seed, 5))
    oldest = AGES_DAYS[-1]
    pictures = []
    for age in AGES_DAYS:
        held = garden.conditions
        if age > 0 and rng.uniform() < 0.35:
            held = Conditions(
                sky=str(rng.choice(SKIES)), weather=held.weather, light_x_m=held.light_x_m,
                cloud_seed=int(rng.integers(2**31)), land_seed=held.land_seed,
            )  # fmt: skip
        pictures.append(garden.later(oldest - age, conditions=held).render(view))
    seen = np.stack(pictures)
    return seen, bundle.encode(seen)


def draw(cache: Path, minutes: float) -> None:
    """Latents of as many training scenes as the time allows, after those that are there."""
    bundle, until = Bundle(), time.monotonic() + 60 * minutes
    path = cache / "gate_latents.npy"
    found = list(np.load(path)) if path.exists() else []
    while time.monotonic() < until:
        found.append(draw_scene(len(found), bundle)[1].astype(np.float16))
    np.save(path, np.stack(found))
    print(f"{len(found)} scenes")


def hide(rng: np.random.Generator, size: int) -> np.ndarray:
    """Where a source sees: all, or without a few blocks, or on one side alone. [size, size]"""
    seen = np.ones((size, size), np.float32)
    kind = rng.uniform()
    if kind < 0.25:
        return seen
    if kind < 0.45:  # a view that overlaps this one
        at = int(rng.integers(size // 4, 3 * size // 4))
        if rng.uniform() < 0.5:
            seen[:, :at] = 0
        else:
            seen[:, at:] = 0
        return seen
    # What stands in front of the camera, or tiles that were never filled, in cells of 4.
    for _ in range(int(rng.integers(1, 5))):
        height, width = 4 * rng.integers(1, 6, 2)
        top, left = (4 * rng.integers(0, (size - n) // 4 + 1) for n in (height, width))
        seen[top : top + height, left : left + width] = 0
    return seen


def observe(scenes: np.ndarray, rng: np.random.Generator, sources: int) -> tuple[Tensor, ...]:
    """What each source has of scenes. Latents, confidence, ages, noise powers, and the truth."""
    count, _, channels, size, _ = scenes.shape
    which = rng.choice(len(AGES_DAYS), (count, sources), p=(0.34, 0.18, 0.16, 0.16, 0.16))
    which[np.arange(count), rng.integers(0, sources, count)] = (
        0  # one of them is the UE, which looks now
    )
    latents = scenes[np.arange(count)[:, None], which].astype(np.float32)
    noise_power = np.where(
        rng.uniform(size=(count, sources)) < 0.4, 0, 10 ** rng.uniform(-3, 0.3, (count, sources))
    ).astype(np.float32)
    noise = rng.standard_normal(latents.shape).astype(np.float32)
    latents += noise * np.sqrt(noise_power)[:, :, None, None, None]
    confidence = np.stack(
        [np.stack([hide(rng, size) for _ in range(sources)]) for _ in range(count)]
    )
    gone = rng.uniform(size=(count, sources)) < 0.05
    confidence[gone] = 0
    ages_s = np.array(AGES_DAYS, np.float32)[which] * 86_400
    truth = scenes[:, 0].astype(np.float32)
    del channels
    return tuple(
        torch.from_numpy(np.ascontiguousarray(a, np.float32))
        for a in (latents, confidence, ages_s, noise_power, truth)
    )


def train(cache: Path, run: Run) -> Average:
    device = pick_device()
    scenes = np.load(cache / "gate_latents.npy", mmap_mode="r")
    torch.manual_seed(0)
    model = FeatureGate().to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=run.rate, weight_decay=1e-4)
    average = Average(model)
    if (kept := run.load()) is not None:
        model.load_state_dict(kept["model"])
        optimiser.load_state_dict(kept["optimiser"])
        average.values = kept["average"]
    rng = np.random.default_rng(run.step)
    shown: list[float] = []
    while run.share() < 1:
        for group in optimiser.param_groups:
            group["lr"] = run.learning_rate()
        picked = np.sort(rng.integers(0, len(scenes), BATCH))
        sources = 2 if rng.uniform() < 0.6 else int(rng.integers(3, MAX_SOURCES + 1))
        *given, truth = (t.to(device) for t in observe(np.array(scenes[picked]), rng, sources))
        error = (model(*given) - truth).square()
        # Where nobody sees there is nothing to learn but the mean.
        known = given[1].amax(1, keepdim=True)
        loss = (error * (0.1 + 0.9 * known)).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        run.step += 1
        average.update(model, run.step)
        shown.append(float(loss.detach()))
        if run.step % 100 == 0:
            print(f"{run.step} {run.used_s():.0f} s loss {np.mean(shown[-100:]):.4f}", flush=True)
        if run.step % 500 == 0 or run.share() >= 1:
            run.save(
                model=model.state_dict(), optimiser=optimiser.state_dict(), average=average.values
            )
    return average


def measure(model: FeatureGate) -> dict[str, float]:
    """Perceptual distance and latent error on held-out scenes: gate, its sources, and their mean."""
    bundle = Bundle()
    rng = np.random.default_rng(0)
    pictures, latents = zip(
        *(draw_scene(HELD_OUT + n, bundle) for n in range(MEASURED)), strict=True
    )
    now = np.stack([p[0] for p in pictures])
    given = observe(np.stack(latents), rng, 2)
    values, confidence, _, _, truth = (t.numpy() for t in given)
    with torch.inference_mode():
        gated = model.eval()(*given[:-1]).numpy()
    seen = confidence[:, :, None]
    everyone = seen.sum(1)
    ways = {
        "gate": gated,
        "first": values[:, 0] * seen[:, 0],
        "second": values[:, 1] * seen[:, 1],
        "mean": (values * seen).sum(1) / np.maximum(everyone, 1),
    }
    found: dict[str, float] = {}
    for name, latent in ways.items():
        shown = np.concatenate([bundle.decode(latent[i : i + 8]) for i in range(0, MEASURED, 8)])
        found[f"{name}_perceptual"] = round(float(perceptual_distance(shown, now).mean()), 4)
        found[f"{name}_latent_mse"] = round(float(((latent - truth) ** 2).mean()), 4)
    return found


def write_metrics(metrics: dict[str, float]) -> None:
    """Put them into the card of the weights that are there."""
    path = BUNDLE / "gate.json"
    card = json.loads(path.read_text()) | {"metrics": metrics}
    path.write_text(json.dumps(card, indent=2) + "\n")
    print(metrics)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("task", choices=("draw", "train", "measure"))
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--steps", type=int, default=30_000)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rate", type=float, default=2e-3)
    arguments = parser.parse_args()
    if arguments.task == "draw":
        draw(arguments.cache, arguments.minutes)
        return
    run = Run(
        arguments.cache / "gate.pt",
        steps=arguments.steps,
        minutes=arguments.minutes,
        rate=arguments.rate,
    )
    model = FeatureGate()
    if arguments.task == "measure":
        write_metrics(measure(Bundle()._gate))
        return
    average = train(arguments.cache, run)
    model.load_state_dict(average.values)
    card: dict[str, Any] = {
        "task": "several sides' seeds of one view to one seed",
        "recipe": "recipes/gate.py",
        "data": f"{len(np.load(arguments.cache / 'gate_latents.npy', mmap_mode='r'))} garden "
        "scenes, each at five ages",
        "steps": run.step,
        "batch": BATCH,
        "seconds": round(run.used_s()),
        "metrics": measure(model),
    }
    save_model("gate", {k: v.half() for k, v in average.values.items()}, card)


if __name__ == "__main__":
    main()
