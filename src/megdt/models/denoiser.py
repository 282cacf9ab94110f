"""The denoiser: a convolutional U-Net that predicts the flow from latents to noise.

Trained by flow matching: a latent at noise level sigma is x = (1 - sigma) z + sigma n, and the
network predicts n - z (Lipman et al., arXiv:2210.02747; Liu et al., arXiv:2209.03003). It is told
sigma, the prompt's embedding, where in the view each latent lies, and how fine the latent grid is,
so that one network draws the whole scene at 32 x 32 and adds detail at 64 x 64 and 128 x 128.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from megdt.models import LATENT_CHANNELS
from megdt.models.text_encoder import EMBEDDING

_CONDITION = 320
_POSITIONS = 12


class _Block(nn.Module):
    """Two convolutions; the condition scales and shifts between them."""

    def __init__(self, enter: int, leave: int) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(16, enter)
        self.first = nn.Conv2d(enter, leave, 3, padding=1)
        self.modulate = nn.Linear(_CONDITION, 2 * leave)
        self.norm_out = nn.GroupNorm(16, leave)
        self.second = nn.Conv2d(leave, leave, 3, padding=1)
        self.skip = nn.Conv2d(enter, leave, 1) if enter != leave else nn.Identity()
        _silence(self.second)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        hidden = self.first(functional.silu(self.norm_in(x)))
        gain, offset = self.modulate(condition)[:, :, None, None].chunk(2, 1)
        hidden = functional.silu(self.norm_out(hidden) * (1 + gain) + offset)
        result: Tensor = self.skip(x) + self.second(hidden)
        return result


class _Attention(nn.Module):
    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(16, channels)
        self.enter = nn.Conv2d(channels, 3 * channels, 1)
        self.leave = nn.Conv2d(channels, channels, 1)
        _silence(self.leave)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        split = self.enter(self.norm(x)).reshape(batch, 3, self.heads, -1, height * width)
        query, key, value = split.transpose(-1, -2).unbind(1)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        mixed = mixed.transpose(-1, -2).reshape(batch, channels, height, width)
        result: Tensor = x + self.leave(mixed)
        return result


class Denoiser(nn.Module):
    """Predicts noise minus latent.

    Args:
        widths: Channels at full, half and quarter latent resolution.
    """

    def __init__(self, *, widths: tuple[int, int, int] = (64, 128, 224)) -> None:
        super().__init__()
        top, middle, bottom = widths
        self.condition = nn.Sequential(
            nn.Linear(64 + 3 + EMBEDDING, _CONDITION),
            nn.SiLU(),
            nn.Linear(_CONDITION, _CONDITION),
            nn.SiLU(),
        )
        self.enter = nn.Conv2d(LATENT_CHANNELS + _POSITIONS, top, 3, padding=1)
        self.down_top = _Block(top, top)
        self.to_middle = nn.Conv2d(top, middle, 3, stride=2, padding=1)
        self.down_middle = nn.ModuleList((_Block(middle, middle), _Block(middle, middle)))
        self.to_bottom = nn.Conv2d(middle, bottom, 3, stride=2, padding=1)
        self.bottom = nn.ModuleList(_Block(bottom, bottom) for _ in range(4))
        self.attention = nn.ModuleList(_Attention(bottom, 4) for _ in range(4))
        self.from_bottom = nn.Conv2d(bottom, middle, 1)
        self.up_middle = nn.ModuleList((_Block(2 * middle, middle), _Block(2 * middle, middle)))
        self.from_middle = nn.Conv2d(middle, top, 1)
        self.up_top = nn.ModuleList((_Block(2 * top, top), _Block(2 * top, top)))
        self.leave = nn.Sequential(
            nn.GroupNorm(16, top), nn.SiLU(), nn.Conv2d(top, LATENT_CHANNELS, 3, padding=1)
        )

    def forward(
        self,
        latent: Float[Tensor, "batch 4 height width"],
        sigma: Float[Tensor, " batch"],
        prompt_embeds: Float[Tensor, "batch embedding"],
        *,
        position: Float[Tensor, "batch 12 height width"],
        scale: Float[Tensor, " batch"],
        features: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> Float[Tensor, "batch 4 height width"]:
        """Predict the flow at one noise level.

        Args:
            latent: Latents with noise, height and width multiples of 4. [batch, 4, height, width]
            sigma: Noise level in [0, 1]. [batch]
            prompt_embeds: Embeddings; zeros mean no prompt. [batch, EMBEDDING]
            position: What `positions` gives for these latents. [batch, 12, height, width]
            scale: Latents across the whole view, in multiples of 32. [batch]
            features: What `sketching.SketchAdapter` makes of a sketch, to be added at full, half
                and quarter resolution; None adds nothing.

        Returns:
            Noise minus clean latent. [batch, 4, height, width]
        """
        level = scale.log2()
        fineness = torch.stack((level == 0, level / 2, level.square() / 4), 1)
        told = torch.cat((_wave(sigma), fineness.to(prompt_embeds), prompt_embeds), 1)
        condition = self.condition(told)
        top = self.down_top(self.enter(torch.cat((latent, position), 1)), condition)
        if features is not None:
            top = top + features[0]
        x = middle_in = self.to_middle(top)
        kept = []
        for block in self.down_middle:
            x = block(x, condition)
            kept.append(x)
        if features is not None:
            x = kept[1] = x + features[1]
        x = self.to_bottom(x)
        if features is not None:
            x = x + features[2]
        for block, attention in zip(self.bottom, self.attention, strict=True):
            x = attention(block(x, condition))
        x = functional.interpolate(self.from_bottom(x), scale_factor=2.0)
        x = self.up_middle[0](torch.cat((x, kept[1]), 1), condition)
        x = self.up_middle[1](torch.cat((x, kept[0] + middle_in), 1), condition)
        x = functional.interpolate(self.from_middle(x), scale_factor=2.0)
        for block in self.up_top:
            x = block(torch.cat((x, top), 1), condition)
        flow: Tensor = self.leave(x)
        return flow


def _silence(layer: nn.Conv2d) -> None:
    """Begin with nothing added to the residual path."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def _wave(sigma: Tensor) -> Tensor:
    """Sine and cosine features of the noise level. [batch, 64]"""
    frequencies = torch.exp(torch.linspace(0, math.log(200), 32, device=sigma.device))
    angles = sigma[:, None] * frequencies
    return torch.cat((angles.sin(), angles.cos()), 1)


def positions(
    height: int, width: int, *, view: int, top: int = 0, left: int = 0
) -> Float[Tensor, "12 {height} {width}"]:
    """Where in the view each latent lies, as waves of its two coordinates.

    Args:
        height: Rows of the latent grid, which may be a crop.
        width: Its columns.
        view: Latents across the whole view.
        top: Row of the view at which the crop begins.
        left: Its column.

    Returns:
        [12, height, width]
    """
    y = (torch.arange(top, top + height) + 0.5) / view
    x = (torch.arange(left, left + width) + 0.5) / view
    waves = []
    for frequency in (0.5, 1.0, 2.0):
        for coordinate, shape in ((y, (height, 1)), (x, (1, width))):
            angle = (2 * math.pi * frequency * coordinate).reshape(shape)
            waves += [angle.sin().expand(height, width), angle.cos().expand(height, width)]
    return torch.stack(waves)
