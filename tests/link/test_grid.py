from __future__ import annotations

import math

import numpy as np
import pytest

from megdt.errors import LinkError
from megdt.link.channels import BlockFading, awgn
from megdt.link.grid import (
    BLOCK_ELEMENTS,
    ChannelStatistics,
    Grid,
    equalise,
    estimate,
    estimation_error,
    fill_slot,
)


def test_every_element_of_a_block_is_data_pilot_or_control() -> None:
    assert Grid().block_data_elements == BLOCK_ELEMENTS - 12 - 12
    assert Grid(pilots=False, control=False).block_data_elements == BLOCK_ELEMENTS == 168


def test_numerology_is_the_standards() -> None:
    grid = Grid(bandwidth_hz=20e6, subcarrier_spacing_khz=30)
    assert (grid.resource_blocks, grid.slot_s) == (55, 0.5e-3)
    assert Grid().cyclic_prefix_s == pytest.approx(4.69e-6, rel=0.01)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"subcarrier_spacing_khz": 20}, "TS 38.211 has 15, 30, 60, 120"),
        ({"bandwidth_hz": 100e3}, "bandwidth_hz is 100000, with 15 kHz subcarriers"),
        ({"bandwidth_hz": 1e9}, "change it or the subcarrier spacing"),
        ({"bandwidth_hz": float("nan")}, "bandwidth_hz is nan"),
    ],
)
def test_an_impossible_carrier_is_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(LinkError, match=message):
        Grid(**settings)  # type: ignore[arg-type]


def test_equalised_symbols_are_the_sent_ones_and_their_noise_is_as_told() -> None:
    grid, rng = Grid(bandwidth_hz=10e6), np.random.default_rng(0)
    sent = np.exp(2j * np.pi * rng.random(55 * grid.block_data_elements)).astype(np.complex64)
    gains = (0.5 + rng.random((14, 660))).astype(np.complex64)
    received = awgn(gains * fill_slot(sent, grid, 55), 0.1, rng)
    symbols, noise = equalise(received, gains, 0.1, grid)
    # Normalised by what each is told to have, all errors have unit power.
    assert np.mean(np.abs(symbols - sent) ** 2 / noise) == pytest.approx(1, rel=0.04)


@pytest.mark.parametrize(
    "statistics",
    [
        ChannelStatistics(),
        ChannelStatistics(longest_delay_s=1e-6, doppler_hz=100.0),
    ],
)
@pytest.mark.parametrize("noise_power", [1.0, 0.01])
def test_the_estimators_error_is_as_predicted(
    statistics: ChannelStatistics, noise_power: float
) -> None:
    grid, rng = Grid(), np.random.default_rng(1)
    blocks, errors = grid.resource_blocks, []
    times = np.arange(14) * grid.slot_s / 14
    frequencies = np.arange(12 * blocks) * grid.spacing_hz
    for _ in range(300):
        # Twelve paths, evenly spread in delay and Doppler: what the estimator assumes.
        paths = rng.standard_normal((2, 12)) / math.sqrt(24)
        delays = rng.random(12) * statistics.longest_delay_s
        shifts = (2 * rng.random(12) - 1) * statistics.doppler_hz
        over_time = np.exp(2j * np.pi * times[:, None] * shifts)
        over_frequency = np.exp(-2j * np.pi * delays[:, None] * frequencies)
        gains = (over_time * (paths[0] + 1j * paths[1])) @ over_frequency
        received = awgn(
            gains * fill_slot(np.zeros(0, np.complex64), grid, blocks), noise_power, rng
        )
        found, _ = estimate(received, grid, noise_power, statistics)
        errors.append(np.mean(np.abs(found - gains) ** 2))
    told = estimation_error(grid, blocks, noise_power, statistics)
    assert np.mean(errors) == pytest.approx(told, rel=0.15)


def test_a_flat_channel_is_estimated_from_all_pilots() -> None:
    grid, rng = Grid(), np.random.default_rng(2)
    fading = BlockFading(snr_db=0, k_factor=math.inf).begin(grid, rng)
    gains, noise_power = fading.slot(0, 5)
    received = awgn(gains * fill_slot(np.zeros(0, np.complex64), grid, 5), noise_power, rng)
    found, error = estimate(received, grid, noise_power, ChannelStatistics())
    assert np.ptp(np.abs(found)) < 1e-5
    assert error == pytest.approx(1 / 61)  # 60 pilots and what is known beforehand
