"""Train the scene classifier that measures prompt adherence.

    python recipes/classifier.py --minutes 5

Data: garden views alone, where one kind of flower has at least 60 % of the flower area; slightly
blurred, shifted and noisy, so that it looks at flowers and not at their edges. It never sees a
reconstruction or a generated picture.
"""

from __future__ import annotations

import argparse
import multiprocessing
from pathlib import Path

import numpy as np
import torch
from data import CACHE, HELD_OUT
from torch.nn import functional
from training import Run, pick_device, save_model

from megdt.models.classifier import LABELS, SceneClassifier, classify
from megdt.worlds.garden import draw_view

BATCH = 32
CLEAR_SHARE = 0.6


def label(seed: int) -> tuple[int, int, int] | None:
    """Indices of species, colour and sky; None where no kind of flower dominates."""
    garden, view = draw_view(seed)
    truth = garden.truth(view)
    if not truth.groups or truth.groups[0].share < CLEAR_SHARE or truth.groups[0].foreground == 0:
        return None
    first = truth.groups[0]
    said = {"species": first.species, "colour": first.colour, "sky": truth.conditions.sky}
    return tuple(LABELS[name].index(value) for name, value in said.items())  # type: ignore[return-value]


def label_all(seeds: range) -> tuple[np.ndarray, np.ndarray]:
    """Which of the seeds have a clear label, and the labels. [count], [count, 3]"""
    with multiprocessing.get_context("spawn").Pool() as pool:
        found = pool.map(label, seeds, chunksize=250)
    clear = np.array([i for i, labels in enumerate(found) if labels is not None])
    return clear, np.array([found[i] for i in clear])


def disturb(image: torch.Tensor) -> torch.Tensor:
    image = image + 0.05 * torch.randn(len(image), 1, 1, 1, device=image.device)
    if torch.rand(()) < 0.5:
        image = functional.interpolate(
            functional.avg_pool2d(image, 2), scale_factor=2.0, mode="bilinear"
        )
    return image + torch.rand(()).item() * 0.08 * torch.randn_like(image)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--rate", type=float, default=2e-3)
    arguments = parser.parse_args()
    device = pick_device()
    torch.manual_seed(0)
    views = np.load(arguments.cache / "views.npy", mmap_mode="r")
    clear, labels = label_all(range(len(views)))
    model = SceneClassifier().to(device)
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    run = Run(
        arguments.cache / "classifier.pt",
        steps=arguments.steps,
        minutes=arguments.minutes,
        rate=arguments.rate,
    )
    if kept := run.load():
        model.load_state_dict(kept["model"])
        optimiser.load_state_dict(kept["optimiser"])
    rng = np.random.default_rng(run.step)
    while run.share() < 1:
        for group in optimiser.param_groups:
            group["lr"] = run.learning_rate()
        picked = np.sort(rng.integers(0, len(clear), BATCH))
        image = torch.from_numpy(np.stack([views[clear[i]] for i in picked])).to(device)
        wanted = torch.from_numpy(labels[picked]).to(device)
        scores = model(disturb(image.permute(0, 3, 1, 2).float() / 127.5 - 1))
        loss = sum(
            functional.cross_entropy(scores[name], wanted[:, i]) for i, name in enumerate(LABELS)
        )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        run.step += 1
        if run.step % 100 == 0:
            print(f"{run.step} {run.used_s():.0f} s loss {loss:.4f}", flush=True)
        if run.step % 500 == 0 or run.share() >= 1:
            run.save(model=model.state_dict(), optimiser=optimiser.state_dict())
    model.eval().cpu()
    held_out = np.load(arguments.cache / "held_out_views.npy", mmap_mode="r")
    clear, labels = label_all(range(HELD_OUT, HELD_OUT + len(held_out)))
    found = classify(model, held_out[clear])
    accuracy = {
        name: round(float((found[name] == labels[:, i]).mean()), 4) for i, name in enumerate(LABELS)
    }
    print(accuracy)
    weights = {
        k: v.half()  # of 1,270 held-out views none is labelled otherwise for it
        for k, v in model.state_dict().items()
        if not k.endswith("num_batches_tracked")
    }
    save_model(
        "classifier",
        weights,
        {
            "task": "picture to species, colour and sky",
            "recipe": "recipes/classifier.py",
            "data": f"garden views with one dominant kind, tested on {len(clear)} held-out ones",
            "steps": run.step,
            "batch": BATCH,
            "seconds": round(run.used_s()),
            "metrics": {"held_out_accuracy": accuracy},
        },
    )


if __name__ == "__main__":
    main()
