"""From prompt embeddings to latents of any size, in one coherent scene.

A small view is drawn at once. For a large one the whole scene is first drawn on a grid of 32 x 32
latents; then it is enlarged as a picture, since latents do not survive interpolation, taken back to
a middle noise level, and denoised again on the finer grid, where the denoiser, told how fine the
grid is, adds what the coarse one could not hold. So 1024 pixels are one scene in three passes, not
tiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from megdt.errors import RequestError
from megdt.models import FACTOR, LATENT_CHANNELS, SHIFT
from megdt.models.autoencoder import Decoder, Encoder
from megdt.models.denoiser import Denoiser, positions
from megdt.models.sampling import Flow, add_noise, guide, make_sigmas, sample_euler
from megdt.models.text_encoder import EMBEDDING

GRID = 32
"""Latents across the view that the denoiser learnt as a whole scene."""

REFINE_FROM = 0.4
"""Noise level from which a finer grid is denoised: the scene stays, edges are drawn anew."""

_MULTIPLE = 4  # the U-Net halves its grid twice


def grids(size_px: int) -> list[int]:
    """Latent grids that a view of this size is drawn on, coarse to fine.

    The first is always the one on which the denoiser learnt to draw from noise alone.

    >>> grids(256), grids(320), grids(1024)
    ([32], [32, 40], [32, 64, 128])
    """
    sizes = [size_px // FACTOR]
    while sizes[0] > 2 * GRID:
        sizes.insert(0, -(-sizes[0] // 2))
    return sizes if sizes[0] == GRID else [GRID, *sizes]


def count_steps(size_px: int, steps: int) -> list[int]:
    """Denoising steps on each grid: all of them on the first, half as many on finer ones."""
    return [steps if level == 0 else -(-steps // 2) for level in range(len(grids(size_px)))]


@torch.inference_mode()
def generate_latents(
    denoiser: Denoiser,
    encoder: Encoder,
    decoder: Decoder,
    prompt_embeds: Float[Tensor, "batch embedding"],
    rng_seeds: Sequence[int],
    *,
    size_px: int,
    steps: int,
    guidance_scale: float,
    features: tuple[Tensor, Tensor, Tensor] | None = None,
    handoff_step: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Float[Tensor, "batch 4 height width"]:
    """Draw latents.

    Args:
        denoiser: The flow model.
        encoder: Takes an enlarged picture back to latents; used above 256 pixels alone.
        decoder: Makes the picture to enlarge.
        prompt_embeds: [batch, embedding]
        rng_seeds: One for each picture; its noise does not depend on the rest of the batch.
        size_px: Height and width of the picture to come, a multiple of 8 from 256 on.
        steps: Denoising steps on the first grid.
        guidance_scale: How strongly prompt and features lead.
        features: What a sketch adapter makes for the first grid, where the scene is decided.
        handoff_step: Stop after so many steps, at the noise level `handoff_level`;
            `finish_latents` goes on from there.
        progress: Told the steps done and the steps in all.

    Returns:
        [batch, latent_channels, size_px / 8, size_px / 8]

    Raises:
        RequestError: If steps on several grids are to be split.
    """
    if handoff_step is not None:
        if len(grids(size_px)) > 1:
            raise RequestError(
                f"size_px is {size_px}, denoising steps are split at {GRID * FACTOR} pixels alone, "
                f"since the student knows no finer grid; take {GRID * FACTOR}, or a mechanism that "
                "does not split them"
            )
        return draw_first_grid(
            denoiser,
            prompt_embeds,
            rng_seeds,
            steps=steps,
            guidance_scale=guidance_scale,
            features=features,
            handoff_step=handoff_step,
            progress=progress,
        )
    total, first = sum(count_steps(size_px, steps)), count_steps(size_px, steps)[0]

    def tell(before: int) -> Callable[[int, int], None]:
        return lambda step, _: None if progress is None else progress(before + step, total)

    coarse = draw_first_grid(
        denoiser,
        prompt_embeds,
        rng_seeds,
        steps=steps,
        guidance_scale=guidance_scale,
        features=features,
        progress=tell(0),
    )
    return enlarge_latents(
        denoiser,
        encoder,
        decoder,
        coarse,
        prompt_embeds,
        rng_seeds,
        size_px=size_px,
        steps=steps,
        guidance_scale=guidance_scale,
        progress=tell(first),
    )


@torch.inference_mode()
def draw_first_grid(
    denoiser: Denoiser,
    prompt_embeds: Float[Tensor, "batch embedding"],
    rng_seeds: Sequence[int],
    *,
    steps: int,
    guidance_scale: float,
    features: tuple[Tensor, Tensor, Tensor] | None = None,
    handoff_step: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Float[Tensor, "batch 4 grid grid"]:
    """Draw the whole scene from noise, on the grid where it is decided; see `generate_latents`.

    Returns:
        [batch, latent_channels, 32, 32]
    """
    noise = _noise(_generators(rng_seeds), GRID).to(prompt_embeds.device)
    flow = guide(
        _on_grid(denoiser, GRID, GRID, features), prompt_embeds, guidance_scale=guidance_scale
    )
    last = None if handoff_step is None else handoff_step + 1
    sigmas = make_sigmas(steps, shift=SHIFT)[:last].to(noise)
    return sample_euler(flow, noise, sigmas, progress=progress)


@torch.inference_mode()
def enlarge_latents(
    denoiser: Denoiser,
    encoder: Encoder,
    decoder: Decoder,
    coarse: Float[Tensor, "batch 4 grid grid"],
    prompt_embeds: Float[Tensor, "batch embedding"],
    rng_seeds: Sequence[int],
    *,
    size_px: int,
    steps: int,
    guidance_scale: float,
    progress: Callable[[int, int], None] | None = None,
) -> Float[Tensor, "batch 4 height width"]:
    """Draw a scene of the first grid on all finer ones; see `generate_latents`.

    Args:
        denoiser: The flow model.
        encoder: Takes an enlarged picture back to latents.
        decoder: Makes the picture to enlarge.
        coarse: What `draw_first_grid` made of the same prompts and rng_seeds. [batch, 4, 32, 32]
        prompt_embeds: [batch, embedding]
        rng_seeds: One for each picture.
        size_px: Height and width of the picture to come; at 256 there is no finer grid.
        steps: Denoising steps on the first grid; finer ones take half.
        guidance_scale: How strongly the prompt leads.
        progress: Told the steps done and the steps in all, of the finer grids.

    Returns:
        [batch, latent_channels, size_px / 8, size_px / 8]
    """
    generators = _generators(rng_seeds)
    _noise(generators, GRID)  # the first grid's came before: what follows it is the finer grids'
    plan = list(zip(grids(size_px), count_steps(size_px, steps), strict=True))[1:]
    total, done = sum(count for _, count in plan), 0
    latent = coarse
    for grid, count in plan:
        # Where the U-Net needs it, the grid hangs over the view a little, and is cut to it.
        drawn = -(-grid // _MULTIPLE) * _MULTIPLE
        noise = _noise(generators, drawn).to(coarse)
        larger = _interpolate(latent, grid, encoder, decoder)
        larger = functional.pad(larger, (0, drawn - grid) * 2, mode="replicate")
        start = add_noise(larger, REFINE_FROM, noise)
        flow = guide(
            _on_grid(denoiser, grid, drawn, None), prompt_embeds, guidance_scale=guidance_scale
        )
        before = done

        def tell(step: int, _: int, before: int = before) -> None:
            if progress is not None:
                progress(before + step, total)

        sigmas = make_sigmas(count, start=REFINE_FROM).to(coarse)
        latent = sample_euler(flow, start, sigmas, progress=tell)[:, :, :grid, :grid]
        done += count
    return latent


def _generators(rng_seeds: Sequence[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in rng_seeds]


def _noise(generators: Sequence[torch.Generator], side: int) -> Tensor:
    """The next noise of each picture. [batch, 4, side, side]"""
    shape = (LATENT_CHANNELS, side, side)
    return torch.stack([torch.randn(shape, generator=g) for g in generators])


def handoff_level(steps: int, handoff_step: int) -> float:
    """The noise level that is left after so many steps.

    >>> [round(handoff_level(24, step), 2) for step in (0, 12, 18, 24)]
    [1.0, 0.6, 0.33, 0.0]
    """
    return float(make_sigmas(steps, shift=SHIFT)[handoff_step])


def measure_spread(sigma: float) -> float:
    """Standard deviation of latents at a noise level, where clean ones have 1."""
    return math.hypot(1 - sigma, sigma)


def take_from_air(latent: Tensor, noise_power: float, sigma: float) -> tuple[Tensor, float]:
    """A latent that crossed at a noise level, and the level at which it arrived.

    A channel is a step of diffusion: the noise of the air adds to what the latent has.

    Args:
        latent: Over its spread, with noise of the air. [...]
        noise_power: Mean square of that noise.
        sigma: The level at which it was sent.

    Returns:
        (1 - level) clean latent + level noise, and the level. [...]
    """
    spread = measure_spread(sigma)
    signal, noise = 1 - sigma, math.hypot(sigma, spread * noise_power**0.5)
    return latent * (spread / (signal + noise)), noise / (signal + noise)


@torch.inference_mode()
def finish_latents(
    flow: Flow,
    latent: Float[Tensor, "batch 4 height width"],
    sigma: float,
    *,
    steps: int,
    progress: Callable[[int, int], None] | None = None,
) -> Float[Tensor, "batch 4 height width"]:
    """Run those of a generation's steps that lie below a noise level.

    With the flow and the level that `generate_latents` stopped at, the latents are those of the
    whole generation, bit for bit. Where the air has raised the level, as many more steps are run as
    it has undone, to the nearest one.

    Args:
        flow: Of denoiser or student.
        latent: (1 - sigma) latent + sigma noise. [batch, 4, height, width]
        sigma: Noise level in [0, 1].
        steps: Denoising steps of the whole generation.
        progress: Told the steps done and the steps in all.

    Returns:
        [batch, 4, height, width]
    """
    planned = make_sigmas(steps, shift=SHIFT)
    # A step down to a level is run if sigma is nearer to the level before it.
    from_where = (planned[:-1] + planned[1:]) / 2
    from_where[-1] = 0  # what noise there is, is taken away
    sigmas = torch.cat((torch.tensor([sigma]), planned[1:][from_where < sigma]))
    return sample_euler(flow, latent, sigmas.to(latent), progress=progress)


@torch.inference_mode()
def refine_latents(
    denoiser: Denoiser, latent: Float[Tensor, "batch 4 height width"], sigma: float, *, steps: int
) -> Float[Tensor, "batch 4 height width"]:
    """Denoise from a noise level on, without a prompt.

    A channel is a step of diffusion: a unit-variance latent that came with noise of power p is at
    level sqrt(p) / (1 + sqrt(p)) once it is scaled by 1 - sigma (Wu et al., arXiv:2309.08895).

    Args:
        denoiser: The flow model.
        latent: Square, (1 - sigma) latent + sigma noise. [batch, 4, height, width]
        sigma: Noise level in [0, 1].
        steps: Denoising steps.

    Returns:
        [batch, 4, height, width]
    """
    grid = latent.shape[-1]
    hang = -grid % _MULTIPLE
    padded = functional.pad(latent, (0, hang, 0, hang), mode="replicate")
    flow = _on_grid(denoiser, grid, grid + hang, None)
    unprompted = latent.new_zeros(len(latent), EMBEDDING)
    refined = sample_euler(
        lambda x, level: flow(x, level, unprompted),
        padded,
        make_sigmas(steps, start=sigma).to(latent),
    )
    return refined[:, :, :grid, :grid]


@torch.inference_mode()
def edit_latents(
    denoiser: Denoiser,
    latent: Float[Tensor, "batch 4 height width"],
    prompt_embeds: Float[Tensor, "batch embedding"],
    rng_seeds: Sequence[int],
    *,
    strength: float,
    steps: int,
    guidance_scale: float,
    confidence: Float[Tensor, "batch height width"] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Float[Tensor, "batch 4 height width"]:
    """Draw a latent anew as a prompt says.

    Its noise is raised to a level, from which the prompt leads (Meng et al., SDEdit,
    arXiv:2108.01073). Where it is not confident, it is drawn from noise alone, in steps that keep
    the rest as it was (Lugmayr et al., RePaint, arXiv:2201.09865, without going back).

    Args:
        denoiser: The flow model.
        latent: Square. [batch, 4, height, width]
        prompt_embeds: Zeros for no prompt. [batch, embedding]
        rng_seeds: One for each.
        strength: Noise level to begin at, 0 to 1. Above `REFINE_FROM` on grids finer than `GRID` the
            denoiser, which adds detail there, may lose the scene.
        steps: Denoising steps from noise alone; fewer in proportion to the level.
        guidance_scale: How strongly the prompt leads.
        confidence: 1 where the latent is to be kept as far as `strength` allows, 0 where there is
            nothing to keep; all is kept when left out. [batch, height, width]
        progress: Told of every step.

    Returns:
        [batch, 4, height, width]
    """
    grid = latent.shape[-1]
    hang = (0, -grid % _MULTIPLE) * 2
    padded = functional.pad(latent, hang, mode="replicate")
    generators = [torch.Generator().manual_seed(seed) for seed in rng_seeds]
    noise = torch.stack([torch.randn(padded.shape[1:], generator=g) for g in generators])
    noise = noise.to(latent)
    keep = None
    if confidence is not None and bool((confidence < 1).any()):
        keep = functional.pad(confidence[:, None], hang, mode="replicate")
    # What is not there has to be drawn from the beginning.
    begin = strength if keep is None else 1.0
    if begin == 0:
        return latent
    count = max(1, round(begin * steps))
    sigmas = make_sigmas(count, start=begin, shift=SHIFT if begin == 1 else 1.0).to(latent)
    flow = guide(
        _on_grid(denoiser, grid, padded.shape[-1], None),
        prompt_embeds,
        guidance_scale=guidance_scale,
    )
    drawn = add_noise(padded, begin, noise)
    for index in range(count):
        drawn = sample_euler(flow, drawn, sigmas[index : index + 2])
        level = float(sigmas[index + 1])
        if keep is not None and level >= strength:
            drawn = keep * add_noise(padded, level, noise) + (1 - keep) * drawn
        if progress is not None:
            progress(index + 1, count)
    return drawn[:, :, :grid, :grid]


def _interpolate(latent: Tensor, grid: int, encoder: Encoder, decoder: Decoder) -> Tensor:
    """The same scene on a finer grid, as soft as it was."""
    image = decoder(latent).clamp(-1, 1)
    size = (grid * FACTOR, grid * FACTOR)
    larger = functional.interpolate(image, size=size, mode="bicubic").clamp(-1, 1)
    enlarged: Tensor = encoder(larger)
    return enlarged


def _on_grid(
    denoiser: Denoiser, grid: int, drawn: int, features: tuple[Tensor, Tensor, Tensor] | None
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    where = positions(drawn, drawn, view=grid)

    def flow(latent: Tensor, sigma: Tensor, prompt_embeds: Tensor) -> Tensor:
        count = latent.shape[0]
        led = features
        if led is not None and len(led[0]) < count:
            # Guidance asks with and without; who asks without has no prompt and no sketch.
            first, second, third = (torch.cat((f, torch.zeros_like(f))) for f in led)
            led = first, second, third
        predicted: Tensor = denoiser(
            latent,
            sigma,
            prompt_embeds,
            position=where.to(latent).expand(count, -1, -1, -1),
            scale=torch.full((count,), grid / GRID, device=latent.device),
            features=led,
        )
        return predicted

    return flow
