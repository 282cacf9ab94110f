"""Transport blocks: CRC, segmentation, LDPC, rate matching, interleaving, soft combining.

    payload -> + CRC -> code blocks -> + CRC each -> LDPC -> circular buffer -> E bits of a
    redundancy version -> bit interleaver -> scrambler -> QAM, and the same way back

References:
    3GPP TS 38.212, sections 5.1 (CRC), 5.2.2 (segmentation), 5.3.2 (LDPC), 5.4.2 (rate matching).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from megdt.link.ldpc import LdpcCode, choose_base_graph, choose_lifting_size
from megdt.link.qam import demap, map_bits

CRC_POLYNOMIALS = {"24A": (0x864CFB, 24), "24B": (0x800063, 24), "16": (0x1021, 16)}
"""Generator polynomials of TS 38.212, section 5.1, without their leading term, and lengths."""

REDUNDANCY_VERSIONS = (0, 2, 3, 1)
"""In the order in which retransmissions use them."""

# Table 5.4.2.1-2: where a redundancy version starts, in 66ths or 50ths of the circular buffer.
_STARTS: dict[int, tuple[int, ...]] = {1: (0, 17, 33, 56), 2: (0, 13, 25, 43)}
_BUFFER_COLUMNS = {1: 66, 2: 50}
_LARGEST_BLOCK = {1: 8448, 2: 3840}
_KNOWN_ZERO = np.float32(1e4)
"""Log-likelihood ratio of filler bits: certainly 0."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a transport block is cut into code blocks."""

    payload_bits: int
    base_graph: Literal[1, 2]
    lifting_size: int
    blocks: int
    block_bits: int
    """Bits of one code block before filler bits: payload, its share of the block's CRC, its own."""

    @property
    def crc(self) -> str:
        """CRC of the transport block."""
        return "24A" if self.payload_bits > 3824 else "16"

    @property
    def code(self) -> LdpcCode:
        """The LDPC code of every block."""
        return LdpcCode(base_graph=self.base_graph, lifting_size=self.lifting_size)


@lru_cache(maxsize=4096)
def layout(payload_bits: int, code_rate: float) -> Layout:
    """Choose base graph, lifting size and number of code blocks.

    Args:
        payload_bits: Of the transport block without CRC, as `transport_block_bits` gives it.
        code_rate: Of the MCS.
    """
    base_graph = choose_base_graph(payload_bits, code_rate)
    total = payload_bits + (24 if payload_bits > 3824 else 16)
    largest = _LARGEST_BLOCK[base_graph]
    blocks = 1 if total <= largest else -(-total // (largest - 24))
    with_crc = total if blocks == 1 else total + 24 * blocks
    block_bits = with_crc // blocks
    return Layout(
        payload_bits=payload_bits,
        base_graph=base_graph,
        lifting_size=choose_lifting_size(base_graph, payload_bits=total, block_bits=block_bits),
        blocks=blocks,
        block_bits=block_bits,
    )


def crc(bits: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
    """The CRC bits to append. [16 or 24]"""
    from megdt.link._kernels import crc as remainder

    polynomial, length = CRC_POLYNOMIALS[name]
    value = remainder(bits, polynomial, length)
    return np.array([(value >> i) & 1 for i in range(length - 1, -1, -1)], np.uint8)


def encode(payload: NDArray[np.uint8], plan: Layout) -> NDArray[np.uint8]:
    """Protect one transport block.

    Args:
        payload: Bits. [payload_bits]
        plan: From `layout`.

    Returns:
        Mother code words, before rate matching. [blocks, codeword_bits]
    """
    blocks = np.concatenate((payload, crc(payload, plan.crc))).reshape(plan.blocks, -1)
    code = plan.code
    information = np.zeros((plan.blocks, code.information_bits), np.uint8)
    information[:, : blocks.shape[1]] = blocks
    if plan.blocks > 1:
        for row, block in zip(information, blocks, strict=True):
            row[blocks.shape[1] : plan.block_bits] = crc(block, "24B")
    return code.encode(information)


def modulate(
    codewords: NDArray[np.uint8],
    plan: Layout,
    *,
    redundancy_version: int,
    symbols: int,
    bits_per_symbol: int,
) -> NDArray[np.complex64]:
    """One redundancy version of a transport block as symbols. [symbols]"""
    bits = []
    for word, size in zip(codewords, _shares(symbols, plan.blocks), strict=True):
        order = _buffer_order(plan, redundancy_version)
        chosen = word[np.resize(order, size * bits_per_symbol)]
        bits.append(chosen.reshape(bits_per_symbol, size).T.ravel())
    scrambled = np.concatenate(bits) ^ scrambling(symbols * bits_per_symbol)
    return map_bits(scrambled, bits_per_symbol)


class SoftBuffer:
    """What a receiver knows of one transport block; every transmission adds to it."""

    def __init__(self, plan: Layout) -> None:
        code = plan.code
        self.plan = plan
        self.llrs = np.zeros((plan.blocks, code.codeword_bits), np.float32)
        self.llrs[:, plan.block_bits : code.information_bits] = _KNOWN_ZERO

    def combine(
        self,
        symbols: NDArray[np.complex64],
        noise_power: float | NDArray[np.floating[Any]],
        *,
        redundancy_version: int,
        bits_per_symbol: int,
    ) -> None:
        """Add what one transmission tells.

        Args:
            symbols: Equalised. [symbols]
            noise_power: Mean square of the noise on each. [symbols]
            redundancy_version: Of the transmission.
            bits_per_symbol: Of its modulation.
        """
        llrs = demap(symbols, noise_power, bits_per_symbol)
        llrs *= 1 - 2 * scrambling(llrs.size).astype(np.float32)
        order = _buffer_order(self.plan, redundancy_version)
        start = 0
        for row, size in zip(self.llrs, _shares(symbols.size, self.plan.blocks), strict=True):
            end = start + size * bits_per_symbol
            found = llrs[start:end].reshape(size, bits_per_symbol).T.ravel()
            start = end
            # The circular buffer may come round more than once.
            for first in range(0, found.size, order.size):
                lap = found[first : first + order.size]
                row[order[: lap.size]] += lap

    def decode(self) -> NDArray[np.uint8] | None:
        """The payload, or None where a CRC fails. [payload_bits]"""
        plan = self.plan
        decoded = plan.code.decode(self.llrs).bits[:, : plan.block_bits]
        if plan.blocks > 1:
            for block in decoded:
                if (crc(block[:-24], "24B") != block[-24:]).any():
                    return None
            decoded = decoded[:, :-24]
        bits = decoded.ravel()
        payload = bits[: plan.payload_bits]
        if (crc(payload, plan.crc) != bits[plan.payload_bits :]).any():
            return None
        return payload


def scrambling(length: int) -> NDArray[np.uint8]:
    """Pseudo-random bits that are added to the coded ones, so that any payload has unit power.

    References:
        TS 38.211, sections 5.2.1 and 7.3.1.1, for RNTI 1 and scrambling identity 0.
    """
    return _scrambling(1 << max(12, (length - 1).bit_length()))[:length]


@cache
def _scrambling(length: int) -> NDArray[np.uint8]:
    from megdt.link._kernels import gold_sequence

    bits: NDArray[np.uint8] = gold_sequence(1 << 15, length)
    return bits


def _shares(symbols: int, blocks: int) -> list[int]:
    """Symbols of each code block: as equal as can be, the larger ones last."""
    small, larger = divmod(symbols, blocks)
    return [small] * (blocks - larger) + [small + 1] * larger


@cache
def _buffer_order(plan: Layout, redundancy_version: int) -> NDArray[np.int64]:
    """Positions in the mother code word in the order in which this version sends them.

    The first 2 Z bits are never sent, filler bits are left out.
    """
    z = plan.lifting_size
    columns = _BUFFER_COLUMNS[plan.base_graph]
    start = _STARTS[plan.base_graph][redundancy_version] * z
    order = (np.arange(columns * z) + start) % (columns * z) + 2 * z
    filler = (order >= plan.block_bits) & (order < plan.code.information_bits)
    return order[~filler]
