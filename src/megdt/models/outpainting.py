"""Outpainting: what is not there of a panorama, drawn so that it goes on from what is.

The denoiser knows square views alone. So a panorama is drawn by windows that overlap, all at once:
in every step each window says where its latents should go, and where windows overlap they go where
the mean of them points (Bar-Tal et al., MultiDiffusion, arXiv:2302.08113). What is there is put back
at the noise level of every step, so that the rest is drawn around it (Lugmayr et al., RePaint,
arXiv:2201.09865).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from megdt.errors import RequestError
from megdt.models import SHIFT
from megdt.models.denoiser import Denoiser, positions
from megdt.models.generation import GRID
from megdt.models.sampling import add_noise, guide, make_sigmas

STRIDE = 16
"""Columns from one window to the next: every column but the outermost is in two of them."""


def window_lefts(width: int) -> list[int]:
    """The first column of each window; the last ends where the panorama does.

    Raises:
        RequestError: If the panorama is narrower than a window.

    >>> window_lefts(72)
    [0, 16, 32, 40]
    """
    if width < GRID:
        raise RequestError(
            f"the panorama has {width} columns, a window {GRID}; widen it to {GRID} or more"
        )
    return [*range(0, width - GRID, STRIDE), width - GRID]


@torch.inference_mode()
def outpaint_latents(
    denoiser: Denoiser,
    latent: Float[Tensor, "4 height width"],
    seen: Bool[Tensor, "height width"],
    prompt_embeds: Float[Tensor, "windows embedding"],
    rng_seed: int,
    *,
    steps: int,
    guidance_scale: float,
    repeats: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Float[Tensor, "4 height width"]:
    """Draw what has not been seen of a panorama; what has been stays as it is.

    Args:
        denoiser: The flow model.
        latent: As far as it is known; not read where nothing was seen. [4, 32, width]
        seen: Where it is known. [32, width]
        prompt_embeds: One for each of `window_lefts`; zeros for no prompt. [windows, embedding]
        rng_seed: Draws the noise.
        steps: Denoising steps.
        guidance_scale: How strongly the prompts lead.
        repeats: How often each step is made, with new noise in between, so that what is drawn comes
            to agree with what is there (RePaint's resampling); time grows with it.
        progress: Told of every step.

    Returns:
        [4, 32, width]

    Raises:
        RequestError: If the panorama is not as high or wide as a window, or there is not one prompt
            for each window.
    """
    lefts = _check(latent, prompt_embeds)
    # A window in which all was seen has nothing to say.
    drawn = [n for n, left in enumerate(lefts) if not seen[:, left : left + GRID].all()]
    if not drawn:
        return latent
    generator = torch.Generator().manual_seed(rng_seed)

    def noise() -> Tensor:
        return torch.randn(latent.shape, generator=generator).to(latent)

    flow = _panorama_flow(denoiser, [lefts[n] for n in drawn], prompt_embeds[drawn], guidance_scale)
    sigmas = make_sigmas(steps, shift=SHIFT)
    known = torch.where(seen, latent, torch.zeros_like(latent))
    x = noise()
    for index in range(steps):
        here, there = float(sigmas[index]), float(sigmas[index + 1])
        for repeat in range(repeats if there > 0 else 1):
            if repeat:
                x = _raise_noise(x, there, here, noise())
            x = x + (there - here) * flow(x, here)
            x = torch.where(seen, add_noise(known, there, noise()), x)
        if progress is not None:
            progress(index + 1, steps)
    return x


def _panorama_flow(
    denoiser: Denoiser, lefts: list[int], prompt_embeds: Tensor, guidance_scale: float
) -> Callable[[Tensor, float], Tensor]:
    """Where windows say that a panorama should go; zero where there is none."""
    where = positions(GRID, GRID, view=GRID)

    def ask(latent: Tensor, sigma: Tensor, embeds: Tensor) -> Tensor:
        count = len(latent)
        predicted: Tensor = denoiser(
            latent,
            sigma,
            embeds,
            position=where.to(latent).expand(count, -1, -1, -1),
            scale=torch.ones(count, device=latent.device),
        )
        return predicted

    guided = guide(ask, prompt_embeds, guidance_scale=guidance_scale)
    # A window's middle knows more of what lies around it than its edges do.
    column = torch.arange(GRID) + 0.5
    weight = torch.minimum(column, GRID - column)

    def flow(x: Tensor, sigma: float) -> Tensor:
        windows = torch.stack([x[:, :, left : left + GRID] for left in lefts])
        found = guided(windows, torch.full((len(lefts),), sigma).to(x))
        total, weights = torch.zeros_like(x), torch.zeros(x.shape[-1]).to(x)
        for left, one in zip(lefts, found, strict=True):
            total[:, :, left : left + GRID] += weight.to(x) * one
            weights[left : left + GRID] += weight.to(x)
        return total / weights.clamp(min=1e-6)

    return flow


def _raise_noise(x: Tensor, sigma: float, to: float, noise: Tensor) -> Tensor:
    """A latent at one noise level taken back to a higher one."""
    share = (1 - to) / (1 - sigma)
    added: Tensor = share * x + (to**2 - (share * sigma) ** 2) ** 0.5 * noise
    return added


def _check(latent: Tensor, prompt_embeds: Tensor) -> list[int]:
    height, width = latent.shape[1:]
    if height != GRID:
        raise RequestError(
            f"the panorama is {height} latents high, the denoiser draws {GRID}; give one of {GRID} rows"
        )
    lefts = window_lefts(width)
    if len(prompt_embeds) != len(lefts):
        raise RequestError(
            f"{len(prompt_embeds)} prompts for a panorama of {len(lefts)} windows; give one for each of "
            "window_lefts"
        )
    return lefts
