from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megdt.codecs.observation import (
    BLOCK,
    CELLS,
    BlocksCodec,
    NeedsCodec,
    ObservationCodec,
    WideObservationCodec,
)
from megdt.codecs.progressive import ProgressiveSeedCodec
from megdt.codecs.seed import AnalogSeedCodec, QuantisedSeedCodec
from megdt.errors import CodecError
from megdt.records import Delivery, Feature

SHAPE = (4, 32, 32)
CODEC = ObservationCodec(seed=QuantisedSeedCodec(shape=SHAPE))
VALUES = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)


def carry(codec: ObservationCodec, feature: Feature) -> Feature:
    return codec.decode(Delivery(payload=codec.encode(feature).payload))


def test_age_and_map_come_with_the_seed() -> None:
    seen = np.ones((32, 32), np.float32)
    seen[4:12, 20:] = 0
    found = carry(CODEC, Feature(kind="observation", values=VALUES, confidence=seen, age_s=86_400))
    assert found.kind == "observation"
    assert np.abs(found.values - VALUES).max() < 0.1
    assert found.confidence is not None
    assert (found.confidence == seen).all()
    assert found.age_s == pytest.approx(86_400, rel=0.03)


@pytest.mark.parametrize("age_s", [0.0, 1.0, 59.0, 600.0, 5e3, 1e5, 3e6, 6e6])
def test_ages_come_back_within_three_percent_or_two_seconds(age_s: float) -> None:
    found = carry(CODEC, Feature(kind="observation", values=VALUES, age_s=age_s))
    assert found.age_s == pytest.approx(age_s, rel=0.03, abs=2)
    again = carry(CODEC, found)
    assert again.age_s == pytest.approx(found.age_s)


def test_what_is_seen_everywhere_takes_two_bytes_more_than_the_seed() -> None:
    bare = QuantisedSeedCodec(shape=SHAPE).encode(Feature(kind="seed", values=VALUES)).bits
    whole = np.ones((32, 32), np.float32)
    for confidence, more in ((None, 16), (whole, 16), (whole * 0, 80)):
        packet = CODEC.encode(Feature(kind="observation", values=VALUES, confidence=confidence))
        assert packet.bits == bare + more
    assert carry(CODEC, Feature(kind="observation", values=VALUES)).confidence is None


def test_a_cell_is_seen_only_where_all_of_it_was() -> None:
    seen = np.ones((32, 32), np.float32)
    seen[5, 5] = 0
    found = carry(CODEC, Feature(kind="observation", values=VALUES, confidence=seen)).confidence
    assert found is not None
    assert (found[4:8, 4:8] == 0).all()
    assert found.sum() == 32 * 32 - 16


@pytest.mark.parametrize("size", [32, 37, 63, 128])
def test_grids_of_any_size_have_their_map(size: int) -> None:
    codec = ObservationCodec(seed=QuantisedSeedCodec(shape=(4, size, size)))
    rng = np.random.default_rng(size)
    edges = np.arange(CELLS + 1) * size // CELLS
    cells = rng.integers(0, 2, (CELLS, CELLS))
    seen = np.repeat(np.repeat(cells, np.diff(edges), 0), np.diff(edges), 1).astype(np.float32)
    values = rng.standard_normal((4, size, size)).astype(np.float32)
    found = carry(codec, Feature(kind="observation", values=values, confidence=seen)).confidence
    assert found is not None
    assert (found == seen).all()


def test_symbols_and_maps_of_another_shape_are_refused() -> None:
    feature = Feature(kind="observation", values=VALUES)
    with pytest.raises(CodecError, match="an observation is bits"):
        ObservationCodec(seed=AnalogSeedCodec(shape=SHAPE)).encode(feature)
    wrong = Feature(kind="observation", values=VALUES, confidence=np.zeros((8, 8), np.float32))
    with pytest.raises(CodecError, match=r"confidence is \(8, 8\), the seed is \(32, 32\)"):
        CODEC.encode(wrong)


PROGRESSIVE = ObservationCodec(seed=ProgressiveSeedCodec(shape=SHAPE, budget_bits=800))
PAYLOAD = PROGRESSIVE.encode(
    Feature(kind="observation", values=VALUES, confidence=np.eye(32, dtype=np.float32))
).payload


@settings(max_examples=400, derandomize=True, deadline=None)
@given(st.binary(max_size=40), st.integers(0, len(PAYLOAD)), st.integers(0, 30))
def test_damaged_packets_are_refused_or_say_that_they_are_not_whole(
    foreign: bytes, at: int, gone: int
) -> None:
    payload = PAYLOAD[:at] + foreign + PAYLOAD[at + gone :]
    try:
        found = PROGRESSIVE.decode(Delivery(payload=payload))
    except CodecError:
        return
    assert found.values.shape == SHAPE
    assert payload[10:] == PAYLOAD[10:] or not found.whole or payload[2:] == PAYLOAD[10:]


def wide_codec(columns: int = 80) -> WideObservationCodec:
    return WideObservationCodec(
        seed=lambda width: QuantisedSeedCodec(shape=(4, 32, width)), columns=columns
    )


@pytest.mark.parametrize("width", [1, 7, 32, 80])
def test_observations_of_any_number_of_columns_come_back(width: int) -> None:
    values = np.random.default_rng(width).standard_normal((4, 32, width)).astype(np.float32)
    packet = wide_codec().encode(Feature(kind="observation", values=values, age_s=60.0))
    assert packet.bits == 24 + 16 + 8 * 4 * 32 * width
    found = wide_codec().decode(Delivery(payload=packet.payload))
    assert found.values.shape == values.shape
    assert np.abs(found.values - values).mean() < 0.01


def test_more_columns_than_there_may_be_are_refused_before_anything_is_made_for_them() -> None:
    values = np.zeros((4, 32, 80), np.float32)
    packet = wide_codec().encode(Feature(kind="observation", values=values))
    for codec, payload, words in (
        (wide_codec(79), packet.payload, "80 columns arrived; expected 1 to 79"),
        (wide_codec(), b"\0\xff\xff" + packet.payload, "65535 columns arrived; expected 1 to"),
        (wide_codec(), b"", "columns of 0 bytes arrived, expected 1"),
        (wide_codec(), b"\2\0\0\5\3\0\1", "a run of 1 columns from 3 on arrived after column 4"),
    ):
        with pytest.raises(CodecError, match=words):
            codec.decode(Delivery(payload=payload))


def test_an_observation_of_some_columns_says_which() -> None:
    values = np.random.default_rng(3).standard_normal((4, 32, 9)).astype(np.float32)
    columns = (4, 5, 6, 7, 20, 21, 22, 70, 71)
    packet = wide_codec().encode(Feature(kind="observation", values=values, columns=columns))
    assert packet.bits == 8 * (1 + 3 * 3) + 16 + 8 * 4 * 32 * 9
    assert wide_codec().decode(Delivery(payload=packet.payload)).columns == columns


def test_needs_are_an_observation_without_its_seed() -> None:
    seen = np.ones((32, 32), np.float32)
    seen[4:12, 20:] = 0
    codec = NeedsCodec(shape=(32, 32))
    packet = codec.encode(Feature(kind="needs", values=None, confidence=seen, age_s=86_400))
    found = codec.decode(Delivery(payload=packet.payload))
    assert packet.bits == 80
    assert found.kind == "needs"
    assert found.confidence is not None
    assert (found.confidence == seen).all()
    assert found.age_s == pytest.approx(86_400, rel=0.03)
    with pytest.raises(CodecError, match="needs of 11 bytes arrived, their head has 10"):
        codec.decode(Delivery(payload=packet.payload + b"!"))


BLOCKS = BlocksCodec(
    seed=lambda width: QuantisedSeedCodec(shape=(4, BLOCK, width)), shape=(4, 32), columns=96
)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 7), st.data())
def test_the_blocks_that_were_asked_for_come_and_no_others(wide: int, data: st.DataObject) -> None:
    there = np.array(data.draw(st.lists(st.booleans(), min_size=8 * wide, max_size=8 * wide)))
    there[data.draw(st.integers(0, 8 * wide - 1))] = True
    confidence = np.kron(there.reshape(8, wide), np.ones((BLOCK, BLOCK))).astype(np.float32)
    values = np.random.default_rng(wide).standard_normal((4, 32, 4 * wide)).astype(np.float32)
    sent = Feature(kind="observation", values=values, confidence=confidence, age_s=600)
    packet = BLOCKS.encode(sent)
    assert packet.bits == 8 * (3 + wide) + 8 * 4 * BLOCK * BLOCK * there.sum()
    found = BLOCKS.decode(Delivery(payload=packet.payload))
    assert found.kind == "observation"
    assert found.age_s == pytest.approx(600, rel=0.03)
    assert (found.confidence == confidence).all()
    assert np.abs(found.values - values * confidence).max() < 0.1


def test_a_block_that_is_not_seen_everywhere_does_not_come() -> None:
    seen = np.zeros((32, 8), np.float32)
    seen[:8, :4] = 1
    seen[1, 1] = 0
    values = np.ones((4, 32, 8), np.float32)
    found = BLOCKS.decode(
        Delivery(
            payload=BLOCKS.encode(
                Feature(kind="observation", values=values, confidence=seen)
            ).payload
        )
    )
    assert found.confidence is not None
    assert np.argwhere(found.confidence).min(0).tolist() == [4, 0]
    assert found.confidence.sum() == BLOCK * BLOCK


def test_no_blocks_and_broken_blocks_are_told() -> None:
    values = np.ones((4, 32, 8), np.float32)
    whole = Feature(kind="observation", values=values)
    with pytest.raises(
        CodecError, match=r"0 blocks of an observation of shape \(4, 32, 8\) are seen"
    ):
        BLOCKS.encode(Feature(kind="observation", values=values, confidence=values[0] * 0))
    with pytest.raises(
        CodecError, match="of 6 columns is to be sent; expected 4 to 96 in blocks of 4"
    ):
        BLOCKS.encode(Feature(kind="observation", values=values[:, :, :6]))
    payload = BLOCKS.encode(whole).payload
    for length in (0, 2, 3, 4, 5, len(payload) - 1):
        with pytest.raises(CodecError):
            BLOCKS.decode(Delivery(payload=payload[:length]))
