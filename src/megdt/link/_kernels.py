"""Loops of the modem that numba compiles; imported only where a link runs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdt.errors import MissingExtraError

try:
    from numba import njit
except ImportError:
    raise MissingExtraError("a simulated link needs numba; pip install 'megdt[sim]'") from None


@njit(cache=True, fastmath=True, nogil=True)
def demap_axis(
    received: NDArray[Any], noise: NDArray[Any], axis: NDArray[Any], llrs: NDArray[Any]
) -> None:
    """Log-likelihood ratios of the bits of one axis, written into `llrs` [symbols, bits]."""
    bits = llrs.shape[1]
    size = axis.size
    metric = np.empty(size, np.float32)
    for i in range(received.size):
        scale = np.float32(-1.0) / max(noise[i], np.float32(1e-9))
        best = np.float32(-np.inf)
        for j in range(size):
            distance = received[i] - axis[j]
            metric[j] = distance * distance * scale
            best = max(best, metric[j])
        for j in range(size):
            # Below -80 a likelihood adds nothing, and it stays a normal number in float32.
            metric[j] = np.exp(max(metric[j] - best, np.float32(-80.0)))
        for bit in range(bits):
            zero = np.float32(0.0)
            one = np.float32(0.0)
            shift = bits - 1 - bit
            for j in range(size):
                if (j >> shift) & 1:
                    one += metric[j]
                else:
                    zero += metric[j]
            llrs[i, bit] = np.log(zero) - np.log(one)


@njit(cache=True, nogil=True)
def gold_sequence(start: int, length: int) -> NDArray[Any]:
    """The first bits of 3GPP TS 38.211, section 5.2.1; `start` is its c_init."""
    skipped = 1600
    bits = np.empty(length, np.uint8)
    first, second = 1, start
    for i in range(skipped + length):
        if i >= skipped:
            bits[i - skipped] = (first ^ second) & 1
        feedback = (first ^ (first >> 3)) & 1
        first = (first >> 1) | (feedback << 30)
        feedback = (second ^ (second >> 1) ^ (second >> 2) ^ (second >> 3)) & 1
        second = (second >> 1) | (feedback << 30)
    return bits


@njit(cache=True, nogil=True)
def crc(bits: NDArray[Any], polynomial: int, length: int) -> int:
    """Remainder of the bits, first bit first, as 3GPP TS 38.212, section 5.1, defines it."""
    register = 0
    top = 1 << (length - 1)
    mask = (1 << length) - 1
    for bit in bits:
        feedback = (register & top) != 0
        register = (register << 1) & mask
        if feedback != (bit != 0):
            register ^= polynomial
    return register
