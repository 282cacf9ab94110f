"""Observations as packets: a seed's own codec, with where it was seen and how long ago before it.

Those of many users have any number of columns, so before it stands which (`columns.py`), or a 0 and
in two bytes how many, where they are all that the source sees. Needs are the same without the seed.

1 byte   age, on a scale of logarithms
1 byte   0 for seen everywhere, 1 for a map that follows
8 bytes  the map, if any: 8 x 8 cells, row by row, 1 where all of a cell was seen
rest     the seed
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from megdt.codecs import Codec
from megdt.codecs.columns import pack_columns, unpack_columns
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
        if feature.confidence is not None and feature.confidence.shape != values.shape[1:]:
            raise CodecError(
                f"confidence is {feature.confidence.shape}, the seed is {values.shape[1:]}; give it "
                "one number for each latent"
            )
        return Packet(payload=_write_head(feature) + packet.payload)

    def decode(self, delivery: Delivery) -> Feature:
        """The seed, its age, and its confidence in latents.

        Raises:
            CodecError: If there is no head, or the seed's codec refuses the rest.
        """
        length, age_s, cells = _read_head(delivery.payload)
        seed = self.seed.decode(replace(delivery, payload=delivery.payload[length:]))
        confidence = None if cells is None else _spread(cells, seed.values.shape[1:])
        return replace(seed, kind="observation", confidence=confidence, age_s=age_s)


@dataclass(frozen=True, kw_only=True)
class WideObservationCodec:
    """Observations of any number of columns.

    Args:
        seed: Makes the seed's codec for so many columns.
        columns: The most that there may be.
    """

    seed: Callable[[int], Codec] = field(repr=False)
    columns: int

    def encode(self, feature: Feature) -> Packet:
        """Which columns or how many, then as `ObservationCodec`.

        Raises:
            CodecError: If there are too many columns, or `ObservationCodec` refuses it.
        """
        width = feature.values.shape[2]
        self._check(width, "is to be sent")
        packet = ObservationCodec(seed=self.seed(width)).encode(feature)
        if feature.columns is None:
            return Packet(payload=b"\0" + width.to_bytes(2, "little") + packet.payload)
        return Packet(payload=pack_columns(feature.columns) + packet.payload)

    def decode(self, delivery: Delivery) -> Feature:
        """The observation.

        Raises:
            CodecError: If it begins with no columns that there may be, or
                `ObservationCodec` refuses the rest.
        """
        payload = delivery.payload
        columns, length = unpack_columns(payload)
        width = len(columns)
        if not columns:
            width, length = int.from_bytes(payload[1:3], "little"), 3
        self._check(width, "arrived")
        codec = ObservationCodec(seed=self.seed(width))
        found = codec.decode(replace(delivery, payload=payload[length:]))
        return replace(found, columns=columns or None)

    def _check(self, width: int, what: str) -> None:
        if not 1 <= width <= self.columns:
            raise CodecError(
                f"an observation of {width} columns {what}; expected 1 to {self.columns}: both ends "
                "must follow the same plan"
            )


@dataclass(frozen=True, kw_only=True)
class NeedsCodec:
    """Where a view was seen and how long ago, in two or ten bytes.

    Args:
        shape: Height and width of the view in latents.
    """

    shape: tuple[int, int]

    def encode(self, feature: Feature) -> Packet:
        """Age and map."""
        return Packet(payload=_write_head(feature))

    def decode(self, delivery: Delivery) -> Feature:
        """Age, and confidence in latents.

        Raises:
            CodecError: If it is no head, or something follows it.
        """
        length, age_s, cells = _read_head(delivery.payload)
        if length != len(delivery.payload):
            raise CodecError(
                f"needs of {len(delivery.payload)} bytes arrived, their head has {length}; expected "
                "nothing after it: both ends must follow the same plan"
            )
        confidence = None if cells is None else _spread(cells, self.shape)
        return Feature(kind="needs", values=None, confidence=confidence, age_s=age_s)


def _write_head(feature: Feature) -> bytes:
    head = bytes([_age_code(feature.age_s)])
    if feature.confidence is None or feature.confidence.min() >= 0.5:
        return head + b"\0"
    return head + b"\1" + np.packbits(_cells(feature.confidence)).tobytes()


def _read_head(payload: bytes) -> tuple[int, float, NDArray[np.uint8] | None]:
    """Its length, the age in seconds, and the cells of the map, if there is one. [8, 8]"""
    mapped = len(payload) > 1 and payload[1] == 1
    length = 2 + mapped * CELLS * CELLS // 8
    if len(payload) < length or payload[1] > 1:
        raise CodecError(
            f"an observation of {len(payload)} bytes beginning {payload[:2].hex() or 'nowhere'} "
            "arrived; expected its age, 0 or 1, and a map of 8 bytes after a 1: both ends must "
            "follow the same plan"
        )
    age_s = _age_s(payload[0])
    if not mapped:
        return length, age_s, None
    bits = np.unpackbits(np.frombuffer(payload[2:length], np.uint8))
    return length, age_s, bits.reshape(CELLS, CELLS)


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
