"""The air as a grid of resource elements: OFDM numerology, pilots, and what pilots tell.

A slot has 14 OFDM symbols; a resource block is 12 subcarriers over one slot. One resource element
is one complex channel use. Of the 168 in a block the first OFDM symbol is control; pilots, where
the receiver has to estimate the channel, take every second subcarrier of two symbols; the rest is
data. All of an allocated block is charged, whatever is in it.

References:
    3GPP TS 38.211, sections 4.3 (frame structure) and 7.4.1.1 (demodulation reference signals).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdt.errors import LinkError

SLOT_SYMBOLS = 14
BLOCK_SUBCARRIERS = 12
BLOCK_ELEMENTS = SLOT_SYMBOLS * BLOCK_SUBCARRIERS
MAX_BLOCKS = 275
"""Widest carrier of TS 38.211, section 4.4.2."""
SPACINGS_KHZ = (15, 30, 60, 120)

CONTROL_SYMBOL = 0
PILOT_SYMBOLS = (2, 11)
PILOT_STEP = 2

_ESTIMATED_TOGETHER = 24
"""Resource blocks whose channel is estimated jointly; more gain nothing and cost a cube."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A carrier.

    Args:
        bandwidth_hz: As many whole resource blocks as fit are used.
        subcarrier_spacing_khz: 15, 30, 60 or 120.
        pilots: Whether slots have pilots.
        control: Whether slots have a control symbol.

    Raises:
        LinkError: If not one, or more than 275 resource blocks fit, or the spacing is not one of
            the standard's.
    """

    bandwidth_hz: float = 1e6
    subcarrier_spacing_khz: int = 15
    pilots: bool = True
    control: bool = True

    def __post_init__(self) -> None:
        if self.subcarrier_spacing_khz not in SPACINGS_KHZ:
            raise LinkError(
                f"subcarrier_spacing_khz is {self.subcarrier_spacing_khz}, TS 38.211 has "
                f"{', '.join(map(str, SPACINGS_KHZ))}; choose one of these"
            )
        block_hz = self.spacing_hz * BLOCK_SUBCARRIERS
        if not block_hz <= self.bandwidth_hz < block_hz * (MAX_BLOCKS + 1):  # also catches nan
            raise LinkError(
                f"bandwidth_hz is {self.bandwidth_hz:g}, with {self.subcarrier_spacing_khz} kHz "
                f"subcarriers a carrier has {block_hz:g} to {block_hz * MAX_BLOCKS:g}; change it "
                "or the subcarrier spacing"
            )

    @property
    def spacing_hz(self) -> float:
        """Subcarrier spacing."""
        return self.subcarrier_spacing_khz * 1e3

    @property
    def resource_blocks(self) -> int:
        """Resource blocks of the carrier."""
        return int(self.bandwidth_hz / (self.spacing_hz * BLOCK_SUBCARRIERS))

    @property
    def slot_s(self) -> float:
        """Length of a slot."""
        return 15e-3 / self.subcarrier_spacing_khz

    @property
    def cyclic_prefix_s(self) -> float:
        """Echoes within this stay inside their OFDM symbol."""
        return 144 / 2048 / self.spacing_hz

    @cached_property
    def data_mask(self) -> NDArray[np.bool_]:
        """Where data goes in one resource block. [14, 12]"""
        mask = np.ones((SLOT_SYMBOLS, BLOCK_SUBCARRIERS), bool)
        if self.control:
            mask[CONTROL_SYMBOL] = False
        if self.pilots:
            mask[PILOT_SYMBOLS, ::PILOT_STEP] = False
        return mask

    @cached_property
    def block_data_elements(self) -> int:
        """Data elements of one resource block."""
        return int(self.data_mask.sum())

    def data_elements(self, blocks: int) -> NDArray[np.bool_]:
        """Where data goes in a slot of so many resource blocks. [14, 12 * blocks]"""
        return np.tile(self.data_mask, (1, blocks))


def fill_slot(symbols: NDArray[np.complex64], grid: Grid, blocks: int) -> NDArray[np.complex64]:
    """Place data and pilots; what no data is left for stays empty. [14, 12 * blocks]"""
    mask = grid.data_elements(blocks)
    data = np.zeros(blocks * grid.block_data_elements, np.complex64)
    data[: symbols.size] = symbols
    slot = np.zeros(mask.shape, np.complex64)
    slot[mask] = data
    if grid.pilots:
        slot[PILOT_SYMBOLS, ::PILOT_STEP] = pilot_values(mask.shape[1])
    return slot


def equalise(
    received: NDArray[np.complex64], gains: NDArray[Any], noise_power: float, grid: Grid
) -> tuple[NDArray[np.complex64], NDArray[np.float32]]:
    """Data symbols with gain 1, and the noise power on each.

    Args:
        received: One slot. [14, subcarriers]
        gains: Known or estimated. [14, subcarriers] or what broadcasts to it
        noise_power: N0, and the mean square error of the gains.
        grid: Tells data from the rest.
    """
    mask = grid.data_elements(received.shape[1] // BLOCK_SUBCARRIERS)
    gains = np.broadcast_to(gains, received.shape)[mask]
    # A gain of nothing is infinite noise; a large finite number behaves the same and stays finite.
    power = np.maximum(np.abs(gains) ** 2, 1e-9)
    symbols = received[mask] * gains.conj() / power
    return symbols.astype(np.complex64), (noise_power / power).astype(np.float32)


@lru_cache(maxsize=16)
def pilot_values(subcarriers: int) -> NDArray[np.complex64]:
    """QPSK pilots of unit power, the same in every slot. [subcarriers / 2]

    A fixed pseudo-random sequence, so that the time signal has no peak.
    """
    bits = np.random.default_rng(0x5EED).integers(0, 2, (2, MAX_BLOCKS * BLOCK_SUBCARRIERS))
    signs = (1 - 2 * bits[:, : subcarriers // PILOT_STEP]) / math.sqrt(2)
    values: NDArray[np.complex64] = (signs[0] + 1j * signs[1]).astype(np.complex64)
    return values


@dataclass(frozen=True, kw_only=True)
class ChannelStatistics:
    """What an estimator may assume: bounds, not the channel itself."""

    longest_delay_s: float = 0.0
    """Largest echo delay; 0 for a channel that is flat."""
    doppler_hz: float = 0.0
    """Largest Doppler shift; 0 for a channel that stands still over a slot."""


def estimate(
    received: NDArray[np.complex64], grid: Grid, noise_power: float, statistics: ChannelStatistics
) -> tuple[NDArray[np.complex64], float]:
    """Wiener estimate of the channel from the pilots of one slot.

    Robust: it assumes echoes and Doppler spread evenly within their bounds, not their true shape.

    Args:
        received: One slot. [14, subcarriers]
        grid: With pilots.
        noise_power: N0 per element.
        statistics: Bounds of delay and Doppler.

    Returns:
        Gains [14, subcarriers], and their mean square error.

    References:
        Li, Cimini and Sollenberger, "Robust channel estimation for OFDM systems with rapid
        dispersive fading channels", IEEE Trans. Commun. 46(7), 1998.
    """
    subcarriers = received.shape[1]
    raw = received[PILOT_SYMBOLS, ::PILOT_STEP] / pilot_values(subcarriers)
    gains = np.empty(received.shape, np.complex64)
    for first, last in _pieces(subcarriers, statistics):
        time, frequency = _bases(grid, (last - first) // PILOT_STEP, statistics)
        seen = time.analysis @ raw[:, first // PILOT_STEP : last // PILOT_STEP]
        seen = seen @ frequency.analysis.T
        seen /= time.powers[:, None] * frequency.powers + noise_power
        gains[:, first:last] = time.synthesis @ seen @ frequency.synthesis.T
    blocks = subcarriers // BLOCK_SUBCARRIERS
    return gains, estimation_error(grid, blocks, noise_power, statistics)


@lru_cache(maxsize=4096)
def estimation_error(
    grid: Grid, blocks: int, noise_power: float, statistics: ChannelStatistics
) -> float:
    """Mean square error of `estimate` over so many resource blocks, for a channel as assumed."""
    explained = 0.0
    subcarriers = blocks * BLOCK_SUBCARRIERS
    for first, last in _pieces(subcarriers, statistics):
        time, frequency = _bases(grid, (last - first) // PILOT_STEP, statistics)
        powers = time.powers[:, None] * frequency.powers
        share = time.reach[:, None] * frequency.reach / (powers + noise_power)
        explained += float(share.sum()) * (last - first) / subcarriers
    return max(1.0 - explained, 0.0)


def _pieces(subcarriers: int, statistics: ChannelStatistics) -> list[tuple[int, int]]:
    """Subcarriers that are estimated together; all of them where one gain holds for all."""
    step = subcarriers
    if statistics.longest_delay_s > 0:
        step = min(subcarriers, _ESTIMATED_TOGETHER * BLOCK_SUBCARRIERS)
    return [(i, min(i + step, subcarriers)) for i in range(0, subcarriers, step)]


@dataclass(frozen=True)
class _Basis:
    """One axis' correlation between pilots by its eigenvectors, and how these extend to all."""

    powers: NDArray[Any]
    analysis: NDArray[Any]
    synthesis: NDArray[Any]
    reach: NDArray[Any]
    """Mean square of each column of the synthesis."""


@lru_cache(maxsize=64)
def _bases(grid: Grid, pilots: int, statistics: ChannelStatistics) -> tuple[_Basis, _Basis]:
    """Of time and of frequency."""
    doppler = statistics.doppler_hz
    # Echoes beyond the cyclic prefix disturb neighbouring symbols and are not to be estimated.
    spread = min(statistics.longest_delay_s, grid.cyclic_prefix_s)

    def over_time(gap: NDArray[Any]) -> NDArray[Any]:
        return np.sinc(2 * doppler * gap).astype(complex)

    def over_frequency(gap: NDArray[Any]) -> NDArray[Any]:
        return np.exp(-1j * np.pi * gap * spread) * np.sinc(gap * spread)

    times = np.arange(SLOT_SYMBOLS) * grid.slot_s / SLOT_SYMBOLS
    frequencies = np.arange(pilots * PILOT_STEP) * grid.spacing_hz
    return (
        _basis(times, times[list(PILOT_SYMBOLS)], over_time),
        _basis(frequencies, frequencies[::PILOT_STEP], over_frequency),
    )


def _basis(
    places: NDArray[Any], pilots: NDArray[Any], correlation: Callable[[NDArray[Any]], NDArray[Any]]
) -> _Basis:
    powers, vectors = np.linalg.eigh(correlation(pilots[:, None] - pilots))
    keep = powers > 1e-9 * powers.max()  # directions that the channel does not use
    powers, vectors = powers[keep], vectors[:, keep]
    synthesis = correlation(places[:, None] - pilots) @ vectors
    return _Basis(powers, vectors.conj().T, synthesis, (np.abs(synthesis) ** 2).mean(0))
