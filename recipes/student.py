"""Distil the student: the last denoising steps in a small network, without a prompt.

    python recipes/student.py draw --minutes 15     # what the teacher does, into the cache
    python recipes/student.py train --minutes 30
    python recipes/student.py measure               # anew, into the card

`draw` asks the denoiser, led by captions with a guidance of 2.5, for its flow: on garden latents
with noise, along its own generations, and on what these end in with noise anew, as the air adds it.
The student learns that flow, and so has the guidance in it. Each shard is drawn from its own seeds,
so drawing goes on where it stopped, and training takes the shards that are there.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from data import CACHE, HELD_OUT
from denoiser import describe, render
from torch import Tensor
from training import BUNDLE, Average, Run, in_half, pick_device, save_model

from megdt.models import LATENT_CHANNELS, SHIFT
from megdt.models.bundle import Bundle
from megdt.models.generation import GRID, _on_grid, finish_latents
from megdt.models.quality import perceptual_distance
from megdt.models.sampling import add_noise, guide, make_sigmas, sample_euler
from megdt.models.student import Student

BATCH = 24
GUIDANCE = 2.5
FIRST_SEED = 3_000_000
VIEWS = 36
"""A shard's."""
DRAWN = 12
"""Of them, those from whose captions the teacher draws."""
HELD_OUT_SHARDS = 4
MEASURED = 32
"""Held-out captions."""
STEPS = 24
HANDOFFS = (6, 12, 18, 22)


class Teacher:
    """The denoiser, led by captions of garden views."""

    def __init__(self) -> None:
        self.bundle = Bundle(device=str(pick_device()))
        self.on_grid = _on_grid(self.bundle._denoiser, GRID, GRID, None)

    def embed(self, seeds: range, rng: np.random.Generator) -> Tensor:
        """A caption of each view. [batch, embedding]"""
        captions = [str(rng.choice(describe(seed))) for seed in seeds]
        return torch.from_numpy(self.bundle.embed(captions)).to(self.bundle.device)

    def encode(self, seeds: range) -> Tensor:
        """[batch, 4, 32, 32]"""
        views = np.stack([render((seed, 8 * GRID)) for seed in seeds])
        return torch.from_numpy(self.bundle.encode(views)).to(self.bundle.device)

    @torch.inference_mode()
    def flow(self, latent: Tensor, sigma: Tensor, embeds: Tensor) -> Tensor:
        """Guided. [batch, 4, 32, 32]"""
        # Half precision is nearly twice as fast, and its error 0.02 % of the flow.
        with in_half(latent.device):
            flow = guide(self.on_grid, embeds, guidance_scale=GUIDANCE)(latent, sigma)
        return flow.float()


def draw_levels(count: int, rng: np.random.Generator) -> Tensor:
    """Noise levels, most of them low or in the middle, where the student will be. [count]"""
    level = 1 / (1 + np.exp(-1.2 * rng.standard_normal(count) + 0.6))
    even = rng.uniform(size=count)
    return torch.from_numpy(np.where(rng.uniform(size=count) < 0.3, even, level)).float()


def draw_shard(teacher: Teacher, first: int) -> dict[str, np.ndarray]:
    """Noisy latents, their levels, and the teacher's flow; half precision. [pairs, ...]"""
    rng = np.random.default_rng((first, 9))
    generator = torch.Generator().manual_seed(first)
    views = range(first, first + VIEWS)
    clean, embeds = teacher.encode(views), teacher.embed(views, rng)
    pairs: list[tuple[Tensor, Tensor, Tensor]] = []

    def ask(latent: Tensor, sigma: Tensor, said: Tensor) -> Tensor:
        flow = teacher.flow(latent, sigma, said)
        pairs.append((latent, sigma, flow))
        return flow

    def noisy(latent: Tensor) -> tuple[Tensor, Tensor]:
        sigma = draw_levels(len(latent), rng).to(latent)
        noise = torch.randn(latent.shape, generator=generator).to(latent)
        spread = sigma[:, None, None, None]
        return (1 - spread) * latent + spread * noise, sigma

    for start in range(0, VIEWS, DRAWN):
        part = slice(start, start + DRAWN)
        for _ in range(3):
            ask(*noisy(clean[part]), embeds[part])
    # Half of the generations begin at noise alone, the rest nearer to the end.
    begin = 1.0 if rng.uniform() < 0.5 else float(rng.uniform(0.4, 1))
    sigmas = make_sigmas(int(rng.integers(10, 21)), start=begin, shift=SHIFT)
    noise = torch.randn(DRAWN, LATENT_CHANNELS, GRID, GRID, generator=generator)
    drawn = add_noise(clean[:DRAWN], float(sigmas[0]), noise.to(clean))
    for here, there in pairwise(sigmas):
        drawn = drawn + (there - here) * ask(drawn, here.expand(DRAWN), embeds[:DRAWN])
    for _ in range(8):
        ask(*noisy(drawn), embeds[:DRAWN])
    latent, sigma, flow = (torch.cat(parts).half().numpy() for parts in zip(*pairs, strict=True))
    return {"latent": latent, "sigma": sigma, "flow": flow}


def draw(cache: Path, minutes: float) -> None:
    """As many shards as the time allows, the held-out ones first."""
    folder, teacher = cache / "student", Teacher()
    folder.mkdir(parents=True, exist_ok=True)
    until, number = time.monotonic() + 60 * minutes, -HELD_OUT_SHARDS
    while time.monotonic() < until:
        held_out = number < 0
        name = f"held_out_{number + HELD_OUT_SHARDS}" if held_out else f"shard_{number:05}"
        first = HELD_OUT - VIEWS * number if held_out else FIRST_SEED + VIEWS * number
        if not (folder / f"{name}.npz").exists():
            np.savez(folder / "new.npz", **draw_shard(teacher, first))
            (folder / "new.npz").replace(folder / f"{name}.npz")
        number += 1
    print(f"{number} shards")


def load_pairs(cache: Path, pattern: str) -> tuple[Tensor, Tensor, Tensor]:
    """Of all shards of that name: latents, levels, flows; half precision."""
    shards = [np.load(path) for path in sorted((cache / "student").glob(pattern))]
    latent, sigma, flow = (
        torch.from_numpy(np.concatenate([shard[key] for shard in shards]))
        for key in ("latent", "sigma", "flow")
    )
    return latent, sigma, flow


def train(cache: Path, run: Run) -> Average:
    device = pick_device()
    latents, sigmas, flows = load_pairs(cache, "shard_*.npz")
    print(f"{len(latents)} pairs", flush=True)
    torch.manual_seed(run.step)
    model = Student().to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=0.01)
    average = Average(model, 0.998)
    if (kept := run.load()) is not None:
        model.load_state_dict(kept["model"])
        optimiser.load_state_dict(kept["optimiser"])
        average.values = kept["average"]
    generator = torch.Generator().manual_seed(run.step)
    losses: list[float] = []
    while run.share() < 1:
        for group in optimiser.param_groups:
            group["lr"] = run.learning_rate()
        picked = torch.randint(len(latents), (BATCH,), generator=generator)
        latent, sigma, flow = (part[picked].to(device).float() for part in (latents, sigmas, flows))
        latent = latent.contiguous(memory_format=torch.channels_last)
        with in_half(device):
            found = model(latent, sigma)
        error = (found.float() - flow).square().mean((1, 2, 3))
        # An error of the flow moves the picture by as much as is left of the noise, and half of
        # the pairs are above the levels that matter most.
        loss = (error * (1.5 - sigma)).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        run.step += 1
        average.update(model, run.step)
        losses.append(float(error.detach().mean()))
        if run.step % 100 == 0:
            print(f"{run.step} {run.used_s():.0f} s loss {np.mean(losses[-100:]):.4f}", flush=True)
        if run.step % 500 == 0 or run.share() >= 1:
            run.save(
                model=model.state_dict(), optimiser=optimiser.state_dict(), average=average.values
            )
    return average


def measure(model: Student, cache: Path) -> dict[str, float]:
    """On held-out views: the share of the teacher's flow that the student misses, by noise level;
    and how far the pictures that it finishes are from those that the teacher finishes.
    """
    latents, sigmas, flows = (part.float() for part in load_pairs(cache, "held_out_*.npz"))
    model = model.eval()
    with torch.inference_mode():
        guessed = torch.cat(
            [model(*pair) for pair in zip(latents.split(64), sigmas.split(64), strict=True)]
        )
    error, power = ((x.square().mean((1, 2, 3))) for x in (guessed - flows, flows))
    found: dict[str, float] = {}
    for low, high in ((0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1)):
        here = (sigmas >= low) & (sigmas < high)
        missed = float(error[here].mean() / power[here].mean())
        found[f"flow_missed_{low:g}_to_{high:g}"] = round(missed, 4)
    teacher = Teacher()
    bundle = teacher.bundle
    seeds = range(HELD_OUT, HELD_OUT + MEASURED)
    embeds = teacher.embed(seeds, np.random.default_rng(0))

    generators = [torch.Generator().manual_seed(number) for number in range(MEASURED)]
    noise = [torch.randn(LATENT_CHANNELS, GRID, GRID, generator=g) for g in generators]
    latent, handed = torch.stack(noise).to(embeds), {}
    levels = make_sigmas(STEPS, shift=SHIFT)
    for before, step in pairwise((0, *HANDOFFS, STEPS)):
        latent = sample_euler(
            lambda x, sigma: teacher.flow(x, sigma, embeds), latent, levels[before : step + 1]
        )
        handed[step] = latent
    whole = bundle.decode(latent.cpu().numpy())
    for step in HANDOFFS:
        finished = finish_latents(model, handed[step].cpu(), float(levels[step]), steps=STEPS)
        distance = perceptual_distance(bundle.decode(finished.numpy()), whole)
        found[f"perceptual_after_{step}_of_{STEPS}"] = round(float(distance.mean()), 4)
    return found


def write_metrics(metrics: dict[str, float]) -> None:
    """Put them into the card of the weights that are there."""
    path = BUNDLE / "student.json"
    card = json.loads(path.read_text()) | {"metrics": metrics}
    path.write_text(json.dumps(card, indent=2) + "\n")
    print(metrics)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("task", choices=("draw", "train", "measure"))
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=float, default=2e-3)
    arguments = parser.parse_args()
    if arguments.task == "draw":
        draw(arguments.cache, arguments.minutes)
        return
    if arguments.task == "measure":
        write_metrics(measure(Bundle()._student, arguments.cache))
        return
    run = Run(
        arguments.cache / "student.pt",
        steps=arguments.steps,
        minutes=arguments.minutes,
        rate=arguments.rate,
    )
    average = train(arguments.cache, run)
    weights = {name: value.half() for name, value in average.values.items()}
    model = Student()
    model.load_state_dict({name: value.float() for name, value in weights.items()})
    shards = len(list((arguments.cache / "student").glob("shard_*.npz")))
    save_model(
        "student",
        weights,
        {
            "task": "latent at a noise level to the denoiser's guided flow, without a prompt",
            "recipe": "recipes/student.py",
            "data": f"{shards * VIEWS} garden views and {shards * DRAWN} generations from captions",
            "steps": run.step,
            "batch": BATCH,
            "seconds": round(run.used_s()),
            "metrics": measure(model, arguments.cache),
        },
    )


if __name__ == "__main__":
    main()
