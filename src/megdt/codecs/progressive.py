"""A progressive seed codec: few bits, and any part of a packet from its start is a coarser seed.

A seed goes through a wavelet transform and a mixing of its channels that make one step of one
size cost the picture the same everywhere; then bit by bit, from the most important decision on,
through an arithmetic coder with learned probabilities. Channels and positions that matter little
are pruned by that order alone: nothing says where they are, their zeros are all but free.

The tables come from recipes/seed_tables.py.
"""

from __future__ import annotations

import binascii
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdt.codecs.seed import check_seed
from megdt.errors import CodecError
from megdt.models import FACTOR
from megdt.records import Delivery, Feature, Packet

TABLES = Path(__file__).parent / "seed_tables.json"
FORMAT = 1
"""Counts up with every change of what a packet means."""

BITS_PER_PIXEL = 0.1
"""Budget where none is given."""

HEADER_BYTES = 3
"""One of the tables' checksum and two of a CRC over what follows."""

LEVELS = 5
"""Of the wavelet transform: 32 positions become one."""

FINEST = 1 / 256
"""Step of the last bit plane, in units of the picture's error; some 59 dB."""

CHANNELS = 4


@dataclass(frozen=True, kw_only=True)
class Tables:
    """What both ends must have alike.

    Args:
        mixing: Latent channels to channels of equal weight, a matrix for each level, coarsest
            last. [LEVELS + 1, CHANNELS, CHANNELS]
        logits: Of every context of every decision, in 1 / 256. [entries]
        thresholds: Logits above which a coefficient belongs to the first passes of a plane.
        centroid: Where in its interval a coefficient lies on average, by planes since it became
            significant. In 1 / 256. [LEVELS + 1, 3]
        checksum: Of the file.
    """

    mixing: NDArray[np.float64]
    logits: NDArray[np.int64]
    thresholds: NDArray[np.int64]
    centroid: NDArray[np.int64]
    checksum: int


@lru_cache
def load_tables(path: Path = TABLES) -> Tables:
    """The codec's tables, by default those of the package.

    Raises:
        CodecError: If the file cannot be read.
    """
    try:
        content = path.read_bytes()
        table = json.loads(content)
        return Tables(
            mixing=np.array(table["mixing"], np.float64),
            logits=np.array(table["logits"], np.int64),
            thresholds=np.array(table["thresholds"], np.int64),
            centroid=np.array(table["centroid"], np.int64),
            checksum=zlib.crc32(content + bytes([FORMAT])),
        )
    except (OSError, ValueError, KeyError) as error:
        raise CodecError(
            f"cannot read seed tables {path} ({error}); reinstall megdt or run recipes/seed_tables.py"
        ) from error


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the coefficients of each band lie: bands with a border of one cell, one after the other.

    Args:
        bands: level, orientation, first cell, height, width, parent, 2 siblings; coarse first.
            [bands, 8]
        size: Cells of one channel.
    """

    bands: NDArray[np.int64]
    size: int

    def views(self, cells: NDArray[Any]) -> list[NDArray[Any]]:
        """Each band's part of the cells, without its border. [channels, height, width] each"""
        cells = cells.reshape(CHANNELS, self.size)
        found = []
        for _, _, start, height, width, *_ in self.bands.tolist():
            stride = width + 2
            part = cells[:, start : start + height * stride].reshape(CHANNELS, height, stride)
            found.append(part[:, :, :width])
        return found


@lru_cache
def layout(height: int, width: int) -> Layout:
    """The layout of a latent of this size. Empty bands stay, so that every band has its number."""
    sizes = [(height, width)]
    for _ in range(LEVELS):
        height, width = -(-height // 2), -(-width // 2)
        sizes.append((height, width))
    rows, cell = [], 0
    shapes = [(LEVELS, 0, *sizes[LEVELS])]
    for level in range(LEVELS - 1, -1, -1):
        (tall, wide), (low, left) = sizes[level], sizes[level + 1]
        shapes += [
            (level, 1, low, wide - left),
            (level, 2, tall - low, left),
            (level, 3, tall - low, wide - left),
        ]
    for number, (level, orientation, rows_, columns) in enumerate(shapes):
        cell += columns + 3  # a border above, and one cell to the left
        first = 3 * ((number - 1) // 3) + 1
        parent = max(0, number - 3) if number else -1
        siblings = [n for n in range(first, first + 3) if n != number] if number else [-1, -1]
        rows.append([level, orientation, cell, rows_, columns, parent, *siblings])
        cell += rows_ * (columns + 2) + columns + 3
    return Layout(bands=np.array(rows, np.int64), size=cell)


@lru_cache
def wavelet(length: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """CDF 9/7 on this length with mirrored ends: low rows above high rows, and the inverse.

    References:
        Cohen, Daubechies, Feauveau, 1992; lifting as in ISO/IEC 15444-1, annex F.
    """
    x = np.eye(length)
    if length > 1:
        for start, factor in (
            (1, -1.586134342059924), (0, -0.052980118572961),
            (1, 0.882911075530934), (0, 0.443506852043971),
        ):  # fmt: skip
            for i in range(start, length, 2):
                before = abs(i - 1)
                after = i + 1 if i + 1 < length else 2 * (length - 1) - (i + 1)
                x[i] += factor * (x[before] + x[after])
        x[0::2] *= 1.1496043988602418
        x[1::2] /= 1.1496043988602418
    forward = np.concatenate((x[0::2], x[1::2]))
    return forward, np.asarray(np.linalg.inv(forward), np.float64)


def transform(latent: NDArray[Any]) -> list[NDArray[np.float64]]:
    """Bands of the wavelet transform in the layout's order. [channels, height, width] each"""
    rest, bands = np.asarray(latent, np.float64), []
    for _ in range(LEVELS):
        height, width = rest.shape[1:]
        rest = wavelet(height)[0] @ rest @ wavelet(width)[0].T
        low, left = -(-height // 2), -(-width // 2)
        bands += [rest[:, low:, left:], rest[:, low:, :left], rest[:, :low, left:]]
        rest = rest[:, :low, :left]
    return [rest, *bands[::-1]]


def inverse(bands: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The latent of its bands. [channels, height, width]"""
    rest = bands[0]
    for level in range(LEVELS):
        right, below, corner = bands[3 * level + 1 : 3 * level + 4]
        rest = np.concatenate(
            (np.concatenate((rest, right), 2), np.concatenate((below, corner), 2)), 1
        )
        height, width = rest.shape[1:]
        rest = wavelet(height)[1] @ rest @ wavelet(width)[1].T
    return rest


@dataclass(frozen=True, kw_only=True)
class ProgressiveSeedCodec:
    """A seed within a budget of bits; any part of its packet from the start is a coarser seed.

    Three bytes stand before it: a checksum of the tables, so that a peer with others is noticed,
    and a CRC of 16 bits over the rest. A payload that is as long as the budget, or that ends where
    the seed does, is whole, and the CRC is held against it. A shorter one is the start of
    a packet: it cannot be checked, and is taken as far as it goes.

    Args:
        shape: What both ends expect. (latent_channels, height, width)
        budget_bits: Bits to stay within; BITS_PER_PIXEL when left out.

    Raises:
        CodecError: If the budget is below the header, or the shape is not one that it carries.
    """

    shape: tuple[int, int, int]
    budget_bits: int | None = None

    def __post_init__(self) -> None:
        if self.shape[0] != CHANNELS:
            raise CodecError(
                f"seed has {self.shape[0]} latent channels, the progressive codec's tables are for "
                f"{CHANNELS}; take seed = int8"
            )
        if self.budget_bits is not None and self.budget_bits < 8 * HEADER_BYTES:
            raise CodecError(
                f"budget of {self.budget_bits} bits is below the {8 * HEADER_BYTES} of a seed "
                "packet's header; raise seed_bits"
            )

    def encode(self, feature: Feature) -> Packet:
        """Encode one seed, as much of it as the budget holds.

        Raises:
            CodecError: If the seed has another shape, or an element is not finite.
        """
        from megdt.codecs import _progressive_kernels as kernels

        latent = check_seed(feature.values, self.shape)
        tables = load_tables()
        cells = quantise(latent, tables)
        # Four bytes an element hold any seed down to the last plane, whatever the budget.
        room = min(self.most_bits // 8, 4 * latent.size) - HEADER_BYTES
        data = np.zeros(room, np.uint8)
        written, _ = cells.code(kernels.ENCODE, tables, data)
        body = data[:written].tobytes()
        return Packet(payload=_header(tables, body) + body)

    def decode(self, delivery: Delivery) -> Feature:
        """Decode a seed as far as its bits go; its noise power is what they are expected to leave.

        Raises:
            CodecError: If the payload is shorter than its header or longer than the budget, was
                made with other tables, or is damaged.
        """
        from megdt.codecs import _progressive_kernels as kernels

        tables, where = load_tables(), layout(*self.shape[1:])
        header, body = delivery.payload[:HEADER_BYTES], delivery.payload[HEADER_BYTES:]
        most = self.most_bits // 8
        if not HEADER_BYTES <= len(delivery.payload) <= most:
            raise CodecError(
                f"seed payload has {len(delivery.payload)} bytes, a progressive one for shape "
                f"{self.shape} has {HEADER_BYTES} to {most}; both ends must follow "
                "the same plan"
            )
        expected = _header(tables, body)
        if header[0] != expected[0]:
            raise CodecError(
                f"seed was coded with tables of checksum {header[0]:02x}, this codec's have "
                f"{expected[0]:02x}; install the same version of megdt at both ends"
            )
        cells = Cells(where)
        whole = len(delivery.payload) == most
        if not whole or header == expected:
            _, complete = cells.code(kernels.DECODE, tables, np.frombuffer(body, np.uint8).copy())
            whole = whole or complete
        if whole and header != expected:
            raise CodecError(
                f"seed payload of {len(delivery.payload)} bytes has checksum {header[1:].hex()}, "
                f"its content {expected[1:].hex()}; it is damaged, have it sent again"
            )
        bands = []
        views = (cells.magnitude, cells.negative, cells.depth, cells.first)
        for level, magnitude, negative, depth, first in zip(
            where.bands[:, 0], *(where.views(v) for v in views), strict=True
        ):
            step = 2.0**depth
            inside = tables.centroid[level][np.clip(first - depth, 0, 2)] / 256
            size = np.where(first >= 0, magnitude + inside * step, 0) * FINEST
            mixed = np.where(negative, -size, size)
            bands.append(np.tensordot(np.linalg.inv(tables.mixing[level]), mixed, 1))
        latent = inverse(bands).astype(np.float32)
        return Feature(kind="seed", values=latent, whole=whole)

    @property
    def most_bits(self) -> int:
        """The budget in force."""
        if self.budget_bits is None:
            return int(BITS_PER_PIXEL * FACTOR**2 * self.shape[1] * self.shape[2])
        return self.budget_bits


def _header(tables: Tables, body: bytes) -> bytes:
    check = binascii.crc_hqx(body, tables.checksum >> 16)
    return bytes([tables.checksum & 255, check >> 8, check & 255])


class Cells:
    """What the coder knows of every coefficient, at one end."""

    def __init__(self, where: Layout) -> None:
        from megdt.codecs import _progressive_kernels as kernels

        cells = CHANNELS * where.size
        self.where = where
        self.magnitude = np.zeros(cells, np.int64)
        self.negative = np.zeros(cells, np.int64)
        self.known = np.zeros(cells, np.int64)
        self.depth = np.full(cells, kernels.PLANES, np.int64)
        self.first = np.full(cells, -1, np.int64)

    def code(
        self,
        mode: int,
        tables: Tables,
        data: NDArray[np.uint8],
        traced: NDArray[np.int16] | None = None,
    ) -> tuple[int, bool]:
        """Write the coefficients to bytes, read or trace them; see `code_planes`."""
        from megdt.codecs import _progressive_kernels as kernels

        written, complete = kernels.code_planes(
            mode,
            self.magnitude,
            self.negative,
            self.where.bands,
            self.where.size,
            self.known,
            self.depth,
            self.first,
            tables.logits,
            kernels.SQUASH,
            kernels.CLASSES,
            tables.thresholds,
            data,
            np.zeros((0, kernels.CONTEXTS + 1), np.int16) if traced is None else traced,
        )
        return int(written), bool(complete)


def quantise(latent: NDArray[Any], tables: Tables) -> Cells:
    """The coefficients of a latent, in whole steps of FINEST and rounded to zero."""
    from megdt.codecs import _progressive_kernels as kernels

    cells = Cells(layout(*latent.shape[1:]))
    views = cells.where.views
    for level, band, magnitude, negative in zip(
        cells.where.bands[:, 0],
        transform(latent),
        views(cells.magnitude),
        views(cells.negative),
        strict=True,
    ):
        mixed = np.tensordot(tables.mixing[level], band, 1)
        magnitude[:] = np.minimum(np.abs(mixed) / FINEST, 2**kernels.PLANES - 1)
        negative[:] = mixed < 0
    return cells
