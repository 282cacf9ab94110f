from __future__ import annotations

import numpy as np
import pytest

from megdt.link.channels import awgn
from megdt.link.qam import (
    demap,
    effective_snr_db,
    levels,
    map_bits,
    mutual_information,
    theoretical_ber,
)

# SNRs at which each constellation makes errors enough to count to within 2 %.
CASES = [
    (order, snr_db)
    for order, snrs in ((2, (0, 4, 7)), (4, (6, 10, 14)), (6, (12, 16, 20)), (8, (18, 22, 26)))
    for snr_db in snrs
]


def noisy(order: int, snr_db: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng((order, int(snr_db)))
    bits = rng.integers(0, 2, order * count, np.uint8)
    return bits, awgn(map_bits(bits, order), 10 ** (-snr_db / 10), rng)


@pytest.mark.parametrize(("order", "snr_db"), CASES)
def test_bit_errors_of_hard_decisions_are_within_2_percent_of_theory(
    order: int, snr_db: int
) -> None:
    expected = theoretical_ber(order, snr_db)
    # Some 40,000 errors: the count itself is uncertain by half a percent.
    count = int(min(4e4 / expected / order, 2e6))
    bits, symbols = noisy(order, snr_db, count)
    axis = levels(order)
    edges = np.sort(axis)[:-1] + np.diff(np.sort(axis)) / 2
    decided = np.empty((count, order), np.uint8)
    for part, values in enumerate((symbols.real, symbols.imag)):
        nearest = np.argsort(axis)[np.searchsorted(edges, values)]
        for bit in range(order // 2):
            decided[:, 2 * bit + part] = (nearest >> (order // 2 - 1 - bit)) & 1
    assert np.mean(decided.ravel() != bits) == pytest.approx(expected, rel=0.02)


def test_qpsk_errors_are_the_textbook_ones() -> None:
    # Q(sqrt(Es/N0)) by Es/N0, which is Q(sqrt(2 Eb/N0)) by Eb/N0: the same at 3.01 dB less.
    assert theoretical_ber(2, 5.0) == pytest.approx(0.03768, rel=1e-3)


@pytest.mark.parametrize("order", [2, 4, 6, 8])
def test_symbols_have_unit_power_and_neighbours_differ_in_one_bit(order: int) -> None:
    index = np.arange(2**order)
    bits = ((index[:, None] >> np.arange(order - 1, -1, -1)) & 1).astype(np.uint8)
    symbols = map_bits(bits.ravel(), order)
    assert np.mean(np.abs(symbols) ** 2) == pytest.approx(1, rel=1e-6)
    gaps = np.abs(symbols[:, None] - symbols)
    near = np.argwhere(np.isclose(gaps, gaps[gaps > 1e-6].min(), rtol=1e-3))
    assert {int((bits[a] != bits[b]).sum()) for a, b in near} == {1}


def test_the_mapping_is_that_of_ts_38_211() -> None:
    # 16-QAM of 0001 and 64-QAM of 000001, by the formulas of section 5.1.
    assert map_bits(np.array([0, 0, 0, 1], np.uint8), 4)[0] * 10**0.5 == pytest.approx(1 + 3j)
    assert map_bits(np.array([1, 0, 0, 0, 0, 1], np.uint8), 6)[0] * 42**0.5 == pytest.approx(
        -3 + 1j
    )


@pytest.mark.parametrize("order", [2, 4, 6, 8])
def test_soft_bits_mean_what_they_say(order: int) -> None:
    """Among bits told with a log-likelihood ratio L, a share 1 / (1 + e^-L) is 0."""
    bits, symbols = noisy(order, 3 * order - 3, 60_000)
    llrs = demap(symbols, 10 ** (-(3 * order - 3) / 10), order)
    for low, high in ((-2.5, -1.5), (-0.5, 0.5), (1.5, 2.5)):
        chosen = (llrs > low) & (llrs < high)
        expected = np.mean(1 / (1 + np.exp(-llrs[chosen].astype(float))))
        assert np.mean(bits[chosen] == 0) == pytest.approx(expected, abs=0.02)


def test_soft_bits_take_a_noise_power_a_symbol() -> None:
    symbols = np.array([0.7 + 0.7j, 0.7 + 0.7j], np.complex64)
    llrs = demap(symbols, np.array([0.1, 1.0], np.float32), 2)
    assert llrs[0] == pytest.approx(10 * llrs[2], rel=1e-5)


def test_soft_bits_stay_finite_without_noise() -> None:
    assert np.isfinite(demap(np.array([9 + 0j, 0j], np.complex64), 0.0, 8)).all()


@pytest.mark.parametrize("order", [2, 8])
def test_information_grows_from_nothing_to_all_bits_and_has_an_inverse(order: int) -> None:
    # At low SNR Gray mapping of M levels an axis falls short of capacity by 3 M^2 / 4 (M^2 - 1).
    levels_squared = 2**order
    share = 0.75 * levels_squared / (levels_squared - 1)
    assert mutual_information(1e-4, order) == pytest.approx(share * 1e-4 / np.log(2), rel=0.01)
    assert mutual_information(1e5, order) == pytest.approx(order, abs=1e-3)
    middle = float(mutual_information(10.0, order))
    assert effective_snr_db(middle, order) == pytest.approx(10, abs=0.01)


def test_information_is_what_soft_bits_carry() -> None:
    bits, symbols = noisy(4, 6.0, 100_000)
    llrs = demap(symbols, 10**-0.6, 4) * (1 - 2.0 * bits)
    carried = 4 * (1 - np.mean(np.log2(1 + np.exp(-llrs.astype(float)))))
    assert carried == pytest.approx(float(mutual_information(10**0.6, 4)), rel=0.01)
