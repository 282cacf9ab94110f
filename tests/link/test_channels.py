from __future__ import annotations

import math

import numpy as np
import pytest

from megdt.errors import LinkError
from megdt.link.channels import (
    BlockFading,
    awgn,
    awgn_paper,
    capacity_bits,
    doppler_hz,
)
from megdt.link.grid import Grid

GRID = Grid()


@pytest.mark.parametrize("snr_db", [-10.0, 0.0, 17.0])
def test_complex_noise_has_the_power_that_es_n0_says(snr_db: float) -> None:
    symbols = np.exp(1j * np.linspace(0, 200, 200_000)).astype(np.complex64)
    power = 10 ** (-snr_db / 10)
    noise = awgn(symbols, power, np.random.default_rng(0)) - symbols
    assert np.mean(np.abs(noise) ** 2) == pytest.approx(power, rel=0.01)
    # Circular: half of the power in each part, and the parts uncorrelated.
    assert np.mean(noise.real**2) == pytest.approx(power / 2, rel=0.02)
    assert np.mean(noise.real * noise.imag) == pytest.approx(0, abs=0.01 * power)


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


def gains(channel: BlockFading, count: int, seed: int = 0) -> np.ndarray:
    fading = channel.begin(GRID, np.random.default_rng(seed))
    return np.array([fading.slot(i, 1)[0][0, 0] for i in range(count)])


@pytest.mark.parametrize("threshold_db", [-5.0, 0.0, 5.0])
def test_rayleigh_outage_is_within_3_percent_of_its_formula(threshold_db: float) -> None:
    drawn = gains(BlockFading(snr_db=5.0, coherence_time_s=1e-3), 200_000)
    snr_db = 5.0 + 20 * np.log10(np.abs(drawn))
    measured = np.mean(snr_db < threshold_db)
    expected = 1 - math.exp(-(10 ** ((threshold_db - 5.0) / 10)))
    assert measured == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("k_factor", [0.0, 4.0, 100.0])
def test_fading_has_unit_mean_power_and_its_k_factor(k_factor: float) -> None:
    power = (
        np.abs(gains(BlockFading(snr_db=0, k_factor=k_factor, coherence_time_s=1e-3), 60_000)) ** 2
    )
    assert power.mean() == pytest.approx(1, rel=0.02)
    # Variance of a Rician power: (2 K + 1) / (K + 1)^2.
    assert power.var() == pytest.approx((2 * k_factor + 1) / (k_factor + 1) ** 2, rel=0.05)


def test_an_infinite_k_factor_is_awgn() -> None:
    assert (gains(BlockFading(snr_db=0, k_factor=math.inf, coherence_time_s=1e-3), 9) == 1).all()


def test_a_gain_stays_for_its_coherence_time_and_no_longer() -> None:
    drawn = gains(BlockFading(snr_db=0, coherence_time_s=10e-3), 200)
    blocks = drawn.reshape(20, 10)
    assert (blocks == blocks[:, :1]).all()
    assert len(set(blocks[:, 0])) == 20


def test_slots_can_be_asked_for_in_any_order() -> None:
    channel = BlockFading(snr_db=0, coherence_time_s=1e-3)
    forward = gains(channel, 20)
    fading = channel.begin(GRID, np.random.default_rng(0))
    backward = [fading.slot(i, 1)[0][0, 0] for i in reversed(range(20))]
    assert (forward == backward[::-1]).all()


def test_doppler_is_speed_over_wavelength() -> None:
    assert doppler_hz(30, 3e9) == pytest.approx(300, rel=1e-2)


@pytest.mark.parametrize("snr_db", [float("nan"), -41.0, 61.0, float("inf")])
def test_an_snr_out_of_range_is_refused(snr_db: float) -> None:
    with pytest.raises(LinkError, match=r"this link takes -40 to 60"):
        BlockFading(snr_db=snr_db)


@pytest.mark.parametrize("coherence_time_s", [0.0, -1.0, float("nan")])
def test_a_coherence_time_that_is_none_is_refused(coherence_time_s: float) -> None:
    with pytest.raises(LinkError, match=r"coherence_time_s is .* must be above 0"):
        BlockFading(snr_db=0, coherence_time_s=coherence_time_s)
