from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megdt.codecs.shares import SharesCodec
from megdt.errors import CodecError
from megdt.records import Delivery, Feature, Share, Side

CODEC = SharesCodec()
ALL = st.sets(st.integers(0, 2000), min_size=1, max_size=200)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 64), st.integers(1, 64), ALL), max_size=4))
def test_shares_come_back_as_they_were(drawn: list[tuple[int, int, set[int]]]) -> None:
    shares = tuple(
        Share(
            source=Side.ue(source) if source else Side.ES,
            target=Side.ue(target),
            columns=tuple(sorted(columns)),
        )
        for source, target, columns in drawn
    )
    packet = CODEC.encode(Feature(kind="shares", values=shares))
    assert CODEC.decode(Delivery(payload=packet.payload)).values == shares


def test_neighbouring_columns_take_three_bytes_together() -> None:
    share = Share(source=Side.ue(1), target=Side.ue(2), columns=(*range(100, 120), 130))
    assert CODEC.encode(Feature(kind="shares", values=(share,))).bits == 8 * (5 + 2 * 3)


@pytest.mark.parametrize("payload", [b"\1\0\2\0\2\0\0\4", b"\1\0\0\0\1\0\0\4", b"\1"])
def test_what_is_no_share_is_refused(payload: bytes) -> None:
    with pytest.raises(CodecError, match="are no share; both ends must follow the same plan"):
        CODEC.decode(Delivery(payload=payload))


def test_more_runs_than_a_byte_counts_are_refused() -> None:
    share = Share(source=Side.ES, target=Side.ue(2), columns=tuple(range(0, 600, 2)))
    with pytest.raises(
        CodecError, match="there are 300 runs of columns up to 598; expected at most 255"
    ):
        CODEC.encode(Feature(kind="shares", values=(share,)))
