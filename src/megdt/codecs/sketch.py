"""The sketch codec: what a person can read of a picture, in a few hundred bytes.

    picture -> simplify, to one of 128 levels -> numbers on a grid -> range coder -> packet
    sketch  <- draw                           <- the same numbers  <- range coder <-

The first arrow is `sketch_styles`, the second `sketch_coding`.
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from megdt.codecs.sketch_coding import read_numbers, write_numbers
from megdt.codecs.sketch_styles import LEVELS, draw, simplify
from megdt.errors import CodecError
from megdt.records import Delivery, Feature, Packet, Style

STYLES: tuple[Style, ...] = get_args(Style)

BITS_PER_PIXEL = 0.03
"""Budget where none is given."""

MIN_BITS = 512
"""The least budget; the coarsest sketch of any picture stays within it."""

_HEADER = 4  # tag, level, checksum


@dataclass(frozen=True, kw_only=True)
class SketchCodec:
    """A picture as a sketch that a person can read: the finest within a budget of bits.

    Args:
        size_px: Height and width of the picture, and of the sketch that comes back.
        style: `edges`, `layout` or `thumbnail`.
        budget_bits: Bits to stay within, MIN_BITS or more; BITS_PER_PIXEL when left out.

    Raises:
        CodecError: If the budget is too small.
    """

    size_px: int
    style: Style = "thumbnail"
    budget_bits: int | None = None

    def __post_init__(self) -> None:
        if self.budget_bits is not None and self.budget_bits < MIN_BITS:
            raise CodecError(
                f"budget of a sketch is {self.budget_bits} bits, the coarsest may take {MIN_BITS}; "
                f"set sketch_bits to {MIN_BITS} or more"
            )

    @property
    def most_bits(self) -> int:
        """The budget in force."""
        if self.budget_bits is None:
            return int(BITS_PER_PIXEL * self.size_px**2)
        return self.budget_bits

    def encode(self, feature: Feature) -> Packet:
        """Sketch one picture; the packet tells style and level, and has a checksum.

        Raises:
            CodecError: If the picture has another size, or no sketch of it fits the budget.
        """
        pixels = _check_picture(feature.values, self.size_px)
        # Coarser is smaller, near enough for halving to end beside the finest that fits; and where the
        # grid changes, the coarsest of each grid is tried before any other on it.
        low, high, best, bits = 0, LEVELS - 1, b"", 0
        while low <= high:
            level = (low + high) // 2
            payload = self._write(pixels, level)
            bits = 8 * len(payload)
            if bits <= self.most_bits:
                best, high = payload, level - 1
            else:
                low = level + 1
        if not best:
            raise CodecError(
                f"the coarsest {self.style} of this picture takes {bits} bits, the budget is "
                f"{self.most_bits}; set sketch_bits higher"
            )
        return Packet(payload=best)

    def decode(self, delivery: Delivery) -> Feature:
        """Draw the sketch as a picture, and say its style. [size_px, size_px, 3]

        Raises:
            CodecError: If the payload is damaged, or of another style or size.
        """
        payload = delivery.payload
        if len(payload) < _HEADER:
            raise CodecError(
                f"sketch payload has {len(payload)} bytes, the shortest has {_HEADER}; both ends "
                "must follow the same plan"
            )
        tag, level, found, body = payload[0], payload[1], payload[2:_HEADER], payload[_HEADER:]
        if tag != self._tag or level >= LEVELS:
            raise CodecError(
                f"sketch payload begins with bytes {tag} and {level}, {self.style} has {self._tag} "
                f"and a level below {LEVELS}; both ends must follow the same plan"
            )
        expected = self._checksum(level, body)
        if found != expected:
            raise CodecError(
                f"sketch payload has checksum {found.hex()}, what is in it has {expected.hex()} at "
                f"{self.size_px} px; it is damaged or of another size"
            )
        numbers = read_numbers(body, self.style, level)
        picture = draw(numbers, self.style, level, self.size_px)
        return Feature(kind="sketch", values=picture, style=self.style)

    @property
    def _tag(self) -> int:
        return 0x50 + STYLES.index(self.style)

    def _write(self, pixels: NDArray[np.uint8], level: int) -> bytes:
        body = write_numbers(simplify(pixels, self.style, level), self.style, level)
        return bytes((self._tag, level)) + self._checksum(level, body) + body

    def _checksum(self, level: int, body: bytes) -> bytes:
        about = self.size_px.to_bytes(4, "big") + bytes((self._tag, level))
        return binascii.crc_hqx(about + body, 0xFFFF).to_bytes(2, "big")


def _check_picture(values: Any, size_px: int) -> NDArray[np.uint8]:
    pixels = np.asarray(values)
    if pixels.shape != (size_px, size_px, 3) or pixels.dtype != np.uint8:
        raise CodecError(
            f"picture to sketch is {pixels.dtype} of shape {pixels.shape}, this codec takes uint8 "
            f"of shape ({size_px}, {size_px}, 3); build it for the size of the request"
        )
    return pixels
