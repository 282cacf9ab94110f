"""Sampling as plain functions of a model, a latent and a list of noise levels.

Splitting a generation between two machines is two calls on two slices of `sigmas`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Flow = Callable[[Tensor, Tensor], Tensor]
"""(latent [batch, ...], sigma [batch]) -> noise minus latent, shaped as the latent."""
Progress = Callable[[int, int], None]
"""Called after each step with the steps done and the steps in all."""


def make_sigmas(steps: int, *, start: float = 1.0, shift: float = 1.0) -> Tensor:
    """Falling noise levels from `start` to 0.

    Args:
        steps: Denoising steps.
        start: The noise level to begin at, 1 being noise alone.
        shift: Above 1, more of the steps are spent at high noise, and a `start` below 1 is raised
            like every other level (Esser et al., arXiv:2403.03206, equation 23).

    Returns:
        [steps + 1]

    >>> make_sigmas(4).tolist()
    [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    even = torch.linspace(start, 0.0, steps + 1)
    return shift * even / (1 + (shift - 1) * even)


def sample_euler(
    model: Flow, latent: Tensor, sigmas: Tensor, *, progress: Progress | None = None
) -> Tensor:
    """Follow the flow from sigmas[0] to sigmas[-1] in straight steps.

    Args:
        model: Predicts noise minus latent.
        latent: Latents with noise of level sigmas[0]. [batch, ...]
        sigmas: Falling noise levels. [steps + 1]
        progress: Told of every step.

    Returns:
        Latents at noise level sigmas[-1]. [batch, ...]
    """
    steps = len(sigmas) - 1
    for index in range(steps):
        flow = model(latent, sigmas[index].expand(latent.shape[0]))
        latent = latent + (sigmas[index + 1] - sigmas[index]) * flow
        if progress is not None:
            progress(index + 1, steps)
    return latent


def sample_heun(
    model: Flow, latent: Tensor, sigmas: Tensor, *, progress: Progress | None = None
) -> Tensor:
    """As sample_euler, with a second look at the end of every step but the last.

    Twice the model calls, and an error that falls with the square of the step (Karras et al.,
    arXiv:2206.00364, algorithm 1).
    """
    steps = len(sigmas) - 1
    for index in range(steps):
        here, there = sigmas[index], sigmas[index + 1]
        flow = model(latent, here.expand(latent.shape[0]))
        ahead = latent + (there - here) * flow
        if there > 0:
            flow = (flow + model(ahead, there.expand(latent.shape[0]))) / 2
            ahead = latent + (there - here) * flow
        latent = ahead
        if progress is not None:
            progress(index + 1, steps)
    return latent


def add_noise(latent: Tensor, sigma: float, noise: Tensor) -> Tensor:
    """Take a clean latent to a noise level: (1 - sigma) latent + sigma noise."""
    return (1 - sigma) * latent + sigma * noise


def guide(
    model: Callable[[Tensor, Tensor, Tensor], Tensor],
    prompt_embeds: Tensor,
    *,
    guidance_scale: float,
) -> Flow:
    """Classifier-free guidance (Ho and Salimans, arXiv:2207.12598).

    Args:
        model: (latent, sigma, prompt_embeds) -> flow; zero embeddings mean no prompt.
        prompt_embeds: [batch, embedding]
        guidance_scale: 1 follows the prompt as trained, above exaggerates it.
    """
    if guidance_scale == 1:
        return lambda latent, sigma: model(latent, sigma, prompt_embeds)
    both = torch.cat((prompt_embeds, torch.zeros_like(prompt_embeds)))

    def flow(latent: Tensor, sigma: Tensor) -> Tensor:
        with_prompt, without = model(latent.repeat(2, 1, 1, 1), sigma.repeat(2), both).chunk(2)
        return without + guidance_scale * (with_prompt - without)

    return flow
