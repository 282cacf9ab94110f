"""Train a joint source-channel code for an autoencoder of one's own, such as TAEF2.

    python recipes/own_jscc.py --model FOLDER --photos FOLDER ... --minutes 30

FOLDER has NAME_encoder.safetensors and NAME_decoder.safetensors, and gets jscc.safetensors and
jscc.json beside them, for `--model FOLDER --codec jscc`.

It begins with the linear code that is best under the picture's error: how much of that a latent's error
makes is taken from the decoder, backwards from random pixels, as a matrix over 2 x 2 blocks; its
principal axes are the maps, and their strengths shared out as Lee and Petersen (1976) do where noise
is low. The networks are what is better than linear. They learn by that matrix, for a call of such a
decoder takes many times as long as theirs, and in the last part of the time by some pictures too. It
runs on the processor.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data import CACHE, CROP, crop_photographs
from jscc import draw_channel, picture_error, transmit
from torch import Tensor, nn
from torch.nn import functional
from training import Average, Run, save_model

from megdt.models.jscc import JsccDecoder, JsccEncoder
from megdt.models.tiny_autoencoder import TinyAutoencoder

BATCH = 24
PICTURES = 2
"""Of a batch, those that the decoder shows in the last part."""
LAST_PART = 0.3
WIDTHS = {"encoder": (128, 128, 160), "decoder": (160, 160, 192)}


@dataclass(frozen=True)
class Linear:
    """The code to begin with. Axes are blocks' 4 C numbers and as many maps."""

    analysis: Tensor
    """Latent to maps of unit variance. [maps, block]"""
    synthesis: Tensor
    """Back. [block, maps]"""
    mean: Tensor
    """[block]"""
    strengths: Tensor
    """Amplitudes of the maps. [maps]"""
    metric: Tensor
    """Square root of what an error of a block adds to a picture's, per pixel. [block, block]"""


def encode(model: TinyAutoencoder, cache: Path, photos: list[Path], count: int) -> dict[str, Any]:
    """Crops and their latents, kept in the cache under the model's checksum: other photographs need
    another cache.
    """
    path = cache / f"own_{model.checksum[:12]}.npz"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        crop_photographs(photos, cache / "own_crops.npy")
        crops = np.load(cache / "own_crops.npy", mmap_mode="r")
        picked = np.random.default_rng(0).permutation(len(crops))[:count]
        images = np.asarray(crops[np.sort(picked)])
        parts = [model.encode(images[i : i + 20]) for i in range(0, len(images), 20)]
        np.savez(path, images=images, latents=np.concatenate(parts).astype(np.float16))
    found = dict(np.load(path))
    print(f"{len(found['latents'])} crops in {path}", flush=True)
    return found


def blocks_of(latent: Tensor) -> Tensor:
    """[blocks, 4 C]"""
    return functional.pixel_unshuffle(latent, 2).permute(0, 2, 3, 1).flatten(0, 2)


def find_metric(decoder: nn.Module, latents: Tensor, *, rounds: int = 40, batch: int = 8) -> Tensor:
    """What a latent's error adds to the picture's, by blocks: mean J^T J of the decoder. [4 C, 4 C]"""
    generator = torch.Generator().manual_seed(0)
    size = 4 * latents.shape[1]
    total, count = torch.zeros(size, size), 0
    for _ in range(rounds):
        picked = torch.randint(len(latents), (batch,), generator=generator)
        latent = latents[picked].requires_grad_(True)
        image = decoder(latent)
        signs = torch.randint(0, 2, image.shape, generator=generator).float() * 2 - 1
        (pulled,) = torch.autograd.grad((image * signs).sum(), latent)
        rows = blocks_of(pulled)
        total, count = total + rows.T @ rows, count + len(rows)
    return total / count


def fit_linear(latents: Tensor, decoder: nn.Module) -> Linear:
    """Principal axes under the picture's error."""
    metric = find_metric(decoder, latents)
    values, vectors = torch.linalg.eigh(
        metric + 1e-3 * metric.trace() / len(metric) * torch.eye(len(metric))
    )
    root = (vectors * values.sqrt()) @ vectors.T
    unroot = (vectors / values.sqrt()) @ vectors.T
    rows = blocks_of(latents)
    mean = rows.mean(0)
    seen = (rows - mean) @ root
    spread, axes = torch.linalg.eigh(seen.T @ seen / len(seen))
    spread, axes = spread.flip(0).clamp(min=1e-8), axes.flip(1)
    return Linear(
        analysis=(axes / spread.sqrt()).T @ root,
        synthesis=unroot @ (axes * spread.sqrt()),
        mean=mean,
        strengths=(spread / spread[0]) ** 0.25,
        metric=root,
    )


def build(linear: Linear, channels: int) -> nn.ModuleDict:
    """The two networks, as the linear code."""
    made = {"channels": channels, "strengths": linear.strengths}
    encoder = JsccEncoder(widths=WIDTHS["encoder"], **made)
    decoder = JsccDecoder(widths=WIDTHS["decoder"], **made)
    with torch.no_grad():
        encoder.basis.copy_(linear.analysis)
        encoder.network.leave.bias.copy_(-linear.analysis @ linear.mean)
        decoder.basis.copy_(linear.synthesis.T)
        decoder.network.leave.bias.copy_(linear.mean)
    return nn.ModuleDict({"encoder": encoder, "decoder": decoder})


def train(
    net: nn.ModuleDict, linear: Linear, decoder: nn.Module, data: dict[str, Any], run: Run, average: Average,
    optimiser: torch.optim.Optimizer,
) -> None:  # fmt: skip
    latents, images = torch.from_numpy(data["latents"]), data["images"]
    maps_in_all = 4 * latents.shape[1]
    rng = np.random.default_rng(run.step)
    chance = torch.Generator().manual_seed(run.step)
    torch.manual_seed(run.step)
    nothing = torch.zeros(BATCH)
    shown: list[float] = []
    while run.share() < 1:
        for group in optimiser.param_groups:
            group["lr"] = run.learning_rate()
        picked = rng.integers(0, len(latents), BATCH)
        latent = latents[picked].float().contiguous(memory_format=torch.channels_last)
        told_power, met_power = draw_channel(BATCH, chance, maps=maps_in_all)
        maps = torch.from_numpy(np.round(maps_in_all * 2 ** rng.uniform(-3, 0, BATCH))).float()
        maps = torch.where(torch.rand(BATCH, generator=chance) < 0.3, float(maps_in_all), maps)
        mended, _ = transmit(
            net, latent, torch.zeros_like(latent), nothing, maps, told_power, met_power
        )
        away = blocks_of(mended - latent).reshape(BATCH, -1, maps_in_all) @ linear.metric
        # A mean over the block's pixels, each of three colours from 0 to 1.
        error = away.square().mean(1).sum(1) / (3 * CROP**2 / away.shape[1])
        loss = (error + 1e-4).log().mean()
        if run.share() > 1 - LAST_PART:
            pictures = torch.from_numpy(images[picked[:PICTURES]]).permute(0, 3, 1, 2) / 127.5 - 1
            seen = picture_error(decoder(mended[:PICTURES]) * 2 - 1, pictures)
            loss = loss + (seen + 1e-3).log().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        run.step += 1
        average.update(net, run.step)
        shown.append(float(error.detach().log().mean()))
        if run.step % 100 == 0:
            print(
                f"{run.step} {run.used_s():.0f} s log error {np.mean(shown[-100:]):.3f}", flush=True
            )
        if run.step % 500 == 0 or run.share() >= 1:
            run.save(
                model=net.state_dict(), optimiser=optimiser.state_dict(), average=average.values
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", required=True, metavar="FOLDER")
    parser.add_argument("--photos", type=Path, nargs="+", required=True, metavar="FOLDER")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--crops", type=int, default=3000)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=float, default=1e-3)
    arguments = parser.parse_args()
    model = TinyAutoencoder(arguments.model)
    data = encode(model, arguments.cache, arguments.photos, arguments.crops)
    decoder = model._decoder.requires_grad_(False)
    linear = fit_linear(torch.from_numpy(data["latents"]).float(), decoder)
    net = build(linear, model.space.channels)
    optimiser = torch.optim.AdamW(net.parameters(), betas=(0.9, 0.99), weight_decay=1e-4)
    run = Run(
        arguments.cache / f"own_jscc_{model.checksum[:12]}.pt", steps=arguments.steps,
        minutes=arguments.minutes, rate=arguments.rate,
    )  # fmt: skip
    average = Average(net, 0.998)
    if kept := run.load():
        net.load_state_dict(kept["model"])
        optimiser.load_state_dict(kept["optimiser"])
        average.values = kept["average"]
    train(net, linear, decoder, data, run, average, optimiser)
    save_model(
        "jscc", {key: value.half() for key, value in average.values.items()},
        {
            "task": "seed to analog symbols and back, told the SNR",
            "recipe": "recipes/own_jscc.py",
            "data": f"{len(data['latents'])} crops of photographs, their latents by {model.folder.name}",
            "steps": run.step,
            "batch": BATCH,
            "seconds": round(run.used_s()),
            "metrics": {},
            "autoencoder_sha256": model.checksum,
            "channels": model.space.channels,
            "widths": WIDTHS,
            "strengths": [round(float(value), 5) for value in linear.strengths],
        },
        model.folder,
    )  # fmt: skip
    print(f"weights: {model.folder / 'jscc.safetensors'}")


if __name__ == "__main__":
    main()
