from __future__ import annotations

import binascii
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch

from megdt.link.adaptation import MCS_TABLES, Mcs, transport_block_bits
from megdt.link.channels import awgn
from megdt.link.modem import (
    CRC_POLYNOMIALS,
    REDUNDANCY_VERSIONS,
    Layout,
    SoftBuffer,
    crc,
    encode,
    layout,
    modulate,
    scrambling,
)
from megdt.link.qam import demap


@pytest.fixture
def sionna() -> Iterator[None]:
    """An independent implementation of the same standard, on one thread."""
    pytest.importorskip("sionna.phy.nr", reason="Sionna is what this is compared with")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # its many small operations lose by more
    yield
    torch.set_num_threads(threads)


def random_bits(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, size)).integers(0, 2, size, np.uint8)


def hard(symbols: np.ndarray, order: int) -> np.ndarray:
    return (demap(symbols, 1e-3, order) < 0).astype(np.uint8)


def received(
    payload: np.ndarray,
    plan: Layout,
    snr_db: float,
    versions: Sequence[int],
    *,
    symbols: int,
    order: int,
    seed: int = 0,
) -> SoftBuffer:
    """What a receiver has after these transmissions of a block over AWGN."""
    rng = np.random.default_rng(seed)
    words = encode(payload, plan)
    buffer = SoftBuffer(plan)
    noise = 10 ** (-snr_db / 10)
    for version in versions:
        sent = modulate(
            words, plan, redundancy_version=version, symbols=symbols, bits_per_symbol=order
        )
        buffer.combine(
            awgn(sent, noise, rng), noise, redundancy_version=version, bits_per_symbol=order
        )
    return buffer


def share_decoded(
    mcs: Mcs, payload_bits: int, snr_db: float, versions: Sequence[int], blocks: int = 20
) -> float:
    plan = layout(payload_bits, mcs.code_rate)
    symbols = int(np.ceil(payload_bits / mcs.efficiency))
    right = 0
    for seed in range(blocks):
        payload = random_bits(payload_bits, seed)
        buffer = received(
            payload, plan, snr_db, versions, symbols=symbols, order=mcs.bits_per_symbol, seed=seed
        )
        found = buffer.decode()
        right += found is not None and bool((found == payload).all())
    return right / blocks


@pytest.mark.parametrize("name", CRC_POLYNOMIALS)
@pytest.mark.parametrize("size", [1, 24, 100, 8000])
def test_crc_is_that_of_sionna(sionna: None, name: str, size: int) -> None:
    from sionna.phy.fec.crc import CRCEncoder

    bits = random_bits(size)
    encoder = CRCEncoder(f"CRC{name}", k=size)
    expected = encoder(torch.from_numpy(bits[None]).float()).numpy()[0, size:]
    assert (crc(bits, name) == expected).all()


@pytest.mark.parametrize("text", [b"123456789", b"\0", b"megdt" * 50])
def test_crc_of_16_bits_is_that_of_xmodem(text: bytes) -> None:
    found = crc(np.unpackbits(np.frombuffer(text, np.uint8)), "16")
    assert int.from_bytes(np.packbits(found).tobytes(), "big") == binascii.crc_hqx(text, 0)


def test_crcs_of_24_bits_are_the_catalogued_ones() -> None:
    # CRC-24/LTE-A and CRC-24/LTE-B of "123456789", from the catalogue of parametrised CRCs.
    bits = np.unpackbits(np.frombuffer(b"123456789", np.uint8))
    for name, expected in (("24A", 0xCDE703), ("24B", 0x23EF52)):
        assert int.from_bytes(np.packbits(crc(bits, name)).tobytes(), "big") == expected


@pytest.mark.parametrize("name", CRC_POLYNOMIALS)
def test_bits_with_their_crc_have_none_left_and_any_flipped_bit_shows(name: str) -> None:
    bits = random_bits(200)
    whole = np.concatenate((bits, crc(bits, name)))
    assert not crc(whole, name).any()
    for place in range(whole.size):
        whole[place] ^= 1
        assert crc(whole, name).any()
        whole[place] ^= 1


@pytest.mark.parametrize("rate_1024", [30, 120, 256, 308, 602, 772, 948])
def test_blocks_are_cut_as_by_sionna(sionna: None, rate_1024: int) -> None:
    from sionna.phy.nr.utils import calculate_tb_size

    rate = rate_1024 / 1024
    mcs = Mcs(bits_per_symbol=2, rate_1024=rate_1024)
    sizes = {transport_block_bits(int(n), mcs) for n in np.geomspace(20, 1e6, 60)}
    for payload_bits in sorted(sizes):
        found, block_bits, blocks, crc_bits, *_ = calculate_tb_size(
            2, rate, payload_bits, 2 * payload_bits, return_cw_length=False
        )
        plan = layout(payload_bits, rate)
        assert int(found) == payload_bits
        assert (plan.blocks, plan.block_bits) == (int(blocks), int(block_bits))
        assert CRC_POLYNOMIALS[plan.crc][1] == int(crc_bits)
        assert plan.code.information_bits >= plan.block_bits


# Payload, code rate times 1024, bits per symbol, symbols. Sionna takes the base graph by what it
# sends of a block rather than by the nominal rate; these are sizes at which both say the same.
TRANSPORT_BLOCKS = [
    (24, 308, 2, 40),  # smallest, filler bits
    (40, 602, 2, 50),
    (336, 449, 2, 400),  # graph 2 with 8 columns
    (504, 490, 4, 265),
    (608, 666, 6, 160),  # graph 2 with 9 columns
    (1480, 772, 6, 327),  # graph 1
    (3752, 517, 6, 1240),  # graph 2, nearly largest
    (3824, 948, 8, 520),  # the largest with 16 bits of CRC
    (3840, 754, 8, 655),  # 24 bits of CRC
    (8192, 449, 2, 9343),  # the largest in one block
    (8456, 449, 4, 4900),  # the smallest in two
    (8456, 449, 4, 4901),  # of unequal length
    (11016, 193, 2, 27003),  # graph 2, three blocks
    (30216, 682.5, 8, 5677),
    (100392, 466, 6, 36775),  # twelve blocks, seven of them longer
    (100392, 948, 8, 13700),
]


@pytest.mark.parametrize(("payload_bits", "rate_1024", "order", "symbols"), TRANSPORT_BLOCKS)
def test_the_bits_of_a_transport_block_are_those_of_sionna(
    sionna: None, payload_bits: int, rate_1024: float, order: int, symbols: int
) -> None:
    from sionna.phy.nr import TBEncoder

    rate = rate_1024 / 1024
    encoder = TBEncoder(
        payload_bits, symbols * order, rate, order, n_rnti=1, n_id=0, channel_type="PDSCH"
    )
    assert encoder.k_padding == 0
    plan = layout(payload_bits, rate)
    payload = random_bits(payload_bits)
    expected = encoder(torch.from_numpy(payload[None]).float()).numpy()[0]
    sent = modulate(
        encode(payload, plan), plan, redundancy_version=0, symbols=symbols, bits_per_symbol=order
    )
    assert sent.shape == (symbols,)
    assert (hard(sent, order) == expected).all()


@pytest.mark.parametrize(
    ("payload_bits", "rate_1024", "order", "symbols"),
    [(24, 449, 2, 44), (504, 616, 4, 250), (2024, 873, 6, 420), (8424, 885, 8, 1220)],
)
def test_all_redundancy_versions_are_those_of_sionna(
    sionna: None, payload_bits: int, rate_1024: float, order: int, symbols: int
) -> None:
    from sionna.phy.fec.ldpc import LDPC5GEncoder

    plan = layout(payload_bits, rate_1024 / 1024)
    payload = random_bits(payload_bits)
    block = np.concatenate((payload, crc(payload, plan.crc)))
    encoder = LDPC5GEncoder(block.size, symbols * order, num_bits_per_symbol=order)
    expected = encoder(torch.from_numpy(block[None]).float(), rv=[0, 1, 2, 3]).numpy()[0]
    for version in range(4):
        sent = modulate(
            encode(payload, plan),
            plan,
            redundancy_version=version,
            symbols=symbols,
            bits_per_symbol=order,
        )
        assert (hard(sent, order) ^ scrambling(symbols * order) == expected[version]).all()


@pytest.mark.parametrize("version", [0, 3])
@pytest.mark.parametrize(
    ("table", "index", "payload_bits"),
    [(2, 2, 504), (2, 8, 3752), (2, 17, 8424), (2, 24, 30216), (3, 2, 40)],
)
def test_versions_0_and_3_are_decoded_alone(
    version: int, table: int, index: int, payload_bits: int
) -> None:
    mcs = MCS_TABLES[table][index]
    assert share_decoded(mcs, payload_bits, 30.0, [version], blocks=3) == 1


def test_all_pairs_with_version_0_or_3_are_decoded_together() -> None:
    mcs = MCS_TABLES[2][8]
    for versions in itertools.permutations(range(4), 2):
        if versions not in ((1, 2), (2, 1)):  # parity alone
            assert share_decoded(mcs, 1480, 20.0, versions, blocks=2) == 1


@pytest.mark.parametrize(("index", "snr_db"), [(4, 1.0), (10, 7.0), (19, 16.0), (27, 23.0)])
def test_a_second_version_rescues_what_the_first_could_not(index: int, snr_db: float) -> None:
    mcs = MCS_TABLES[2][index]
    assert share_decoded(mcs, 3752, snr_db, [0]) == 0
    assert share_decoded(mcs, 3752, snr_db, REDUNDANCY_VERSIONS[:2]) == 1


def test_new_redundancy_helps_more_than_repetition() -> None:
    mcs = MCS_TABLES[2][19]  # rate 0.85: much of the code word was not sent yet
    assert share_decoded(mcs, 3752, 13.0, [0, 2]) == 1
    assert share_decoded(mcs, 3752, 13.0, [0, 0]) == 0
    # Repetition helps too, by 3 dB.
    assert share_decoded(mcs, 3752, 16.0, [0]) == 0
    assert share_decoded(mcs, 3752, 16.0, [0, 0]) == 1


def test_all_four_versions_fill_the_soft_buffer() -> None:
    plan = layout(3752, 0.5)
    buffer = received(random_bits(3752), plan, 10.0, range(4), symbols=3752, order=2)
    never_sent = buffer.llrs[:, : 2 * plan.lifting_size]
    assert not never_sent.any()
    assert (buffer.llrs[:, 2 * plan.lifting_size :] != 0).all()


def test_at_very_low_rates_the_buffer_comes_round_and_every_lap_counts() -> None:
    mcs = MCS_TABLES[3][0]
    plan = layout(24, mcs.code_rate)
    symbols = int(np.ceil(24 / mcs.efficiency))
    buffer_bits = 50 * plan.lifting_size - (plan.code.information_bits - plan.block_bits)
    assert 2 * symbols > 2.5 * buffer_bits
    payload = random_bits(24)
    sent = modulate(
        encode(payload, plan), plan, redundancy_version=0, symbols=symbols, bits_per_symbol=2
    )
    bits = hard(sent, 2) ^ scrambling(2 * symbols)
    bits = bits.reshape(symbols, 2).T.ravel()  # without the interleaver
    assert (bits[buffer_bits:] == bits[:-buffer_bits]).all()
    # A bit says 4 Re(s) / (sqrt(2) N0) = 2 each time; the first ones come three times.
    buffer = SoftBuffer(plan)
    buffer.combine(sent, 1.0, redundancy_version=0, bits_per_symbol=2)
    certainty = np.abs(buffer.llrs[0, 2 * plan.lifting_size :])
    assert certainty[: plan.block_bits - 2 * plan.lifting_size] == pytest.approx(6, rel=1e-4)
    assert certainty.min() == pytest.approx(4, rel=1e-4)
    assert share_decoded(mcs, 24, -8.5, [0], blocks=30) > 0.8


def test_nothing_is_decoded_from_noise() -> None:
    for payload_bits in (24, 3752, 30216):
        plan = layout(payload_bits, 0.5)
        rng = np.random.default_rng(payload_bits)
        buffer = SoftBuffer(plan)
        buffer.combine(
            awgn(np.zeros(payload_bits, np.complex64), 1.0, rng),
            1.0,
            redundancy_version=0,
            bits_per_symbol=2,
        )
        assert buffer.decode() is None


@pytest.mark.parametrize("payload_bits", [504, 8424, 30216])
def test_a_block_whose_crc_is_wrong_is_refused_although_its_code_word_is_right(
    payload_bits: int,
) -> None:
    plan = layout(payload_bits, 0.5)
    information = encode(random_bits(payload_bits), plan)[:, : plan.code.information_bits]
    buffer = SoftBuffer(plan)
    buffer.llrs[:] = 10 * (1 - 2.0 * plan.code.encode(information))
    assert buffer.decode() is not None
    information[0, 3] ^= 1
    buffer.llrs[:] = 10 * (1 - 2.0 * plan.code.encode(information))
    assert plan.code.decode(buffer.llrs).converged.all()
    assert buffer.decode() is None
    if plan.blocks > 1:
        # Each code block's own CRC right, that of the transport block wrong.
        information[0, plan.block_bits - 24 : plan.block_bits] = crc(
            information[0, : plan.block_bits - 24], "24B"
        )
        buffer.llrs[:] = 10 * (1 - 2.0 * plan.code.encode(information))
        assert buffer.decode() is None


@pytest.mark.parametrize("index", [4, 14, 26])
def test_two_megabits_arrive(index: int) -> None:
    mcs = MCS_TABLES[2][index]
    symbols = int(2_097_152 / mcs.efficiency)
    payload_bits = transport_block_bits(symbols, mcs)
    assert payload_bits == pytest.approx(2_097_152, rel=0.02)
    plan = layout(payload_bits, mcs.code_rate)
    assert plan.blocks > 240
    payload = random_bits(payload_bits)
    # About 1.5 dB above the waterfall, so that none of the 250 blocks fails.
    snr_db = {4: 3.5, 14: 14.5, 26: 27.5}[index]
    buffer = received(payload, plan, snr_db, [0], symbols=symbols, order=mcs.bits_per_symbol)
    found = buffer.decode()
    assert found is not None
    assert (found == payload).all()


def test_scrambling_is_the_gold_sequence_of_sionna(sionna: None) -> None:
    from sionna.phy.nr.utils import generate_prng_seq

    for length in (1, 31, 4096, 4097, 10_000):
        assert (scrambling(length) == generate_prng_seq(length, 1 << 15)).all()


@pytest.mark.parametrize("random", [True, False])
def test_symbols_have_unit_power_whatever_the_payload(random: bool) -> None:
    plan = layout(30216, 0.5)
    payload = random_bits(30216) * np.uint8(random)
    for order in (2, 4, 6, 8):
        sent = modulate(
            encode(payload, plan),
            plan,
            redundancy_version=0,
            symbols=30216 * 2 // order,
            bits_per_symbol=order,
        )
        assert np.mean(np.abs(sent) ** 2) == pytest.approx(1, abs=0.02)
