"""Train the autoencoder.

    python recipes/data.py --photos FOLDER ...        # once
    python recipes/autoencoder.py --minutes 40
    python recipes/autoencoder.py --minutes 10 --rate 8e-4 --decoder-alone

Data: crops of garden views at 256, 512 and 1024 pixels, and of photographs. Loss: squared error,
heavier where the picture has detail (sky and grass would otherwise pay for soft flowers), plus
the error of local differences. A sixth of the latents is decoded through noise, its power told to
the decoder, so that an analog link may deliver them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from data import CACHE, CROP, HELD_OUT
from torch import Tensor
from torch.nn import functional
from training import Average, Run, in_half, pick_device, save_model

from megdt.models.autoencoder import Decoder, Encoder
from megdt.models.quality import psnr_db
from megdt.worlds.garden import draw_view

BATCH = 16
SHARES = {"views": 12, "close_crops": 2, "photo_crops": 2}


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
    parser.add_argument("--decoder-alone", action="store_true", help="go on with a fixed encoder")
    arguments = parser.parse_args()
    device = pick_device()
    sources = {n: np.load(arguments.cache / f"{n}.npy", mmap_mode="r") for n in SHARES}
    model = torch.nn.ModuleDict({"encoder": Encoder(), "decoder": Decoder()})
    model.to(device, memory_format=torch.channels_last)
    joint = arguments.cache / "autoencoder.pt"
    trained = model
    name = "autoencoder"
    if arguments.decoder_alone:
        # From here on the latents are what they will be: standardised by the running averages.
        model.load_state_dict(torch.load(joint, weights_only=True)["average"])
        model["encoder"].eval().requires_grad_(False)
        trained, name = model["decoder"], "decoder"
    optimiser = torch.optim.AdamW(trained.parameters(), betas=(0.9, 0.99), weight_decay=1e-4)
    run = Run(
        arguments.cache / f"{name}.pt",
        steps=arguments.steps,
        minutes=arguments.minutes,
        rate=arguments.rate,
    )
    average = Average(model)
    if kept := run.load():
        model.load_state_dict(kept["model"])
        optimiser.load_state_dict(kept["optimiser"])
        average.values = kept["average"]
    train(model, optimiser, run, average, sources, device)
    model.load_state_dict(average.values)
    metrics = measure(model.cpu().eval())
    print(metrics)
    joint_run = Run(joint, steps=1, minutes=1, rate=0)
    joint_run.load()
    tasks = {"encoder": "picture to latent", "decoder": "latent to picture"}
    for half, task in tasks.items():
        if arguments.decoder_alone and half == "encoder":
            continue
        alone = f", then {run.step} steps alone" if arguments.decoder_alone else ""
        seconds = joint_run.seconds + (run.used_s() if arguments.decoder_alone else 0)
        card = {
            "task": task,
            "recipe": "recipes/autoencoder.py",
            "data": ", ".join(f"{n.replace('_', ' ')} ({len(p)})" for n, p in sources.items())
            + alone,
            "steps": joint_run.step + (run.step if arguments.decoder_alone else 0),
            "batch": BATCH,
            "seconds": round(seconds),
            "metrics": metrics,
        }
        save_model(half, average.of(half), card)


def train(
    model: torch.nn.ModuleDict,
    optimiser: torch.optim.Optimizer,
    run: Run,
    average: Average,
    sources: dict[str, np.ndarray],
    device: torch.device,
) -> None:
    rng = np.random.default_rng(run.step)
    torch.manual_seed(run.step)
    while run.share() < 1:
        for group in optimiser.param_groups:
            group["lr"] = run.learning_rate()
        image = draw_batch(sources, rng, device)
        # A sixth of the latents meets channel noise, -20 to 30 dB; all meet that of 8-bit numbers.
        power = torch.full((BATCH,), 1e-4)
        noisy = torch.rand(BATCH) < 1 / 6
        power[noisy] = 10 ** -(torch.rand(int(noisy.sum())) * 5 - 2)
        told = torch.where(noisy, power, torch.zeros(())).to(device)
        with in_half(device):
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
            psnr = -10 * mse.log10().mean()
            print(f"{run.step} {run.used_s():.0f} s loss {loss:.4f} psnr {psnr:.2f}", flush=True)
        if run.step % 1000 == 0 or run.share() >= 1:
            run.save(
                model=model.state_dict(), optimiser=optimiser.state_dict(), average=average.values
            )


@torch.inference_mode()
def measure(model: torch.nn.ModuleDict) -> dict[str, float]:
    """PSNR on held-out views, over the picture and inside the flowers' masks."""
    whole, inside = [], []
    for seed in range(HELD_OUT, HELD_OUT + 100):
        garden, view = draw_view(seed)
        image, mask = garden.render(view), garden.flower_mask(view)
        batch = torch.from_numpy(image)[None].permute(0, 3, 1, 2).float() / 127.5 - 1
        decoded = (model["decoder"](model["encoder"](batch)) * 127.5 + 127.5).round().clamp(0, 255)
        again = decoded[0].permute(1, 2, 0).to(torch.uint8).numpy()
        whole.append(psnr_db(again, image))
        if mask.sum() > 200:
            inside.append(psnr_db(again[mask][None], image[mask][None]))
    return {
        "held_out_psnr_db": round(float(np.mean(whole)), 2),
        "held_out_psnr_inside_flowers_db": round(float(np.mean(inside)), 2),
    }


if __name__ == "__main__":
    main()
