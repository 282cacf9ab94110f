"""What adds up on the air: one receiver's noise for all, and everyone's own power."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from megdt.errors import LinkError
from megdt.link.radio import RadioLink
from megdt.link.superposed import SuperposedLink
from megdt.records import Delivery, Packet

MANY = 16
SYMBOLS = 20_000


def draw(rng_seed: int) -> NDArray[Any]:
    pair = np.random.default_rng(rng_seed).standard_normal((2, SYMBOLS)) / np.sqrt(2.1)
    return (pair[0] + 1j * pair[1]).astype(np.complex64)


def send_all(link: RadioLink, sent: Sequence[NDArray[Any]]) -> list[Delivery]:
    one = SuperposedLink(link=link, among=len(sent))
    return [
        one.send(Packet(symbols=symbols), np.random.default_rng(number))
        for number, symbols in enumerate(sent)
    ]


def noise_of(delivery: Delivery, sent: NDArray[Any]) -> NDArray[Any]:
    assert delivery.symbols is not None
    return delivery.symbols - sent


@pytest.mark.parametrize("settings", [{}, {"coding": "ideal"}, {"csi": "perfect"}], ids=str)
@pytest.mark.parametrize("snr_db", [0.0, 20.0])
def test_the_sum_has_everyones_signal_and_the_noise_of_one_receiver(
    snr_db: float, settings: dict[str, Any]
) -> None:
    link = RadioLink(snr_db=snr_db, bandwidth_hz=20e6, **settings)
    sent = [draw(number) for number in range(MANY)]
    found = send_all(link, sent)
    signal = sum(sent)
    noise = sum(d.symbols for d in found if d.symbols is not None) - signal
    assert np.mean(np.abs(noise) ** 2) == pytest.approx(10 ** (-snr_db / 10), rel=0.03)
    assert sum(float(np.mean(d.noise_power)) for d in found) == pytest.approx(
        10 ** (-snr_db / 10), rel=0.02
    )
    # Neither louder nor softer than it was sent, and noise that does not know the signal.
    slope = np.vdot(signal, signal + noise) / np.vdot(signal, signal)
    assert abs(slope - 1) < 0.01
    first, second = (noise_of(d, s) for d, s in zip(found[:2], sent[:2], strict=True))
    both = np.vdot(first, second) / np.sqrt(np.vdot(first, first) * np.vdot(second, second))
    assert abs(both) < 0.03


def test_one_sender_is_a_link_like_any_other() -> None:
    link = RadioLink(snr_db=10)
    alone = SuperposedLink(link=link, among=1).send(
        Packet(symbols=draw(0)), np.random.default_rng(5)
    )
    plain = link.send(Packet(symbols=draw(0)), np.random.default_rng(5))
    assert alone.symbols == pytest.approx(plain.symbols, abs=1e-5)
    assert (alone.uses, alone.airtime_s, alone.radiated_j, alone.among) == (
        plain.uses, plain.airtime_s, plain.radiated_j, 1
    )  # fmt: skip


def test_who_sends_on_few_of_the_uses_radiates_less() -> None:
    link = RadioLink(snr_db=10)
    little, nothing = draw(0), np.zeros(SYMBOLS, np.complex64)
    little[SYMBOLS // 10 :] = 0
    whole, part, silent = send_all(link, [draw(1), little, nothing])
    assert whole.uses == part.uses == silent.uses
    assert whole.latency_s == part.latency_s == silent.latency_s
    assert whole.airtime_s == whole.round_s == part.round_s
    assert part.airtime_s / whole.airtime_s == pytest.approx(0.1, rel=0.1)
    assert part.radiated_j / whole.radiated_j == pytest.approx(0.1, rel=0.02)
    assert (silent.airtime_s, silent.radiated_j) == (0, 0)


@pytest.mark.parametrize("channel", ["rayleigh", "tdl-a", "umi"])
def test_under_fading_nothing_adds_up(channel: str) -> None:
    with pytest.raises(LinkError, match=f"channel is '{channel}', symbols of several senders add"):
        SuperposedLink(link=RadioLink(channel=channel), among=2)


def test_bits_do_not_add_up_and_power_is_not_given_away() -> None:
    one, rng = SuperposedLink(link=RadioLink(), among=2), np.random.default_rng(0)
    for packet in (Packet(payload=b"seed"), Packet(payload=b"seed", symbols=draw(0))):
        with pytest.raises(LinkError, match="a packet of 32 bits is to be superposed"):
            one.send(packet, rng)
    # On few uses as little as on many: silence elsewhere buys no power.
    loud = np.zeros(SYMBOLS, np.complex64)
    loud[:100] = 1.1
    with pytest.raises(LinkError, match=r"symbols have mean power 1\.21"):
        one.send(Packet(symbols=loud), rng)


def test_a_round_after_its_deadline_is_late_for_all() -> None:
    found = send_all(RadioLink(deadline_s=0.01), [draw(0), draw(1)])
    assert [d.outcome for d in found] == ["late", "late"]
    assert all(d.symbols is None for d in found)
