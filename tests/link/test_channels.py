from __future__ import annotations

import numpy as np
import pytest

from megdt.link.channels import awgn, awgn_paper, capacity_bits


@pytest.mark.parametrize("snr_db", [-10.0, 0.0, 17.0])
def test_complex_noise_has_the_power_that_es_n0_says(snr_db: float) -> None:
    symbols = np.exp(1j * np.linspace(0, 200, 200_000)).astype(np.complex64)
    noisy, told = awgn(symbols, snr_db, np.random.default_rng(0))
    noise = noisy - symbols
    assert told == pytest.approx(10 ** (-snr_db / 10))
    assert np.mean(np.abs(noise) ** 2) == pytest.approx(told, rel=0.01)
    # Circular: half of the power in each part, and the parts uncorrelated.
    assert np.mean(noise.real**2) == pytest.approx(told / 2, rel=0.02)
    assert np.mean(noise.real * noise.imag) == pytest.approx(0, abs=0.01 * told)


def test_qpsk_bit_errors_meet_theory() -> None:
    # BER = Q(sqrt(Es/N0)) for Gray-mapped QPSK: a factor of two in N0 would show at once.
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 2, (2, 400_000)) * 2 - 1
    symbols = ((bits[0] + 1j * bits[1]) / np.sqrt(2)).astype(np.complex64)
    noisy, _ = awgn(symbols, 5.0, rng)
    errors = np.mean(np.sign(noisy.real) != bits[0])
    assert errors == pytest.approx(0.03768, rel=0.03)


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_paper_noise_counts_the_mean_of_the_signal(offset: float) -> None:
    values = (np.random.default_rng(2).random(200_000) - 0.5 + offset).astype(np.float32)
    noisy, told = awgn_paper(values, 10.0, np.random.default_rng(3))
    assert told == pytest.approx(np.mean(values.astype(float) ** 2) / 10, rel=1e-6)
    assert np.mean((noisy - values) ** 2) == pytest.approx(told, rel=0.01)


def test_capacity_is_shannons() -> None:
    assert capacity_bits(0) == pytest.approx(1)
    assert capacity_bits(10 * np.log10(3)) == pytest.approx(2)
    assert capacity_bits(-20) == pytest.approx(0.014355, rel=1e-4)
