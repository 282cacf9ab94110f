"""Observations as packets: a seed's own codec, with where it was seen and how long ago before it.

Those of many users have any number of columns, so before it stands which (`columns.py`), or a 0 and
in two bytes how many, where they are all that the source sees. Needs are the same without the seed.

1 byte   age, on a scale of logarithms
1 byte   0 for seen everywhere, 1 for a map that follows
8 bytes  the map, if any: 8 x 8 cells, row by row, 1 where all of a cell was seen
rest     the seed

Of an observation in blocks only those go that were seen:

1 byte   age
2 bytes  blocks from left to right, little-endian
         the map, a bit for each block, row by row
rest     the seed, of the blocks side by side
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdt.codecs import Codec
from megdt.codecs.columns import pack_columns, unpack_columns
from megdt.errors import CodecError
from megdt.records import Delivery, Feature, Packet

CELLS = 8

BLOCK = 4
"""Latents along each side of a block: half a metre of the garden, at 256 pixels."""

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


@dataclass(frozen=True, kw_only=True)
class BlocksCodec:
    """Parts of an observation: its blocks that are seen everywhere, and nothing of the others.

    Args:
        seed: Makes the codec of a seed that is BLOCK high and so wide; one of bits.
        shape: Latent channels and height.
        columns: The most that there may be.
    """

    seed: Callable[[int], Codec] = field(repr=False)
    shape: tuple[int, int]
    columns: int

    def encode(self, feature: Feature) -> Packet:
        """Age, map and blocks.

        Raises:
            CodecError: If the observation is of another height, too wide, or no whole blocks, or
                none of it is seen.
        """
        values, seen = feature.values, feature.confidence
        self._check(values.shape[2], "is to be sent")
        cells = np.ones(values.shape[1:]) if seen is None else np.asarray(seen)
        there = (split_blocks(cells[None]) >= 0.5).all(2)
        if values.shape[:2] != self.shape or not there.any():
            raise CodecError(
                f"{int(there.sum())} blocks of an observation of shape {values.shape} are seen; expected "
                f"one or more of {self.shape} x columns: give what is to be sent a confidence of 1"
            )
        blocks = split_blocks(values)[there].reshape(-1, self.shape[0], BLOCK, BLOCK)
        row = np.ascontiguousarray(np.concatenate(blocks, 2))
        packet = self.seed(row.shape[2]).encode(Feature(kind="seed", values=row))
        head = bytes([_age_code(feature.age_s)]) + there.shape[1].to_bytes(2, "little")
        return Packet(payload=head + np.packbits(there).tobytes() + packet.payload)

    def decode(self, delivery: Delivery) -> Feature:
        """The observation, with confidence 0 where no block came.

        Raises:
            CodecError: If it is cut short or too wide, or the seed's codec refuses the rest.
        """
        payload, height = delivery.payload, self.shape[1]
        wide = int.from_bytes(payload[1:3], "little")
        self._check(BLOCK * wide, "arrived")
        rows = height // BLOCK
        end = 3 + -(-rows * wide // 8)
        there = np.unpackbits(np.frombuffer(payload[3:end], np.uint8))[: rows * wide] > 0
        if len(payload) < end or not there.any():
            raise CodecError(
                f"an observation of {len(payload)} bytes with {int(there.sum())} blocks arrived; "
                f"expected more than {end} bytes and a block: both ends must follow the same plan"
            )
        there = there.reshape(rows, wide)
        seed = self.seed(BLOCK * int(there.sum())).decode(replace(delivery, payload=payload[end:]))
        blocks = np.stack(np.split(seed.values, int(there.sum()), 2))
        values = np.zeros((self.shape[0], rows, BLOCK, wide, BLOCK), np.float32)
        row, column = np.nonzero(there)
        values[:, row, :, column] = blocks
        confidence = np.repeat(np.repeat(there, BLOCK, 0), BLOCK, 1).astype(np.float32)
        return replace(
            seed,
            kind="observation",
            values=values.reshape(self.shape[0], height, BLOCK * wide),
            confidence=confidence,
            age_s=_age_s(payload[0]),
        )

    def _check(self, columns: int, what: str) -> None:
        if columns % BLOCK or not BLOCK <= columns <= self.columns:
            raise CodecError(
                f"an observation of {columns} columns {what}; expected {BLOCK} to {self.columns} in "
                f"blocks of {BLOCK}: both ends must follow the same plan"
            )


def split_blocks(values: NDArray[Any]) -> NDArray[Any]:
    """The numbers of each block. [channels, height, columns] to [rows, columns, numbers]"""
    channels, height, width = values.shape
    cells = values.reshape(channels, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    blocks: NDArray[Any] = cells.transpose(1, 3, 0, 2, 4).reshape(
        height // BLOCK, width // BLOCK, -1
    )
    return blocks


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
