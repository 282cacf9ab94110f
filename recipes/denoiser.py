"""Train the denoiser.

    python recipes/denoiser.py encode             # once: views to latents, captions to embeddings
    python recipes/denoiser.py train --minutes 90

Data: latents of garden views at 256 pixels, whole; crops of latents of 512 and 1024 pixel views,
for the finer grids, at the noise levels from which these are drawn. Loss: flow matching, heavier
where the latent has detail. One caption in ten is left out, for guidance.
"""

from __future__ import annotations

import argparse
import multiprocessing
from pathlib import Path

import numpy as np
import torch
from data import CACHE
from torch.nn import functional
from training import Average, Run, in_half, pick_device, save_model

from megdt.models.bundle import Bundle
from megdt.models.denoiser import Denoiser, positions
from megdt.models.generation import GRID
from megdt.models.text_encoder import EMBEDDING
from megdt.worlds.captions import attributes, mention, phrase
from megdt.worlds.garden import draw_view

BATCH = 24
CAPTIONS = 4
# Views of larger sizes, for the finer grids. size: first seed, views
FINE = {
    320: (2_000_000, 400),
    384: (2_100_000, 500),
    512: (2_200_000, 800),
    768: (2_300_000, 300),
    1024: (2_400_000, 360),
}
FINE_UP_TO = 0.7  # noise level; above it the finer grids are never denoised
WHOLE = 18  # of each batch; the rest are crops of the finer grids


def describe(seed: int) -> list[str]:
    """Captions of one view, in as many wordings as are kept."""
    garden, view = draw_view(seed)
    rng = np.random.default_rng((seed, 4))
    said = attributes(garden.truth(view))
    return [phrase(mention(said, rng), rng) for _ in range(CAPTIONS)]


def render(task: tuple[int, int]) -> np.ndarray:
    garden, view = draw_view(task[0], size_px=task[1])
    return garden.render(view)


def encode(cache: Path) -> None:
    """Views to latents, then their captions to embeddings."""
    bundle = Bundle()
    seeds = {size: range(first, first + count) for size, (first, count) in FINE.items()}
    with multiprocessing.get_context("spawn").Pool() as pool:
        for size in FINE:
            pictures = pool.imap(render, [(seed, size) for seed in seeds[size]], chunksize=8)
            np.save(
                cache / f"latents_{size}.npy",
                np.concatenate([_encode(bundle, p[None]) for p in pictures]),
            )
        views = np.load(cache / "views.npy", mmap_mode="r")
        latents = [_encode(bundle, views[i : i + 16]) for i in range(0, len(views), 16)]
        np.save(cache / "latents_256.npy", np.concatenate(latents))
        seeds[256] = range(len(views))
        for size in seeds:
            _embed(cache, size, pool.map(describe, seeds[size], chunksize=50), bundle)


def _encode(bundle: Bundle, views: np.ndarray) -> np.ndarray:
    # Half precision is twice as fast, and its error far below what the denoiser can see.
    with in_half(bundle.device):
        return bundle.encode(views).astype(np.float16)


def _embed(cache: Path, size: int, captions: list[list[str]], bundle: Bundle) -> None:
    flat = [caption for few in captions for caption in few]
    parts = [bundle.embed(flat[i : i + 256]) for i in range(0, len(flat), 256)]
    embeds = np.concatenate(parts).astype(np.float16)
    np.save(cache / f"embeds_{size}.npy", embeds.reshape(len(captions), CAPTIONS, -1))


def draw_batch(
    latents: dict[int, np.ndarray], embeds: dict[int, np.ndarray], rng: np.random.Generator
) -> tuple[torch.Tensor, ...]:
    """Latents, embeddings, positions, scales and highest noise levels of one batch."""
    found, told, where, scale, highest = [], [], [], [], []
    for row in range(BATCH):
        size = 256 if row < WHOLE else int(rng.choice(tuple(FINE)))
        view = size // 8
        index = rng.integers(len(latents[size]))
        top, left = rng.integers(0, view - GRID + 1, 2)
        found.append(latents[size][index, :, top : top + GRID, left : left + GRID])
        # A little noise, so that wordings nobody trained on land near what was seen.
        said = embeds[size][index, rng.integers(CAPTIONS)] + 0.04 * rng.standard_normal(EMBEDDING)
        told.append(said * (rng.uniform() > 0.1))
        where.append(positions(GRID, GRID, view=view, top=int(top), left=int(left)))
        scale.append(view / GRID)
        highest.append(1.0 if size == 256 else FINE_UP_TO)
    as_tensor = lambda values: torch.from_numpy(np.stack(values)).float()  # noqa: E731
    return (
        as_tensor(found),
        as_tensor(told),
        torch.stack(where),
        torch.tensor(scale),
        torch.tensor(highest),
    )


def train(arguments: argparse.Namespace) -> None:
    device = pick_device()
    torch.manual_seed(arguments.rng_seed)
    latents = {size: np.load(arguments.cache / f"latents_{size}.npy") for size in (256, *FINE)}
    embeds = {size: np.load(arguments.cache / f"embeds_{size}.npy") for size in (256, *FINE)}
    model = Denoiser().to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=0.01)
    run = Run(
        arguments.cache / "denoiser.pt",
        steps=arguments.steps,
        minutes=arguments.minutes,
        rate=arguments.rate,
    )
    average = Average(model, 0.998)
    if kept := run.load():
        model.load_state_dict(kept["model"])
        optimiser.load_state_dict(kept["optimiser"])
        average.values = kept["average"]
    rng = np.random.default_rng((arguments.rng_seed, run.step))
    forward = torch.compile(model) if arguments.compile else model
    losses: list[float] = []
    while run.share() < 1:
        for group in optimiser.param_groups:
            group["lr"] = run.learning_rate()
        latent, told, where, scale, highest = (
            t.to(device) for t in draw_batch(latents, embeds, rng)
        )
        # Most weight on middle noise, where a scene decides what it is; some everywhere.
        sigma = torch.sigmoid(torch.randn(len(latent)) + 0.2)
        even = torch.rand(len(latent)) < 0.2
        sigma = torch.where(even, torch.rand(len(latent)), sigma).to(device) * highest
        noise = torch.randn(latent.shape).to(device)
        spread = sigma[:, None, None, None]
        mixed = ((1 - spread) * latent + spread * noise).contiguous(
            memory_format=torch.channels_last
        )
        with in_half(device):
            flow = forward(mixed, sigma, told, position=where, scale=scale)
        mean = functional.avg_pool2d(latent, 3, 1, 1)
        contrast = (latent - mean).square().mean(1, keepdim=True)
        weight = 0.6 + (contrast / 0.15).clamp(max=2)
        error = (flow.float() - (noise - latent)).square()
        loss = (error * weight).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        run.step += 1
        average.update(model, run.step)
        losses.append(float(error[:WHOLE].detach().mean()))
        if run.step % 100 == 0:
            print(f"{run.step} {run.used_s():.0f} s loss {np.mean(losses[-100:]):.4f}", flush=True)
        if run.step % 500 == 0 or run.share() >= 1:
            run.save(
                model=model.state_dict(), optimiser=optimiser.state_dict(), average=average.values
            )
            save(run, average, float(np.mean(losses[-500:])))


def save(run: Run, average: Average, loss: float) -> None:
    """Put the averaged weights into the bundle, in half precision."""
    save_model(
        "denoiser",
        {k: v.half() for k, v in average.values.items()},
        {
            "task": "noise and prompt embedding to latent",
            "recipe": "recipes/denoiser.py",
            "data": "latents of garden views at 256 to 1024 pixels with captions",
            "steps": run.step,
            "batch": BATCH,
            "seconds": round(run.used_s()),
            "metrics": {"flow_matching_loss": round(loss, 4)},
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("task", choices=("encode", "train"))
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--rng-seed", type=int, default=0)
    parser.add_argument(
        "--compile", action="store_true", help="faster, after a minute of compiling"
    )
    arguments = parser.parse_args()
    if arguments.task == "encode":
        encode(arguments.cache)
    else:
        train(arguments)


if __name__ == "__main__":
    main()
