"""Small networks taught by large ones: what they learn from, and by what loss."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from megdt.worlds.garden import draw_view

CROP = 128
BATCH = 8
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """One batch."""

    image: Tensor
    """RGB in [-1, 1]. [batch, 3, CROP, CROP]"""
    latent: Tensor
    """Of the image, a sixth of them with noise. [batch, 4, CROP / 8, CROP / 8]"""
    noise_power: Tensor
    """That the decoder is told. [batch]"""


def draw_views(seeds: Sequence[int], size_px: int = 256) -> NDArray[np.uint8]:
    """Garden views, one a seed. [views, size_px, size_px, 3]"""
    views = [draw_view(seed, size_px=size_px) for seed in seeds]
    return np.stack([garden.render(view) for garden, view in views])


def draw_lessons(
    pictures: NDArray[np.uint8], encoder: nn.Module, rng: np.random.Generator
) -> Iterator[Lesson]:
    """Batches of crops without an end.

    Args:
        pictures: At least CROP pixels high and wide. [pictures, height, width, 3]
        encoder: Of the latents.
        rng: Draws crops and noise.
    """
    height, width = pictures.shape[1:3]
    while True:
        crops = []
        for index in rng.integers(0, len(pictures), BATCH):
            top, left = (int(rng.integers(0, size - CROP + 1)) for size in (height, width))
            crop = pictures[index, top : top + CROP, left : left + CROP]
            crops.append(crop[:, ::-1] if rng.uniform() < 0.5 else crop)
        batch = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 127.5 - 1
        image = batch.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            latent = encoder(image)
        noisy = rng.uniform(size=BATCH) < 1 / 6
        # From 20 dB to -30 dB below the latent's own power.
        power = np.where(noisy, 10 ** -rng.uniform(-2, 3, BATCH), 0).astype(np.float32)
        noise = rng.standard_normal(tuple(latent.shape)).astype(np.float32)
        told = torch.from_numpy(power)
        # A little always, as a coarse codec leaves it.
        spread = told.clamp(min=1e-4).sqrt()[:, None, None, None]
        yield Lesson(
            image=image, latent=latent + spread * torch.from_numpy(noise), noise_power=told
        )


def weigh(image: Tensor, noise_power: Tensor) -> Tensor:
    """How much each pixel counts: more where there is contrast, less where noise is.
    [batch, 1, height, width]
    """
    mean = functional.avg_pool2d(image, 9, 1, 4)
    contrast = functional.avg_pool2d((image - mean).square().mean(1, keepdim=True), 9, 1, 4)
    return (1 + 6 * (contrast / 0.05).clamp(max=1)) * _of_samples(noise_power)[:, None, None, None]


def output_loss(decoded: Tensor, wanted: Tensor, weight: Tensor, noise_power: Tensor) -> Tensor:
    """Weighted squared error, and the error of neighbours' differences."""
    error = 4 * ((decoded - wanted).square() * weight).mean()
    for dim in (2, 3):
        differs = (decoded.diff(dim=dim) - wanted.diff(dim=dim)).abs().mean((1, 2, 3))
        error = error + 0.3 * (differs * _of_samples(noise_power)).mean()
    return error


def feature_loss(decoded: Tensor, wanted: Tensor, encoder: nn.Module) -> Tensor:
    """What an encoder's first layers see otherwise; its other layers see it coarser."""
    layers = encoder.layers[:3]  # type: ignore[index]
    with torch.no_grad():
        seen = layers(wanted)  # type: ignore[operator]
    return functional.mse_loss(layers(decoded), seen)  # type: ignore[operator]


def _of_samples(noise_power: Tensor) -> Tensor:
    return 1 / (1 + 50 * noise_power).clamp(max=50)


def teach(
    model: nn.Module, loss: Callable[[nn.Module, Lesson], Tensor], lessons: Iterator[Lesson], *,
    seconds: float, rate: float, steps: int | None = None, progress: Progress | None = None,
) -> int:  # fmt: skip
    """Train a network in place, with weights averaged over the last steps.

    Args:
        model: The student.
        loss: Of the student, on a batch.
        lessons: Batches.
        seconds: That it may take; not read where there are steps.
        rate: The learning rate after warming up; it falls to nothing as the time is used up.
        steps: After which it ends instead.
        progress: Told the percent done and 100.

    Returns:
        The steps it took.
    """
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=1e-4)
    average = {key: value.detach().clone() for key, value in model.state_dict().items()}
    begun, step = time.monotonic(), 0
    model.train()
    while True:
        share = (time.monotonic() - begun) / seconds if steps is None else step / steps
        if share >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = (
                rate * min(1.0, (step + 1) / 50) * 0.5 * (1 + float(np.cos(np.pi * share)))
            )
        optimiser.zero_grad(set_to_none=True)
        loss(model, next(lessons)).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        step += 1
        decay = min(0.99, (1 + step) / (10 + step))
        with torch.no_grad():
            for key, value in model.state_dict().items():
                if value.dtype.is_floating_point:
                    average[key].lerp_(value, 1 - decay)
        if progress is not None:
            progress(int(100 * share), 100)
    model.load_state_dict(average)
    model.eval()
    return step
