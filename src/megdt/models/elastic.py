"""A decoder of which a device takes as much as it can carry: one set of weights, many sizes.

A smaller decoder is the first channels and blocks of the larger one, so a device that is busy, hot or
small cuts its own out of the weights that it has, and nothing is sent to it again (Yu et al.,
arXiv:1812.08928; Cai et al., arXiv:1908.09791).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from megdt.models.autoencoder import Decoder


@dataclass(frozen=True, kw_only=True, order=True)
class Size:
    """How large a decoder is; see `autoencoder.Decoder`."""

    width: int
    blocks: int

    def __str__(self) -> str:
        return f"{self.width} x {self.blocks}"

    def make(self) -> Decoder:
        """A decoder of this size, with weights of no meaning."""
        return Decoder(width=self.width, blocks=self.blocks)


LARGEST = Size(width=48, blocks=3)
SIZES = (
    Size(width=16, blocks=1),
    Size(width=24, blocks=2),
    Size(width=32, blocks=2),
    LARGEST,
)
"""That the weights have been trained for."""


def cut(weights: Mapping[str, Tensor], size: Size) -> dict[str, Tensor]:
    """The weights of a smaller decoder, as views into those of a larger one.

    Args:
        weights: Of a decoder at least as wide and as deep.
        size: Of the one that is wanted.

    >>> cut(LARGEST.make().state_dict(), SIZES[0])["leave.weight"].shape
    torch.Size([48, 16, 3, 3])
    """
    with torch.device("meta"):
        wanted = size.make().state_dict()
    return {name: _first(name, weights[name], like.shape) for name, like in wanted.items()}


def _first(name: str, values: Tensor, shape: torch.Size) -> Tensor:
    if name.startswith("noise.2."):
        # Gains of all channels, then offsets of all channels.
        gains, offsets = values.chunk(2)
        return torch.cat((gains[: shape[0] // 2], offsets[: shape[0] // 2]))
    return values[tuple(slice(0, count) for count in shape)]
