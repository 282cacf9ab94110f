from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from megdt.errors import LinkError
from megdt.link.ldpc import (
    LIFTING_SETS,
    LIFTING_SIZES,
    MAX_ITERATIONS,
    BaseGraph,
    LdpcCode,
    choose_base_graph,
    choose_lifting_size,
)

KNOWN_ZERO = 1e4

# k, n of Sionna's encoder: both graphs and all eight lifting sets.
CODES = [
    (8448, 16896),  # graph 1, lifting size 384
    (5632, 11264),  # graph 1, 256
    (3840, 4320),  # graph 1, 176
    (4000, 8000),  # graph 1, 192, with filler bits
    (3520, 4000),  # graph 1, 160
    (2420, 2700),  # graph 1, 112, with filler bits
    (300, 400),  # graph 1, 14, with filler bits
    (640, 3200),  # graph 2, 72: eight columns hold 576
    (1030, 2060),  # graph 2, 104, with filler bits
    (2400, 4800),  # graph 2, 240
    (24, 120),  # graph 2, 4
    (40, 100),  # graph 2, 7, with filler bits
]


@pytest.fixture(scope="module")
def sionna() -> Iterator[Any]:
    """Sionna's LDPC code, an independent implementation of the same standard."""
    module = pytest.importorskip(
        "sionna.phy.fec.ldpc", reason="Sionna is what this is compared with"
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # its many small operations lose by more
    yield module
    torch.set_num_threads(threads)


def ours(encoder: Any) -> LdpcCode:
    return LdpcCode(base_graph=1 if encoder.k_ldpc == 22 * encoder.z else 2, lifting_size=encoder.z)


def random_bits(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).integers(0, 2, shape, np.uint8)


def fill(code: LdpcCode, bits: np.ndarray) -> np.ndarray:
    """Filler bits behind the information."""
    return np.pad(bits, ((0, 0), (0, code.information_bits - bits.shape[1])))


def sent(code: LdpcCode, k: int, n: int) -> np.ndarray:
    """Where the first n bits that are sent lie in a code word."""
    kept = np.r_[2 * code.lifting_size : k, code.information_bits : code.codeword_bits]
    return kept[:n]


def unsatisfied(code: LdpcCode, words: np.ndarray) -> int:
    rows, columns = code.parity_checks()
    sums = np.zeros((rows.max() + 1, words.shape[0]), np.int64)
    np.add.at(sums, rows, words[:, columns].T)
    return int((sums % 2).sum())


def received(
    code: LdpcCode, k: int, n: int, snr_db: float, blocks: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Information, and log-likelihood ratios of its code words after QPSK over AWGN."""
    bits = random_bits(blocks, k, seed=seed)
    words = code.encode(fill(code, bits))
    places = sent(code, k, n)
    noise = 10 ** (-snr_db / 10)  # on each axis as much as a bit has energy
    drawn = np.random.default_rng(seed + 1).standard_normal((blocks, n))
    llrs = np.zeros(words.shape, np.float32)
    llrs[:, k : code.information_bits] = KNOWN_ZERO
    llrs[:, places] = 2 / noise * (1 - 2.0 * words[:, places] + noise**0.5 * drawn)
    return bits, llrs


@pytest.mark.parametrize(("k", "n"), CODES)
def test_parity_checks_and_code_words_are_those_of_sionna(sionna: Any, k: int, n: int) -> None:
    encoder = sionna.LDPC5GEncoder(k, n)
    code = ours(encoder)
    rows, columns = code.parity_checks()
    expected = encoder.pcm.tocoo()
    order = np.lexsort((columns, rows))
    wanted = np.lexsort((expected.col, expected.row))
    assert (rows[order] == expected.row[wanted]).all()
    assert (columns[order] == expected.col[wanted]).all()
    bits = random_bits(3, k)
    theirs = encoder(torch.from_numpy(bits).float()).numpy()
    assert (code.encode(fill(code, bits))[:, sent(code, k, n)] == theirs).all()


def test_the_compared_codes_reach_both_graphs_and_all_lifting_sets(sionna: Any) -> None:
    codes = [ours(sionna.LDPC5GEncoder(k, n)) for k, n in CODES]
    assert {code.base_graph for code in codes} == {1, 2}
    for sizes in LIFTING_SETS:
        assert {code.lifting_size for code in codes} & set(sizes)


@pytest.mark.parametrize("base_graph", [1, 2])
def test_every_code_word_satisfies_all_checks(base_graph: BaseGraph) -> None:
    assert len(LIFTING_SIZES) == 51
    for size in LIFTING_SIZES:
        code = LdpcCode(base_graph=base_graph, lifting_size=size)
        bits = random_bits(2, code.information_bits)
        words = code.encode(bits)
        assert (words[:, : code.information_bits] == bits).all()
        assert unsatisfied(code, words) == 0
        words[0, -1] ^= 1
        assert unsatisfied(code, words) == 1


@pytest.mark.parametrize("base_graph", [1, 2])
def test_every_code_decodes_what_arrives_without_noise(base_graph: BaseGraph) -> None:
    for size in LIFTING_SIZES:
        code = LdpcCode(base_graph=base_graph, lifting_size=size)
        bits, llrs = received(
            code, code.information_bits, code.codeword_bits - 2 * size, 30.0, blocks=2
        )
        decoded = code.decode(llrs)
        assert (decoded.bits == bits).all()
        assert decoded.converged.all()
        assert decoded.iterations.max() <= 5  # the first 2 Z bits were never sent


@pytest.mark.parametrize(
    ("k", "n", "snr_db"),
    [(8448, 16896, 1.5), (8448, 9504, 6.2), (3840, 11520, -0.8), (640, 3200, -2.5), (40, 200, 2.0)],
)
def test_noise_that_flips_many_bits_is_corrected(k: int, n: int, snr_db: float) -> None:
    graph = choose_base_graph(k, k / n)
    code = LdpcCode(
        base_graph=graph, lifting_size=choose_lifting_size(graph, payload_bits=k, block_bits=k)
    )
    bits, llrs = received(code, k, n, snr_db, blocks=20)
    places = sent(code, k, n)
    wrong = (llrs[:, places] < 0) != code.encode(fill(code, bits))[:, places]
    assert wrong.mean() > 0.01
    decoded = code.decode(llrs)
    assert (decoded.bits[:, :k] == bits).all()
    assert decoded.converged.all()
    assert decoded.iterations.max() <= MAX_ITERATIONS


@pytest.mark.parametrize(
    ("k", "n", "snr_db", "blocks"),
    [
        (100, 300, -0.5, 150),
        (300, 400, 4.2, 150),
        (640, 3200, -3.6, 60),
        (1500, 3000, 0.9, 40),
        (3840, 4320, 6.1, 30),
    ],
)
def test_in_the_waterfall_as_many_blocks_are_decoded_as_by_sionna_and_the_same_way(
    sionna: Any, k: int, n: int, snr_db: float, blocks: int
) -> None:
    encoder = sionna.LDPC5GEncoder(k, n)
    code = ours(encoder)
    bits, llrs = received(code, k, n, snr_db, blocks)
    decoder = sionna.LDPC5GDecoder(encoder, num_iter=20, hard_out=True)
    # Sionna's ratios are log P(1) / P(0); all in one batch, as it is fastest.
    theirs = decoder(torch.from_numpy(-llrs[:, sent(code, k, n)])).numpy().astype(np.uint8)
    found = code.decode(llrs, max_iterations=20)
    mine = found.bits[:, :k]
    right, theirs_right = (mine == bits).all(1), (theirs == bits).all(1)
    assert 0.1 < theirs_right.mean() < 0.99  # in the waterfall
    # Where both found a word it is the same one. Only a short code has other words so near.
    assert (mine[theirs_right & found.converged] == bits[theirs_right & found.converged]).all()
    # The rate of 1/5 is where min-sum loses most to Sionna's exact messages: 0.05 dB, a few blocks.
    assert right.sum() >= theirs_right.sum() - 0.06 * blocks


def test_filler_bits_are_zero_and_help() -> None:
    code = LdpcCode(base_graph=2, lifting_size=16)
    bits, llrs = received(code, 100, 300, -0.2, blocks=100)
    words = code.encode(fill(code, bits))
    assert (words[:, 100:160] == 0).all()
    decoded = code.decode(llrs)
    assert (decoded.bits[:, 100:] == 0).all()
    llrs[:, 100:160] = 0
    known = (decoded.bits[:, :100] == bits).all(1).mean()
    unknown = (code.decode(llrs).bits[:, :100] == bits).all(1).mean()
    assert known > 0.8
    assert unknown < 0.1


def test_bits_that_were_not_received_are_found() -> None:
    code = LdpcCode(base_graph=1, lifting_size=96)
    bits, llrs = received(code, code.information_bits, 4224, 3.5, blocks=5)
    assert (llrs == 0).mean() > 0.3
    assert (code.decode(llrs).bits == bits).all()


def test_blocks_do_not_see_each_other_and_decoding_repeats_itself() -> None:
    code = LdpcCode(base_graph=2, lifting_size=52)
    _, llrs = received(code, 520, 1040, 0.6, blocks=30)
    before = llrs.copy()
    together = code.decode(llrs)
    assert (llrs == before).all()
    assert not together.converged.all()
    again = code.decode(llrs)
    alone = [code.decode(row[None]) for row in llrs]
    for i, name in enumerate(together._fields):
        assert (together[i] == again[i]).all(), name
        assert (together[i] == np.concatenate([one[i] for one in alone])).all(), name


def test_a_block_that_cannot_be_decoded_says_so() -> None:
    code = LdpcCode(base_graph=2, lifting_size=52)
    _, llrs = received(code, 520, 1040, -5.0, blocks=5)
    decoded = code.decode(llrs, max_iterations=7)
    assert not decoded.converged.any()
    assert (decoded.iterations == 7).all()


def test_a_block_converges_exactly_where_its_word_is_found() -> None:
    code = LdpcCode(base_graph=2, lifting_size=52)
    bits, llrs = received(code, 520, 50 * 52, -3.9, blocks=50)
    decoded = code.decode(llrs)
    assert 0.1 < decoded.converged.mean() < 0.95
    assert (decoded.converged == (decoded.bits == bits).all(1)).all()


@pytest.mark.parametrize("scale", [1e-3, 1e3, 1e30])
def test_ratios_of_any_finite_size_are_taken(scale: float) -> None:
    code = LdpcCode(base_graph=2, lifting_size=20)
    bits, llrs = received(code, 200, 800, 15.0, blocks=3)
    decoded = code.decode(llrs * np.float32(scale))
    assert np.isin(decoded.bits, (0, 1)).all()
    if scale > 1:
        assert (decoded.bits == bits).all()


def test_no_blocks_are_no_bits() -> None:
    code = LdpcCode(base_graph=2, lifting_size=8)
    assert code.encode(np.zeros((0, 80), np.uint8)).shape == (0, 416)
    assert code.decode(np.zeros((0, 416), np.float32)).bits.shape == (0, 80)


@pytest.mark.parametrize(
    ("base_graph", "lifting_size", "named"),
    [(3, 8, "base_graph is 3"), (1, 17, "lifting_size is 17"), (2, 0, "lifting_size is 0")],
)
def test_a_code_that_does_not_exist_is_refused_in_one_line(
    base_graph: Any, lifting_size: int, named: str
) -> None:
    with pytest.raises(LinkError, match=named) as caught:
        LdpcCode(base_graph=base_graph, lifting_size=lifting_size)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(2, 81), (80,), (1, 2, 40), (416, 2)])
def test_wrong_shapes_are_refused_in_one_line(shape: tuple[int, ...]) -> None:
    code = LdpcCode(base_graph=2, lifting_size=8)
    with pytest.raises(LinkError, match=r"takes \[blocks, 80\]") as caught:
        code.encode(np.zeros(shape, np.uint8))
    assert "\n" not in str(caught.value)
    with pytest.raises(LinkError, match=r"takes \[blocks, 416\]") as caught:
        code.decode(np.zeros(shape, np.float32))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_ratios_that_are_not_finite_are_refused_in_one_line(value: float) -> None:
    code = LdpcCode(base_graph=2, lifting_size=8)
    llrs = np.ones((2, 416), np.float32)
    llrs[1, 300] = value
    with pytest.raises(LinkError, match="noise power") as caught:
        code.decode(llrs)
    assert "\n" not in str(caught.value)


def test_base_graph_and_lifting_size_are_those_that_sionna_chooses(sionna: Any) -> None:
    encoder = sionna.LDPC5GEncoder(100, 200)
    sizes = [*range(24, 800, 7), 292, 293, 3824, 3825, *range(900, 8448, 371), 8448]
    for k in sizes:
        for rate in (0.21, 0.25, 0.26, 0.34, 0.5, 0.66, 0.67, 0.68, 0.9):
            graph = choose_base_graph(k, rate)
            if graph == 2 and k > 3840:
                continue  # segmented first
            if rate > 1 / 3:
                assert f"bg{graph}" == encoder._sel_basegraph(k, rate)
            size = choose_lifting_size(graph, payload_bits=k, block_bits=k)
            assert size == encoder._sel_lifting(k, f"bg{graph}")[0]


def test_base_graph_turns_where_ts_38_212_says() -> None:
    # Section 7.2.2: A <= 292, or A <= 3824 and R <= 0.67, or R <= 0.25.
    assert [choose_base_graph(k, 0.9) for k in (292, 293)] == [2, 1]
    assert [choose_base_graph(k, 0.67) for k in (3824, 3825)] == [2, 1]
    assert [choose_base_graph(1000, r) for r in (0.67, 0.68)] == [2, 1]
    assert [choose_base_graph(100_000, r) for r in (0.25, 0.26)] == [2, 1]


def test_lifting_size_counts_columns_by_the_payload_and_bits_by_the_block() -> None:
    # Segments of a large block: ten columns, although each segment has few bits.
    assert choose_lifting_size(2, payload_bits=8000, block_bits=600) == 60
    assert choose_lifting_size(2, payload_bits=600, block_bits=600) == 72
    assert choose_lifting_size(2, payload_bits=192, block_bits=192) == 32
    assert choose_lifting_size(2, payload_bits=193, block_bits=193) == 26
    assert choose_lifting_size(1, payload_bits=8448, block_bits=8448) == 384


@pytest.mark.parametrize(("base_graph", "most"), [(1, 8448), (2, 3840)])
def test_a_block_that_no_code_holds_is_refused_in_one_line(
    base_graph: BaseGraph, most: int
) -> None:
    with pytest.raises(LinkError, match=f"holds {most}; segment it"):
        choose_lifting_size(base_graph, payload_bits=most + 1, block_bits=most + 1)
