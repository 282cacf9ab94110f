"""What several sides send at once of one seed, as analog symbols that add up on the air.

The sum makes sense only if all scale alike. So the gain is fixed, and neither it nor a checksum is
sent; a position that is zero is not sent, and costs no power.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from megdt.codecs.seed import check_seed, check_symbols
from megdt.errors import CodecError
from megdt.records import Delivery, Feature, Packet

LEVEL = 0.8
"""Of a number in a symbol. Views of the garden have a root mean square of 0.5 to 1.06: 1 / LEVEL
leaves room for others, and costs 1.9 dB."""


@dataclass(frozen=True, kw_only=True)
class SuperposedCodec:
    """A side's part of a seed, at a gain that all share; column by column.

    Args:
        shape: What all ends expect. (latent_channels, height, width)
    """

    shape: tuple[int, int, int]

    def encode(self, feature: Feature) -> Packet:
        """Two numbers a symbol.

        Raises:
            CodecError: If the part has another shape, an odd number of elements, one that is not
                finite, or a root mean square above 1 / LEVEL where it is not zero.
        """
        flat = np.moveaxis(check_seed(feature.values, self.shape), 2, 0).flatten()
        if flat.size % 2:
            raise CodecError(
                f"a part of shape {self.shape} has an odd number of elements, two make a symbol; "
                "take an even height"
            )
        symbols = flat.view(np.complex64) * np.float32(LEVEL / 2**0.5)
        sent = symbols[symbols != 0]
        rms = float(np.sqrt(np.vdot(sent, sent).real / max(sent.size, 1)))
        if rms > 1:
            raise CodecError(
                f"what is sent has a root mean square of {rms / LEVEL:.3g}, at the gain that all "
                f"share symbols carry up to {1 / LEVEL:g}; take fusion by the gate, whose codecs scale"
            )
        return Packet(symbols=symbols)

    def decode(self, delivery: Delivery) -> Feature:
        """The part with its noise, to be added to the others.

        Raises:
            CodecError: If the number of symbols is not the shape's.
        """
        count = int(np.prod(self.shape))
        symbols = check_symbols(delivery, count // 2, f"{count} values")
        pairs = symbols.astype(np.complex64).view(np.float32) * np.float32(2**0.5 / LEVEL)
        channels, height, width = self.shape
        values = np.moveaxis(pairs.reshape(width, channels, height), 0, 2)
        noise_power = float(np.mean(delivery.noise_power)) / LEVEL**2
        return Feature(kind="superposed", values=values, noise_power=noise_power)
