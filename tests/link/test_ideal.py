from __future__ import annotations

import numpy as np
import pytest

from megdt.errors import LinkError
from megdt.link.ideal import IdealLink
from megdt.records import Packet


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_bits_cross_unharmed_at_capacity() -> None:
    link = IdealLink(snr_db=10 * np.log10(3), bandwidth_hz=1e6, tx_power_dbm=30)
    delivery = link.send(Packet(payload=bytes(1000)), rng())
    assert delivery.payload == bytes(1000)
    assert delivery.channel_uses == 4000  # 8,000 bits at 2 bits a use
    assert delivery.airtime_s == pytest.approx(4e-3)
    assert delivery.energy_j == pytest.approx(4e-3)  # 1 W


def test_symbols_and_bits_are_both_charged() -> None:
    packet = Packet(payload=b"ab", symbols=np.ones(100, np.complex64))
    assert IdealLink(snr_db=0).send(packet, rng()).channel_uses == 16 + 100


def test_two_real_symbols_are_one_complex_use() -> None:
    packet = Packet(symbols=np.ones(101, np.float32))
    assert IdealLink(mode="paper").send(packet, rng()).channel_uses == 51


def test_the_same_generator_gives_the_same_noise() -> None:
    packet = Packet(symbols=np.ones(64, np.complex64))
    first, second = (IdealLink(snr_db=3).send(packet, rng()).symbols for _ in range(2))
    assert first is not None
    assert (first == second).all()


@pytest.mark.parametrize("snr_db", [float("nan"), -41.0, 61.0, float("inf")])
def test_an_snr_out_of_range_is_refused(snr_db: float) -> None:
    with pytest.raises(LinkError, match=r"this link takes -40 to 60"):
        IdealLink(snr_db=snr_db)


@pytest.mark.parametrize("bandwidth_hz", [0.0, -1.0, float("nan"), float("inf")])
def test_a_bandwidth_that_is_no_bandwidth_is_refused(bandwidth_hz: float) -> None:
    with pytest.raises(LinkError, match="this link takes 1 to 1e12"):
        IdealLink(bandwidth_hz=bandwidth_hz)


@pytest.mark.parametrize("tx_power_dbm", [4000.0, float("nan"), float("-inf")])
def test_a_power_out_of_range_is_refused(tx_power_dbm: float) -> None:
    with pytest.raises(LinkError, match="this link takes -100 to 100"):
        IdealLink(tx_power_dbm=tx_power_dbm)


def test_a_codec_cannot_buy_snr_with_uncounted_power() -> None:
    with pytest.raises(LinkError, match="symbols have mean power 1e"):
        IdealLink().send(Packet(symbols=np.full(64, 100, np.complex64)), rng())


def test_symbols_of_the_other_mode_are_refused() -> None:
    with pytest.raises(LinkError, match="symbols are real, the link is in fair mode"):
        IdealLink().send(Packet(symbols=np.ones(4, np.float32)), rng())
    with pytest.raises(LinkError, match="symbols are complex, the link is in paper mode"):
        IdealLink(mode="paper").send(Packet(symbols=np.ones(4, np.complex64)), rng())
