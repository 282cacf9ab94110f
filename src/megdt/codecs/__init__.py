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

    A codec that tells a feature by those before it says so with `remembers = True`, and has
    `ask_key()`. Then each end keeps its copy through a generation, what a side sends to another goes
    in order, and its sender is asked for a feature that needs no other where one did not get across.
    The receiver raises MissedError for what it cannot tell.
    """

    def encode(self, feature: Feature) -> Packet:
        """All that is sent of the feature."""
        ...

    def decode(self, delivery: Delivery) -> Feature:
        """The feature, as far as what arrived tells."""
        ...
