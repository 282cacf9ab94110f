"""Packets to deliveries: channels, rates, airtime and energy."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from megdt.records import Delivery, Packet


class Link(Protocol):
    """Carries one packet; all randomness comes from the generator it is given."""

    def send(self, packet: Packet, rng: np.random.Generator) -> Delivery:
        """What arrives, and what carrying it took."""
        ...
