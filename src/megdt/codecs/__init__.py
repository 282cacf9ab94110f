"""Feature to packet and back; a decoder sees what the link delivered and nothing else."""

from __future__ import annotations

from typing import Protocol

from megdt.records import Delivery, Feature, Packet


class Codec(Protocol):
    """Turns one feature into what crosses the air, and what arrives into a feature.

    Both ends build their codec from the same Plan and Request; nothing else passes between them
    but the packet. So whatever a decoder needs to know must be in the packet, and is charged.
    A codec that runs networks may have `flops`, the floating point operations of this thread so
    far: then its time is that of the side's device, else what was measured here.
    """

    def encode(self, feature: Feature) -> Packet:
        """All that is sent of the feature."""
        ...

    def decode(self, delivery: Delivery) -> Feature:
        """The feature, as far as what arrived tells."""
        ...
