"""Latents to pictures and back, by autoencoders of diffusers, as its pipelines do it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from megdt.errors import RequestError


def decode_latents(vae: nn.Module, latents: Tensor) -> NDArray[np.uint8]:
    """Pictures of latents, to the bit those of the pipeline.

    Args:
        vae: An autoencoder with a configuration.
        latents: As a denoiser leaves them. [batch, latent_channels, height, width]

    Returns:
        RGB. [batch, height, width, 3]
    """
    scale, shift, spread = _normal(vae)
    values = latents.to(next(vae.parameters()).dtype)
    # In the order of the pipelines, since another one rounds otherwise.
    values = values / scale if spread is None else values * spread.to(values) / scale
    if shift is not None:
        values = values + shift.to(values)
    with torch.no_grad():
        image = vae.decode(values, return_dict=False)[0]  # type: ignore[operator]
    image = (image * 0.5 + 0.5).clamp(0, 1)
    pixels = image.cpu().permute(0, 2, 3, 1).float().numpy()
    eight: NDArray[np.uint8] = (pixels * 255).round().astype(np.uint8)
    return eight


def encode_images(vae: nn.Module, images: Tensor, factor: int) -> Tensor:
    """Latents of pictures, as a denoiser takes them: the mean of each.

    Args:
        vae: An autoencoder with a configuration.
        images: RGB, 0 to 255. [batch, height, width, 3]
        factor: Pixels along the side of what one latent stands for.

    Returns:
        [batch, latent_channels, height / factor, width / factor]

    Raises:
        RequestError: If a side is not a multiple of the factor.
    """
    height, width = images.shape[1:3]
    if height % factor or width % factor:
        raise RequestError(
            f"images are {height} x {width} pixels, the autoencoder needs multiples of {factor}; crop "
            f"them to {height // factor * factor} x {width // factor * factor}"
        )
    batch = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        coded = vae.encode(batch.to(next(vae.parameters()).dtype))  # type: ignore[operator]
    values: Tensor = coded.latent_dist.mode() if hasattr(coded, "latent_dist") else coded.latents
    scale, shift, spread = _normal(vae)
    if shift is not None:
        values = values - shift.to(values)
    return values * scale if spread is None else values * scale / spread.to(values)


def _normal(vae: nn.Module) -> tuple[float, Tensor | None, Tensor | None]:
    """By what latents are divided, what is added, and the spread of each channel, where there is one."""
    config: Any = vae.config
    mean, spread = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and spread is not None:
        shape = (1, -1, 1, 1)
        return (
            config.scaling_factor,
            torch.tensor(mean).view(shape),
            torch.tensor(spread).view(shape),
        )
    shift = config.get("shift_factor")
    return config.scaling_factor, None if shift is None else torch.tensor(shift), None
