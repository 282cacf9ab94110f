from __future__ import annotations

import numpy as np
import pytest

from megdt.codecs.seed import GAIN_SYMBOLS, INT8_CLIP, AnalogSeedCodec, QuantisedSeedCodec
from megdt.errors import CodecError
from megdt.link.radio import RadioLink
from megdt.records import Delivery, Feature, Packet

SHAPE = (4, 16, 16)


@pytest.fixture
def seed() -> Feature:
    latent = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    return Feature(kind="seed", values=latent)


def deliver(packet: Packet, *, noise_power: float = 0.0) -> Delivery:
    return Delivery(payload=packet.payload, symbols=packet.symbols, noise_power=noise_power)


@pytest.mark.parametrize(("precision", "bits"), [("float32", 32), ("float16", 16), ("int8", 8)])
def test_a_packet_has_its_bits_an_element(seed: Feature, precision: str, bits: int) -> None:
    packet = QuantisedSeedCodec(shape=SHAPE, precision=precision).encode(seed)  # type: ignore[arg-type]
    assert packet.bits == bits * 4 * 16 * 16
    assert packet.symbols is None


def test_float32_is_lossless(seed: Feature) -> None:
    codec = QuantisedSeedCodec(shape=SHAPE, precision="float32")
    assert (codec.decode(deliver(codec.encode(seed))).values == seed.values).all()


def test_float16_keeps_eleven_bits(seed: Feature) -> None:
    codec = QuantisedSeedCodec(shape=SHAPE, precision="float16")
    again = codec.decode(deliver(codec.encode(seed))).values
    np.testing.assert_allclose(again, seed.values, rtol=2**-11, atol=1e-7)


def test_int8_is_within_half_a_step_inside_its_clip(seed: Feature) -> None:
    codec = QuantisedSeedCodec(shape=SHAPE, precision="int8")
    seed.values[0, 0, :2] = 9.0, -9.0
    again = codec.decode(deliver(codec.encode(seed))).values
    inside = np.abs(seed.values) <= INT8_CLIP
    assert np.abs(again - seed.values)[inside].max() <= INT8_CLIP / 254 + 1e-6
    assert again[0, 0, 0] == pytest.approx(INT8_CLIP)
    assert again[0, 0, 1] == pytest.approx(-INT8_CLIP)


def test_a_seed_of_another_shape_is_refused() -> None:
    wrong = Feature(kind="seed", values=np.zeros((16, 16, 16), np.float32))
    with pytest.raises(
        CodecError, match=r"seed has shape \(16, 16, 16\), this codec carries \(4, 16, 16\)"
    ):
        QuantisedSeedCodec(shape=SHAPE).encode(wrong)


def test_a_seed_with_nan_is_refused(seed: Feature) -> None:
    seed.values[1, 2, 3] = np.nan
    for codec in (QuantisedSeedCodec(shape=SHAPE), AnalogSeedCodec(shape=SHAPE)):
        with pytest.raises(CodecError, match="1 elements that are not finite"):
            codec.encode(seed)


def test_a_payload_of_another_length_is_refused() -> None:
    with pytest.raises(CodecError, match="seed payload has 7 bytes, int8 for shape"):
        QuantisedSeedCodec(shape=SHAPE).decode(Delivery(payload=bytes(7)))


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_fair_symbols_have_unit_power_whatever_the_seed(seed: Feature, scale: float) -> None:
    packet = AnalogSeedCodec(shape=SHAPE).encode(Feature(kind="seed", values=seed.values * scale))
    assert packet.symbols is not None
    assert packet.symbols.size == GAIN_SYMBOLS + 4 * 16 * 16 // 2
    assert np.mean(np.abs(packet.symbols) ** 2) == pytest.approx(1.0, rel=2e-3)


def test_an_analog_seed_has_no_bits_and_so_no_cliff(seed: Feature) -> None:
    for mode in ("fair", "paper"):
        assert AnalogSeedCodec(shape=SHAPE, mode=mode).encode(seed).bits == 0  # type: ignore[arg-type]
    link = RadioLink(snr_db=-20.0)
    delivery = link.send(AnalogSeedCodec(shape=SHAPE).encode(seed), np.random.default_rng(0))
    assert delivery.outcome == "delivered"


def test_a_seed_too_large_for_its_gain_is_refused(seed: Feature) -> None:
    loud = Feature(kind="seed", values=seed.values * 10)
    with pytest.raises(CodecError, match=r"root mean square of .*, analog symbols carry up to 4"):
        AnalogSeedCodec(shape=SHAPE).encode(loud)


def test_noise_moves_the_gain_little(seed: Feature) -> None:
    """At -20 dB the receiver falls back on what is usual, and at 20 dB it knows the gain."""
    codec = AnalogSeedCodec(shape=SHAPE)
    sent = Feature(kind="seed", values=1.3 * seed.values)
    for snr_db, tolerance in ((-20, 0.35), (20, 0.03)):
        delivery = RadioLink(snr_db=float(snr_db)).send(
            codec.encode(sent), np.random.default_rng(1)
        )
        got = codec.decode(delivery).values
        gain = np.sum(got * sent.values) / np.sum(sent.values**2)
        assert abs(gain - 1) < tolerance


@pytest.mark.parametrize("mode", ["fair", "paper"])
def test_analog_seeds_come_back_without_noise(seed: Feature, mode: str) -> None:
    codec = AnalogSeedCodec(shape=SHAPE, mode=mode)  # type: ignore[arg-type]
    again = codec.decode(deliver(codec.encode(seed)))
    np.testing.assert_allclose(again.values, seed.values, atol=1e-5)


def test_the_noise_power_told_is_the_noise_power_there_is(seed: Feature) -> None:
    codec = AnalogSeedCodec(shape=SHAPE)
    packet = codec.encode(Feature(kind="seed", values=3 * seed.values))
    rng = np.random.default_rng(1)
    errors, told = [], 0.0
    for _ in range(50):
        noise = rng.standard_normal((2, 528)) * np.sqrt(0.1 / 2)
        symbols = packet.symbols + noise[0] + 1j * noise[1]
        again = codec.decode(Delivery(payload=packet.payload, symbols=symbols, noise_power=0.1))
        errors.append(np.mean((again.values - 3 * seed.values) ** 2))
        told = again.noise_power
    assert np.mean(errors) == pytest.approx(told, rel=0.02)


def test_a_silent_seed_survives() -> None:
    codec = AnalogSeedCodec(shape=SHAPE)
    nothing = Feature(kind="seed", values=np.zeros(SHAPE, np.float32))
    assert (codec.decode(deliver(codec.encode(nothing))).values == 0).all()


def test_symbols_without_their_gain_are_refused(seed: Feature) -> None:
    codec = AnalogSeedCodec(shape=SHAPE)
    symbols = codec.encode(seed).symbols
    assert symbols is not None
    with pytest.raises(CodecError, match=r"512 analog symbols arrived, .* take 528"):
        codec.decode(Delivery(symbols=symbols[GAIN_SYMBOLS:]))
