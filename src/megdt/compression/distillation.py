"""Small networks taught by large ones: what they learn from, and by what loss."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from megdt.models.bundle import Bundle
from megdt.worlds.garden import draw_view

BATCH_SIZE = 2
_AT_ONCE = 16
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Whole views, since a crop would lack what the teacher saw around it."""

    image: Tensor
    """RGB in [-1, 1]. [batch, 3, height, width]"""
    latent: Tensor
    """That the teacher's encoder gives. [batch, 4, height / 8, width / 8]"""
    decoded: Tensor
    """What the teacher's decoder shows of it; RGB in [-1, 1]. [batch, 3, height, width]"""
    received: Tensor
    """The latent as a decoder is given it, every sixth with the noise of the air. [batch, 4, height / 8, width / 8]"""
    noise_power: Tensor
    """That the decoder is told. [batch]"""


def draw_views(seeds: Sequence[int], size_px: int = 256) -> NDArray[np.uint8]:
    """Garden views, one a seed. [views, size_px, size_px, 3]"""
    views = [draw_view(seed, size_px=size_px) for seed in seeds]
    return np.stack([garden.render(view) for garden, view in views])


class TrainingViews:
    """Garden views with what a bundle makes of them, which is worked out once.

    Args:
        bundle: The teacher.
        seeds: Of the views.
    """

    def __init__(self, bundle: Bundle, seeds: Sequence[int]) -> None:
        self._bundle, self._seeds = bundle, seeds

    def __len__(self) -> int:
        return len(self._seeds)

    @cached_property
    def _pictures(self) -> NDArray[np.uint8]:
        return draw_views(self._seeds)

    @cached_property
    def _latents(self) -> NDArray[np.float32]:
        return np.concatenate(
            [self._bundle.encode(self._pictures[part]) for part in _parts(len(self))]
        )

    @cached_property
    def _decoded(self) -> NDArray[np.uint8]:
        return np.concatenate(
            [self._bundle.decode(self._latents[part]) for part in _parts(len(self))]
        )

    def draw_batches(self, rng: np.random.Generator) -> Iterator[Batch]:
        """Batches without an end.

        Args:
            rng: Draws views and noise.
        """
        while True:
            picked = rng.integers(0, len(self), BATCH_SIZE)
            latent = torch.from_numpy(self._latents[picked])
            noisy = rng.uniform(size=BATCH_SIZE) < 1 / 6
            # From 20 dB to -30 dB below the latent's own power.
            power = np.where(noisy, 10 ** -rng.uniform(-2, 3, BATCH_SIZE), 0).astype(np.float32)
            noise = torch.from_numpy(rng.standard_normal(latent.shape).astype(np.float32))
            told = torch.from_numpy(power)
            # A little always, as a coarse codec leaves it.
            spread = told.clamp(min=1e-4).sqrt()[:, None, None, None]
            yield Batch(
                image=_to_planes(self._pictures[picked]), latent=latent,
                decoded=_to_planes(self._decoded[picked]), received=latent + spread * noise,
                noise_power=told,
            )  # fmt: skip


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


def train(
    model: nn.Module, loss: Callable[[nn.Module, Batch], Tensor], batches: Iterator[Batch], *,
    seconds: float, rate: float, steps: int | None = None, progress: Progress | None = None,
) -> int:  # fmt: skip
    """Train a network in place, with weights averaged over the last steps.

    Args:
        model: The one that learns.
        loss: Of the model, on a batch.
        batches: What it learns from.
        seconds: That it may take; not read where there are steps.
        rate: The learning rate after warming up; it falls to nothing as the time is used up.
        steps: After which it ends instead.
        progress: Told the percent done and 100.

    Returns:
        The steps it took.
    """
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=1e-4)
    average = {key: value.detach().clone() for key, value in model.state_dict().items()}
    first = next(batches)  # whatever is worked out once is no part of the time
    begun, step = time.monotonic(), 0
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # two views are no statistics; the teacher's stay
    while True:
        share = (time.monotonic() - begun) / seconds if steps is None else step / steps
        if share >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = (
                rate * min(1.0, (step + 1) / 50) * 0.5 * (1 + float(np.cos(np.pi * share)))
            )
        optimiser.zero_grad(set_to_none=True)
        loss(model, next(batches) if step else first).backward()  # type: ignore[no-untyped-call]
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


def _of_samples(noise_power: Tensor) -> Tensor:
    return 1 / (1 + 50 * noise_power).clamp(max=50)


def _parts(count: int) -> list[slice]:
    return [slice(start, start + _AT_ONCE) for start in range(0, count, _AT_ONCE)]


def _to_planes(pictures: NDArray[np.uint8]) -> Tensor:
    planes = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    return planes.contiguous(memory_format=torch.channels_last)
