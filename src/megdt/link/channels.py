"""Channels on NumPy symbols.

Two conventions, and no others:

`awgn`       complex baseband. SNR = Es/N0 per complex channel use, Es = 1, so the noise has power
             N0 = 10^(-SNR/10), half of it in each of the real and imaginary parts.
`awgn_paper` real symbols of any power, their mean included. SNR = mean square of the symbols over
             mean square of the noise. Nothing is normalised; this is the paper's Fig. 6.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def awgn(
    symbols: NDArray[np.complexfloating[Any, Any]], snr_db: float, rng: np.random.Generator
) -> tuple[NDArray[np.complex64], float]:
    """Add complex Gaussian noise to symbols of unit mean power.

    Args:
        symbols: Unit mean power; the noise does not depend on them. [uses]
        snr_db: Es/N0 per complex use.
        rng: Where the noise comes from.

    Returns:
        Noisy symbols [uses], and the noise power N0 per complex use.
    """
    noise_power = 10 ** (-snr_db / 10)
    pairs = rng.standard_normal((2, symbols.size)) * np.sqrt(noise_power / 2)
    return (symbols + pairs[0] + 1j * pairs[1]).astype(np.complex64), noise_power


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
