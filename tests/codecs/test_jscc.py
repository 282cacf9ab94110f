from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megdt.codecs.jscc import (
    JsccSeedCodec,
    PlainSeedCodec,
    check_rate,
    choose_share,
    read_card,
)
from megdt.codecs.seed import AnalogSeedCodec
from megdt.errors import CodecError, ScenarioError
from megdt.link.radio import RadioLink
from megdt.models.bundle import Bundle
from megdt.models.quality import psnr_db
from megdt.records import Delivery, Feature, Packet, Plan, Request
from megdt.scenario import Scenario, hybrid_codec, parse_scenario
from megdt.worlds.garden import draw_view

HELD_OUT = 10_000_000
SHAPE = (4, 32, 32)


@pytest.fixture(scope="module")
def views() -> Any:
    drawn = [draw_view(seed) for seed in range(HELD_OUT + 500, HELD_OUT + 506)]
    return np.stack([garden.render(view) for garden, view in drawn])


@pytest.fixture(scope="module")
def seeds(bundle: Bundle, views: Any) -> list[Feature]:
    return [Feature(kind="seed", values=latent) for latent in bundle.encode(views)]


def quality(codec: Any, snr_db: float, seeds: list[Feature], views: Any, bundle: Bundle) -> float:
    """Mean PSNR after the real link."""
    link, found = RadioLink(snr_db=snr_db), []
    for number, (seed, view) in enumerate(zip(seeds, views, strict=True)):
        got = codec.decode(link.send(codec.encode(seed), np.random.default_rng(number)))
        power = np.array([got.noise_power], np.float32)
        found.append(psnr_db(bundle.decode(got.values[None], power)[0], view))
    return float(np.mean(found))


def make_hybrid(snr_db: float, symbol_rate: float) -> Any:
    plan = Plan(mechanism="ue_to_es", symbol_rate=symbol_rate)
    request = Request(prompt="view")
    return hybrid_codec(Scenario(request=request, plan=plan, link=RadioLink(snr_db=snr_db)))


@pytest.mark.parametrize("snr_db", [-20, -10, 0, 5])
def test_a_receiver_that_denoises_is_worth_three_decibels_of_snr(
    snr_db: float, seeds: list[Feature], views: Any, bundle: Bundle
) -> None:
    ours = quality(PlainSeedCodec(shape=SHAPE), snr_db, seeds, views, bundle)
    assert ours > quality(AnalogSeedCodec(shape=SHAPE), snr_db + 3, seeds, views, bundle)


def test_where_noise_cannot_be_seen_nothing_is_denoised(
    seeds: list[Feature],
) -> None:
    delivery = RadioLink(snr_db=30.0).send(
        PlainSeedCodec(shape=SHAPE).encode(seeds[0]), np.random.default_rng(0)
    )
    plain = AnalogSeedCodec(shape=SHAPE).decode(delivery).values
    assert (PlainSeedCodec(shape=SHAPE).decode(delivery).values == plain).all()


def test_restoring_may_be_left_out(seeds: list[Feature]) -> None:
    for codec in (JsccSeedCodec(shape=SHAPE, snr_db=-5), PlainSeedCodec(shape=SHAPE)):
        delivery = RadioLink(snr_db=-5.0).send(codec.encode(seeds[0]), np.random.default_rng(0))
        left = replace(codec, restore=False).decode(delivery)
        assert left.noise_power > 0
        assert not np.array_equal(codec.decode(delivery).values, left.values)


@pytest.mark.parametrize("snr_db", [-15, -5])
def test_learned_symbols_are_worth_three_decibels_of_snr(
    snr_db: float, seeds: list[Feature], views: Any, bundle: Bundle
) -> None:
    learned = JsccSeedCodec(shape=SHAPE, snr_db=snr_db, restore=False)
    plain = AnalogSeedCodec(shape=SHAPE)
    ours = quality(learned, snr_db, seeds, views, bundle)
    assert ours > quality(plain, snr_db + 3, seeds, views, bundle) - 0.2


@pytest.mark.parametrize("snr_db", [-20, -5, 10, 25, 40])
def test_the_hybrid_does_no_harm_at_equal_uses(
    snr_db: float, seeds: list[Feature], views: Any, bundle: Bundle
) -> None:
    hybrid = quality(make_hybrid(snr_db, 1.0), snr_db, seeds, views, bundle)
    assert hybrid > quality(AnalogSeedCodec(shape=SHAPE), snr_db, seeds, views, bundle) - 0.1


def test_more_maps_are_better_and_half_as_many_take_half_the_symbols(
    seeds: list[Feature], views: Any, bundle: Bundle
) -> None:
    found = [
        quality(JsccSeedCodec(shape=SHAPE, snr_db=0, maps=maps), 0, seeds, views, bundle)
        for maps in (2, 8, 16)
    ]
    assert found == sorted(found)
    for maps in (2, 8, 16):
        symbols = JsccSeedCodec(shape=SHAPE, snr_db=0, maps=maps).encode(seeds[0]).symbols
        assert symbols is not None
        assert symbols.size == maps * 16 * 16 // 2
        assert np.mean(np.abs(symbols) ** 2) == pytest.approx(1, rel=1e-3)


def test_the_first_maps_are_a_code_of_their_own_that_the_receiver_mends(
    seeds: list[Feature], views: Any, bundle: Bundle
) -> None:
    """Bits alone, and the same bits with symbols after them."""
    bare = JsccSeedCodec(shape=SHAPE, snr_db=10, maps=0, coarse_bits=1500)
    with_symbols = replace(bare, maps=8)
    assert bare.encode(seeds[0]).symbols is None
    assert quality(with_symbols, 10, seeds, views, bundle) > (
        quality(bare, 10, seeds, views, bundle) + 0.5
    )


def test_a_seed_of_any_size_comes_through(bundle: Bundle) -> None:
    garden, view = draw_view(HELD_OUT + 510, size_px=264)
    latent = bundle.encode(garden.render(view)[None])[0]
    assert latent.shape == (4, 33, 33)
    codec = JsccSeedCodec(shape=(4, 33, 33), snr_db=15, maps=16)
    packet = codec.encode(Feature(kind="seed", values=latent))
    assert packet.symbols is not None
    assert packet.symbols.size == 16 * 17 * 17 // 2
    got = codec.decode(RadioLink(snr_db=15.0).send(packet, np.random.default_rng(0)))
    assert got.values.shape == latent.shape
    assert np.mean((got.values - latent) ** 2) < 0.3 * np.mean(latent**2)


def test_fading_is_taken_symbol_by_symbol(seeds: list[Feature], views: Any, bundle: Bundle) -> None:
    link = RadioLink(channel="rayleigh", snr_db=5.0, coherence_time_s=2e-3)
    codec = JsccSeedCodec(shape=SHAPE, snr_db=5)
    delivery = link.send(codec.encode(seeds[0]), np.random.default_rng(0))
    told = bundle.decode(codec.decode(delivery).values[None])[0]
    evened = replace(delivery, noise_power=float(np.mean(delivery.noise_power)))
    untold = bundle.decode(codec.decode(evened).values[None])[0]
    assert psnr_db(told, views[0]) > psnr_db(untold, views[0])


def test_being_told_the_snr_is_charged(seeds: list[Feature]) -> None:
    link = RadioLink(snr_db=0.0)
    packet = JsccSeedCodec(shape=SHAPE, snr_db=0).encode(seeds[0])
    told = link.send(packet, np.random.default_rng(0))
    untold = link.send(Packet(symbols=packet.symbols), np.random.default_rng(0))
    assert told.uses.feedback == 12
    assert untold.uses.feedback == 0
    assert told.uses.pilots > untold.uses.pilots
    assert PlainSeedCodec(shape=SHAPE).encode(seeds[0]).told_snr


def test_the_hybrid_keeps_to_the_uses_of_the_analog_seed(seeds: list[Feature]) -> None:
    for snr_db in (-5.0, 5.0, 15.0, 30.0):
        link = RadioLink(snr_db=snr_db)
        plain = link.send(
            AnalogSeedCodec(shape=SHAPE).encode(seeds[0]), np.random.default_rng(0)
        ).uses.total
        for rate in (0.5, 1.0):
            used = link.send(
                make_hybrid(snr_db, rate).encode(seeds[0]), np.random.default_rng(0)
            ).uses.total
            # The report of the SNR where the analog seed itself is chosen takes 3 % more.
            assert used <= 1.03 * rate * plain


def test_the_same_seed_gives_the_same_symbols(seeds: list[Feature]) -> None:
    codec = JsccSeedCodec(shape=SHAPE, snr_db=3.0, maps=6, coarse_bits=800)
    first, again = codec.encode(seeds[1]), codec.encode(seeds[1])
    assert first.payload == again.payload
    np.testing.assert_array_equal(first.symbols, again.symbols)


def test_a_peer_with_other_networks_is_refused() -> None:
    ours = read_card()["sha256"]
    JsccSeedCodec(shape=SHAPE, snr_db=0, peer_sha256=ours)
    with pytest.raises(CodecError, match=f"joint code is 0123456789ab, ours is {ours[:12]}"):
        JsccSeedCodec(shape=SHAPE, snr_db=0, peer_sha256="0123456789abcdef")


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(CodecError, match=r"is 0\.05, the code goes from 0\.125 to 1"):
        check_rate(0.05)
    with pytest.raises(CodecError, match="maps is 0 and coarse_bits 0"):
        JsccSeedCodec(shape=SHAPE, snr_db=0, maps=0)
    with pytest.raises(CodecError, match="snr_db is nan"):
        JsccSeedCodec(shape=SHAPE, snr_db=float("nan"))


def test_a_foreign_packet_is_refused() -> None:
    codec = JsccSeedCodec(shape=SHAPE, snr_db=0, maps=8)
    with pytest.raises(CodecError, match="7 analog symbols arrived, 8 maps take 1024"):
        codec.decode(Delivery(symbols=np.zeros(7, np.complex64), noise_power=1.0))
    with pytest.raises(CodecError, match="payload of 3 bytes arrived, this code sends symbols"):
        codec.decode(Delivery(payload=b"abc", symbols=np.zeros(1024, np.complex64)))


@settings(max_examples=150, derandomize=True, deadline=None)
@given(st.binary(max_size=220), st.integers(0, 300))
def test_damaged_hybrid_packets_never_crash(payload: bytes, count: int) -> None:
    codec = JsccSeedCodec(shape=(4, 8, 8), snr_db=0, maps=2, coarse_bits=1000)
    symbols = np.full(count, 100 + 1j, np.complex64) if count else None
    try:
        got = codec.decode(Delivery(payload=payload, symbols=symbols, noise_power=0.5))
    except CodecError:
        return
    assert got.values.shape == (4, 8, 8)
    assert np.isfinite(got.values).all()


def test_what_is_drawn_anew_is_said_to_be(seeds: list[Feature]) -> None:
    """From the level that the noise is in diffusion's terms; nothing where nothing was drawn."""
    for snr_db, level in ((-20, 10 / 11), (0, 0.5), (25, 0.0)):
        codec = PlainSeedCodec(shape=SHAPE)
        delivery = RadioLink(snr_db=snr_db).send(codec.encode(seeds[0]), np.random.default_rng(0))
        assert codec.decode(delivery).redrawn_from == pytest.approx(level, abs=0.03)
        assert PlainSeedCodec(shape=SHAPE, restore=False).decode(delivery).redrawn_from == 0
    learned = JsccSeedCodec(shape=SHAPE, snr_db=-10)
    delivery = RadioLink(snr_db=-10).send(learned.encode(seeds[0]), np.random.default_rng(0))
    assert learned.decode(delivery).redrawn_from == pytest.approx(0.7)


@pytest.mark.parametrize("rate", [0.5, 1.0])
def test_what_the_hybrid_is_told_is_checked_whatever_it_chooses(rate: float) -> None:
    for plan, words in (
        (Plan(symbol_rate=rate, jscc_sha256="abc"), "the other end's joint code is abc"),
        (Plan(symbol_rate=rate, told_snr_db=float("nan")), "snr_db is nan"),
    ):
        with pytest.raises(CodecError, match=words):
            hybrid_codec(
                Scenario(request=Request(prompt="x"), plan=plan, link=RadioLink(snr_db=20))
            )


def test_choices_keep_within_what_may_be_spent() -> None:
    for rate in np.linspace(0.125, 1, 8):
        for snr_db in np.linspace(-30, 50, 17):
            share = choose_share(float(snr_db), float(rate))
            assert share is None or 0 <= share <= 1
            assert share is not None or rate == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"plan": {"mode": "paper"}}, "paper mode has neither"),
        ({"link": {"channel": "umi"}}, "set plan.told_snr_db"),
    ],
)
def test_a_code_that_nobody_can_tell_the_snr_says_so(
    changes: dict[str, Any], words: str, bundle: Bundle
) -> None:
    tables = {"request": {"prompt": "a"}, "codecs": {"seed": "jscc"}, **changes}
    with pytest.raises(ScenarioError, match=words):
        parse_scenario(tables).run(bundle)
