"""The paper's link: real Gaussian noise on raw values, bits for nothing but capacity."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdt.errors import LinkError
from megdt.link.channels import awgn_paper, capacity_bits, check_snr_db
from megdt.records import Delivery, Packet, Uses


@dataclass(frozen=True, kw_only=True)
class PaperLink:
    """The convention of the paper's Fig. 6, for comparison with the published curve.

    Args:
        snr_db: Mean square of the values over mean square of the noise.
        bandwidth_hz: Complex uses a second; two real values make one.
        tx_power_dbm: Radiated while transmitting; it prices the energy and does not change the SNR.

    Raises:
        LinkError: If a setting is impossible.
    """

    snr_db: float = 10.0
    bandwidth_hz: float = 1e6
    tx_power_dbm: float = 23.0

    def __post_init__(self) -> None:
        check_snr_db(self.snr_db)
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

    @property
    def mean_snr_db(self) -> float:
        """The SNR, as every link tells it."""
        return self.snr_db

    def payload_bits(self, uses: int, rng: np.random.Generator) -> int:
        """The payload that fits in so many channel uses."""
        del rng
        return int(uses * capacity_bits(self.snr_db))

    def send(self, packet: Packet, rng: np.random.Generator) -> Delivery:
        """Carry one packet.

        Raises:
            LinkError: If the symbols are complex.

        Returns:
            The payload unchanged, the symbols with noise, and what both took: bits at capacity
            plus one use for two real symbols.
        """
        uses = math.ceil(packet.bits / capacity_bits(self.snr_db))
        symbols: NDArray[Any] | None = None
        noise_power = 0.0
        if packet.symbols is not None:
            if np.iscomplexobj(packet.symbols):
                raise LinkError(
                    "symbols are complex, the paper's link adds real noise; build the codec for "
                    "paper mode"
                )
            if packet.symbols.size == 0 or not np.isfinite(packet.symbols).all():
                raise LinkError(
                    "symbols are none, or not all finite; check what the codec makes of the feature"
                )
            symbols, noise_power = awgn_paper(packet.symbols, self.snr_db, rng)
            uses += math.ceil(packet.symbols.size / 2)
        airtime_s = uses / self.bandwidth_hz
        return Delivery(
            payload=packet.payload,
            symbols=symbols,
            noise_power=noise_power,
            uses=Uses(data=uses),
            airtime_s=airtime_s,
            latency_s=airtime_s,
            radiated_j=airtime_s * 10 ** (self.tx_power_dbm / 10) / 1000,
        )
