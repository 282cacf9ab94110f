"""The radio link as its user sets it: one flat table of settings, and the parts made of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from megdt.errors import LinkError
from megdt.link.adaptation import LinkAdaptation
from megdt.link.channels import BlockFading, Channel, doppler_hz
from megdt.link.grid import BLOCK_ELEMENTS, Grid
from megdt.link.latency import Timing
from megdt.link.tr38901 import Cell, MultipathFading
from megdt.link.traces import read_trace
from megdt.link.transport import Coding, Retransmission, Transport
from megdt.records import Delivery, Packet

ChannelKnowledge = Literal["estimated", "perfect"]

DEFAULT_SNR_DB = 10.0

CHANNELS = (
    "awgn",
    "rayleigh",
    "rician",
    "tdl-a",
    "tdl-b",
    "tdl-c",
    "tdl-d",
    "tdl-e",
    "cdl-a",
    "cdl-b",
    "cdl-c",
    "cdl-d",
    "cdl-e",
    "umi",
    "uma",
)
"""Names of channels; `trace:FILE` is one more."""


@dataclass(frozen=True, kw_only=True)
class RadioLink:
    """One direction of a link.

    Args:
        channel: One of CHANNELS, or "trace:FILE" with a CSV of time_s,snr_db or a Mahimahi trace.
        snr_db: Mean Es/N0 per complex use; 10 where left out. Cells and traces have their own.
        bandwidth_hz: Of the carrier; whole resource blocks of it are used.
        subcarrier_spacing_khz: 15, 30, 60 or 120.
        carrier_frequency_hz: Gives Doppler shift and path loss.
        tx_power_dbm: Radiated by a whole carrier; sets the SNR in a cell, and the energy.
        speed_m_s: Of the UE; gives Doppler shift and coherence time.
        distance_m: Between base station and UE.
        noise_figure_db: Of the receiver, in a cell.
        k_factor_db: Of "rician".
        delay_spread_s: Of "tdl" and "cdl".
        coherence_time_s: Of "rayleigh" and "rician"; from the speed where left out.
        coding: "ldpc", "abstract" or "ideal"; see `transport`.
        csi: What the receiver knows of the channel: "estimated" from pilots, or "perfect", free.
        harq: "ir" combines all transmissions of a block, "arq" takes each alone, "none" sends once.
        max_transmissions: Of one block.
        mcs_table, mcs_index, bler_target, outer_loop: See `LinkAdaptation`.
        deadline_s: Latency after which a packet is late; None for no limit.
        scheduling_slots, harq_rtt_slots, processing_slots: See `Timing`.

    Raises:
        LinkError: If a setting is impossible.
    """

    channel: str = "awgn"
    snr_db: float | None = None
    bandwidth_hz: float = 1e6
    subcarrier_spacing_khz: int = 15
    carrier_frequency_hz: float = 3.5e9
    tx_power_dbm: float = 23.0
    speed_m_s: float = 1.5
    distance_m: float = 100.0
    noise_figure_db: float = 7.0
    k_factor_db: float = 6.0
    delay_spread_s: float = 1e-7
    coherence_time_s: float | None = None
    coding: Coding = "ldpc"
    csi: ChannelKnowledge = "estimated"
    harq: Retransmission = "ir"
    max_transmissions: int = 4
    mcs_table: int = 2
    mcs_index: int | None = None
    bler_target: float = 0.1
    outer_loop: bool = True
    deadline_s: float | None = None
    scheduling_slots: int = 4
    harq_rtt_slots: int = 8
    processing_slots: int = 2

    def __post_init__(self) -> None:
        if self.csi not in get_args(ChannelKnowledge):
            raise LinkError(
                f"csi is {self.csi!r}, known: {', '.join(get_args(ChannelKnowledge))}; "
                "choose one of these"
            )
        ranges = {
            "carrier_frequency_hz": (0.5e9, 100e9, "the models of TR 38.901 reach so far"),
            "speed_m_s": (0, 300, "walking is 1.5, a fast train 140"),
            "noise_figure_db": (0, 50, "a phone has about 7"),
            "k_factor_db": (-40, 60, "6 is usual outdoors"),
            "coherence_time_s": (1e-9, 1e6, "leave it out to follow from the speed"),
        }
        for name, (low, high, hint) in ranges.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:  # also catches nan
                raise LinkError(f"{name} is {value:g}, this link takes {low:g} to {high:g}; {hint}")
        if self.snr_db is not None and self.mean_snr_db is None:
            raise LinkError(
                f"snr_db is {self.snr_db:g}, but channel {self.channel} has its own SNR; leave "
                "snr_db out"
            )
        _ = self.transport  # what is impossible is said before anything runs

    @cached_property
    def transport(self) -> Transport:
        """The parts that these settings describe."""
        grid = Grid(
            bandwidth_hz=self.bandwidth_hz,
            subcarrier_spacing_khz=self.subcarrier_spacing_khz,
            pilots=self.csi == "estimated",
            control=self.coding != "ideal",
        )
        shift = doppler_hz(self.speed_m_s, self.carrier_frequency_hz)
        if shift > 0.1 * grid.spacing_hz:
            raise LinkError(
                f"speed_m_s {self.speed_m_s:g} at {self.carrier_frequency_hz:g} Hz shifts by "
                f"{shift:.0f} Hz, more than a tenth of the subcarrier spacing; choose a larger "
                "subcarrier_spacing_khz"
            )
        return Transport(
            channel=_make_channel(self, grid),
            grid=grid,
            adaptation=LinkAdaptation(
                mcs_table=self.mcs_table,
                mcs_index=self.mcs_index,
                bler_target=self.bler_target,
                outer_loop=self.outer_loop,
            ),
            timing=Timing(
                scheduling_slots=self.scheduling_slots,
                harq_rtt_slots=self.harq_rtt_slots,
                processing_slots=self.processing_slots,
                distance_m=self.distance_m,
            ),
            coding=self.coding,
            harq=self.harq,
            max_transmissions=self.max_transmissions,
            deadline_s=self.deadline_s,
            tx_power_dbm=self.tx_power_dbm,
        )

    @property
    def mean_snr_db(self) -> float | None:
        """Mean Es/N0, or None where the channel has its own."""
        if self.channel in ("umi", "uma") or self.channel.startswith("trace:"):
            return None
        return DEFAULT_SNR_DB if self.snr_db is None else self.snr_db

    def send(self, packet: Packet, rng: np.random.Generator) -> Delivery:
        """Carry one packet; see `Transport.send`."""
        return self.transport.send(packet, rng)

    def analog_uses(self, symbols: int) -> int:
        """Channel uses that analog symbols take; see `Transport.analog_uses`."""
        return self.transport.analog_uses(symbols)

    def symbols_within(self, uses: int) -> int:
        """Analog symbols that fit in so many uses; see `Transport.symbols_within`."""
        return self.transport.symbols_within(uses)

    def payload_bits(self, uses: int, rng: np.random.Generator) -> int:
        """The payload that fits in so many channel uses; see `Transport.payload_bits`."""
        return self.transport.payload_bits(uses, rng)


def _make_channel(link: RadioLink, grid: Grid) -> Channel:
    name = link.channel
    snr_db = DEFAULT_SNR_DB if link.snr_db is None else link.snr_db
    if name == "awgn":
        return BlockFading(snr_db=snr_db, k_factor=math.inf)
    if name in ("rayleigh", "rician"):
        doppler = doppler_hz(link.speed_m_s, link.carrier_frequency_hz)
        # The usual rule of thumb (Rappaport, Wireless Communications, section 5.4.3).
        coherence = link.coherence_time_s
        if coherence is None:
            coherence = math.inf if doppler == 0 else 0.423 / doppler
        k_factor = 0.0 if name == "rayleigh" else 10 ** (link.k_factor_db / 10)
        return BlockFading(snr_db=snr_db, k_factor=k_factor, coherence_time_s=coherence)
    if name in ("umi", "uma"):
        return Cell(
            model=name,
            distance_m=link.distance_m,
            carrier_frequency_hz=link.carrier_frequency_hz,
            speed_m_s=link.speed_m_s,
            tx_power_dbm=link.tx_power_dbm,
            noise_figure_db=link.noise_figure_db,
        )
    if name.startswith("trace:"):
        path = Path(name.removeprefix("trace:"))
        elements = grid.resource_blocks * BLOCK_ELEMENTS
        return read_trace(path, uses_per_s=elements / grid.slot_s)
    if name in CHANNELS:
        return MultipathFading(
            model=name,
            snr_db=snr_db,
            delay_spread_s=link.delay_spread_s,
            carrier_frequency_hz=link.carrier_frequency_hz,
            speed_m_s=link.speed_m_s,
        )
    raise LinkError(
        f"channel is {name!r}, known: {', '.join(CHANNELS)} and trace:FILE; choose one of these"
    )
