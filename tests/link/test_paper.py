from __future__ import annotations

import math

import numpy as np
import pytest

from megdt.errors import LinkError
from megdt.link.paper import PaperLink
from megdt.records import Packet


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_bits_cross_unharmed_at_capacity() -> None:
    link = PaperLink(snr_db=10 * math.log10(3), bandwidth_hz=1e6, tx_power_dbm=30)
    delivery = link.send(Packet(payload=bytes(1000)), rng())
    assert delivery.payload == bytes(1000)
    assert delivery.uses.total == 4000  # 8,000 bits at 2 bits a use
    assert delivery.airtime_s == delivery.latency_s == pytest.approx(4e-3)
    assert delivery.radiated_j == pytest.approx(4e-3)  # 1 W
    assert link.payload_bits(4000, rng()) == 8000


def test_two_real_symbols_are_one_complex_use() -> None:
    assert PaperLink().send(Packet(symbols=np.ones(101, np.float32)), rng()).uses.total == 51


def test_complex_symbols_are_refused() -> None:
    with pytest.raises(LinkError, match="symbols are complex, the paper's link adds real noise"):
        PaperLink().send(Packet(symbols=np.ones(4, np.complex64)), rng())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"snr_db": math.nan}, "this link takes -40 to 60"),
        ({"bandwidth_hz": 0.0}, "this link takes 1 to 1e12"),
        ({"tx_power_dbm": 4000.0}, "this link takes -100 to 100"),
    ],
)
def test_an_impossible_setting_is_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(LinkError, match=message):
        PaperLink(**settings)
