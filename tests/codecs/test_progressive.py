from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from megdt.codecs import progressive
from megdt.codecs.progressive import (
    BITS_PER_PIXEL,
    HEADER_BYTES,
    TABLES,
    ProgressiveSeedCodec,
    inverse,
    load_tables,
    transform,
)
from megdt.errors import CodecError
from megdt.models.bundle import Bundle
from megdt.records import Delivery, Feature
from megdt.worlds.garden import draw_view

GOLDEN = Path(__file__).parent.parent / "golden"
HELD_OUT = 10_000_000
SHAPE = (4, 32, 32)


def draw_seed(number: int, size_px: int = 256) -> Feature:
    garden, view = draw_view(HELD_OUT + number, size_px=size_px)
    return Feature(kind="seed", values=Bundle().encode(garden.render(view)[None])[0])


def smooth_seed(side: int) -> Feature:
    """A seed without a picture: no network has to run for it."""
    rows, columns = np.mgrid[:side, :side] / side
    latent = [np.sin(7 * rows + c) * np.cos(5 * columns * c) for c in range(4)]
    noise = np.random.default_rng(side).standard_normal((4, side, side))
    return Feature(kind="seed", values=(latent + 0.3 * noise).astype(np.float32))


@pytest.fixture(scope="module")
def seeds() -> list[Feature]:
    return [draw_seed(number) for number in range(4)]


def decode(codec: ProgressiveSeedCodec, payload: bytes) -> Feature:
    return codec.decode(Delivery(payload=payload))


def error(found: Feature, wanted: Feature) -> float:
    return float(np.mean((found.values - wanted.values) ** 2))


@pytest.mark.parametrize("bits", [24, 25, 300, 500, 1000, 4000, 16000])
def test_the_budget_is_kept_and_used_to_the_last_whole_byte(
    seeds: list[Feature], bits: int
) -> None:
    for seed in seeds:
        packet = ProgressiveSeedCodec(shape=SHAPE, budget_bits=bits).encode(seed)
        assert packet.bits == bits // 8 * 8
        assert packet.symbols is None


def test_without_a_budget_it_takes_a_tenth_of_a_bit_a_pixel(seeds: list[Feature]) -> None:
    codec = ProgressiveSeedCodec(shape=SHAPE)
    assert codec.most_bits == int(BITS_PER_PIXEL * 256**2)
    assert codec.encode(seeds[0]).bits == codec.most_bits // 8 * 8


def test_more_bits_leave_less_error(seeds: list[Feature]) -> None:
    errors = []
    for bits in (24, 300, 500, 1000, 2000, 4000, 8000, 16000, 32000):
        codec = ProgressiveSeedCodec(shape=SHAPE, budget_bits=bits)
        again = [decode(codec, codec.encode(seed).payload) for seed in seeds]
        errors.append(np.mean([error(a, s) for a, s in zip(again, seeds, strict=True)]))
    assert all(later < earlier for earlier, later in pairwise(errors))
    assert errors[4] < 0.25 < errors[3]  # 2000 bits take most of a unit variance away
    assert errors[-1] < 1e-3


def test_a_prefix_of_any_length_is_a_coarser_seed(seeds: list[Feature]) -> None:
    codec = ProgressiveSeedCodec(shape=SHAPE, budget_bits=4000)
    payload = codec.encode(seeds[0]).payload
    errors = []
    for length in range(HEADER_BYTES, len(payload), 7):
        again = decode(codec, payload[:length])
        assert not again.whole
        errors.append(error(again, seeds[0]))
    whole = decode(codec, payload)
    assert whole.whole
    errors.append(error(whole, seeds[0]))
    # Weighted by what the picture makes of them, so a bit may harm the latent a little.
    assert max(later - earlier for earlier, later in pairwise(errors)) < 0.02
    assert all(np.diff(errors[::10]) < 0)


def test_a_prefix_is_what_a_smaller_budget_sends(seeds: list[Feature]) -> None:
    large = ProgressiveSeedCodec(shape=SHAPE, budget_bits=8000).encode(seeds[1]).payload
    small = ProgressiveSeedCodec(shape=SHAPE, budget_bits=2400).encode(seeds[1]).payload
    assert small[HEADER_BYTES:] == large[HEADER_BYTES : len(small)]


def test_a_seed_that_ends_before_its_budget_is_whole(seeds: list[Feature]) -> None:
    codec = ProgressiveSeedCodec(shape=SHAPE, budget_bits=2**40)
    packet = codec.encode(seeds[0])
    assert packet.bits < 1.2 * 256**2
    again = decode(codec, packet.payload)
    assert again.whole
    assert error(again, seeds[0]) < 1e-3


@pytest.mark.parametrize("side", [32, 33, 45, 100, 128])
def test_every_size_of_a_picture_goes(side: int) -> None:
    seed = smooth_seed(side)
    codec = ProgressiveSeedCodec(shape=(4, side, side), budget_bits=side * side * 24)
    again = decode(codec, codec.encode(seed).payload)
    assert again.values.shape == (4, side, side)
    assert error(again, seed) < 0.005


@pytest.mark.parametrize("side", [32, 33, 45, 128])
def test_the_wavelets_come_back(side: int) -> None:
    latent = smooth_seed(side).values
    np.testing.assert_allclose(inverse(transform(latent)), latent, atol=1e-5)


def test_pruned_positions_take_next_to_nothing(seeds: list[Feature]) -> None:
    """No index map: a seed of which seven eighths are empty takes a fraction of the bits."""
    part = np.zeros(SHAPE, np.float32)
    part[:, :16, :8] = seeds[0].values[:, :16, :8]
    codec = ProgressiveSeedCodec(shape=SHAPE, budget_bits=2**20)
    full, pruned = codec.encode(seeds[0]), codec.encode(Feature(kind="seed", values=part))
    assert pruned.bits < full.bits / 3
    silence = codec.encode(Feature(kind="seed", values=np.zeros(SHAPE, np.float32)))
    assert silence.bits < 2000
    assert not decode(codec, silence.payload).values.any()


def test_extreme_seeds_are_clipped_and_come_back_finite() -> None:
    codec = ProgressiveSeedCodec(shape=SHAPE, budget_bits=60_000)
    for scale in (1e-30, 1e3, 1e30):
        values = (np.random.default_rng(0).standard_normal(SHAPE) * scale).astype(np.float32)
        again = decode(codec, codec.encode(Feature(kind="seed", values=values)).payload)
        assert np.isfinite(again.values).all()


def test_golden_packets_decode_alike_on_every_machine() -> None:
    kept = json.loads((GOLDEN / "progressive_seed.json").read_text())
    for packet in kept:
        codec = ProgressiveSeedCodec(shape=tuple(packet["shape"]), budget_bits=packet["bits"])
        again = decode(codec, bytes.fromhex(packet["payload"]))
        found = again.values[:, :: packet["every"], :: packet["every"]].ravel()
        np.testing.assert_allclose(found, packet["latent"], atol=2e-5)


def test_tables_of_another_make_are_noticed(
    seeds: list[Feature], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "tables.json"
    other.write_bytes(TABLES.read_bytes() + b"\n")
    ours, theirs = load_tables(), load_tables(other)
    payload = ProgressiveSeedCodec(shape=SHAPE).encode(seeds[0]).payload
    monkeypatch.setattr(progressive, "load_tables", lambda: theirs)
    tags = rf"checksum {ours.checksum & 255:02x}, this codec's have {theirs.checksum & 255:02x}"
    with pytest.raises(CodecError, match=tags):
        decode(ProgressiveSeedCodec(shape=SHAPE), payload)


def test_tables_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    with pytest.raises(CodecError, match="cannot read seed tables"):
        load_tables(tmp_path / "none.json")


def test_rates_out_of_range_are_refused() -> None:
    with pytest.raises(CodecError, match="budget of 23 bits is below the 24 of a seed packet"):
        ProgressiveSeedCodec(shape=SHAPE, budget_bits=23)
    with pytest.raises(CodecError, match="16 latent channels, the progressive codec's tables"):
        ProgressiveSeedCodec(shape=(16, 32, 32))


def test_wrong_seeds_are_refused() -> None:
    codec = ProgressiveSeedCodec(shape=SHAPE)
    with pytest.raises(CodecError, match=r"seed has shape \(4, 8, 8\)"):
        codec.encode(Feature(kind="seed", values=np.zeros((4, 8, 8), np.float32)))
    with pytest.raises(CodecError, match="4096 elements that are not finite"):
        codec.encode(Feature(kind="seed", values=np.full(SHAPE, np.nan, np.float32)))


SMALL = (4, 16, 16)
CODEC = ProgressiveSeedCodec(shape=SMALL, budget_bits=800)
PAYLOAD = CODEC.encode(smooth_seed(16)).payload


def refused_or_coarser(payload: bytes) -> None:
    """A damaged packet is an error, or its result says that it is not whole."""
    try:
        again = decode(CODEC, payload)
    except CodecError:
        return
    assert again.values.shape == SMALL
    assert np.isfinite(again.values).all()
    assert not again.whole or payload == PAYLOAD


quick = settings(
    max_examples=1000,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@quick
@given(st.lists(st.integers(0, 8 * len(PAYLOAD) - 1), min_size=5, max_size=5, unique=True))
def test_flipped_bits_are_always_noticed(places: list[int]) -> None:
    """Four packets each: 1, 2, 3 and 5 bits; 16 bits of CRC miss no fewer than 4 of them."""
    for count in (1, 2, 3, 5):
        damaged = bytearray(PAYLOAD)
        for place in places[:count]:
            damaged[place // 8] ^= 1 << place % 8
        with pytest.raises(CodecError):
            decode(CODEC, bytes(damaged))


@quick
@given(st.binary(max_size=120), st.integers(0, len(PAYLOAD)), st.integers(0, 255))
def test_foreign_bytes_never_pass_for_a_seed(foreign: bytes, cut: int, byte: int) -> None:
    """Six packets each: bytes of somebody else, with our header, cut, filled up, and replaced."""
    refused_or_coarser(foreign)
    refused_or_coarser(PAYLOAD[:HEADER_BYTES] + foreign)
    refused_or_coarser(PAYLOAD[:cut])
    refused_or_coarser(PAYLOAD[:cut] + foreign)
    refused_or_coarser(PAYLOAD[:cut] + bytes([byte]) * (len(PAYLOAD) - cut))
    refused_or_coarser(PAYLOAD[cut:] + PAYLOAD[:cut])
