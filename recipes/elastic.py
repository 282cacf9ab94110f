"""Train one decoder of many sizes, and what it is compared with: decoders of one size each.

    python recipes/data.py --photos FOLDER ...        # once
    python recipes/elastic.py draw
    python recipes/elastic.py train --minutes 45
    python recipes/elastic.py alone --width 32 --blocks 2 --minutes 10
    python recipes/elastic.py measure                 # all that have been trained, on held-out views
    python recipes/elastic.py variant --out FOLDER    # the one of many sizes, as megdt compress writes it

The latents are those of the bundle's encoder, so all of them decode the same seeds. `draw` keeps crops,
their latents, a sixth of them with noise, and what the bundle's own decoder makes of these. Each step
trains two sizes on the same crops, by the loss of `recipes/autoencoder.py`; what is wanted is half of
the picture, half of what the bundle's decoder shows. A decoder alone is trained the same way, at its
own size in every step.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from autoencoder import BATCH, SHARES, draw_batch
from data import CACHE, CROP
from torch import Tensor, nn
from torch.func import functional_call
from training import Average, Run, in_half, pick_device

from megdt.compression.compressor import Compressor
from megdt.compression.distillation import output_loss, weigh
from megdt.compression.recipes import ELASTIC
from megdt.link.energy import load_profile
from megdt.models.autoencoder import Decoder
from megdt.models.bundle import Bundle
from megdt.models.elastic import LARGEST, SIZES, Size, cut
from megdt.models.quality import perceptual_distance, psnr_db

KEPT = ("crops", "latents", "told", "shown")


def draw(cache: Path, count: int, device: torch.device) -> None:
    """Keep crops, their latents with noise, its power as it is told, and what the teacher shows."""
    sources = {n: np.load(cache / f"{n}.npy", mmap_mode="r") for n in SHARES}
    bundle, rng = Bundle(device=str(device)), np.random.default_rng(0)
    shapes = ((3, CROP, CROP), (4, CROP // 8, CROP // 8), (), (3, CROP, CROP))
    kinds = (np.uint8, np.float32, np.float32, np.uint8)
    kept = {
        name: np.lib.format.open_memmap(cache / f"elastic_{name}.npy", "w+", kind, (count, *shape))
        for name, kind, shape in zip(KEPT, kinds, shapes, strict=True)
    }
    torch.manual_seed(0)
    for start in range(0, count, BATCH):
        there = slice(start, start + BATCH)
        image = draw_batch(sources, rng, device)
        power = torch.full((BATCH,), 1e-4)
        noisy = torch.rand(BATCH) < 1 / 6
        power[noisy] = 10 ** -(torch.rand(int(noisy.sum())) * 5 - 2)
        told = torch.where(noisy, power, torch.zeros(()))
        with torch.no_grad():
            latent = bundle._encoder(image).cpu()
            latent = latent + torch.randn(latent.shape) * power.sqrt()[:, None, None, None]
            shown = bundle._decoder(latent.to(device), told.to(device))
        values = (_to_bytes(image), latent.numpy(), told.numpy(), _to_bytes(shown))
        for name, each in zip(KEPT, values, strict=True):
            kept[name][there] = each
        if start % (50 * BATCH) == 0:
            print(f"{start} of {count}", flush=True)


def _to_bytes(image: Tensor) -> np.ndarray:
    return (image * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8).cpu().numpy()


def pick_sizes(rng: np.random.Generator) -> list[Size]:
    """Two: the larger ones hold what the smaller ones share."""
    first, second = rng.choice(len(SIZES), 2, replace=False)
    return [SIZES[first], SIZES[second]]


def train(
    model: nn.Module, alone: Size | None, run: Run, average: Average,
    optimiser: torch.optim.Optimizer, cache: Path, device: torch.device,
) -> None:  # fmt: skip
    rng = np.random.default_rng(run.step)
    kept = {name: np.load(cache / f"elastic_{name}.npy", mmap_mode="r") for name in KEPT}
    shapes = {size: size.make().to(device) for size in {*SIZES, *([alone] if alone else [])}}
    while run.share() < 1:
        for group in optimiser.param_groups:
            group["lr"] = run.learning_rate()
        chosen = np.sort(rng.integers(0, len(kept["told"]), BATCH))
        crops, latent, told, shown = (
            torch.from_numpy(kept[name][chosen]).to(device) for name in KEPT
        )
        image = crops.float() / 127.5 - 1
        wanted = (image + shown.float() / 127.5 - 1) / 2
        weight = weigh(image, told)
        optimiser.zero_grad(set_to_none=True)
        losses = {}
        for size in [alone] if alone else pick_sizes(rng):
            weights = cut(dict(model.named_parameters()), size)
            with in_half(device, enabled=size.width > 32):
                decoded: Tensor = functional_call(shapes[size], weights, (latent, told)).float()
            loss = output_loss(decoded, wanted, weight, told)
            loss.backward()
            losses[size.width] = loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        run.step += 1
        average.update(model, run.step)
        if run.step % 100 == 0:
            print(f"{run.step} {run.used_s():.0f} s {losses}", flush=True)
        if run.step % 500 == 0 or run.share() >= 1:
            run.save(
                model=model.state_dict(), optimiser=optimiser.state_dict(), average=average.values
            )


def measure(cache: Path, views: int) -> None:
    """PSNR and perceptual distance on held-out views, beside the bundle's own decoder."""
    bundle = Bundle()
    pictures = np.load(cache / "held_out_views.npy", mmap_mode="r")[:views]
    latents = bundle.encode(np.array(pictures))
    decoders: dict[str, Decoder] = {"bundle": bundle._decoder}
    for path in [cache / "elastic.pt", *sorted(cache.glob("alone-*.pt"))]:
        if not path.exists():
            continue
        kept = torch.load(path, weights_only=True)
        words = path.stem.split("-")
        sizes = SIZES if len(words) == 1 else (Size(width=int(words[1]), blocks=int(words[2])),)
        for size in sizes:
            decoder = size.make().eval()
            decoder.load_state_dict(cut(kept["average"], size))
            decoders[f"{words[0]} {size.width}, {size.blocks}, {kept['step']} steps"] = decoder
    for name, decoder in decoders.items():
        psnr, far = [], []
        for picture, latent in zip(pictures, latents, strict=True):
            with torch.inference_mode():
                image = decoder(torch.from_numpy(latent)[None])[0]
            shown = (image * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)
            pixels = shown.permute(1, 2, 0).numpy()
            psnr.append(psnr_db(pixels, picture))
            far.append(perceptual_distance(pixels[None], np.array(picture)[None])[0])
        print(f"{name}: {np.mean(psnr):.2f} dB, ST-LPIPS {np.mean(far):.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("draw", "train", "alone", "measure", "variant"))
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--crops", type=int, default=24_000)
    parser.add_argument("--views", type=int, default=60, help="measured")
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--out", type=Path, default=Path("elastic-decoder"))
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--blocks", type=int, default=2)
    arguments = parser.parse_args()
    device = pick_device()
    if arguments.what == "draw":
        draw(arguments.cache, arguments.crops, device)
        return
    if arguments.what == "measure":
        measure(arguments.cache, arguments.views)
        return
    if arguments.what == "variant":
        maker, model = Compressor("decoder", device=load_profile("phone")), LARGEST.make()
        model.load_state_dict(
            torch.load(arguments.cache / "elastic.pt", weights_only=True)["average"]
        )
        maker.write(maker.estimate(ELASTIC), arguments.out, model=model)
        print((arguments.out / "README.md").read_text())
        return
    alone = None
    if arguments.what == "alone":
        alone = Size(width=arguments.width, blocks=arguments.blocks)
    size = alone or LARGEST
    name = f"alone-{size.width}-{size.blocks}" if alone else "elastic"
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
    train(model, alone, run, average, optimiser, arguments.cache, device)


if __name__ == "__main__":
    main()
