"""No radio between two nodes but the network that they are on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from megdt.records import Delivery, Packet


@dataclass(frozen=True, kw_only=True)
class NetworkLink:
    """Hands over packets as they are: what carries them is real, and its time is not known before.

    Args:
        rate_bytes_s: What the network has carried so far, asked when a packet goes; None for not
            known, and then the ledger says no time.
    """

    rate_bytes_s: Callable[[], float | None] = lambda: None

    def send(self, packet: Packet, rng: np.random.Generator) -> Delivery:
        """Carry one packet; nothing of it is lost, no channel uses are charged."""
        del rng
        symbols = 0 if packet.symbols is None else packet.symbols.nbytes
        rate, size = self.rate_bytes_s(), len(packet.payload) + symbols
        seconds = size / rate if rate else 0.0
        return Delivery(
            payload=packet.payload,
            symbols=packet.symbols,
            airtime_s=seconds,
            latency_s=seconds,
        )
