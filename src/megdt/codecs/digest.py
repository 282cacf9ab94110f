"""Digests: in four bits a block, what tells a view that has changed from one that is as it was.

Each block is seen along a few directions drawn at random, in steps, of which only the remainder is
sent. Who remembers the view knows where a block that has not changed would lie, to well within a
step, and so needs no more; one that has changed lies anywhere. Directions are others each time, so
what was missed once is found the next time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megdt.codecs.observation import BLOCK, split_blocks
from megdt.errors import CodecError
from megdt.records import Delivery, Feature, Packet

DIRECTIONS = 2
REMAINDER_BITS = 2
"""Of each direction; two fill a half byte."""

STEP = 0.5
"""Along a direction, in root mean squares of a block's change: a block in which a flower has opened
changes by about 0.75, one that is seen by another camera by less than 0.1."""

_SLACK = 0.1
"""Of a step: rounding to int8, and the edges of another camera's view, are no change."""

_REMAINDERS = 2**REMAINDER_BITS


@dataclass(frozen=True, kw_only=True)
class DigestCodec:
    """A view as the remainders of its blocks.

    Args:
        shape: Of the view, in whole blocks. (latent_channels, height, columns)
        number: Of the digest, which both ends count; draws the directions.

    Raises:
        CodecError: If the shape is no whole number of blocks.
    """

    shape: tuple[int, int, int]
    number: int

    def __post_init__(self) -> None:
        if min(self.shape) < 1 or self.shape[1] % BLOCK or self.shape[2] % BLOCK:
            raise CodecError(
                f"a digest of {self.shape} was asked for; expected latent_channels x height x columns "
                f"in blocks of {BLOCK}: leave out what is no whole block"
            )

    @property
    def bits(self) -> int:
        """Of a packet."""
        return 8 * -(-self._blocks // 2)

    def encode(self, feature: Feature) -> Packet:
        """Half a byte a block.

        Raises:
            CodecError: If the view is of another shape.
        """
        steps = np.rint(self._along(feature.values)).astype(int) % _REMAINDERS
        halves = (steps @ [_REMAINDERS, 1]).ravel()
        halves = np.append(halves, np.zeros(halves.size % 2, int))
        return Packet(payload=(16 * halves[0::2] + halves[1::2]).astype(np.uint8).tobytes())

    def decode(self, delivery: Delivery) -> Feature:
        """The remainders. [rows, columns, DIRECTIONS], of blocks

        Raises:
            CodecError: If it is of another length.
        """
        payload = delivery.payload
        if len(payload) != self.bits // 8:
            raise CodecError(
                f"a digest of {len(payload)} bytes arrived, one of {self.shape} has {self.bits // 8}; "
                "both ends must follow the same plan"
            )
        both = np.frombuffer(payload, np.uint8)
        halves = np.stack((both // 16, both % 16), 1).ravel()[: self._blocks]
        steps = np.stack((halves // _REMAINDERS, halves % _REMAINDERS), 1)
        rows, columns = self.shape[1] // BLOCK, self.shape[2] // BLOCK
        return Feature(kind="digest", values=steps.reshape(rows, columns, DIRECTIONS))

    def compare(self, digest: Feature, remembered: NDArray[np.float32]) -> NDArray[np.float64]:
        """How far each block has changed at least, in STEP; 0 where nothing speaks for it.

        Args:
            digest: As it came.
            remembered: The same view as it is known. [latent_channels, height, columns]

        Returns:
            [rows, columns], of blocks

        Raises:
            CodecError: If what is remembered is of another shape.
        """
        half = _REMAINDERS / 2
        apart = (digest.values - self._along(remembered) + half) % _REMAINDERS - half
        # What lies within half a step rounds to what came.
        beyond = np.maximum(np.abs(apart) - 0.5 - _SLACK, 0)
        change: NDArray[np.float64] = np.sqrt(np.square(beyond).sum(2))
        return change

    @property
    def _blocks(self) -> int:
        return self.shape[1] * self.shape[2] // BLOCK**2

    def _along(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Each block along each direction, in steps. [rows, columns, DIRECTIONS]"""
        if np.shape(values) != self.shape:
            raise CodecError(
                f"a view of shape {np.shape(values)} came to a digest of {self.shape}; give the columns "
                "that were asked for"
            )
        blocks = split_blocks(values)
        rng = np.random.default_rng((self.number, 31))
        signs = rng.choice((-1.0, 1.0), (blocks.shape[2], DIRECTIONS))
        along: NDArray[np.float64] = blocks @ signs / (np.sqrt(blocks.shape[2]) * STEP)
        return along
