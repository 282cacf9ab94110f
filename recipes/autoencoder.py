"""Train the autoencoder.

    python recipes/data.py --photos FOLDER ...        # once
    python recipes/autoencoder.py --minutes 40

Data: crops of garden views at 256, 512 and 1024 pixels, and of photographs. Loss: squared error,
heavier where the picture has detail (sky and grass would otherwise pay for soft flowers), plus
the error of local differences. A fifth of the latents is decoded through noise, its power told to
the decoder, so that an analog link may deliver them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from data import CACHE, CROP
from torch import Tensor
from torch.nn import functional
from training import Average, Run, pick_device, save_model

from megdt.models.autoencoder import Decoder, Encoder

BATCH = 16
SHARES = {"views": 10, "close_crops": 3, "photo_crops": 3}


def draw_batch(
    sources: dict[str, np.ndarray], rng: np.random.Generator, device: torch.device
) -> Tensor:
    crops = []
    for name, count in SHARES.items():
        pictures = sources[name]
        for index in rng.integers(0, len(pictures), count):
            picture = pictures[index]
            # Flowers stand in the lower three quarters: crop there more often than in the sky.
            top, left = (int(rng.integers(0, picture.shape[0] - CROP + 1)) for _ in range(2))
            if name == "views" and rng.uniform() < 0.6:
                top = int(rng.integers(40, picture.shape[0] - CROP + 1))
            crop = picture[top : top + CROP, left : left + CROP]
            crops.append(crop[:, ::-1] if rng.uniform() < 0.5 else crop)
    batch = torch.from_numpy(np.stack(crops)).to(device).permute(0, 3, 1, 2)
    return (batch.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def reconstruction_loss(decoded: Tensor, image: Tensor, sample_weight: Tensor) -> Tensor:
    """Squared error weighted by local contrast, and the error of neighbour differences."""
    mean = functional.avg_pool2d(image, 9, 1, 4)
    contrast = functional.avg_pool2d((image - mean).square().mean(1, keepdim=True), 9, 1, 4)
    weight = 1 + 6 * (contrast / 0.05).clamp(max=1)
    error = 4 * ((decoded - image).square() * weight).mean((1, 2, 3))
    for dim in (2, 3):
        error = error + 0.3 * (decoded.diff(dim=dim) - image.diff(dim=dim)).abs().mean((1, 2, 3))
    return (error * sample_weight).mean()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--rate", type=float, default=1.2e-3)
    arguments = parser.parse_args()
    device = pick_device()
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    sources = {n: np.load(arguments.cache / f"{n}.npy", mmap_mode="r") for n in SHARES}
    model = torch.nn.ModuleDict({"encoder": Encoder(), "decoder": Decoder()})
    model.to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=1e-4)
    run = Run(
        arguments.cache / "autoencoder.pt",
        steps=arguments.steps,
        minutes=arguments.minutes,
        rate=arguments.rate,
    )
    average = Average(model)
    if kept := run.load():
        model.load_state_dict(kept["model"])
        optimiser.load_state_dict(kept["optimiser"])
        average.values = kept["average"]
        rng = np.random.default_rng(run.step)
    while run.share() < 1:
        for group in optimiser.param_groups:
            group["lr"] = run.learning_rate()
        image = draw_batch(sources, rng, device)
        # A fifth of the latents meets channel noise, -20 to 30 dB; all meet a little.
        power = torch.full((BATCH,), 3e-4)
        noisy = torch.rand(BATCH) < 0.2
        power[noisy] = 10 ** -(torch.rand(int(noisy.sum())) * 5 - 2)
        told = torch.where(noisy, power, torch.zeros(())).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            latent = model["encoder"](image)
            noise = torch.randn(latent.shape) * power.sqrt()[:, None, None, None]
            decoded = model["decoder"](latent + noise.to(device), told)
        # What noise has destroyed cannot be learnt; without this it would fill the gradient.
        sample_weight = 1 / (1 + 50 * told).clamp(max=50)
        loss = reconstruction_loss(decoded.float(), image, sample_weight)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        run.step += 1
        average.update(model, run.step)
        if run.step % 100 == 0:
            clean = ~noisy.to(device)
            mse = (decoded[clean].float().clamp(-1, 1) - image[clean]).square().mean((1, 2, 3)) / 4
            psnr = -10 * mse.log10()
            print(
                f"{run.step} {run.used_s():.0f} s loss {loss:.4f} psnr {psnr.mean():.2f}",
                flush=True,
            )
        if run.step % 1000 == 0 or run.share() >= 1:
            run.save(
                model=model.state_dict(), optimiser=optimiser.state_dict(), average=average.values
            )
    for half in ("encoder", "decoder"):
        weights = {
            k.removeprefix(half + "."): v for k, v in average.values.items() if k.startswith(half)
        }
        weights.pop("standardise.num_batches_tracked", None)
        save_model(
            half,
            weights,
            {
                "task": {"encoder": "picture to latent", "decoder": "latent to picture"}[half],
                "recipe": "recipes/autoencoder.py",
                "data": f"garden views ({len(sources['views'])}), close crops ({len(sources['close_crops'])}), "
                f"photograph crops ({len(sources['photo_crops'])})",
                "steps": run.step,
                "batch": BATCH,
                "seconds": round(run.used_s()),
            },
        )


if __name__ == "__main__":
    main()
