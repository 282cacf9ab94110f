"""Observations as packets: a seed's own codec, with where it was seen and how long ago before it.

1 byte   age, on a scale of logarithms
1 byte   0 for seen everywhere, 1 for a map that follows
8 bytes  the map, if any: 8 x 8 cells, row by row, 1 where all of a cell was seen
rest     the seed
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from megdt.codecs import Codec
from megdt.errors import CodecError
from megdt.records import Delivery, Feature, Packet

CELLS = 8
_MINUTE_S, _STEPS = 60.0, 15.0
_AGES = 255


@dataclass(frozen=True, kw_only=True)
class ObservationCodec:
    """Carries an observation.

    Lossy beyond the seed: ages come back within 3 % or two seconds, and a cell of the map in which
    anything was hidden comes back as hidden.

    Args:
        seed: The seed's own codec; one of bits.
    """

    seed: Codec

    def encode(self, feature: Feature) -> Packet:
        """Age, map and seed.

        Raises:
            CodecError: If the seed's codec sends symbols, or the map is not the seed's.
        """
        values = feature.values
        packet = self.seed.encode(replace(feature, kind="seed", values=values))
        if packet.symbols is not None:
            raise CodecError(
                f"{self.seed!r} sends symbols, an observation is bits; take a seed codec of bits"
            )
        head = bytes([_age_code(feature.age_s)])
        if feature.confidence is None or feature.confidence.min() >= 0.5:
            return Packet(payload=head + b"\0" + packet.payload)
        if feature.confidence.shape != values.shape[1:]:
            raise CodecError(
                f"confidence is {feature.confidence.shape}, the seed is {values.shape[1:]}; give it "
                "one number for each latent"
            )
        seen = np.packbits(_cells(feature.confidence)).tobytes()
        return Packet(payload=head + b"\1" + seen + packet.payload)

    def decode(self, delivery: Delivery) -> Feature:
        """The seed, its age, and its confidence in latents.

        Raises:
            CodecError: If there is no head, or the seed's codec refuses the rest.
        """
        payload = delivery.payload
        mapped = len(payload) > 1 and payload[1] == 1
        length = 2 + mapped * CELLS * CELLS // 8
        if len(payload) < length or payload[1] > 1:
            raise CodecError(
                f"an observation of {len(payload)} bytes beginning {payload[:2].hex() or 'nowhere'} "
                "arrived; expected its age, 0 or 1, and a map of 8 bytes after a 1: both ends must "
                "follow the same plan"
            )
        seed = self.seed.decode(replace(delivery, payload=payload[length:]))
        confidence = None
        if mapped:
            bits = np.unpackbits(np.frombuffer(payload[2:length], np.uint8)).reshape(CELLS, CELLS)
            confidence = _spread(bits, seed.values.shape[1:])
        return replace(seed, kind="observation", confidence=confidence, age_s=_age_s(payload[0]))


def _age_code(age_s: float) -> int:
    return min(_AGES, round(_STEPS * float(np.log2(1 + max(age_s, 0.0) / _MINUTE_S))))


def _age_s(code: int) -> float:
    return float(_MINUTE_S * (2 ** (code / _STEPS) - 1))


def _edges(size: int) -> NDArray[np.int64]:
    """Where each cell begins, in latents."""
    return np.arange(CELLS + 1) * size // CELLS


def _cells(confidence: NDArray[np.float32]) -> NDArray[np.uint8]:
    rows, columns = (_edges(size)[:-1] for size in confidence.shape)
    seen = (confidence >= 0.5).astype(np.uint8)
    return np.minimum.reduceat(np.minimum.reduceat(seen, rows, 0), columns, 1)


def _spread(cells: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.float32]:
    rows, columns = (np.diff(_edges(size)) for size in shape)
    return np.repeat(np.repeat(cells, rows, 0), columns, 1).astype(np.float32)
