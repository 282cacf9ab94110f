"""Joint source-channel code: a seed to analog symbols and back, both ends told the SNR.

The symbols are `SYMBOL_CHANNELS` maps at half of the latent's resolution, as many real numbers as
the latent has. They are nested: the first k maps are a code of their own, trained with random k, so
one pair of networks gives every rate. Both ends may also hold a coarse seed that went ahead as
bits; then the symbols carry what it lacks. With no symbols at all the receiver still mends the
coarse seed. So one pair of networks is the analog, the hybrid and the digital receiver.

Numbers are those of the bundle's latents; for another autoencoder, with C channels, 4 C takes the
place of 16.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from megdt.errors import BundleError
from megdt.models import LATENT_CHANNELS

SYMBOL_CHANNELS = 4 * LATENT_CHANNELS
"""Maps of symbols, most important first, each [height / 2, width / 2] of the latent."""

_RATE = 4  # where `tell` has the share of the maps that are sent

MULTIPLE = 8
"""Latents are padded to multiples of this: two by the symbols, four by the networks."""

_CONDITION = 96
_TOLD = 8


class _Block(nn.Module):
    """Two convolutions; what the network is told scales and shifts between them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.modulate = nn.Linear(_CONDITION, 2 * channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        _silence(self.modulate)
        _silence(self.second)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        gain, offset = self.modulate(condition)[:, :, None, None].chunk(2, 1)
        hidden = self.first(functional.silu(x)) * (1 + gain) + offset
        result: Tensor = x + self.second(functional.silu(hidden))
        return result


class _UNet(nn.Module):
    """Three resolutions, so that at low SNR a few numbers can stand for the whole view."""

    def __init__(
        self, enter: int, leave: int, widths: tuple[int, int, int], blocks: tuple[int, int, int]
    ) -> None:
        super().__init__()
        top, middle, bottom = widths
        self.condition = nn.Sequential(
            nn.Linear(_TOLD, _CONDITION), nn.SiLU(), nn.Linear(_CONDITION, _CONDITION), nn.SiLU()
        )
        self.enter = nn.Conv2d(enter, top, 3, padding=1)
        self.down_top = nn.ModuleList(_Block(top) for _ in range(blocks[0]))
        self.to_middle = nn.Conv2d(top, middle, 3, stride=2, padding=1)
        self.down_middle = nn.ModuleList(_Block(middle) for _ in range(blocks[1]))
        self.to_bottom = nn.Conv2d(middle, bottom, 3, stride=2, padding=1)
        self.bottom = nn.ModuleList(_Block(bottom) for _ in range(blocks[2]))
        self.from_bottom = nn.Conv2d(bottom, middle, 1)
        self.up_middle = nn.ModuleList(_Block(middle) for _ in range(blocks[1]))
        self.from_middle = nn.Conv2d(middle, top, 1)
        self.up_top = nn.ModuleList(_Block(top) for _ in range(blocks[0]))
        self.leave = nn.Conv2d(top, leave, 3, padding=1)
        _silence(self.leave)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        condition = self.condition(told)
        x = top = _through(self.down_top, self.enter(x), condition)
        x = middle = _through(self.down_middle, self.to_middle(x), condition)
        x = _through(self.bottom, self.to_bottom(x), condition)
        x = functional.interpolate(self.from_bottom(x), scale_factor=2.0) + middle
        x = _through(self.up_middle, x, condition)
        x = functional.interpolate(self.from_middle(x), scale_factor=2.0) + top
        result: Tensor = self.leave(functional.silu(_through(self.up_top, x, condition)))
        return result


def _silence(layer: nn.Module) -> None:
    """Begin with nothing added to the residual path."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def _through(blocks: nn.ModuleList, x: Tensor, condition: Tensor) -> Tensor:
    for block in blocks:
        x = block(x, condition)
    return x


def tell(
    noise_power: Float[Tensor, " batch"],
    maps: Float[Tensor, " batch"],
    coarse_bits: Float[Tensor, " batch"],
    *,
    channels: int = LATENT_CHANNELS,
) -> Float[Tensor, "batch told"]:
    """What both networks are told of the link and the plan.

    Args:
        noise_power: Mean square of the noise on a symbol of unit power. [batch]
        maps: Maps of symbols that are sent, 0 to SYMBOL_CHANNELS. [batch]
        coarse_bits: Bits of the coarse seed an element of the latent; 0 for none. [batch]
        channels: Of the latent.

    Returns:
        [batch, 8]
    """
    share = 1 / (1 + noise_power)
    level = -noise_power.clamp(1e-5, 1e3).log10()
    rate = maps / (4 * channels)
    has_coarse = (coarse_bits > 0).float()
    fineness = torch.where(coarse_bits > 0, coarse_bits.clamp(min=1e-3).log2() / 4, 0)
    one = torch.ones_like(share)
    return torch.stack(
        (
            share,
            share.sqrt(),
            level / 2,
            (level / 2).square(),
            rate,
            one - rate,
            has_coarse,
            fineness,
        ),
        1,
    )


class JsccEncoder(nn.Module):
    """Seed to maps of symbols.

    Args:
        widths: Channels at the symbols' resolution, half and quarter of it.
        blocks: Residual blocks at each.
        channels: Of the latent.
        strengths: Amplitude of each map relative to the others; alike where left out. [4 * channels]
    """

    def __init__(
        self,
        *,
        widths: tuple[int, int, int] = (64, 80, 112),
        blocks: tuple[int, int, int] = (1, 1, 2),
        channels: int = LATENT_CHANNELS,
        strengths: Tensor | None = None,
    ) -> None:
        super().__init__()
        # An orthonormal start, ordered by variance; the network is what it adds to that.
        self.basis = nn.Parameter(torch.eye(4 * channels))
        self.network = _UNet(8 * channels, 4 * channels, widths, blocks)
        self.strengths: Tensor | None
        self.register_buffer("strengths", strengths, persistent=False)

    def forward(
        self,
        latent: Float[Tensor, "batch channels height width"],
        coarse: Float[Tensor, "batch channels height width"],
        told: Float[Tensor, "batch told"],
    ) -> Float[Tensor, "batch maps height//2 width//2"]:
        """Encode a batch; height and width are multiples of MULTIPLE.

        Args:
            latent: The seed. [batch, 4, height, width]
            coarse: What the receiver has of it already, or zeros. [batch, 4, height, width]
            told: From `tell`. [batch, 8]

        Returns:
            Maps of symbols before power is normalised. [batch, 16, height / 2, width / 2]
        """
        lacking = functional.pixel_unshuffle(latent - coarse, 2)
        seen = torch.cat((lacking, functional.pixel_unshuffle(coarse, 2)), 1)
        linear = torch.einsum("oc,bchw->bohw", self.basis, lacking)
        symbols: Tensor = linear + self.network(seen, told)
        if self.strengths is None:
            return symbols
        return symbols * _share_power(self.strengths, told)


class JsccDecoder(nn.Module):
    """Noisy maps of symbols, and the coarse seed if there is one, to the seed.

    Args:
        widths: Channels at the symbols' resolution, half and quarter of it.
        blocks: Residual blocks at each.
        channels: Of the latent.
        strengths: Amplitude of each map relative to the others; alike where left out. [4 * channels]
    """

    def __init__(
        self,
        *,
        widths: tuple[int, int, int] = (80, 96, 128),
        blocks: tuple[int, int, int] = (2, 1, 2),
        channels: int = LATENT_CHANNELS,
        strengths: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.basis = nn.Parameter(torch.eye(4 * channels))
        self.network = _UNet(12 * channels, 4 * channels, widths, blocks)
        self.strengths: Tensor | None
        self.register_buffer("strengths", strengths, persistent=False)
        # How blurred the seed will be, in the terms in which the picture's decoder is told noise.
        self.noise = nn.Sequential(nn.Linear(_TOLD, 64), nn.SiLU(), nn.Linear(64, 1))

    def forward(
        self,
        symbols: Float[Tensor, "batch maps height width"],
        share: Float[Tensor, "batch maps height width"],
        coarse: Float[Tensor, "batch channels 2*height 2*width"],
        told: Float[Tensor, "batch told"],
    ) -> tuple[Float[Tensor, "batch channels 2*height 2*width"], Float[Tensor, " batch"]]:
        """Decode a batch.

        Args:
            symbols: As they arrived, at unit power; anything where none was sent.
            share: Of the signal in the power of each, 1 / (1 + noise power); 0 where none was sent.
            coarse: The coarse seed, or zeros.
            told: From `tell`.

        Returns:
            The seed, and the noise power that the picture's decoder is to be told. [batch]
        """
        if self.strengths is not None:
            strength = _share_power(self.strengths, told)
            symbols = symbols / strength
            power = strength.square()
            share = share * power / (1 + share * (power - 1))  # noise counts against this strength
        estimate = symbols * share
        before = functional.pixel_unshuffle(coarse, 2)
        seen = torch.cat((estimate, share, before), 1)
        linear = torch.einsum("oc,bohw->bchw", self.basis, estimate)
        mended = functional.pixel_shuffle(before + linear + self.network(seen, told), 2)
        return mended, functional.softplus(self.noise(told)[:, 0] - 3)


def build_jscc(card: Mapping[str, Any]) -> nn.ModuleDict:
    """Both networks of a code, "encoder" and "decoder", by what its card says of them: nothing in
    the bundle's.

    Raises:
        BundleError: If that is of no code.
    """
    channels, told = card.get("channels", LATENT_CHANNELS), card.get("strengths")
    widths = card.get("widths", {})
    try:
        strengths = None if told is None else torch.tensor(told, dtype=torch.float32)
        if strengths is not None and (
            strengths.shape != (4 * channels,) or not bool((strengths > 0).all())
        ):
            raise ValueError("strengths")
        encoder, decoder = (
            half(
                channels=channels, strengths=strengths,
                **({"widths": tuple(widths[name])} if name in widths else {}),
            )
            for name, half in (("encoder", JsccEncoder), ("decoder", JsccDecoder))
        )  # fmt: skip
    except (TypeError, ValueError, RuntimeError) as error:
        raise BundleError(
            f"the card of the joint code says nothing that could be built ({str(error)[:80]}); train it again "
            "with its recipe"
        ) from None
    return nn.ModuleDict({"encoder": encoder, "decoder": decoder})


def _share_power(strengths: Tensor, told: Tensor) -> Tensor:
    """The strengths of those maps that are sent, at unit mean power. [batch, maps, 1, 1]"""
    count = (told[:, _RATE] * len(strengths)).round().long().clamp(min=1)
    mean = strengths.square().cumsum(0)[count - 1] / count
    return (strengths[None] / mean.sqrt()[:, None])[:, :, None, None]


def normalise_power(
    symbols: Float[Tensor, "batch maps height width"], maps: Float[Tensor, " batch"]
) -> Float[Tensor, "batch maps height width"]:
    """The first maps at unit mean power, the rest 0.

    Args:
        symbols: [batch, 16, height, width]
        maps: How many are sent. [batch]
    """
    index = torch.arange(symbols.shape[1], device=symbols.device)
    sent = (index[None, :] < maps[:, None])[:, :, None, None]
    kept = torch.where(sent, symbols, 0)
    power = kept.square().sum((1, 2, 3)) / sent.expand_as(kept).sum((1, 2, 3)).clamp(min=1)
    return kept / (power.sqrt() + 1e-6)[:, None, None, None]
