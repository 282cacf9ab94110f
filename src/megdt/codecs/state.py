"""Names of states as packets, exactly."""

from __future__ import annotations

from dataclasses import dataclass

from megdt.errors import CodecError
from megdt.records import Delivery, Feature, Packet

STATE_BYTES = 8


@dataclass(frozen=True, kw_only=True)
class StateCodec:
    """A state's hash as its eight bytes."""

    def encode(self, feature: Feature) -> Packet:
        """The bytes."""
        return Packet(payload=feature.values)

    def decode(self, delivery: Delivery) -> Feature:
        """The bytes.

        Raises:
            CodecError: If there are not eight.
        """
        if len(delivery.payload) != STATE_BYTES:
            raise CodecError(
                f"the name of a state has {len(delivery.payload)} bytes; expected {STATE_BYTES}: both "
                "ends must follow the same plan"
            )
        return Feature(kind="state", values=delivery.payload)
