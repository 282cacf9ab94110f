"""Prompts cross the air as UTF-8 text, alone or with a random seed."""

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


@dataclass(frozen=True, kw_only=True)
class RecipeCodec:
    """A prompt and the random seed that it is drawn with, for a UE that holds the whole model.

    The random seed goes first, 32 bits little-endian, then the prompt as UTF-8.
    """

    def encode(self, feature: Feature) -> Packet:
        """Encode one (prompt, rng_seed) into 32 bits and 8 bits a byte of UTF-8.

        Raises:
            CodecError: If the random seed takes more than 32 bits.
        """
        prompt, rng_seed = feature.values
        if not 0 <= rng_seed < 2**32:
            raise CodecError(
                f"rng_seed is {rng_seed}, a recipe carries 0 to {2**32 - 1}; take one of those"
            )
        return Packet(payload=rng_seed.to_bytes(4, "little") + prompt.encode())

    def decode(self, delivery: Delivery) -> Feature:
        """Read (prompt, rng_seed) back.

        Raises:
            CodecError: If the payload has no room for the random seed, or the rest is not UTF-8.
        """
        payload = delivery.payload
        if len(payload) < 4:
            raise CodecError(
                f"recipe payload has {len(payload)} bytes, its random seed alone has 4; "
                "both ends must follow the same plan"
            )
        try:
            prompt = payload[4:].decode()
        except UnicodeDecodeError as error:
            raise CodecError(
                f"prompt of a recipe, {len(payload) - 4} bytes, is not UTF-8 ({error.reason}); "
                "both ends must follow the same plan"
            ) from error
        return Feature(kind="recipe", values=(prompt, int.from_bytes(payload[:4], "little")))
