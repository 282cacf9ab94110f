"""Carrying packets: digital payloads as coded transport blocks, analog symbols as they are.

A payload gets its length and a checksum, and is cut into transport blocks, each with a sequence
number. Slot by slot, link adaptation chooses an MCS by what the receiver last reported; blocks that
are not decoded are sent again. `coding` says how a block meets the channel:

`ldpc`      bit-true: encoded, modulated, faded, estimated, demapped, decoded.
`abstract`  the channel of the slot gives an effective SNR, measured curves give an error rate, and
            that is drawn. For large simulations.
`ideal`     no blocks: a code that reaches capacity in every resource element, without headers,
            pilots, control or errors. A bound.
"""

from __future__ import annotations

import math
import zlib
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from megdt.errors import LinkError
from megdt.link.adaptation import (
    MCS_TABLES,
    AdaptationState,
    LinkAdaptation,
    Mcs,
    block_error_rate,
    transport_block_bits,
)
from megdt.link.channels import Channel, awgn
from megdt.link.grid import (
    BLOCK_ELEMENTS,
    BLOCK_SUBCARRIERS,
    PILOT_STEP,
    PILOT_SYMBOLS,
    SLOT_SYMBOLS,
    Grid,
    equalise,
    estimate,
    estimation_error,
    fill_slot,
)
from megdt.link.latency import Timing
from megdt.link.modem import (
    REDUNDANCY_VERSIONS,
    Layout,
    SoftBuffer,
    encode,
    layout,
    modulate,
)
from megdt.link.qam import effective_snr_db, mutual_information
from megdt.records import Delivery, Outcome, Packet, Uses

Coding = Literal["ldpc", "abstract", "ideal"]
Retransmission = Literal["ir", "arq", "none"]

_LENGTH_BYTES = _CHECKSUM_BYTES = 4
HEADER_BYTES = 2
"""Sequence number of a transport block."""
_MAX_BLOCKS = 2 ** (8 * HEADER_BYTES)
_FEEDBACK_USES = 12
"""One resource block of one OFDM symbol: an acknowledgement and a CQI, PUCCH format 2."""
_MAX_SLOTS = 100_000
"""Where the ideal link gives up if it has no deadline."""


@dataclass(frozen=True, kw_only=True)
class Transport:
    """One direction of a link: a channel, and how it is used.

    Args:
        channel: What the radio is like.
        grid: The carrier. With pilots the receiver estimates the channel; without, it knows it.
        adaptation: How MCS are chosen.
        timing: What takes how long.
        coding: See the head of this module.
        harq: "ir" combines all transmissions of a block, "arq" takes each alone, "none" sends once.
        max_transmissions: Of one block.
        deadline_s: Latency after which a packet is late; None for no limit.
        tx_power_dbm: Radiated by a whole carrier. It prices the energy.

    Raises:
        LinkError: If a setting is impossible.
    """

    channel: Channel
    grid: Grid = field(default_factory=Grid)
    adaptation: LinkAdaptation = field(default_factory=LinkAdaptation)
    timing: Timing = field(default_factory=Timing)
    coding: Coding = "ldpc"
    harq: Retransmission = "ir"
    max_transmissions: int = 4
    deadline_s: float | None = None
    tx_power_dbm: float = 23.0

    def __post_init__(self) -> None:
        for name, kind in (("coding", Coding), ("harq", Retransmission)):
            if getattr(self, name) not in get_args(kind):
                raise LinkError(
                    f"{name} is {getattr(self, name)!r}, known: {', '.join(get_args(kind))}; "
                    "choose one of these"
                )
        ranges = {
            "max_transmissions": (1, 16, "4 is usual"),
            "deadline_s": (0, 1e6, "leave it out for no limit"),
            "tx_power_dbm": (-100, 100, "a phone sends 23, a small cell 30"),
        }
        for name, (low, high, hint) in ranges.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:  # also catches nan
                raise LinkError(f"{name} is {value:g}, this link takes {low:g} to {high:g}; {hint}")

    def send(self, packet: Packet, rng: np.random.Generator) -> Delivery:
        """Carry one packet.

        Raises:
            LinkError: If symbols are not complex, or have more than unit mean power: a codec must
                not buy SNR with power that nobody counts.

        Returns:
            What arrived, and what that took. Nothing arrives that is late or lost.
        """
        check_symbols(packet.symbols)
        air = _Air(self, rng)
        outcome: Outcome = "delivered"
        payload, symbols, noise_power = b"", None, np.zeros(0, np.float32)
        if packet.payload:
            send = _send_ideal if self.coding == "ideal" else _send_blocks
            outcome, payload = send(air, packet.payload)
        elif packet.told_snr and self.coding != "ideal":
            _sound(air)
        if packet.symbols is not None and outcome == "delivered":
            outcome, symbols, noise_power = _send_symbols(air, packet.symbols)
        return air.delivery(outcome, payload, symbols, noise_power)

    def analog_uses(self, symbols: int) -> int:
        """Channel uses that so many analog symbols take, pilots and control included."""
        return -(-symbols // self.grid.block_data_elements) * BLOCK_ELEMENTS

    def symbols_within(self, uses: int) -> int:
        """Analog symbols that fit in so many channel uses, the report of the SNR taken off."""
        report = 0
        if self.coding != "ideal":
            report = _FEEDBACK_USES
            if self.grid.pilots:
                report += self.grid.resource_blocks * BLOCK_SUBCARRIERS
        return max(0, uses - report) // BLOCK_ELEMENTS * self.grid.block_data_elements

    def payload_bits(self, uses: int, rng: np.random.Generator) -> int:
        """The payload that fits in so many channel uses, as the sender knows at the start.

        A codec that has a rate can be set by it: all overhead is taken off, at the MCS that the
        first report of the channel calls for; retransmissions are not foreseen.

        Args:
            uses: What may be spent.
            rng: As it will be given to `send`, so that the channel is the same.
        """
        air = _Air(self, rng)
        grid = air.grid
        if self.coding == "ideal":
            return _ideal_bits(air, uses)
        elements = grid.resource_blocks * grid.block_data_elements
        loop = self.adaptation.begin()
        cqi = loop.report(air.snr(air.grid.resource_blocks), elements)
        table = MCS_TABLES[self.adaptation.mcs_table]
        _sound(air)
        left, data = uses - sum(air.spent.values()), -_LENGTH_BYTES - _CHECKSUM_BYTES
        while (blocks := min(grid.resource_blocks, (left - _FEEDBACK_USES) // BLOCK_ELEMENTS)) > 0:
            part = blocks * grid.block_data_elements
            data += room(grid, blocks, table[loop.choose(cqi, part, reported_for=elements)])
            left -= blocks * BLOCK_ELEMENTS + _FEEDBACK_USES
        return 8 * max(data, 0)


def check_symbols(symbols: NDArray[np.complex64] | None) -> None:
    """Raise a LinkError for symbols that a radio could not send as they are."""
    if symbols is None:
        return
    if symbols.ndim != 1 or symbols.size == 0:
        raise LinkError(
            f"symbols have shape {symbols.shape}, a radio sends one after the other; give [uses], "
            "or None for none"
        )
    if not np.iscomplexobj(symbols):
        raise LinkError(
            "symbols are real, a radio sends complex ones; build the codec for fair mode"
        )
    power = float(np.mean(np.abs(symbols.astype(np.complex128)) ** 2))
    # A gain rounded to half precision is off by up to 2^-11, the power by twice that.
    if not power <= 1.002:  # also catches nan
        raise LinkError(
            f"symbols have mean power {power:.4g}, the link takes at most 1; normalise them in "
            "the codec and send the gain"
        )


class _Air:
    """The slots of one delivery: where the channel is met, and everything is counted."""

    def __init__(self, transport: Transport, rng: np.random.Generator) -> None:
        # The course of the channel does not depend on what is sent over it.
        channel_rng, self.rng = rng.spawn(2)
        self.transport, self.grid = transport, transport.grid
        self.fading = transport.channel.begin(transport.grid, channel_rng)
        self.slot = 0
        self.spent = {"data": 0, "retransmissions": 0, "pilots": 0, "control": 0, "feedback": 0}
        self.airtime_slots = 0.0
        self.last_slots = 0.0
        """Slots until the last one that carried anything, which delays count to."""
        self.header_bits = self.blocks = self.failed_first = 0

    def is_late(self, slots: float) -> bool:
        """Whether what ends after so many slots misses the deadline."""
        deadline = self.transport.deadline_s
        return deadline is not None and self.transport.timing.arrival_s(slots, self.grid) > deadline

    def occupy(self, blocks: int, purpose: Literal["data", "retransmissions"]) -> None:
        """Charge so many resource blocks of the current slot, and go on to the next one."""
        grid = self.grid
        control = BLOCK_SUBCARRIERS if grid.control else 0
        pilots = len(PILOT_SYMBOLS) * BLOCK_SUBCARRIERS // PILOT_STEP if grid.pilots else 0
        self.spent["control"] += blocks * control
        self.spent["pilots"] += blocks * pilots
        self.spent[purpose] += blocks * (BLOCK_ELEMENTS - control - pilots)
        self.airtime_slots += 1
        self.slot += 1
        self.last_slots = self.slot

    def carry(
        self, symbols: NDArray[np.complex64], blocks: int
    ) -> tuple[NDArray[np.complex64], NDArray[np.float32]]:
        """What the receiver makes of the symbols in the current slot, and the noise on each."""
        sent = fill_slot(symbols, self.grid, blocks)
        gains, noise_power = self.fading.slot(self.slot, blocks)
        received = awgn(gains * sent, noise_power, self.rng)
        error = 0.0
        if self.grid.pilots:
            statistics = self.transport.channel.statistics
            gains, error = estimate(received, self.grid, noise_power, statistics)
        equal, noise = equalise(received, gains, noise_power + error, self.grid)
        return equal[: symbols.size], noise[: symbols.size]

    def snr(self, blocks: int) -> NDArray[np.float64]:
        """Es/N0 of the current slot after equalising, the estimator's mean error included.

        Returns:
            One number an element; a single one where all are alike. [elements]
        """
        gains, noise_power = self.fading.slot(self.slot, blocks)
        if self.grid.pilots:
            statistics = self.transport.channel.statistics
            noise_power += estimation_error(self.grid, blocks, noise_power, statistics)
        power: NDArray[np.float64] = np.abs(gains).astype(np.float64).ravel() ** 2
        return power / noise_power

    def delivery(
        self,
        outcome: Outcome,
        payload: bytes,
        symbols: NDArray[np.complex64] | None,
        noise_power: NDArray[np.float32],
    ) -> Delivery:
        """What arrived, and the account of it."""
        uses = Uses(**self.spent)
        per_slot = self.grid.resource_blocks * BLOCK_ELEMENTS
        power_w = 10 ** (self.transport.tx_power_dbm / 10) / 1000
        # Every resource element is sent with its share of the power.
        element_j = self.grid.slot_s * power_w / per_slot
        there = outcome == "delivered"
        return Delivery(
            outcome=outcome,
            payload=payload if there else b"",
            symbols=symbols if there else None,
            noise_power=noise_power if there and symbols is not None else 0.0,
            uses=uses,
            header_bits=self.header_bits,
            blocks=self.blocks,
            failed_first=self.failed_first,
            airtime_s=self.airtime_slots * self.grid.slot_s,
            latency_s=self.transport.timing.arrival_s(self.last_slots, self.grid),
            radiated_j=(uses.total - uses.feedback) * element_j,
            feedback_s=uses.feedback // _FEEDBACK_USES * self.grid.slot_s / SLOT_SYMBOLS,
            feedback_radiated_j=uses.feedback * element_j,
        )


def _send_symbols(
    air: _Air, symbols: NDArray[np.complex64]
) -> tuple[Outcome, NDArray[np.complex64] | None, NDArray[np.float32]]:
    """Analog symbols fill slot after slot."""
    grid, nothing = air.grid, np.zeros(0, np.float32)
    per_slot = grid.resource_blocks * grid.block_data_elements
    received, noise = [], []
    for first in range(0, symbols.size, per_slot):
        part = symbols[first : first + per_slot]
        if air.is_late(air.slot + 1):
            return "late", None, nothing
        blocks = -(-part.size // grid.block_data_elements)
        equal, power = air.carry(part, blocks)
        air.occupy(blocks, "data")
        received.append(equal)
        noise.append(power)
    return "delivered", np.concatenate(received), np.concatenate(noise)


def _slot_capacity(air: _Air, index: int) -> float:
    """Bits that a slot carries at capacity in every element."""
    blocks = air.grid.resource_blocks
    gains, noise_power = air.fading.slot(index, blocks)
    bits = np.mean(np.log2(1 + np.abs(gains) ** 2 / noise_power), dtype=np.float64)
    return float(bits) * blocks * BLOCK_ELEMENTS


def _send_ideal(air: _Air, payload: bytes) -> tuple[Outcome, bytes]:
    """Bits at the capacity of every resource element, to the element."""
    per_slot = air.grid.resource_blocks * BLOCK_ELEMENTS
    left = 8.0 * len(payload)
    for index in range(_MAX_SLOTS):
        bits = _slot_capacity(air, index)
        share = min(1.0, left / max(bits, 1e-300))
        if air.is_late(index + share):
            return "late", b""
        air.airtime_slots = air.last_slots = index + share
        air.spent["data"] = math.ceil(air.airtime_slots * per_slot - 1e-6)
        air.slot = index + 1
        left -= bits
        if left <= 1e-6:
            return "delivered", bytes(bytearray(payload))
    return "lost", b""


def _ideal_bits(air: _Air, uses: int) -> int:
    per_slot = air.grid.resource_blocks * BLOCK_ELEMENTS
    whole, rest = divmod(uses, per_slot)
    bits = sum(_slot_capacity(air, index) for index in range(whole))
    return int(bits + _slot_capacity(air, whole) * rest / per_slot)


@dataclass(kw_only=True)
class _Block:
    """A transport block on its way."""

    mcs: Mcs
    resource_blocks: int
    plan: Layout
    bits: NDArray[np.uint8]
    attempts: int = 0
    codewords: NDArray[np.uint8] | None = None
    buffer: SoftBuffer | None = None
    information: float = 0.0
    """Bits a symbol that an abstract receiver has gathered."""
    error: float = 1.0
    """Probability that it could not decode from what it had."""


def _send_blocks(air: _Air, payload: bytes) -> tuple[Outcome, bytes]:
    """Transport blocks under link adaptation, until all are decoded."""
    transport = air.transport
    data = memoryview(frame(payload))  # what is left of it is no copy
    air.header_bits = 8 * (len(data) - len(payload))
    loop = transport.adaptation.begin()
    elements = air.grid.resource_blocks * air.grid.block_data_elements
    # What the receiver sends back, by the slot from which the sender has it.
    reports = deque([(0, loop.report(air.snr(air.grid.resource_blocks), elements))])
    _sound(air)
    answers: deque[tuple[int, _Block, bool]] = deque()
    parts: dict[int, bytes] = {}
    cqi = offset = sequence = 0
    while offset < len(data) or answers:
        while reports and reports[0][0] <= air.slot:
            cqi = reports.popleft()[1]
        if answers and answers[0][0] <= air.slot:
            _, block, decoded = answers.popleft()
            if block.attempts == 1:
                loop.feed_back(decoded)
                air.failed_first += not decoded
            if decoded:
                continue
            if block.attempts >= (1 if transport.harq == "none" else transport.max_transmissions):
                return "lost", b""
        elif offset < len(data):
            if sequence >= _MAX_BLOCKS:
                return "lost", b""
            block = _next_block(air, loop, cqi, data[offset:], sequence)
            offset += block.plan.payload_bits // 8 - HEADER_BYTES
            sequence += 1
            air.blocks += 1
            air.header_bits += 8 * HEADER_BYTES
        else:
            air.slot = answers[0][0]  # nothing to send until that answer
            continue
        if air.is_late(air.slot + 1):
            return "late", b""
        answer_slot = air.slot + transport.timing.harq_rtt_slots
        transmit = _transmit_coded if transport.coding == "ldpc" else _transmit_abstract
        content, snr = transmit(air, block)
        air.occupy(block.resource_blocks, "data" if block.attempts == 1 else "retransmissions")
        air.spent["feedback"] += _FEEDBACK_USES
        reports.append((answer_slot, loop.report(snr, elements)))
        answers.append((answer_slot, block, content is not None))
        if content is not None:
            parts[int.from_bytes(content[:HEADER_BYTES], "little")] = content[HEADER_BYTES:]
    air.slot = math.ceil(air.last_slots)
    received = unframe(b"".join(part for _, part in sorted(parts.items())))
    # A block whose CRC held by chance must not become a silently wrong payload.
    return ("lost", b"") if received is None else ("delivered", received)


def _sound(air: _Air) -> None:
    """Charge what the first report takes: pilots over the carrier, if any are needed, and itself.

    It is sent while the packet waits for its grant, so it takes no time.
    """
    if air.grid.pilots:
        air.spent["pilots"] += air.grid.resource_blocks * BLOCK_SUBCARRIERS
    air.spent["feedback"] += _FEEDBACK_USES


def frame(payload: bytes) -> bytes:
    """Length, payload, checksum."""
    checksum = zlib.crc32(payload).to_bytes(_CHECKSUM_BYTES, "little")
    return len(payload).to_bytes(_LENGTH_BYTES, "little") + payload + checksum


def unframe(data: bytes) -> bytes | None:
    """The payload, or None where the checksum is another one's."""
    end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
    payload, checksum = data[_LENGTH_BYTES:end], data[end : end + _CHECKSUM_BYTES]
    return payload if zlib.crc32(payload).to_bytes(_CHECKSUM_BYTES, "little") == checksum else None


def room(grid: Grid, blocks: int, mcs: Mcs) -> int:
    """Bytes of data in a transport block; the smallest holds one."""
    return transport_block_bits(blocks * grid.block_data_elements, mcs) // 8 - HEADER_BYTES


def blocks_for(grid: Grid, mcs: Mcs, data_bytes: int) -> int:
    """Resource blocks of the next transport block: a whole slot, or as few as will do."""
    blocks = grid.resource_blocks
    if room(grid, blocks, mcs) > data_bytes:
        blocks = next(b for b in range(1, blocks + 1) if room(grid, b, mcs) >= data_bytes)
    return blocks


def cut_block(
    grid: Grid, mcs: Mcs, data: memoryview, sequence: int
) -> tuple[int, NDArray[np.uint8]]:
    """The first of the data as a transport block.

    Returns:
        Its resource blocks, and its bits: sequence number, data, zeros.
    """
    blocks = blocks_for(grid, mcs, len(data))
    size = room(grid, blocks, mcs)
    content = sequence.to_bytes(HEADER_BYTES, "little") + bytes(data[:size]).ljust(size, b"\0")
    return blocks, np.unpackbits(np.frombuffer(content, np.uint8))


def _next_block(
    air: _Air, loop: AdaptationState, cqi: int, data: memoryview, sequence: int
) -> _Block:
    grid, table = air.grid, MCS_TABLES[air.transport.adaptation.mcs_table]
    whole = grid.resource_blocks * grid.block_data_elements
    index = loop.choose(cqi, whole)
    # A block that does not fill the slot is shorter, and may need a lower MCS, which makes it longer.
    while True:
        part = blocks_for(grid, table[index], len(data)) * grid.block_data_elements
        lower = loop.choose(cqi, part, reported_for=whole)
        if lower >= index:
            break
        index = lower
    mcs = table[index]
    blocks, bits = cut_block(air.grid, mcs, data, sequence)
    return _Block(mcs=mcs, resource_blocks=blocks, plan=layout(bits.size, mcs.code_rate), bits=bits)


def _transmit_coded(air: _Air, block: _Block) -> tuple[bytes | None, NDArray[np.floating[Any]]]:
    """Send a block once, bit by bit; what was decoded, and the SNR of its elements."""
    combine = air.transport.harq == "ir"
    version = REDUNDANCY_VERSIONS[block.attempts % 4] if combine else 0
    order = block.mcs.bits_per_symbol
    if block.codewords is None:
        block.codewords = encode(block.bits, block.plan)
    symbols = modulate(
        block.codewords,
        block.plan,
        redundancy_version=version,
        symbols=block.resource_blocks * air.grid.block_data_elements,
        bits_per_symbol=order,
    )
    received, noise = air.carry(symbols, block.resource_blocks)
    if block.buffer is None or not combine:
        block.buffer = SoftBuffer(block.plan)
    block.buffer.combine(received, noise, redundancy_version=version, bits_per_symbol=order)
    block.attempts += 1
    bits = block.buffer.decode()
    return None if bits is None else np.packbits(bits).tobytes(), 1 / noise


def _transmit_abstract(air: _Air, block: _Block) -> tuple[bytes | None, NDArray[np.floating[Any]]]:
    """Draw whether a block would be decoded."""
    snr = air.snr(block.resource_blocks)
    order = block.mcs.bits_per_symbol
    gathered = float(mutual_information(snr, order).mean())
    # Redundancy versions send other bits of one code word: what they tell adds up.
    block.information = gathered + (block.information if air.transport.harq == "ir" else 0.0)
    error = block_error_rate(
        block.mcs,
        effective_snr_db(block.information, order),
        code_block_bits=block.plan.block_bits,
        code_blocks=block.plan.blocks,
    )
    if block.attempts == 0 or air.transport.harq != "ir":
        block.error = 1.0
    block.attempts += 1
    # What fails with more information would have failed with less: given that it did, so likely.
    failed = air.rng.random() * block.error < error
    block.error = error
    return None if failed else np.packbits(block.bits).tobytes(), snr
