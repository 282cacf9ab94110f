"""The autoencoder: pictures to latents of an eighth of the size, and back.

Both halves work at a quarter of the picture's resolution or below: a pixel-unshuffle opens the
encoder and a pixel-shuffle closes the decoder. That is what makes the decoder cheap enough for a
user equipment. Latents leave the encoder with zero mean and unit variance in every channel, so an
analog link can send them as they are and a denoiser needs no scale factor.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from megdt.models import LATENT_CHANNELS


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.second(functional.silu(self.first(functional.silu(x))))
        result: Tensor = x + hidden
        return result


class Encoder(nn.Module):
    """Pictures to latents.

    Args:
        width: Channels at a quarter of the resolution; twice as many at an eighth.
        blocks: Residual blocks at an eighth of the resolution.
    """

    def __init__(self, *, width: int = 64, blocks: int = 3) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(48, width, 3, padding=1),
            _ResidualBlock(width),
            nn.SiLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            *(_ResidualBlock(2 * width) for _ in range(blocks)),
            nn.SiLU(),
            nn.Conv2d(2 * width, LATENT_CHANNELS, 3, padding=1),
        )
        # Without affine parameters this only standardises: batch statistics while training,
        # their running average afterwards.
        self.standardise = nn.BatchNorm2d(LATENT_CHANNELS, affine=False, momentum=0.02)

    def forward(
        self, image: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch 4 height//8 width//8"]:
        """Encode a batch.

        Args:
            image: RGB in [-1, 1], height and width multiples of 8. [batch, 3, height, width]

        Returns:
            Latents, about zero mean and unit variance. [batch, 4, height / 8, width / 8]
        """
        latent: Tensor = self.standardise(self.layers(image).float())
        return latent


class Decoder(nn.Module):
    """Latents to pictures, told how noisy the latent is.

    Args:
        width: Channels at a quarter of the resolution; twice as many at an eighth.
        blocks: Residual blocks at an eighth of the resolution.
    """

    def __init__(self, *, width: int = 64, blocks: int = 3) -> None:
        super().__init__()
        self.enter = nn.Conv2d(LATENT_CHANNELS, 2 * width, 3, padding=1)
        # One gain and one offset a channel from the noise level; zero at first, so that the
        # clean decoder is the starting point.
        adapt = nn.Linear(64, 4 * width)
        nn.init.zeros_(adapt.weight)
        nn.init.zeros_(adapt.bias)
        self.noise = nn.Sequential(nn.Linear(2, 64), nn.SiLU(), adapt)
        self.low = nn.Sequential(*(_ResidualBlock(2 * width) for _ in range(blocks)))
        self.rise = nn.Conv2d(2 * width, 4 * width, 3, padding=1)
        self.high = nn.Sequential(_ResidualBlock(width), _ResidualBlock(width))
        self.leave = nn.Conv2d(width, 48, 3, padding=1)

    def forward(
        self,
        latent: Float[Tensor, "batch 4 height width"],
        noise_power: Float[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch 3 8*height 8*width"]:
        """Decode a batch.

        Args:
            latent: Unit-variance latents, noise added. [batch, 4, height, width]
            noise_power: Mean square of the noise on each latent, 0 when left out. [batch]

        Returns:
            RGB, about [-1, 1], not clipped. [batch, 3, 8 * height, 8 * width]
        """
        if noise_power is None:
            noise_power = latent.new_zeros(latent.shape[0])
        share = noise_power / (1 + noise_power)
        # Wiener gain first: what is left of the latent is its best linear estimate.
        x = self.enter(latent * (1 - share)[:, None, None, None])
        gain, offset = self.noise(torch.stack((share, share.sqrt()), 1)).chunk(2, 1)
        x = self.low(x * (1 + gain[:, :, None, None]) + offset[:, :, None, None])
        x = functional.pixel_shuffle(self.rise(functional.silu(x)), 2)
        image: Tensor = functional.pixel_shuffle(self.leave(functional.silu(self.high(x))), 4)
        return image
