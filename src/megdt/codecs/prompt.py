"""Prompts and texts cross the air as UTF-8, a prompt alone or with a random seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from megdt.errors import CodecError
from megdt.records import Delivery, Feature, Packet


@dataclass(frozen=True, kw_only=True)
class TextCodec:
    """A prompt, or what was written in answer to one, as its UTF-8 bytes.

    Args:
        kind: `prompt` or `text`: what goes in and comes out.
    """

    kind: Literal["prompt", "text"] = "prompt"

    def encode(self, feature: Feature) -> Packet:
        """Encode one text into 8 bits a byte of UTF-8.

        Raises:
            CodecError: If the feature is of another kind, or has half a character.
        """
        if feature.kind != self.kind:
            raise CodecError(
                f"feature is a {feature.kind}, this codec carries {self.kind}; build it with "
                "kind='prompt' or 'text', as what is sent"
            )
        try:
            return Packet(payload=feature.values.encode())
        except UnicodeEncodeError as error:
            raise CodecError(
                f"{self.kind} has half a character at position {error.start}, which UTF-8 has no "
                "bytes for; leave it out"
            ) from error

    def decode(self, delivery: Delivery) -> Feature:
        """Read it back.

        Raises:
            CodecError: If the payload is not UTF-8.
        """
        try:
            return Feature(kind=self.kind, values=delivery.payload.decode())
        except UnicodeDecodeError as error:
            raise CodecError(
                f"{self.kind} payload of {len(delivery.payload)} bytes is not UTF-8 ({error.reason}); "
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
