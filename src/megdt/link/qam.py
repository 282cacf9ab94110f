"""QPSK, 16-, 64- and 256-QAM with the Gray mapping of 3GPP TS 38.211, section 5.1.

Symbols have unit mean power. Log-likelihood ratios are log P(0) / P(1): positive means 0.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

BitsPerSymbol = Literal[2, 4, 6, 8]


@cache
def levels(bits_per_symbol: int) -> NDArray[np.float64]:
    """Amplitudes of one axis, by the value of its bits, the first bit the most significant.

    The even bits of a symbol choose its real part, the odd ones its imaginary part.

    >>> levels(4) * 10**0.5
    array([ 1.,  3., -1., -3.])
    """
    count = bits_per_symbol // 2
    index = np.arange(2**count)
    bits = (index[:, None] >> np.arange(count - 1, -1, -1)) & 1
    amplitude = np.ones(index.size)
    for position in range(count - 1, 0, -1):
        amplitude = 2.0 ** (count - position) - (1 - 2 * bits[:, position]) * amplitude
    amplitude = (1 - 2 * bits[:, 0]) * amplitude
    return amplitude / math.sqrt(2 * np.mean(amplitude**2))


def map_bits(bits: NDArray[np.uint8], bits_per_symbol: int) -> NDArray[np.complex64]:
    """Bits to symbols.

    Args:
        bits: A multiple of bits_per_symbol. [symbols * bits_per_symbol]
        bits_per_symbol: 2, 4, 6 or 8.

    Returns:
        Unit mean power over equally likely bits. [symbols]
    """
    groups = bits.reshape(-1, bits_per_symbol)
    weights = 1 << np.arange(bits_per_symbol // 2 - 1, -1, -1)
    axis = levels(bits_per_symbol).astype(np.float32)
    # An explicit type: the product of uint8 bits with int64 weights would be a slow temporary.
    real, imaginary = groups[:, 0::2] @ weights, groups[:, 1::2] @ weights
    return (axis[real] + 1j * axis[imaginary]).astype(np.complex64)


def demap(
    symbols: NDArray[np.complex64],
    noise_power: float | NDArray[np.floating[Any]],
    bits_per_symbol: int,
) -> NDArray[np.float32]:
    """Exact log-likelihood ratios of every bit, for equally likely symbols.

    Args:
        symbols: Equalised, so that the transmitted symbol has gain 1. [symbols]
        noise_power: Mean square of the complex noise on each, half of it on each axis; one number
            or one a symbol. [symbols]
        bits_per_symbol: 2, 4, 6 or 8.

    Returns:
        log P(0) / P(1). [symbols * bits_per_symbol]
    """
    from megdt.link._kernels import demap_axis

    noise = np.broadcast_to(np.asarray(noise_power, np.float32), symbols.shape)
    found = np.empty((symbols.size, bits_per_symbol), np.float32)
    axis = levels(bits_per_symbol).astype(np.float32)
    symbols = np.ascontiguousarray(symbols, np.complex64)
    demap_axis(symbols.real, noise, axis, found[:, 0::2])
    demap_axis(symbols.imag, noise, axis, found[:, 1::2])
    return found.ravel()


def theoretical_ber(bits_per_symbol: int, esno_db: float) -> float:
    """Bit error rate of hard decisions in AWGN.

    References:
        Cho and Yoon, "On the general BER expression of one- and two-dimensional amplitude
        modulations", IEEE Trans. Commun. 50(7), 2002, equations 16 to 18.
    """
    axis = levels(bits_per_symbol)
    order = np.argsort(axis)
    points = axis[order]
    edges = np.concatenate(([-np.inf], (points[1:] + points[:-1]) / 2, [np.inf]))
    deviation = math.sqrt(10 ** (-esno_db / 10) / 2)
    # Probability that a sent amplitude is decided as another, and the bits in which they differ.
    below = np.vectorize(_gaussian_cdf)((edges[None] - points[:, None]) / deviation)
    decided = np.diff(below, axis=1)
    differ = np.array([[int(a ^ b).bit_count() for b in order] for a in order])
    return float((decided * differ).sum() / points.size / (bits_per_symbol / 2))


def _gaussian_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


@cache
def _information_table(bits_per_symbol: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """SNR in dB, and bits a symbol that bitwise demapping can carry there."""
    axis = levels(bits_per_symbol)
    count = bits_per_symbol // 2
    bits = (np.arange(axis.size)[:, None] >> np.arange(count - 1, -1, -1)) & 1
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)
    weights = weights / weights.sum()
    snr_db = np.arange(-40.0, 60.01, 0.25)
    information = np.empty(snr_db.size)
    for i, value in enumerate(snr_db):
        deviation = math.sqrt(10 ** (-value / 10) / 2)
        received = axis[:, None] + deviation * nodes  # [sent, node]
        distance = -((received[..., None] - axis) ** 2) / (2 * deviation**2)
        likelihood = np.exp(distance - distance.max(-1, keepdims=True))
        lost = 0.0
        for bit in range(count):
            same = bits[:, None, bit] == bits[None, :, bit]  # [sent, hypothesis]
            share = (likelihood * same[:, None]).sum(-1) / likelihood.sum(-1)
            lost -= float((np.log2(np.maximum(share, 1e-300)) * weights).sum() / axis.size)
        information[i] = 2 * (count - lost)
    return snr_db, np.maximum.accumulate(np.clip(information, 0, bits_per_symbol))


def mutual_information(
    snr: NDArray[np.floating[Any]] | float, bits_per_symbol: int
) -> NDArray[np.float64]:
    """Bits a symbol that bit-interleaved coded modulation can carry at each SNR.

    Args:
        snr: Es/N0, linear. [any]
        bits_per_symbol: 2, 4, 6 or 8.

    Returns:
        Bits a symbol, at most bits_per_symbol. [any]

    References:
        Caire, Taricco and Biglieri, "Bit-interleaved coded modulation", IEEE Trans. Inf. Theory
        44(3), 1998.
    """
    table_db, information = _information_table(bits_per_symbol)
    found: NDArray[np.float64] = np.interp(
        10 * np.log10(np.maximum(snr, 1e-12)), table_db, information
    )
    return found


def effective_snr_db(information: float, bits_per_symbol: int) -> float:
    """The SNR in AWGN that carries as many bits a symbol: the inverse of `mutual_information`."""
    table_db, known = _information_table(bits_per_symbol)
    return float(np.interp(information, known, table_db))
