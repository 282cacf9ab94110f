"""Transmissions as SigMF recordings: the OFDM waveform in a file that any radio tool can carry.

One burst, without feedback: a preamble, every transport block once, at an MCS with a margin, then
the analog symbols. The receiver finds the start by the preamble, measures the noise in the empty control
symbols, estimates the channel from the pilots, and decodes. It takes from the file what both ends
of a link agree on beforehand (grid, MCS, sizes, the plan), never a value of the feature.

Slots are 15 FFT lengths long: 14 OFDM symbols with cyclic prefixes of 9/128 of that, 10/128 for
the first symbol of each half, as with 15 kHz subcarriers in TS 38.211, section 5.3.1.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdt import __version__
from megdt.errors import LinkError, MissingExtraError
from megdt.link.adaptation import MCS_TABLES, LinkAdaptation, Mcs, transport_block_bits
from megdt.link.grid import (
    BLOCK_SUBCARRIERS,
    CONTROL_SYMBOL,
    PILOT_STEP,
    PILOT_SYMBOLS,
    SLOT_SYMBOLS,
    ChannelStatistics,
    Grid,
    equalise,
    estimate,
    fill_slot,
    pilot_values,
)
from megdt.link.modem import SoftBuffer, encode, layout, modulate
from megdt.link.transport import (
    HEADER_BYTES,
    blocks_for,
    check_symbols,
    cut_block,
    frame,
    room,
    unframe,
)
from megdt.records import Delivery, Packet

BLER_TARGET = 1e-3
"""Nothing is sent again, so blocks are sent more safely than on a link with feedback."""

_SILENT_SLOTS = 1
_FRAME_KEYS = ("mcs_table", "mcs_index", "bandwidth_hz", "subcarrier_spacing_khz", "data_bytes",
               "analog_symbols")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Burst:
    """What both ends agree on about one transmission."""

    grid: Grid
    mcs_table: int
    mcs_index: int
    data_bytes: int
    """Payload with its length and checksum; 0 for none."""
    analog_symbols: int

    @property
    def mcs(self) -> Mcs:
        """Of every block."""
        return MCS_TABLES[self.mcs_table][self.mcs_index]

    @property
    def fft_size(self) -> int:
        """Samples of an OFDM symbol without its prefix; an eighth of the band at least is guard."""
        subcarriers = self.grid.resource_blocks * BLOCK_SUBCARRIERS
        return max(128, 1 << math.ceil(math.log2(subcarriers / 0.875)))

    @property
    def sample_rate_hz(self) -> float:
        """Complex samples a second."""
        return self.fft_size * self.grid.spacing_hz

    def digital_slots(self) -> list[int]:
        """Resource blocks of each slot that holds a transport block."""
        found, left = [], self.data_bytes
        while left > 0:
            found.append(blocks_for(self.grid, self.mcs, left))
            left -= room(self.grid, found[-1], self.mcs)
        return found

    def analog_slots(self) -> list[int]:
        """Data symbols of each slot that holds analog symbols."""
        per_slot = self.grid.resource_blocks * self.grid.block_data_elements
        whole, rest = divmod(self.analog_symbols, per_slot)
        return [per_slot] * whole + ([rest] if rest else [])


def write_recording(
    packet: Packet,
    path: Path,
    *,
    grid: Grid,
    snr_db: float,
    carrier_frequency_hz: float,
    mcs_table: int = 2,
    plan: Mapping[str, Any] | None = None,
) -> Burst:
    """Write one packet as a recording.

    Args:
        packet: Payload, complex symbols, or both.
        path: NAME.sigmf-meta; the samples go beside it as NAME.sigmf-data.
        grid: The carrier, with pilots.
        snr_db: What the receiver is expected to have; chooses the MCS.
        carrier_frequency_hz: For the metadata.
        mcs_table: See `LinkAdaptation`.
        plan: What the receiver needs to make a picture of it; kept as it is.

    Raises:
        LinkError: If the file cannot be written, or the symbols are not fit to be sent.
    """
    check_symbols(packet.symbols)
    _check_name(path)
    loop = LinkAdaptation(mcs_table=mcs_table, bler_target=BLER_TARGET).begin()
    elements = grid.resource_blocks * grid.block_data_elements
    data = memoryview(frame(packet.payload) if packet.payload else b"")
    burst = Burst(
        grid=grid,
        mcs_table=mcs_table,
        mcs_index=loop.choose(loop.report(np.array([10 ** (snr_db / 10)]), elements), elements),
        data_bytes=len(data),
        analog_symbols=0 if packet.symbols is None else packet.symbols.size,
    )
    slots = [fill_slot(symbols, grid, blocks) for symbols, blocks in _symbols(packet, data, burst)]
    silence = np.zeros(_SILENT_SLOTS * 15 * burst.fft_size, np.complex64)
    waveform = [_preamble(burst), *(_modulate(slot, burst) for slot in slots)]
    samples = np.concatenate([silence, *waveform, silence])
    _write(samples, path, burst, silence.size, carrier_frequency_hz, plan or {})
    return burst


def _symbols(
    packet: Packet, data: memoryview, burst: Burst
) -> list[tuple[NDArray[np.complex64], int]]:
    """Data symbols and resource blocks of every slot."""
    grid, mcs = burst.grid, burst.mcs
    found: list[tuple[NDArray[np.complex64], int]] = []
    offset = sequence = 0
    while offset < len(data):
        blocks, bits = cut_block(grid, mcs, data[offset:], sequence)
        shape = layout(bits.size, mcs.code_rate)
        symbols = modulate(
            encode(bits, shape),
            shape,
            redundancy_version=0,
            symbols=blocks * grid.block_data_elements,
            bits_per_symbol=mcs.bits_per_symbol,
        )
        found.append((symbols, blocks))
        offset += bits.size // 8 - HEADER_BYTES
        sequence += 1
    if packet.symbols is not None:
        first = 0
        for count in burst.analog_slots():
            part = packet.symbols[first : first + count].astype(np.complex64)
            found.append((part, -(-count // grid.block_data_elements)))
            first += count
    return found


def read_recording(path: Path) -> tuple[Delivery, dict[str, Any]]:
    """Demodulate and decode a recording.

    Args:
        path: NAME.sigmf-meta.

    Returns:
        What arrived, `lost` where a block cannot be decoded; and the plan in the metadata.

    Raises:
        LinkError: If the files are missing, damaged, of another type, or not made by
            `write_recording`.
    """
    burst, plan, samples = _read(path)
    grid = burst.grid
    sizes: list[tuple[int, int | None]] = [(blocks, None) for blocks in burst.digital_slots()]
    sizes += [(-(-n // grid.block_data_elements), n) for n in burst.analog_slots()]
    start = _find_start(samples, burst, len(sizes))
    received = []
    for index, (blocks, _) in enumerate(sizes):
        first = start + index * 15 * burst.fft_size
        received.append(_demodulate(samples[first : first + 15 * burst.fft_size], burst, blocks))
    scale, noise_power = _levels(received)
    # Echoes may be as long as the cyclic prefix; clocks may drift slowly.
    statistics = ChannelStatistics(longest_delay_s=grid.cyclic_prefix_s / 2, doppler_hz=20.0)
    parts: list[tuple[int, bytes]] = []
    symbols: list[NDArray[np.complex64]] = []
    noises: list[NDArray[np.float32]] = []
    for (blocks, count), slot in zip(sizes, received, strict=True):
        slot = (slot / scale).astype(np.complex64)
        gains, error = estimate(slot, grid, noise_power, statistics)
        equal, noise = equalise(slot, gains, noise_power + error, grid)
        if count is not None:
            symbols.append(equal[:count])
            noises.append(noise[:count])
            continue
        content = _decode(equal, noise, blocks, burst)
        if content is None:
            return Delivery(outcome="lost"), plan
        parts.append((int.from_bytes(content[:HEADER_BYTES], "little"), content[HEADER_BYTES:]))
    payload = unframe(b"".join(part for _, part in sorted(parts))) if parts else b""
    if payload is None:
        return Delivery(outcome="lost"), plan
    return Delivery(
        payload=payload,
        symbols=np.concatenate(symbols) if symbols else None,
        noise_power=np.concatenate(noises) if noises else 0.0,
        blocks=len(parts),
    ), plan


def _decode(
    equal: NDArray[np.complex64], noise: NDArray[np.float32], blocks: int, burst: Burst
) -> bytes | None:
    mcs, grid = burst.mcs, burst.grid
    bits = transport_block_bits(blocks * grid.block_data_elements, mcs)
    buffer = SoftBuffer(layout(bits, mcs.code_rate))
    buffer.combine(equal, noise, redundancy_version=0, bits_per_symbol=mcs.bits_per_symbol)
    decoded = buffer.decode()
    return None if decoded is None else np.packbits(decoded).tobytes()


def _prefixes(fft_size: int) -> list[int]:
    """Samples of each symbol's cyclic prefix."""
    short, long = fft_size * 9 // 128, fft_size * 10 // 128
    return [long if symbol % 7 == 0 else short for symbol in range(SLOT_SYMBOLS)]


def _bins(subcarriers: int, fft_size: int) -> NDArray[np.int64]:
    """FFT bins of the subcarriers, the middle one at zero frequency."""
    return (np.arange(subcarriers) - subcarriers // 2) % fft_size


def _modulate(slot: NDArray[np.complex64], burst: Burst) -> NDArray[np.complex64]:
    """One slot as samples, of unit mean power where all subcarriers are in use."""
    size, carriers = burst.fft_size, burst.grid.resource_blocks * BLOCK_SUBCARRIERS
    spectrum = np.zeros((SLOT_SYMBOLS, size), np.complex64)
    spectrum[:, _bins(carriers, size)[: slot.shape[1]]] = slot
    times = np.fft.ifft(spectrum, axis=1) * (size / math.sqrt(carriers))
    pieces = []
    for symbol, prefix in zip(times, _prefixes(size), strict=True):
        pieces += [symbol[-prefix:], symbol]
    return np.concatenate(pieces).astype(np.complex64)


def _demodulate(samples: NDArray[np.complex64], burst: Burst, blocks: int) -> NDArray[np.complex64]:
    """Samples of one slot back to its elements. [14, 12 * blocks]"""
    size, carriers = burst.fft_size, burst.grid.resource_blocks * BLOCK_SUBCARRIERS
    # A quarter of the prefix early: room for a start that was found a little late.
    early = size * 9 // 512
    first, rows = 0, []
    for prefix in _prefixes(size):
        begin = first + prefix - early
        rows.append(samples[begin : begin + size])
        first += prefix + size
    spectrum = np.fft.fft(np.stack(rows), axis=1) * (math.sqrt(carriers) / size)
    bins = _bins(carriers, size)[: blocks * BLOCK_SUBCARRIERS]
    # Undo the early start, which turns every subcarrier by its own angle.
    turn = np.exp(2j * np.pi * np.where(bins > size // 2, bins - size, bins) * early / size)
    return (spectrum[:, bins] * turn).astype(np.complex64)


def _preamble(burst: Burst) -> NDArray[np.complex64]:
    """A pseudo-random OFDM symbol over the whole carrier, for finding the start."""
    carriers = burst.grid.resource_blocks * BLOCK_SUBCARRIERS
    spectrum = np.zeros(burst.fft_size, np.complex64)
    spectrum[_bins(carriers, burst.fft_size)] = pilot_values(PILOT_STEP * carriers)
    times = np.fft.ifft(spectrum) * (burst.fft_size / math.sqrt(carriers))
    return times.astype(np.complex64)


def _find_start(samples: NDArray[np.complex64], burst: Burst, slots: int) -> int:
    """First sample after the preamble, by correlation with it.

    Raises:
        LinkError: If so many slots do not fit into the recording.
    """
    known = _preamble(burst)
    latest = samples.size - known.size - slots * 15 * burst.fft_size
    if latest < 0:
        raise LinkError(
            f"recording ends {-latest} samples before its last slot does; take it whole"
        )
    length = 2 ** math.ceil(math.log2(samples.size + known.size))
    match = np.fft.ifft(np.fft.fft(samples, length) * np.fft.fft(known, length).conj())
    return int(np.argmax(np.abs(match[: latest + 1]))) + known.size


def _levels(slots: list[NDArray[np.complex64]]) -> tuple[float, float]:
    """Amplitude of the pilots, and the noise power once that is 1."""
    noise = float(np.mean([np.mean(np.abs(slot[CONTROL_SYMBOL]) ** 2) for slot in slots]))
    pilots = float(
        np.mean([np.mean(np.abs(slot[PILOT_SYMBOLS, ::PILOT_STEP]) ** 2) for slot in slots])
    )
    signal = max(pilots - noise, 1e-3 * pilots, 1e-30)
    # Rounding to float32 is some noise even where the air added none.
    return math.sqrt(signal), max(noise / signal, 1e-6)


def _sigmf() -> Any:
    try:
        import sigmf
        from sigmf import sigmffile
    except ImportError as error:
        raise MissingExtraError(
            f"recordings need the package sigmf ({error}); pip install 'megdt[sigmf]'"
        ) from error
    del sigmffile
    return sigmf


def _check_name(path: Path) -> None:
    if path.suffix != ".sigmf-meta":
        raise LinkError(
            f"{path.name} does not end in .sigmf-meta, as recordings do; name it "
            f"{path.stem}.sigmf-meta"
        )


def _write(
    samples: NDArray[np.complex64],
    path: Path,
    burst: Burst,
    start: int,
    carrier_frequency_hz: float,
    plan: Mapping[str, Any],
) -> None:
    sigmf = _sigmf()
    values = [burst.mcs_table, burst.mcs_index, burst.grid.bandwidth_hz]
    values += [burst.grid.subcarrier_spacing_khz, burst.data_bytes, burst.analog_symbols]
    meta = {
        "core:datatype": "cf32_le",
        "core:sample_rate": burst.sample_rate_hz,
        "core:description": "a feature of a generation, sent by megdt",
        "core:recorder": f"megdt {__version__}",
        "core:extensions": [{"name": "megdt", "version": __version__, "optional": True}],
        "megdt:burst": dict(zip(_FRAME_KEYS, values, strict=True)),
        "megdt:plan": dict(plan),
    }
    data = path.with_suffix(".sigmf-data")
    try:
        samples.astype("<c8").tofile(data)
        recording = sigmf.SigMFFile(data_file=str(data), global_info=meta)
        recording.add_capture(0, {"core:frequency": float(carrier_frequency_hz)})
        recording.add_annotation(
            start, length=samples.size - 2 * start, metadata={"core:label": "burst"}
        )
        recording.tofile(str(path), overwrite=True)
    except OSError as error:
        raise LinkError(
            f"cannot write {path} ({error.strerror or error}); choose another place"
        ) from error


def _read(path: Path) -> tuple[Burst, dict[str, Any], NDArray[np.complex64]]:
    sigmf = _sigmf()
    _check_name(path)
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))["global"]
        datatype = meta["core:datatype"]
    except OSError as error:
        raise LinkError(f"cannot read {path} ({error.strerror}); check the path") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise LinkError(
            f"{path} is not SigMF metadata ({type(error).__name__}); give a .sigmf-meta file"
        ) from error
    if datatype != "cf32_le":
        raise LinkError(
            f"{path} has samples of type {datatype}, expected cf32_le; convert them to complex "
            "float32, little endian"
        )
    try:
        recording = sigmf.sigmffile.fromfile(str(path))
        samples = np.asarray(recording.read_samples(), np.complex64).ravel()
    except Exception as error:  # the package raises its own errors, and bare OSError
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise LinkError(
            f"{path} does not hold together ({reason}); take a whole recording with its .sigmf-data"
        ) from error
    burst, plan = _parse_burst(meta, path, samples.size)
    if not np.isfinite(samples).all():
        raise LinkError(f"{path} has samples that are not finite; record it again")
    return burst, plan, samples


def _parse_burst(meta: Mapping[str, Any], path: Path, samples: int) -> tuple[Burst, dict[str, Any]]:
    found, plan = meta.get("megdt:burst"), meta.get("megdt:plan")
    if not (isinstance(found, dict) and isinstance(plan, dict)) or set(found) != set(_FRAME_KEYS):
        raise LinkError(
            f"{path} has no megdt:burst with {', '.join(_FRAME_KEYS)} in its metadata; only "
            "recordings that megdt wrote can be decoded"
        )
    # Every byte and symbol takes samples: no burst has more of them than it has samples.
    for key in _FRAME_KEYS:
        kinds, limit = ((int, float), 1e12) if key == "bandwidth_hz" else ((int,), samples)
        if type(found[key]) not in kinds or not 0 <= found[key] <= limit:
            raise LinkError(
                f"{path} has {key} {found[key]!r} in megdt:burst, which does not fit {samples} "
                "samples; take a whole recording"
            )
    adaptation = LinkAdaptation(mcs_table=found["mcs_table"], mcs_index=found["mcs_index"])
    grid = Grid(
        bandwidth_hz=float(found["bandwidth_hz"]),
        subcarrier_spacing_khz=found["subcarrier_spacing_khz"],
    )
    assert adaptation.mcs_index is not None
    return Burst(
        grid=grid,
        mcs_table=adaptation.mcs_table,
        mcs_index=adaptation.mcs_index,
        data_bytes=found["data_bytes"],
        analog_symbols=found["analog_symbols"],
    ), plan
