from __future__ import annotations

import pytest

from megdt.codecs.prompt import RecipeCodec, TextCodec
from megdt.errors import CodecError
from megdt.records import Delivery, Feature


def test_a_prompt_costs_its_utf8_bytes_and_comes_back() -> None:
    packet = TextCodec().encode(Feature(kind="prompt", values="Gänseblümchen"))
    assert packet.bits == 8 * 15
    assert TextCodec().decode(Delivery(payload=packet.payload)).values == "Gänseblümchen"


def test_what_is_not_text_is_refused() -> None:
    with pytest.raises(CodecError, match="prompt payload of 2 bytes is not UTF-8"):
        TextCodec().decode(Delivery(payload=b"\xff\xfe"))


def test_a_text_comes_back_as_a_text() -> None:
    codec = TextCodec(kind="text")
    packet = codec.encode(Feature(kind="text", values="Rosen"))
    assert packet.bits == 8 * 5
    assert codec.decode(Delivery(payload=packet.payload)) == Feature(kind="text", values="Rosen")
    with pytest.raises(CodecError, match="text payload of 1 bytes is not UTF-8"):
        codec.decode(Delivery(payload=b"\xc3"))


def test_a_feature_of_another_kind_is_refused() -> None:
    with pytest.raises(CodecError, match="feature is a text, this codec carries prompt"):
        TextCodec().encode(Feature(kind="text", values="rose"))
    with pytest.raises(CodecError, match="feature is a prompt, this codec carries text"):
        TextCodec(kind="text").encode(Feature(kind="prompt", values="rose"))


def test_half_a_character_is_refused() -> None:
    with pytest.raises(CodecError, match="text has half a character at position 2"):
        TextCodec(kind="text").encode(Feature(kind="text", values="a \udfff"))


def test_a_recipe_costs_its_prompt_and_32_bits_and_comes_back() -> None:
    packet = RecipeCodec().encode(Feature(kind="recipe", values=("Gänseblümchen", 2**32 - 2)))
    assert packet.payload == b"\xfe\xff\xff\xff" + "Gänseblümchen".encode()
    again = RecipeCodec().decode(Delivery(payload=packet.payload))
    assert again == Feature(kind="recipe", values=("Gänseblümchen", 2**32 - 2))


@pytest.mark.parametrize("rng_seed", [-1, 2**32])
def test_a_random_seed_beyond_32_bits_is_refused(rng_seed: int) -> None:
    with pytest.raises(CodecError, match=f"rng_seed is {rng_seed}, a recipe carries 0 to 429496"):
        RecipeCodec().encode(Feature(kind="recipe", values=("rose", rng_seed)))


def test_a_recipe_without_its_random_seed_is_refused() -> None:
    with pytest.raises(CodecError, match="recipe payload has 3 bytes"):
        RecipeCodec().decode(Delivery(payload=b"abc"))


def test_a_recipe_that_is_not_text_is_refused() -> None:
    with pytest.raises(CodecError, match="prompt of a recipe, 2 bytes, is not UTF-8"):
        RecipeCodec().decode(Delivery(payload=b"\0\0\0\0\xff\xfe"))
