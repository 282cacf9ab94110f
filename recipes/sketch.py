"""Train the sketch adapter.

    python recipes/sketch.py sketch               # once: views to sketches
    python recipes/sketch.py train --minutes 45
    python recipes/sketch.py measure              # what survives, for the card

Data: views with the sketches that the codec would draw of them, in all styles, at levels around
those that the default budget asks for. Loss: flow matching through the denoiser, which is frozen.
Half of the captions are left out, so that a sketch is enough.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from data import CACHE, HELD_OUT
from denoiser import CAPTIONS, describe
from torch.nn import functional
from training import BUNDLE, Average, Run, in_half, pick_device, save_model

from megdt.codecs.sketch import STYLES, SketchCodec
from megdt.codecs.sketch_styles import CELLS, draw, simplify
from megdt.models.bundle import Bundle
from megdt.models.classifier import LABELS
from megdt.models.denoiser import positions
from megdt.models.generation import GRID
from megdt.models.sketching import SketchAdapter
from megdt.records import Delivery, Feature, Style

BATCH = 24
VIEWS = 8_000
SIZE = 2 * CELLS  # the finest that a sketch is
# Levels that the default budget asks for, in four of five views.
USUAL: dict[Style, tuple[int, int]] = {"edges": (8, 31), "layout": (0, 26), "thumbnail": (36, 62)}


def sketch(arguments: argparse.Namespace) -> None:
    """Sketches of the first views, each style at a level of its own. [views, styles, size, size, 3]"""
    cache = arguments.cache
    views = np.load(cache / "views.npy", mmap_mode="r")
    shape = (VIEWS, len(STYLES), SIZE, SIZE, 3)
    sketches = np.lib.format.open_memmap(cache / "sketches.npy", "w+", np.uint8, shape)
    rng = np.random.default_rng(0)
    for index in range(VIEWS):
        view = np.ascontiguousarray(views[index])
        for place, style in enumerate(STYLES):
            low, high = USUAL[style]
            level = int(rng.integers(low, high + 1))
            if style == "layout" and rng.uniform() < 0.15:
                level = 32 + level // 4
            sketches[index, place] = draw(simplify(view, style, level), style, level, SIZE)


def draw_batch(
    latents: np.ndarray, embeds: np.ndarray, sketches: np.ndarray, rng: np.random.Generator
) -> tuple[torch.Tensor, ...]:
    """Latents, embeddings, sketches and styles of one batch."""
    index = rng.integers(0, len(sketches), BATCH)
    style = rng.integers(0, len(STYLES), BATCH)
    said = embeds[index, rng.integers(0, CAPTIONS, BATCH)].astype(np.float32)
    said += 0.04 * rng.standard_normal(said.shape)  # as the denoiser was trained
    said *= rng.uniform(size=(BATCH, 1)) < 0.5
    seen = np.stack([sketches[i, s] for i, s in zip(index, style, strict=True)])
    return (
        torch.from_numpy(latents[index].astype(np.float32)),
        torch.from_numpy(said.astype(np.float32)),
        torch.from_numpy(seen).permute(0, 3, 1, 2).float() / 127.5 - 1,
        functional.one_hot(torch.from_numpy(style), len(STYLES)).float(),
    )


def train(arguments: argparse.Namespace) -> None:
    device = pick_device()
    torch.manual_seed(arguments.rng_seed)
    latents = np.load(arguments.cache / "latents_256.npy", mmap_mode="r")[:VIEWS]
    embeds = np.load(arguments.cache / "embeds_256.npy", mmap_mode="r")[:VIEWS]
    sketches = np.load(arguments.cache / "sketches.npy", mmap_mode="r")
    denoiser = Bundle(device=str(device))._denoiser.requires_grad_(False)
    model = SketchAdapter().to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=0.01)
    run = Run(
        arguments.cache / "sketch_adapter.pt",
        steps=arguments.steps,
        minutes=arguments.minutes,
        rate=arguments.rate,
    )
    average = Average(model, 0.998)
    if kept := run.load():
        model.load_state_dict(kept["model"])
        optimiser.load_state_dict(kept["optimiser"])
        average.values = kept["average"]
    torch.manual_seed(arguments.rng_seed + run.step)
    rng = np.random.default_rng((arguments.rng_seed, run.step))
    where = positions(GRID, GRID, view=GRID).to(device).expand(BATCH, -1, -1, -1)
    scale = torch.ones(BATCH, device=device)
    losses: list[float] = []
    while run.share() < 1:
        for group in optimiser.param_groups:
            group["lr"] = run.learning_rate(warmup=50)
        latent, told, seen, style = (
            t.to(device) for t in draw_batch(latents, embeds, sketches, rng)
        )
        # What stands where is decided at high noise, where a sketch helps the most.
        sigma = torch.sigmoid(torch.randn(BATCH) + 0.5)
        sigma = torch.where(torch.rand(BATCH) < 0.2, torch.rand(BATCH), sigma).to(device)
        noise = torch.randn(latent.shape).to(device)
        spread = sigma[:, None, None, None]
        mixed = ((1 - spread) * latent + spread * noise).contiguous(
            memory_format=torch.channels_last
        )
        with in_half(device):
            features = model(seen.contiguous(memory_format=torch.channels_last), style, grid=GRID)
            flow = denoiser(mixed, sigma, told, position=where, scale=scale, features=features)
        mean = functional.avg_pool2d(latent, 3, 1, 1)
        contrast = (latent - mean).square().mean(1, keepdim=True)
        error = (flow.float() - (noise - latent)).square()
        loss = (error * (0.6 + (contrast / 0.15).clamp(max=2))).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        run.step += 1
        average.update(model, run.step)
        losses.append(float(error.detach().mean()))
        if run.step % 50 == 0:
            print(f"{run.step} {run.used_s():.0f} s loss {np.mean(losses[-50:]):.4f}", flush=True)
        if run.step % 250 == 0 or run.share() >= 1:
            run.save(
                model=model.state_dict(), optimiser=optimiser.state_dict(), average=average.values
            )
            save(run, average, float(np.mean(losses[-500:])))


def measure(arguments: argparse.Namespace) -> None:
    """Share of held-out views whose species, colour and sky are the same after sketch and redraw.

    The classifier judges both, the view and the picture that is drawn again from its sketch.
    """
    bundle = Bundle(device=str(pick_device()))
    views = np.load(arguments.cache / "held_out_views.npy", mmap_mode="r")[: arguments.count]
    told = bundle.embed([describe(HELD_OUT + index)[0] for index in range(len(views))])
    wanted = bundle.classify(views)
    found: dict[str, dict[str, float | dict[str, float]]] = {}
    for style in STYLES:
        codec = SketchCodec(size_px=views.shape[1], style=style)
        packets = [codec.encode(Feature(kind="sketch", values=view)) for view in views]
        sketches = np.stack([codec.decode(Delivery(payload=p.payload)).values for p in packets])
        bits = np.mean([packet.bits for packet in packets]) / views[0, :, :, 0].size
        found[style] = {"bits_per_pixel": round(float(bits), 4)}
        # The classifier knows much by the sketch as it is, which is no picture yet.
        found[style]["sketch_undrawn"] = recall(bundle.classify(sketches), wanted)
        for name, embeds in (("sketch_alone", None), ("sketch_and_prompt", told)):
            drawn = []
            for start in range(0, len(views), BATCH):
                rows = slice(start, start + BATCH)
                with in_half(bundle.device):
                    latents = bundle.redraw(
                        sketches[rows],
                        None if embeds is None else embeds[rows],
                        range(start, start + len(sketches[rows])),
                        style=style,
                        steps=arguments.sampling_steps,
                        guidance_scale=arguments.guidance,
                    )
                    drawn.append(bundle.decode(latents))
            found[style][name] = recall(bundle.classify(np.concatenate(drawn)), wanted)
            print(style, name, found[style][name], flush=True)
    card = json.loads((BUNDLE / "sketch_adapter.json").read_text())
    card["metrics"]["recall"] = {
        "views": len(views),
        "steps": arguments.sampling_steps,
        "guidance_scale": arguments.guidance,
        **found,
    }
    (BUNDLE / "sketch_adapter.json").write_text(json.dumps(card, indent=2) + "\n")


def recall(seen: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> dict[str, float]:
    """Share of labels that are the same, by attribute and over all."""
    hits = {name: float((seen[name] == wanted[name]).mean()) for name in LABELS}
    hits["mean"] = float(np.mean(list(hits.values())))
    return {name: round(share, 3) for name, share in hits.items()}


def save(run: Run, average: Average, loss: float) -> None:
    """Put the averaged weights into the bundle, in half precision."""
    save_model(
        "sketch_adapter",
        {k: v.half() for k, v in average.values.items()},
        {
            "task": "sketch to features that lead the denoiser",
            "recipe": "recipes/sketch.py",
            "data": f"{VIEWS} garden views at 256 pixels with sketches in {len(STYLES)} styles",
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
    parser.add_argument("task", choices=("sketch", "train", "measure"))
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--rng-seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=200, help="views to measure with")
    parser.add_argument("--sampling-steps", type=int, default=12, help="of the measurement")
    parser.add_argument("--guidance", type=float, default=1.0, help="of the measurement")
    arguments = parser.parse_args()
    {"sketch": sketch, "train": train, "measure": measure}[arguments.task](arguments)


if __name__ == "__main__":
    main()
