"""The sketch adapter: a sketch as features that lead the denoiser, whose own weights stay as they are.

After T2I-Adapter (Mou et al., arXiv:2302.08453): a small network looks at the sketch once, and what
it makes is added to the denoiser's features at its three resolutions in every step.
"""

from __future__ import annotations

from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from megdt.records import Style

STYLES: tuple[Style, ...] = get_args(Style)
"""In the order of the adapter's one-hot input."""

_FINENESS = 4
"""Sketch pixels along the side of a latent that the adapter looks at."""


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(16, channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(16, channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.layers(x)
        return result


class SketchAdapter(nn.Module):
    """Features of a sketch at the denoiser's full, half and quarter resolution.

    Args:
        widths: The denoiser's channels at these.
    """

    def __init__(self, *, widths: tuple[int, int, int] = (64, 128, 224)) -> None:
        super().__init__()
        top, middle, bottom = 64, 112, 160
        self.enter = nn.Conv2d(3 * _FINENESS**2 + len(STYLES), top, 3, padding=1)
        self.top = nn.Sequential(_Residual(top), _Residual(top))
        self.to_middle = nn.Conv2d(top, middle, 3, stride=2, padding=1)
        self.middle = nn.Sequential(_Residual(middle), _Residual(middle))
        self.to_bottom = nn.Conv2d(middle, bottom, 3, stride=2, padding=1)
        self.leave = nn.ModuleList(
            nn.Conv2d(own, theirs, 1)
            for own, theirs in zip((top, middle, bottom), widths, strict=True)
        )
        for layer in self.leave:  # begin as the denoiser alone
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(
        self,
        sketch: Float[Tensor, "batch 3 size size"],
        style: Float[Tensor, "batch styles"],
        *,
        grid: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Look at sketches.

        Args:
            sketch: RGB in [-1, 1], of any size. [batch, 3, size, size]
            style: One-hot, in the order of STYLES. [batch, styles]
            grid: Latents across the view that the features are for, a multiple of 4.

        Returns:
            What `Denoiser` takes as features.
            [batch, widths[0], grid, grid] and two more, each half as large
        """
        seen = functional.adaptive_avg_pool2d(sketch, _FINENESS * grid)
        seen = functional.pixel_unshuffle(seen, _FINENESS)
        told = style[:, :, None, None].expand(-1, -1, grid, grid)
        top = self.top(self.enter(torch.cat((seen, told), 1)))
        middle = self.middle(self.to_middle(top))
        bottom = functional.silu(self.to_bottom(functional.silu(middle)))
        features = (top, middle, bottom)
        first, second, third = (leave(f) for leave, f in zip(self.leave, features, strict=True))
        return first, second, third
