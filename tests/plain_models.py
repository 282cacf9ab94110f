"""Models for tests of what is around them; without torch, so that other processes start soon."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from megdt.records import Style


class PlainModels:
    """Models without a network: fast, deterministic, and easy to reason about."""

    def __init__(self) -> None:
        self.denoised = 0
        self.noise_power: NDArray[np.float32] | None = None
        self.handed_over: int | None = None
        self.finished: tuple[float, int, int] | None = None
        self.redrawn: tuple[Style, NDArray[np.float32] | None] | None = None

    def embed(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        return np.array([[float(len(p))] for p in prompts], np.float32)

    def denoise(
        self,
        prompt_embeds: NDArray[np.float32],
        rng_seeds: Sequence[int],
        *,
        size_px: int,
        steps: int,
        guidance_scale: float,
        handoff_step: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.float32]:
        self.denoised += 1
        self.handed_over = handoff_step
        side = size_px // 8
        drawn = [np.random.default_rng(s).standard_normal((4, side, side)) for s in rng_seeds]
        if progress is not None:
            progress(steps, steps)
        return np.stack(drawn).astype(np.float32)

    def enlarge(
        self,
        latents: NDArray[np.float32],
        prompt_embeds: NDArray[np.float32],
        rng_seeds: Sequence[int],
        *,
        size_px: int,
        steps: int,
        guidance_scale: float,
        progress: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.float32]:
        del prompt_embeds, rng_seeds, steps, guidance_scale, progress
        side = size_px // 8
        nearest = np.arange(side) * latents.shape[-1] // side
        return latents[:, :, nearest][:, :, :, nearest]

    def finish(
        self,
        latents: NDArray[np.float32],
        prompts: Sequence[str],
        rng_seeds: Sequence[int],
        *,
        noise_power: float,
        steps: int,
        handoff_step: int,
        guidance_scale: float,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[NDArray[np.float32], float]:
        self.finished = noise_power, steps, handoff_step
        if progress is not None:
            progress(steps - handoff_step, steps - handoff_step)
        return latents / 2, 0.5

    def redraw(
        self,
        sketches: NDArray[np.uint8],
        prompt_embeds: NDArray[np.float32] | None,
        rng_seeds: Sequence[int],
        *,
        style: Style,
        steps: int,
        guidance_scale: float,
        progress: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.float32]:
        del rng_seeds, steps, guidance_scale, progress
        self.redrawn = style, prompt_embeds
        return self.encode(sketches) / np.float32(64)

    def decode(
        self, latents: NDArray[np.float32], noise_power: NDArray[np.float32] | None = None
    ) -> NDArray[np.uint8]:
        self.noise_power = noise_power
        grey = np.clip(latents[:, :3] * 40 + 128, 0, 255).astype(np.uint8)
        return grey.repeat(8, 2).repeat(8, 3).transpose(0, 2, 3, 1)

    def write(self, prompt: str, image: NDArray[np.uint8] | None = None, *, rng_seed: int) -> str:
        about = "" if image is None else f" of {image.shape[0]} px, grey {image.mean():.0f}"
        return f"{prompt}{about}, {rng_seed}"

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return images[:, ::8, ::8, :1].transpose(0, 3, 1, 2).repeat(4, 1).astype(np.float32)

    def edit(
        self,
        latents: NDArray[np.float32],
        prompt_embeds: NDArray[np.float32],
        rng_seeds: Sequence[int],
        *,
        strength: float,
        steps: int,
        guidance_scale: float,
        confidence: NDArray[np.float32] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.float32]:
        del steps, guidance_scale, progress
        shape = latents.shape[1:]
        drawn = [np.random.default_rng(s).standard_normal(shape) for s in rng_seeds]
        anew = np.stack(drawn).astype(np.float32) + prompt_embeds[:, :1, None, None]
        kept = latents if confidence is None else latents * confidence[:, None]
        return ((1 - strength) * kept + strength * anew).astype(np.float32)

    def fuse(
        self,
        latents: NDArray[np.float32],
        confidence: NDArray[np.float32],
        age_s: NDArray[np.float32],
        noise_power: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        del age_s, noise_power
        seen = confidence[:, :, None]
        return (latents * seen).sum(1) / np.maximum(seen.sum(1), 1)
