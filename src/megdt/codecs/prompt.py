"""Prompts cross the air as UTF-8 text."""

from __future__ import annotations

from dataclasses import dataclass

from megdt.errors import CodecError
from megdt.records import Delivery, Feature, Packet


@dataclass(frozen=True, kw_only=True)
class TextCodec:
    """A prompt as its UTF-8 bytes."""

    def encode(self, feature: Feature) -> Packet:
        """Encode one prompt into 8 bits a byte of UTF-8."""
        return Packet(payload=feature.values.encode())

    def decode(self, delivery: Delivery) -> Feature:
        """Read the prompt back.

        Raises:
            CodecError: If the payload is not UTF-8.
        """
        try:
            return Feature(kind="prompt", values=delivery.payload.decode())
        except UnicodeDecodeError as error:
            raise CodecError(
                f"prompt payload of {len(delivery.payload)} bytes is not UTF-8 ({error.reason}); "
                "send it with the text codec"
            ) from error
