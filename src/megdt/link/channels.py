"""Channels, in complex baseband.

Conventions, and no others:

`fair`   SNR = Es/N0 per complex channel use. Symbols have Es = 1, gains have unit mean power, and
         the noise has power N0 = 10^(-SNR/10), half of it in each of the real and imaginary parts.
         Eb/N0 is SNR divided by the information bits a use.
`paper`  real symbols of any power, their mean included. SNR = mean square of the symbols over
         mean square of the noise. Nothing is normalised; this is the paper's Fig. 6.

A `Channel` is what the radio is like; `begin` draws one course of it in time, which `Fading.slot`
then tells slot by slot.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from megdt.errors import LinkError
from megdt.link.grid import ChannelStatistics, Grid

MIN_SNR_DB, MAX_SNR_DB = -40.0, 60.0
LIGHT_M_S = 299_792_458.0

Gains = NDArray[np.complex64]


class Fading(Protocol):
    """One course of a channel."""

    def slot(self, index: int, blocks: int) -> tuple[Gains, float]:
        """Gains of the first `blocks` resource blocks in slot `index`, and N0.

        Slots are asked for in any order, each any number of times.

        Returns:
            [14, 12 * blocks] or what broadcasts to it; noise power per complex use.
        """
        ...


class Channel(Protocol):
    """What the radio is like."""

    @property
    def statistics(self) -> ChannelStatistics:
        """Bounds that a receiver may assume when it estimates the channel."""
        ...

    def begin(self, grid: Grid, rng: np.random.Generator) -> Fading:
        """Draw one course; all randomness comes from the generator."""
        ...


def awgn(
    symbols: NDArray[np.complexfloating[Any, Any]],
    noise_power: float,
    rng: np.random.Generator,
) -> NDArray[np.complex64]:
    """Add complex Gaussian noise.

    Args:
        symbols: [any]
        noise_power: N0 per complex use.
        rng: Where the noise comes from.
    """
    pairs = rng.standard_normal((2, *symbols.shape), np.float32) * math.sqrt(noise_power / 2)
    noisy: NDArray[np.complex64] = (symbols + pairs[0] + 1j * pairs[1]).astype(np.complex64)
    return noisy


def awgn_paper(
    symbols: NDArray[np.floating[Any]], snr_db: float, rng: np.random.Generator
) -> tuple[NDArray[np.float32], float]:
    """Add real Gaussian noise relative to the symbols' own mean square.

    Args:
        symbols: Raw values. [uses]
        snr_db: Mean square of the symbols over mean square of the noise.
        rng: Where the noise comes from.

    Returns:
        Noisy values [uses], and the noise power per real use.
    """
    noise_power = float(np.mean(symbols.astype(np.float64) ** 2)) * 10 ** (-snr_db / 10)
    noise = rng.standard_normal(symbols.size) * np.sqrt(noise_power)
    return (symbols + noise).astype(np.float32), noise_power


def capacity_bits(snr_db: float) -> float:
    """Capacity of the complex AWGN channel, bits per complex use.

    >>> capacity_bits(0.0)
    1.0
    """
    return float(np.log2(1 + 10 ** (snr_db / 10)))


def check_snr_db(snr_db: float) -> None:
    """Raise a LinkError where an SNR is out of range."""
    if not MIN_SNR_DB <= snr_db <= MAX_SNR_DB:  # also catches nan
        raise LinkError(
            f"snr_db is {snr_db:g}, this link takes {MIN_SNR_DB:g} to {MAX_SNR_DB:g}; "
            "choose an SNR in that range"
        )


def doppler_hz(speed_m_s: float, carrier_frequency_hz: float) -> float:
    """Largest Doppler shift at a speed."""
    return speed_m_s * carrier_frequency_hz / LIGHT_M_S


@dataclass(frozen=True, kw_only=True)
class BlockFading:
    """A flat gain that stays for a coherence time, then is drawn anew.

    Args:
        snr_db: Mean Es/N0.
        k_factor: Power of the direct path over that of the scattered ones, linear: 0 is Rayleigh,
            infinity is AWGN.
        coherence_time_s: Infinite for one gain all the time.
    """

    snr_db: float
    k_factor: float = 0.0
    coherence_time_s: float = math.inf

    def __post_init__(self) -> None:
        check_snr_db(self.snr_db)
        if not self.coherence_time_s > 0:
            raise LinkError(
                f"coherence_time_s is {self.coherence_time_s:g}, it must be above 0; "
                "10 ms is usual for walking"
            )

    @property
    def statistics(self) -> ChannelStatistics:
        """Flat, and still within a slot."""
        return ChannelStatistics()

    def begin(self, grid: Grid, rng: np.random.Generator) -> Fading:
        """Draw gains as they are asked for."""
        return _BlockFading(self, grid, rng)


class _BlockFading:
    def __init__(self, channel: BlockFading, grid: Grid, rng: np.random.Generator) -> None:
        self.channel, self.grid, self.rng = channel, grid, rng
        self.noise_power = 10 ** (-channel.snr_db / 10)
        self.drawn: list[complex] = []

    def slot(self, index: int, blocks: int) -> tuple[Gains, float]:
        del blocks
        # The gain changes between slots only: a coherence time below a slot is one slot.
        step = max(self.channel.coherence_time_s, self.grid.slot_s)
        block = int((index + 0.5) * self.grid.slot_s / step)
        while len(self.drawn) <= block:
            self.drawn.append(self._draw())
        return np.full((1, 1), self.drawn[block], np.complex64), self.noise_power

    def _draw(self) -> complex:
        k = self.channel.k_factor
        if math.isinf(k):
            return 1.0
        real, imaginary = self.rng.standard_normal(2) / math.sqrt(2)
        phase = self.rng.uniform(0, 2 * math.pi)
        direct = math.sqrt(k / (k + 1)) * complex(math.cos(phase), math.sin(phase))
        return direct + math.sqrt(1 / (k + 1)) * complex(real, imaginary)
