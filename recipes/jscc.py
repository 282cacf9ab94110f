"""Train the joint source-channel code, through the picture's decoder.

    python recipes/data.py --photos FOLDER ...     # once
    python recipes/denoiser.py encode              # once: latents of the views
    python recipes/jscc.py encode                  # once: coarse seeds
    python recipes/jscc.py train --minutes 75     # calibrates in the end

Every sample meets its own SNR (-20 to 30 dB, told to both ends), its own number of symbol maps, and
AWGN or fading; a third of them has a coarse seed that went ahead as bits, of its own rate. The loss is the
logarithm of the decoded picture's error, so that a decibel counts alike at every SNR. The picture's
decoder takes part and stays as it is: every scheme is judged by the same one.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data import CACHE, CROP
from torch import Tensor
from torch.nn import functional
from training import BUNDLE, Average, Run, in_half, pick_device, save_model

from megdt.codecs import Codec
from megdt.codecs.jscc import PlainSeedCodec
from megdt.codecs.progressive import ProgressiveSeedCodec
from megdt.link.radio import RadioLink
from megdt.models.bundle import Bundle
from megdt.models.jscc import (
    SYMBOL_CHANNELS,
    JsccDecoder,
    JsccEncoder,
    normalise_power,
    tell,
)
from megdt.models.quality import perceptual_distance
from megdt.records import Delivery, Feature
from megdt.scenario import hybrid_codec, parse_scenario

BATCH = 24
LATENT_CROP = CROP // 8
PHOTOGRAPHS = 0.15
"""Share of the batches that are photographs."""

COARSE_COUNTS = {"views": 12000, "photos": 4000}
COARSE = 0.4
RATES = (0.25, 0.5, 0.75, 1.0)
SHARES = (0.0, 0.5, 1.0)
"""Share of the samples with a coarse seed that went ahead."""


def principal_basis(latents: np.ndarray) -> Tensor:
    """Orthonormal axes of 2 x 2 blocks of the latent, by falling variance."""
    blocks = functional.pixel_unshuffle(torch.from_numpy(latents[:2000].astype(np.float32)), 2)
    flat = blocks.permute(1, 0, 2, 3).reshape(SYMBOL_CHANNELS, -1)
    _, vectors = torch.linalg.eigh(flat @ flat.T / flat.shape[1])
    return vectors.flip(1).T.contiguous()


def draw_channel(
    count: int, rng: torch.Generator, *, maps: int = SYMBOL_CHANNELS
) -> tuple[Tensor, Tensor]:
    """Noise power told to both ends, and that which each symbol meets. [batch], [batch, maps, h, w]"""
    snr_db = torch.rand(count, generator=rng) * 50 - 20
    told = 10 ** (-snr_db / 10)
    size = (count, maps, LATENT_CROP // 2, 1)
    # Fading is alike over some hundred symbols: rows of a map.
    gain = torch.empty(size).exponential_(generator=rng).clamp(min=1e-3)
    fading = torch.rand(count, generator=rng) < 0.25
    met = told[:, None, None, None] / torch.where(fading[:, None, None, None], gain, torch.ones(()))
    return told, met


def transmit(
    model: torch.nn.ModuleDict,
    latent: Tensor,
    coarse: Tensor,
    coarse_bits: Tensor,
    maps: Tensor,
    told_power: Tensor,
    met_power: Tensor,
) -> tuple[Tensor, Tensor]:
    """Through the code and its channel."""
    told = tell(told_power, maps, coarse_bits, channels=latent.shape[1])
    symbols = normalise_power(model["encoder"](latent, coarse, told).float(), maps)
    met = met_power.repeat_interleave(symbols.shape[2] // met_power.shape[2], 2).expand_as(symbols)
    received = symbols + torch.randn_like(symbols) * met.sqrt()
    index = torch.arange(symbols.shape[1])
    sent = (index[None, :] < maps[:, None])[:, :, None, None]
    share = torch.where(sent, 1 / (1 + met), 0)
    mended, noise_power = model["decoder"](received, share, coarse, told)
    return mended.float(), noise_power.float()


def picture_error(decoded: Tensor, image: Tensor) -> Tensor:
    error = 4 * (decoded - image).square().mean((1, 2, 3))
    for dim in (2, 3):
        error = error + 0.15 * (decoded.diff(dim=dim) - image.diff(dim=dim)).abs().mean((1, 2, 3))
    return error


def code_coarsely(cache: Path, name: str, latents: np.ndarray, count: int) -> None:
    """Two progressive seeds of every latent, each at a rate of its own, as the receiver has them."""
    rng = np.random.default_rng(0)
    shape = latents.shape[1:]
    elements = int(np.prod(shape))
    seeds = np.zeros((count, 2, *shape), np.float16)
    bits = np.zeros((count, 2), np.float32)
    for index in range(count):
        for version in range(2):
            budget = max(int(elements * 2 ** rng.uniform(-4.8, 1.6)), 60)
            codec = ProgressiveSeedCodec(shape=shape, budget_bits=budget)
            seed = Feature(kind="seed", values=latents[index].astype(np.float32))
            payload = codec.encode(seed).payload
            seeds[index, version] = codec.decode(Delivery(payload=payload)).values
            bits[index, version] = 8 * len(payload) / elements
    np.savez(cache / f"coarse_{name}.npz", seeds=seeds, bits=bits)


class Sources:
    """Latents with their pictures and, where known, coarse versions of both."""

    def __init__(self, cache: Path) -> None:
        self.views = np.load(cache / "views.npy", mmap_mode="r")
        self.latents = np.load(cache / "latents_256.npy", mmap_mode="r")
        self.photographs = np.load(cache / "photo_crops.npy", mmap_mode="r")
        self.photo_latents = np.load(cache / "latents_photos.npy", mmap_mode="r")
        self.coarse = {}
        for name in COARSE_COUNTS:
            path = cache / f"coarse_{name}.npz"
            if path.exists():
                kept = np.load(path)
                self.coarse[name] = (kept["seeds"], kept["bits"])

    def draw(self, rng: np.random.Generator) -> tuple[Tensor, ...]:
        """Latents, coarse seeds, their bits an element, and the pictures of a crop of each."""
        photographs = rng.uniform() < PHOTOGRAPHS
        latents = self.photo_latents if photographs else self.latents
        pictures = self.photographs if photographs else self.views
        name = "photos" if photographs else "views"
        picked = rng.integers(0, len(latents), BATCH)
        has = np.zeros(BATCH, bool)
        if name in self.coarse:
            has = rng.uniform(size=BATCH) < COARSE
            picked[has] = rng.integers(0, len(self.coarse[name][0]), int(has.sum()))
        latent = latents[picked].astype(np.float32)
        coarse, bits = np.zeros_like(latent), np.zeros(BATCH, np.float32)
        if has.any():
            seeds, rates = self.coarse[name]
            version = rng.integers(0, seeds.shape[1], BATCH)
            coarse[has] = seeds[picked[has], version[has]]
            bits[has] = rates[picked[has], version[has]]
        span = latent.shape[-1] - LATENT_CROP
        top, left = rng.integers(0, span + 1, 2)
        crops = np.stack(
            [pictures[i, 8 * top : 8 * top + CROP, 8 * left : 8 * left + CROP] for i in picked]
        )
        image = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 127.5 - 1
        corner = torch.tensor([top, left])
        return (
            torch.from_numpy(latent),
            torch.from_numpy(coarse),
            torch.from_numpy(bits),
            image,
            corner,
        )


def train(
    model: torch.nn.ModuleDict,
    optimiser: torch.optim.Optimizer,
    run: Run,
    average: Average,
    sources: Sources,
    device: torch.device,
) -> None:
    decoder = Bundle(device=str(device))._decoder.requires_grad_(False)
    del decoder.forward  # the counting of operations is for inference
    rng = np.random.default_rng(run.step)
    chance = torch.Generator().manual_seed(run.step)
    torch.manual_seed(run.step)
    shown: list[tuple[float, float]] = []
    while run.share() < 1:
        for group in optimiser.param_groups:
            group["lr"] = run.learning_rate()
        latent, coarse, bits, image, corner = (t.to(device) for t in sources.draw(rng))
        told_power, met_power = draw_channel(BATCH, chance)
        maps = torch.from_numpy(rng.integers(1, SYMBOL_CHANNELS // 2 + 1, BATCH) * 2).float()
        half = torch.from_numpy(rng.uniform(size=BATCH))
        maps = torch.where(half < 0.25, 8.0, torch.where(half < 0.5, 16.0, maps))
        # A coarse seed may be all that is sent.
        maps = torch.where((bits > 0) & (half > 0.5), 0.0, maps)
        with in_half(device):
            mended, power = transmit(
                model,
                latent.contiguous(memory_format=torch.channels_last),
                coarse,
                bits,
                maps,
                told_power,
                met_power,
            )
            top, left = corner.tolist()
            crop = mended[:, :, top : top + LATENT_CROP, left : left + LATENT_CROP]
            decoded = decoder(crop.contiguous(memory_format=torch.channels_last), power).float()
        error = picture_error(decoded, image)
        away = (mended - latent).square().mean((1, 2, 3))
        loss = (error + 1e-3).log().mean() + 0.1 * (away + 1e-3).log().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        run.step += 1
        average.update(model, run.step)
        shown.append((float(loss.detach()), float(away.detach().mean())))
        if run.step % 100 == 0:
            means = np.mean(shown[-100:], 0)
            print(
                f"{run.step} {run.used_s():.0f} s loss {means[0]:.4f} latent {means[1]:.4f}",
                flush=True,
            )
        if run.step % 500 == 0 or run.share() >= 1:
            run.save(
                model=model.state_dict(), optimiser=optimiser.state_dict(), average=average.values
            )


def save(run: Run, average: Average) -> None:
    """Put the averaged weights into the bundle, in half precision."""
    coarse = "the progressive codec's seeds of 12000 views and 4000 crops"
    save_model(
        "jscc",
        {k: v.half() for k, v in average.values.items()},
        {
            "task": "seed to analog symbols and back, told the SNR",
            "recipe": "recipes/jscc.py",
            "data": f"latents of garden views and photograph crops, {coarse}",
            "steps": run.step,
            "batch": BATCH,
            "seconds": round(run.used_s()),
            "metrics": {},
            "choices": [],
        },
    )


def calibrate(
    cache: Path, pictures: int
) -> tuple[list[dict[str, Any]], dict[str, dict[str, float]]]:
    """How much to send as symbols at each SNR and rate: what looks best.

    The first views of the training set are sent through the real link, bit-true; where two choices
    come out nearly alike, four times as many views decide.
    """
    bundle = Bundle()
    views = np.array(np.load(cache / "views.npy", mmap_mode="r")[: 4 * pictures])
    seeds = bundle.encode(views)
    choices, metrics = [], {}
    for rate in RATES:
        for snr_db in range(-20, 41, 5):
            tables = {
                "request": {"prompt": "view"},
                "plan": {"mechanism": "ue_to_es", "symbol_rate": rate},
                # The table that carries most at this SNR, as a well-run cell would have it.
                "link": {"snr_db": float(snr_db), "mcs_table": 1 if snr_db < 20 else 2},
            }
            scenario = parse_scenario(tables, source="calibration")
            codecs: dict[float | None, Codec] = {
                share: hybrid_codec(scenario, share=share) for share in SHARES
            }
            if rate == 1:
                codecs[None] = PlainSeedCodec(shape=seeds.shape[1:])
            found = {
                share: measure(codec, scenario.link, bundle, seeds[:pictures], views[:pictures])
                for share, codec in codecs.items()
            }
            close = near_ties(found)
            found |= {
                share: measure(codecs[share], scenario.link, bundle, seeds, views)
                for share in close
            }
            best = min(close or found, key=lambda share: found[share])
            choices.append({"snr_db": snr_db, "rate": rate, "share": best})
            name = f"rate {rate:g}, {snr_db} dB"
            metrics[name] = {
                "plain" if share is None else f"{share:.0%} symbols": round(distance, 4)
                for share, distance in found.items()
            }
            print(name, metrics[name], flush=True)
    return choices, metrics


def near_ties(found: dict[float | None, float]) -> list[float | None]:
    """Choices within 5 % of the best, if any differs from it; those that are one are equal."""
    best = min(found.values())
    close = [share for share, distance in found.items() if distance < 1.05 * best]
    return close if len({found[share] for share in close}) > 1 else []


def measure(
    codec: Codec, link: RadioLink, bundle: Bundle, seeds: np.ndarray, views: np.ndarray
) -> float:
    """Mean perceptual distance of the pictures that arrive; grey where nothing does."""
    pictures = np.full_like(views, 128)
    for number, seed in enumerate(seeds):
        packet = codec.encode(Feature(kind="seed", values=seed))
        delivery = link.send(packet, np.random.default_rng(number))
        if delivery.outcome == "delivered":
            got = codec.decode(delivery)
            power = np.array([got.noise_power], np.float32)
            pictures[number] = bundle.decode(got.values[None], power)[0]
    return float(perceptual_distance(pictures, views).mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("task", choices=("encode", "train", "calibrate"))
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--pictures", type=int, default=8, help="for the choice by SNR")
    arguments = parser.parse_args()
    if arguments.task == "encode":
        encode(arguments.cache)
        return
    if arguments.task == "train":
        train_and_save(arguments)
    write_choices(*calibrate(arguments.cache, arguments.pictures))


def write_choices(choices: list[dict[str, Any]], metrics: dict[str, dict[str, float]]) -> None:
    """Put them into the card of the weights that are there."""
    path = BUNDLE / "jscc.json"
    card = json.loads(path.read_text())
    card |= {"metrics": {"perceptual_distance": metrics}, "choices": choices}
    path.write_text(json.dumps(card, indent=2) + "\n")


def encode(cache: Path) -> None:
    """Latents of photographs, and coarse seeds of both sets."""
    bundle = Bundle()
    photographs = np.load(cache / "photo_crops.npy", mmap_mode="r")[:8000]
    parts = [bundle.encode(photographs[i : i + 40]) for i in range(0, len(photographs), 40)]
    np.save(cache / "latents_photos.npy", np.concatenate(parts).astype(np.float16))
    sources = Sources(cache)
    latents = {"views": sources.latents, "photos": sources.photo_latents}
    for name, count in COARSE_COUNTS.items():
        code_coarsely(cache, name, latents[name], count)


def train_and_save(arguments: argparse.Namespace) -> None:
    device = pick_device()
    sources = Sources(arguments.cache)
    model = torch.nn.ModuleDict({"encoder": JsccEncoder(), "decoder": JsccDecoder()})
    basis = principal_basis(sources.latents)
    for half in model.values():
        half.basis.data.copy_(basis)
    print({n: sum(p.numel() for p in m.parameters()) for n, m in model.items()})
    model.to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=1e-4)
    run = Run(
        arguments.cache / "jscc.pt",
        steps=arguments.steps,
        minutes=arguments.minutes,
        rate=arguments.rate,
    )
    average = Average(model, 0.998)
    if kept := run.load():
        model.load_state_dict(kept["model"])
        optimiser.load_state_dict(kept["optimiser"])
        average.values = kept["average"]
    train(model, optimiser, run, average, sources, device)
    save(run, average)


if __name__ == "__main__":
    main()
