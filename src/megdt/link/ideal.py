"""The ideal link: a capacity-achieving code for bits, AWGN for analog symbols.

A bound, not a modem: bits arrive without error at exactly the channel's capacity, headers and
pilots cost nothing. Analog symbols meet the same noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdt.errors import LinkError
from megdt.link.channels import awgn, awgn_paper, capacity_bits
from megdt.records import Delivery, Mode, Packet

MIN_SNR_DB, MAX_SNR_DB = -40.0, 60.0


@dataclass(frozen=True, kw_only=True)
class IdealLink:
    """One direction of a link at a fixed SNR.

    Args:
        snr_db: Es/N0 per complex use in `fair` mode, the paper's own ratio in `paper` mode.
        bandwidth_hz: Complex uses a second.
        tx_power_dbm: Radiated while transmitting; it prices the energy and does not change the SNR.
        mode: Which channel analog symbols meet.
    """

    snr_db: float = 10.0
    bandwidth_hz: float = 1e6
    tx_power_dbm: float = 23.0
    mode: Mode = "fair"

    def __post_init__(self) -> None:
        if not MIN_SNR_DB <= self.snr_db <= MAX_SNR_DB:  # also catches nan
            raise LinkError(
                f"snr_db is {self.snr_db:g}, this link takes {MIN_SNR_DB:g} to {MAX_SNR_DB:g}; "
                "choose an SNR in that range"
            )
        if not 1 <= self.bandwidth_hz <= 1e12:
            raise LinkError(
                f"bandwidth_hz is {self.bandwidth_hz:g}, this link takes 1 to 1e12; "
                "1e6 is one megahertz"
            )
        if not -100 <= self.tx_power_dbm <= 100:
            raise LinkError(
                f"tx_power_dbm is {self.tx_power_dbm:g}, this link takes -100 to 100; "
                "a phone sends 23, a small cell 30"
            )

    def send(self, packet: Packet, rng: np.random.Generator) -> Delivery:
        """Carry one packet.

        Raises:
            LinkError: If the symbols are not of the mode's kind, or have more than unit power in
                `fair` mode: a codec must not buy SNR with power that nobody counts.

        Returns:
            The payload unchanged, the symbols with noise, and what both took: bits at capacity
            plus one use a symbol (two real symbols of `paper` mode count as one complex use).
        """
        uses = math.ceil(packet.bits / capacity_bits(self.snr_db))
        symbols: NDArray[Any] | None = None
        noise_power = 0.0
        if packet.symbols is not None:
            self._check_symbols(packet.symbols)
            if self.mode == "paper":
                symbols, noise_power = awgn_paper(packet.symbols, self.snr_db, rng)
                uses += math.ceil(packet.symbols.size / 2)
            else:
                symbols, noise_power = awgn(packet.symbols, self.snr_db, rng)
                uses += packet.symbols.size
        airtime = uses / self.bandwidth_hz
        return Delivery(
            payload=packet.payload,
            symbols=symbols,
            noise_power=noise_power,
            channel_uses=uses,
            airtime_s=airtime,
            energy_j=airtime * 10 ** (self.tx_power_dbm / 10) / 1000,
        )

    def _check_symbols(self, symbols: NDArray[Any]) -> None:
        complex_ones = np.iscomplexobj(symbols)
        if complex_ones != (self.mode == "fair"):
            found = "complex" if complex_ones else "real"
            raise LinkError(
                f"symbols are {found}, the link is in {self.mode} mode; build codec and link for "
                "the same mode"
            )
        power = float(np.mean(np.abs(symbols.astype(np.complex128)) ** 2))
        # A gain rounded to half precision is off by up to 2^-11, the power by twice that.
        if self.mode == "fair" and power > 1.002:
            raise LinkError(
                f"symbols have mean power {power:.4g}, the link takes at most 1; normalise them in "
                "the codec and send the gain"
            )
