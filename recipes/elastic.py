"""Train one decoder of many sizes, and what it is compared with: decoders of one size each.

    python recipes/data.py --photos FOLDER ...        # once
    python recipes/elastic.py train --minutes 45
    python recipes/elastic.py alone --width 32 --blocks 2 --minutes 10

The latents are those of the bundle's encoder, so all of them decode the same seeds. Each step trains
the largest size, the smallest and one in between on the same crops, by the loss of
`recipes/autoencoder.py` against the picture, and against what the bundle's own decoder makes of the
same latent. A decoder alone is trained the same way, at its own size in every step.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from autoencoder import BATCH, SHARES, draw_batch, reconstruction_loss
from data import CACHE
from torch import Tensor, nn
from torch.func import functional_call
from training import Average, Run, pick_device

from megdt.models.bundle import Bundle
from megdt.models.elastic import LARGEST, SIZES, Size, cut

TEACHER_SHARE = 0.5
"""Of the loss; the rest is the picture's."""


def pick_sizes(rng: np.random.Generator) -> list[Size]:
    between = SIZES[1:-1]
    return [LARGEST, SIZES[0], between[int(rng.integers(len(between)))]]


def train(
    model: nn.Module, sizes: list[Size] | None, run: Run, average: Average,
    optimiser: torch.optim.Optimizer, sources: dict[str, np.ndarray], device: torch.device,
) -> None:  # fmt: skip
    """Args: sizes: Those of every step; drawn anew for each where left out."""
    rng = np.random.default_rng(run.step)
    torch.manual_seed(run.step)
    bundle = Bundle(device=str(device))
    encoder, teacher = bundle._encoder, bundle._decoder
    shapes = {size: size.make().to(device) for size in {*SIZES, *(sizes or [])}}
    while run.share() < 1:
        for group in optimiser.param_groups:
            group["lr"] = run.learning_rate()
        image = draw_batch(sources, rng, device)
        power = torch.full((BATCH,), 1e-4)
        noisy = torch.rand(BATCH) < 1 / 6
        power[noisy] = 10 ** -(torch.rand(int(noisy.sum())) * 5 - 2)
        told = torch.where(noisy, power, torch.zeros(())).to(device)
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
            latent = encoder(image)
            noise = torch.randn(latent.shape) * power.sqrt()[:, None, None, None]
            latent = latent + noise.to(device)
            shown = teacher(latent, told).float()
        weight = 1 / (1 + 50 * told).clamp(max=50)
        optimiser.zero_grad(set_to_none=True)
        losses = []
        for size in sizes or pick_sizes(rng):
            weights = cut(dict(model.named_parameters()), size)
            with torch.autocast(device.type, torch.bfloat16):
                decoded: Tensor = functional_call(shapes[size], weights, (latent, told)).float()
            loss = (1 - TEACHER_SHARE) * reconstruction_loss(decoded, image, weight)
            loss = loss + TEACHER_SHARE * reconstruction_loss(decoded, shown, weight)
            loss.backward()
            losses.append(loss.item())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        run.step += 1
        average.update(model, run.step)
        if run.step % 100 == 0:
            told_losses = " ".join(f"{loss:.4f}" for loss in losses)
            print(f"{run.step} {run.used_s():.0f} s loss {told_losses}", flush=True)
        if run.step % 500 == 0 or run.share() >= 1:
            run.save(
                model=model.state_dict(), optimiser=optimiser.state_dict(), average=average.values
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("train", "alone"))
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--blocks", type=int, default=2)
    arguments = parser.parse_args()
    device = pick_device()
    sources = {n: np.load(arguments.cache / f"{n}.npy", mmap_mode="r") for n in SHARES}
    size = LARGEST
    if arguments.what == "alone":
        size = Size(width=arguments.width, blocks=arguments.blocks)
    name = "elastic" if arguments.what == "train" else f"alone-{size.width}-{size.blocks}"
    model = size.make().to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=1e-4)
    run = Run(
        arguments.cache / f"{name}.pt", steps=arguments.steps, minutes=arguments.minutes,
        rate=arguments.rate,
    )  # fmt: skip
    average = Average(model)
    if kept := run.load():
        model.load_state_dict(kept["model"])
        optimiser.load_state_dict(kept["optimiser"])
        average.values = kept["average"]
    train(
        model,
        None if arguments.what == "train" else [size],
        run,
        average,
        optimiser,
        sources,
        device,
    )


if __name__ == "__main__":
    main()
