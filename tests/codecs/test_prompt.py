from __future__ import annotations

import pytest

from megdt.codecs.prompt import TextCodec
from megdt.errors import CodecError
from megdt.records import Delivery, Feature


def test_a_prompt_costs_its_utf8_bytes_and_comes_back() -> None:
    packet = TextCodec().encode(Feature(kind="prompt", values="Gänseblümchen"))
    assert packet.bits == 8 * 15
    assert TextCodec().decode(Delivery(payload=packet.payload)).values == "Gänseblümchen"


def test_what_is_not_text_is_refused() -> None:
    with pytest.raises(CodecError, match="prompt payload of 2 bytes is not UTF-8"):
        TextCodec().decode(Delivery(payload=b"\xff\xfe"))
