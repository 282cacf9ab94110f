"""The student: a small denoiser for the last steps, which a UE can run.

It predicts the flow that the denoiser has under guidance, without being told the prompt: by the
time it takes over, the latent says what is to be seen. So its side needs no text encoder, and one
call a step instead of two. It is distilled on the grid of `generation.GRID` alone.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from megdt.models import LATENT_CHANNELS
from megdt.models.denoiser import _POSITIONS, _Attention, _silence, _wave, positions

_CONDITION = 96
_WAVES = 64
_GROUPS = 8


class _Block(nn.Module):
    """Two convolutions; the noise level scales and shifts between them."""

    def __init__(self, enter: int, leave: int) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(_GROUPS, enter)
        self.first = nn.Conv2d(enter, leave, 3, padding=1)
        self.modulate = nn.Linear(_CONDITION, 2 * leave)
        self.norm_out = nn.GroupNorm(_GROUPS, leave)
        self.second = nn.Conv2d(leave, leave, 3, padding=1)
        self.skip = nn.Conv2d(enter, leave, 1) if enter != leave else nn.Identity()
        _silence(self.second)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        hidden = self.first(functional.silu(self.norm_in(x)))
        gain, offset = self.modulate(condition)[:, :, None, None].chunk(2, 1)
        hidden = functional.silu(self.norm_out(hidden) * (1 + gain) + offset)
        result: Tensor = self.skip(x) + self.second(hidden)
        return result


class Student(nn.Module):
    """Predicts noise minus latent.

    Args:
        widths: Channels at full, half and quarter latent resolution.
    """

    def __init__(self, *, widths: tuple[int, int, int] = (32, 64, 80)) -> None:
        super().__init__()
        top, middle, bottom = widths
        self.condition = nn.Sequential(nn.Linear(_WAVES, _CONDITION), nn.SiLU())
        self.enter = nn.Conv2d(LATENT_CHANNELS + _POSITIONS, top, 3, padding=1)
        self.down_top = _Block(top, top)
        self.to_middle = nn.Conv2d(top, middle, 3, stride=2, padding=1)
        self.down_middle = _Block(middle, middle)
        self.to_bottom = nn.Conv2d(middle, bottom, 3, stride=2, padding=1)
        self.bottom = _Block(bottom, bottom)
        self.attention = _Attention(bottom, 4)
        self.from_bottom = nn.Conv2d(bottom, middle, 1)
        self.up_middle = _Block(2 * middle, middle)
        self.from_middle = nn.Conv2d(middle, top, 1)
        self.up_top = _Block(2 * top, top)
        self.leave = nn.Sequential(
            nn.GroupNorm(_GROUPS, top), nn.SiLU(), nn.Conv2d(top, LATENT_CHANNELS, 3, padding=1)
        )

    def forward(
        self, latent: Float[Tensor, "batch 4 height width"], sigma: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch 4 height width"]:
        """Predict the flow at one noise level.

        Args:
            latent: Whole views with noise, height and width alike and a multiple of 4.
                [batch, 4, height, width]
            sigma: Noise level in [0, 1]. [batch]

        Returns:
            Noise minus clean latent. [batch, 4, height, width]
        """
        condition = self.condition(_wave(sigma))
        batch, _, height, width = latent.shape
        where = positions(height, width, view=height).to(latent).expand(batch, -1, -1, -1)
        top = self.down_top(self.enter(torch.cat((latent, where), 1)), condition)
        middle = self.down_middle(self.to_middle(top), condition)
        x = self.attention(self.bottom(self.to_bottom(middle), condition))
        x = functional.interpolate(self.from_bottom(x), scale_factor=2.0)
        x = self.up_middle(torch.cat((x, middle), 1), condition)
        x = functional.interpolate(self.from_middle(x), scale_factor=2.0)
        flow: Tensor = self.leave(self.up_top(torch.cat((x, top), 1), condition))
        return flow
