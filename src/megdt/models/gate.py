"""The feature gate: several sides' features of one view, fused position by position.

Each source is a latent with what is known about it: where it sees (confidence), how old it is, how
much noise the air has left on it. The gate says how far each is to be believed at each position,
and mends the seams. It takes the sources in any order and in any number; where only one of them
sees, its values are passed on as they are.

A copy of it runs on every side. So that copies on different machines come to the same bits, they
compute in float64, and what comes out is rounded to a grid (`models/lockstep.py`).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from megdt.models import LATENT_CHANNELS
from megdt.models.lockstep import MAX_AGE_S, NO_SAY

_TOLD = 5
_SHIFT = LATENT_CHANNELS + 1
_WIDTH = 48


class FeatureGate(nn.Module):
    """Believes, and mends."""

    def __init__(self) -> None:
        super().__init__()
        enter = 2 * LATENT_CHANNELS + _TOLD + _SHIFT
        self.look = nn.Sequential(
            nn.Conv2d(enter, _WIDTH, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1),
            nn.SiLU(),
        )
        # What the others see, without regard to their order.
        self.weigh = nn.Sequential(
            nn.Conv2d(2 * _WIDTH, _WIDTH, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(_WIDTH, 1, 3, padding=1),
        )
        self.mend = nn.Sequential(
            nn.Conv2d(_WIDTH + LATENT_CHANNELS + 1, _WIDTH, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(_WIDTH, LATENT_CHANNELS, 3, padding=1),
        )
        _silence(self.weigh[-1])
        _silence(self.mend[-1])

    def forward(
        self,
        latents: Float[Tensor, "batch sources 4 height width"],
        confidence: Float[Tensor, "batch sources height width"],
        age_s: Float[Tensor, "batch sources"],
        noise_power: Float[Tensor, "batch sources"],
    ) -> Float[Tensor, "batch 4 height width"]:
        """Fuse.

        Args:
            latents: What each source says; anything where it does not see.
            confidence: 1 where it sees, 0 where it does not.
            age_s: How long ago it was seen, seconds.
            noise_power: Mean square of the noise that the air has left on it.

        Returns:
            [batch, latent_channels, height, width]
        """
        batch, sources = latents.shape[:2]
        seen = confidence[:, :, None]
        latents = latents * (seen > 0)
        everyone = (latents * seen).sum(1, keepdim=True) / seen.sum(1, keepdim=True).clamp(min=1e-3)
        apart = latents - everyone
        told = torch.cat((_tell(confidence, age_s, noise_power), _shift(apart, confidence)), 2)
        looked = self.look(torch.cat((latents, apart, told), 2).flatten(0, 1)).unflatten(
            0, (batch, sources)
        )
        together = (looked * seen).sum(1, keepdim=True) / seen.sum(1, keepdim=True).clamp(min=1)
        pairs = torch.cat((looked, together.expand_as(looked)), 2)
        belief = self.weigh(pairs.flatten(0, 1)).unflatten(0, (batch, sources))
        # However sure the gate is of a source, where it does not see it has no say.
        weight = torch.softmax(belief.masked_fill(seen <= 0, NO_SAY), 1)
        fused = (weight * latents).sum(1)
        best = confidence.amax(1, keepdim=True)
        hidden = torch.cat(((weight * looked).sum(1), fused, best), 1)
        # Where a single source sees there is nothing to mend it by: it passes as it is.
        several = ((confidence > 0).sum(1, keepdim=True) > 1).to(fused)
        mended: Tensor = fused + self.mend(hidden) * several
        return mended


def _shift(apart: Tensor, confidence: Tensor) -> Tensor:
    """How far each source is from all, where several see: another light, or an air full of noise.

    The same at every position, so that where a source alone sees it is known how far it goes along
    with the others. [batch, sources, 5, height, width]
    """
    several = (confidence > 0) & ((confidence > 0).sum(1, keepdim=True) > 1)
    area = several.sum((2, 3)).clamp(min=1)[:, :, None]
    mean = (apart * several[:, :, None]).sum((3, 4)) / area
    spread = ((apart * several[:, :, None]).square().sum((3, 4)) / area).mean(2, keepdim=True)
    height, width = confidence.shape[2:]
    return torch.cat((mean, spread), 2)[..., None, None].expand(-1, -1, -1, height, width)


def _silence(layer: nn.Module) -> None:
    """Zero weights: the untrained gate is the mean of what is seen."""
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)


def _tell(confidence: Tensor, age_s: Tensor, noise_power: Tensor) -> Tensor:
    """What is known about each source, as maps. [batch, sources, 5, height, width]"""
    height, width = confidence.shape[2:]
    aged = torch.log1p(age_s.clamp(0, MAX_AGE_S) / 3600) / 8
    # The scale of diffusion: 0 without noise, 1 for noise alone.
    noisy = noise_power.sqrt() / (1 + noise_power.sqrt())
    flat = torch.stack((aged, noisy), 2)[..., None, None].expand(-1, -1, -1, height, width)
    down = torch.linspace(-1, 1, height, dtype=confidence.dtype, device=confidence.device)[:, None]
    near = functional.avg_pool2d(confidence, 3, stride=1, padding=1, count_include_pad=False)
    return torch.cat(
        (confidence[:, :, None], near[:, :, None], flat, down.expand_as(confidence)[:, :, None]), 2
    )
