"""Distil the denoiser into one that draws in four steps, with the guidance in it.

    python recipes/few_step.py draw --minutes 40      # the teacher's ways, into the cache
    python recipes/few_step.py draw --minutes 60 --first 2    # more of their beginnings, which need the most
    python recipes/few_step.py train --minutes 40     # into the cache: the bundle has no room for it
    python recipes/few_step.py measure                # prints JSON
    python recipes/few_step.py drift                  # what each step's error comes to in the end

The teacher draws from captions with a guidance of 2.5, two midpoint steps for each of four; what is kept of
each way is where it stands in between. From each of these the student learns the straight way to the next
(piecewise rectified flow: Yan et al., arXiv:2405.07510), beginning at the teacher's own weights. What it has not
learnt comes out as a mean, so its latents lack some fine detail: two hundredths of the amplitude. A gain for each
spatial frequency gives that back in the end, measured on ways that it has not seen. `measure` compares both with
held-out views, in kernel distance (KID), beside the same of views against views.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from data import CACHE, HELD_OUT
from safetensors.torch import load_file, save_file
from student import Teacher
from torch import Tensor
from training import Average, Run, in_half, pick_device

from megdt.models import LATENT_CHANNELS, SHIFT
from megdt.models.denoiser import Denoiser
from megdt.models.generation import GRID, _on_grid
from megdt.models.quality import compare_distributions, extract_features, kid
from megdt.models.sampling import make_sigmas, sample_euler
from megdt.worlds.garden import draw_view

STEPS = 4
FINE = 2
"""Midpoint steps of the teacher for one of the student's: as near to many more as seven Euler steps are."""
WAYS = 48
"""A shard's."""
FIRST_SEED, FIRST_SEED_OF_BEGINNINGS, FIRST_SEED_OF_GAINS = 4_000_000, 5_000_000, 6_000_000
GAINED = 96
"""Ways by which fine detail is measured."""
BATCH = 16
MEASURED_STEPS = 30
"""Of the teacher that the student is measured against."""
MEASURED = 520
RINGS = GRID // 2 + 1
"""Of spatial frequencies."""
GAINS = "gains"

Flow = Callable[[Tensor, Tensor, Tensor], Tensor]


def draw_noise(seeds: range) -> Tensor:
    """[batch, 4, 32, 32]"""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return torch.stack([torch.randn(LATENT_CHANNELS, GRID, GRID, generator=g) for g in generators])


def draw_shard(teacher: Teacher, first: int, steps: int) -> dict[str, np.ndarray]:
    """Where ways stand before and after each of the student's first steps, and what they were led by."""
    seeds = range(first, first + WAYS)
    embeds = teacher.embed(seeds, np.random.default_rng((first, 11)))
    ways = draw_ways(teacher, draw_noise(seeds).to(embeds), embeds, steps=steps)
    return {"ways": ways.cpu().half().numpy(), "embeds": embeds.cpu().half().numpy()}


def draw_ways(teacher: Teacher, latent: Tensor, embeds: Tensor, *, steps: int = STEPS) -> Tensor:
    """[ways, steps + 1, 4, 32, 32]"""
    stands = [latent]
    for start, end in list(pairwise(make_sigmas(STEPS, shift=SHIFT).to(latent)))[:steps]:
        levels = torch.linspace(float(start), float(end), FINE + 1)
        for here, there in pairwise(levels.to(latent)):
            middle = (here + there) / 2
            half = latent + (middle - here) * teacher.flow(latent, here.expand(len(latent)), embeds)
            flow = teacher.flow(half, middle.expand(len(latent)), embeds)
            latent = latent + (there - here) * flow
        stands.append(latent)
    return torch.stack(stands, 1)


def draw(cache: Path, minutes: float, steps: int) -> None:
    """As many shards as the time allows."""
    folder, teacher = cache / "few_step", Teacher()
    folder.mkdir(parents=True, exist_ok=True)
    name, first = ("whole", FIRST_SEED) if steps == STEPS else ("first", FIRST_SEED_OF_BEGINNINGS)
    until, number = time.monotonic() + 60 * minutes, 0
    while time.monotonic() < until:
        path = folder / f"{name}_{number:05}.npz"
        if not path.exists():
            fresh = folder / f"{name}.new.npz"
            np.savez(fresh, **draw_shard(teacher, first + WAYS * number, steps))
            fresh.replace(path)
        number += 1
    print(f"{number} shards")


def load_ways(cache: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Ways as far as they were drawn, what led them, and every step of one: its way and number.

    [ways, 5, 4, 32, 32], [ways, embedding], [pairs, 2]
    """
    paths = sorted((cache / "few_step").glob("*_?????.npz"))
    shards = [np.load(path) for path in paths]
    drawn = [torch.from_numpy(shard["ways"]) for shard in shards]
    count = sum(map(len, drawn))
    ways = torch.zeros(count, STEPS + 1, LATENT_CHANNELS, GRID, GRID, dtype=torch.half)
    pairs, at = [], 0
    for part in drawn:
        ways[at : at + len(part), : part.shape[1]] = part
        numbers = torch.arange(at, at + len(part)), torch.arange(part.shape[1] - 1)
        pairs.append(torch.cartesian_prod(*numbers))
        at += len(part)
    embeds = torch.from_numpy(np.concatenate([shard["embeds"] for shard in shards]))
    return ways, embeds, torch.cat(pairs)


def train(cache: Path, run: Run) -> None:
    device, (ways, embeds, pairs) = pick_device(), load_ways(cache)
    print(f"{len(ways)} ways", flush=True)
    model = Denoiser().to(device, memory_format=torch.channels_last)
    model.load_state_dict(Teacher().bundle._denoiser.state_dict())
    optimiser = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=0.01)
    average = Average(model, 0.998)
    if (kept := run.load()) is not None:
        model.load_state_dict(kept["model"])
        optimiser.load_state_dict(kept["optimiser"])
        average.values = kept["average"]
    forward = _on_grid(model, GRID, GRID, None)
    levels = make_sigmas(STEPS, shift=SHIFT)
    generator = torch.Generator().manual_seed(run.step)
    losses: list[float] = []
    while run.share() < 1:
        for group in optimiser.param_groups:
            group["lr"] = run.learning_rate()
        picked, step = pairs[torch.randint(len(pairs), (BATCH,), generator=generator)].T
        here, there = (ways[picked, step + n].to(device).float() for n in (0, 1))
        sigma, then = (levels[step + n].to(device) for n in (0, 1))
        wanted = (there - here) / (then - sigma)[:, None, None, None]
        with in_half(device):
            found = forward(here, sigma, embeds[picked].to(device).float())
        loss = (found.float() - wanted).square().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        run.step += 1
        average.update(model, run.step)
        losses.append(float(loss.detach()))
        if run.step % 50 == 0:
            print(f"{run.step} {run.used_s():.0f} s loss {np.mean(losses[-50:]):.4f}", flush=True)
        if run.step % 250 == 0 or run.share() >= 1:
            run.save(
                model=model.state_dict(), optimiser=optimiser.state_dict(), average=average.values
            )
            ways, embeds, pairs = load_ways(cache)  # drawing may go on beside
    model.load_state_dict(average.values)
    weights = {key: value.half().contiguous() for key, value in average.values.items()}
    weights[GAINS] = measure_gains(Teacher(), _on_grid(model.eval(), GRID, GRID, None)).float()
    path = cache / "few_step" / "denoiser.safetensors"
    save_file({key: value.cpu() for key, value in weights.items()}, path)
    print(f"weights: {path}")


def draw_student(flow: Flow, noise: Tensor, embeds: Tensor) -> Tensor:
    """[batch, 4, 32, 32]"""

    def led(latent: Tensor, sigma: Tensor) -> Tensor:
        return flow(latent, sigma, embeds)

    return sample_euler(led, noise, make_sigmas(STEPS, shift=SHIFT))


@torch.inference_mode()
def measure_gains(teacher: Teacher, flow: Flow) -> Tensor:
    """What the student's latents lack in amplitude, by how fine it is. [RINGS]"""
    power = torch.zeros(2, RINGS)
    for start in range(FIRST_SEED_OF_GAINS, FIRST_SEED_OF_GAINS + GAINED, 24):
        seeds = range(start, start + 24)
        embeds = teacher.embed(seeds, np.random.default_rng(start))
        noise = draw_noise(seeds).to(embeds)
        ends = draw_ways(teacher, noise, embeds)[:, -1], draw_student(flow, noise, embeds)
        for row, latent in enumerate(ends):
            spectrum = torch.fft.fft2(latent).abs().square().mean((0, 1)).cpu()
            power[row] += torch.bincount(find_rings().flatten(), spectrum.flatten(), RINGS)
    gains = (power[0] / power[1]).sqrt()
    gains[0] = 1  # the mean is no detail
    return gains


def find_rings() -> Tensor:
    """Of each spatial frequency, how many periods a latent it has, those of the corners with the finest. [32, 32]"""
    periods = GRID * torch.fft.fftfreq(GRID)
    return torch.hypot(periods[:, None], periods).long().clamp(max=RINGS - 1)


def sharpen(latent: Tensor, gains: Tensor) -> Tensor:
    """[batch, 4, 32, 32]"""
    spectrum = torch.fft.fft2(latent) * gains.to(latent)[find_rings()]
    return torch.fft.ifft2(spectrum).real


def load_student(cache: Path, device: torch.device) -> tuple[Flow, Tensor]:
    """Its flow at a latent, a noise level each, and embeddings; and its gains."""
    student = Denoiser().eval().to(device)
    weights = load_file(cache / "few_step" / "denoiser.safetensors")
    gains = weights.pop(GAINS)
    student.load_state_dict({key: value.float() for key, value in weights.items()})
    return _on_grid(student, GRID, GRID, None), gains


@torch.inference_mode()
def trace_drift(cache: Path, count: int = 40) -> dict[str, list[float]]:
    """Mean squared error of held-out latents: of each step from where the teacher stands, and at the
    end, where all steps from there on are the student's.
    """
    teacher, levels = Teacher(), make_sigmas(STEPS, shift=SHIFT)
    alone, _ = load_student(cache, teacher.bundle.device)
    seeds = range(HELD_OUT + 5000, HELD_OUT + 5000 + count)
    embeds = teacher.embed(seeds, np.random.default_rng(0))
    stands = draw_ways(teacher, draw_noise(seeds).to(embeds), embeds)
    found: dict[str, list[float]] = {"step": [], "end": []}
    for first in range(STEPS):
        latent = stands[:, first]
        for step in range(first, STEPS):
            sigma = levels[step].to(latent).expand(count)
            latent = latent + (levels[step + 1] - levels[step]) * alone(latent, sigma, embeds)
            if step == first:
                found["step"].append(float((latent - stands[:, step + 1]).square().mean()))
        found["end"].append(float((latent - stands[:, -1]).square().mean()))
    return found


def measure(cache: Path) -> dict[str, dict[str, float]]:
    """KID of both from held-out views, the floor, and how sure the student's excess over the teacher's is."""
    teacher, count = Teacher(), MEASURED
    alone, gains = load_student(cache, teacher.bundle.device)
    first = HELD_OUT + 1000
    views = [
        garden.render(view) for garden, view in map(draw_view, range(first, first + 2 * count))
    ]
    real = extract_features(np.stack(views))
    drawn: dict[str, list[np.ndarray]] = {}
    for start in range(0, count, 20):
        seeds = range(HELD_OUT + 5000 + start, HELD_OUT + 5020 + start)
        embeds, noise = teacher.embed(seeds, np.random.default_rng(start)), draw_noise(seeds)

        def led(x: Tensor, sigma: Tensor, embeds: Tensor = embeds) -> Tensor:
            return teacher.flow(x, sigma, embeds)

        with torch.inference_mode():
            noise = noise.to(embeds)
            unsharpened = draw_student(alone, noise, embeds)
            latents = {
                "teacher_30": sample_euler(led, noise, make_sigmas(MEASURED_STEPS, shift=SHIFT)),
                "teacher_4": sample_euler(led, noise, make_sigmas(STEPS, shift=SHIFT)),
                "student_4": sharpen(unsharpened, gains),
                "student_4_without_gains": unsharpened,
            }
        for name, latent in latents.items():
            drawn.setdefault(name, []).append(teacher.bundle.decode(latent.cpu().numpy()))
    found, features = {}, {n: extract_features(np.concatenate(p)) for n, p in drawn.items()}
    for name, ours in features.items():
        report = compare_distributions(ours, real)
        found[name] = {
            "kid": report.kid, "floor": report.kid_floor, "excess": report.kid - report.kid_floor,
        }  # fmt: skip
    of_teacher, of_student = (features[name] for name in ("teacher_30", "student_4"))
    found["student_over_teacher"] = {
        "ratio": found["student_4"]["excess"] / found["teacher_30"]["excess"],
        "standard_error": err_of_ratio(of_teacher, of_student, real, report.kid_floor),
    }
    return found


def err_of_ratio(
    of_teacher: np.ndarray, of_student: np.ndarray, real: np.ndarray, floor: float
) -> float:
    """Of one excess over the other: its spread over random halves, which is that of all between samples."""
    rng, ratios = np.random.default_rng(0), []
    for _ in range(100):
        half = rng.permutation(len(of_teacher))[: len(of_teacher) // 2]
        teacher, student = (kid(ours[half], real) - floor for ours in (of_teacher, of_student))
        ratios.append(student / teacher)
    return float(np.std(ratios))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("task", choices=("draw", "train", "measure", "drift"))
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--first", type=int, choices=range(1, STEPS + 1), default=STEPS, metavar="STEPS",
                        help="draw: of the four, the first so many alone")  # fmt: skip
    arguments = parser.parse_args()
    if arguments.task == "draw":
        draw(arguments.cache, arguments.minutes, arguments.first)
    elif arguments.task in ("measure", "drift"):
        tell = measure if arguments.task == "measure" else trace_drift
        print(json.dumps(tell(arguments.cache), indent=1))
    else:
        run = Run(
            arguments.cache / "few_step.pt", steps=arguments.steps, minutes=arguments.minutes,
            rate=arguments.rate,
        )  # fmt: skip
        train(arguments.cache, run)


if __name__ == "__main__":
    main()
