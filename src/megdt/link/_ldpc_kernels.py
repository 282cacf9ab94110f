"""Loops of the LDPC code that numba compiles; imported only where a link runs.

Everything works on rows of Z neighbours, so that the innermost loops are plain and contiguous. A
circulant with shift s reads element (z + s) mod Z: two stretches, split where it wraps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdt.errors import MissingExtraError

try:
    from numba import njit
except ImportError:
    raise MissingExtraError("a simulated link needs numba; pip install 'megdt[sim]'") from None

Array = NDArray[Any]


@njit(cache=True, nogil=True)
def _add_shifted(total: Array, values: Array, shift: int) -> None:
    """total[z] ^= values[(z + shift) mod Z]."""
    whole = total.size - shift
    upper, wrapped = values[shift:], total[whole:]
    for z in range(whole):
        total[z] ^= upper[z]
    for z in range(shift):
        wrapped[z] ^= values[z]


@njit(cache=True, nogil=True)
def encode(
    words: Array, starts: Array, columns: Array, shifts: Array, systematic: int, core: Array
) -> None:
    """Fill in the parity columns of every word. [blocks, columns, Z]

    `core` lists (row, parity column that it determines) for the columns after the first one;
    its first line is the shift of the first one in the sum of the four core rows.
    """
    size = words.shape[2]
    sums = np.empty((4, size), np.uint8)
    total = np.empty(size, np.uint8)
    for block in range(words.shape[0]):
        word = words[block]
        total[:] = 0
        for row in range(4):
            sums[row] = 0
            for edge in range(starts[row], starts[row + 1]):
                if columns[edge] < systematic:
                    _add_shifted(sums[row], word[columns[edge]], shifts[edge])
            total ^= sums[row]
        for z in range(size):
            word[systematic, (z + core[0, 0]) % size] = total[z]
        for step in range(1, 4):
            row, target = core[step, 0], core[step, 1]
            for edge in range(starts[row], starts[row + 1]):
                if columns[edge] >= systematic and columns[edge] != target:
                    _add_shifted(sums[row], word[columns[edge]], shifts[edge])
            word[target] = sums[row]
        for row in range(4, starts.size - 1):
            total[:] = 0
            for edge in range(starts[row], starts[row + 1] - 1):
                _add_shifted(total, word[columns[edge]], shifts[edge])
            word[columns[starts[row + 1] - 1]] = total


@njit(cache=True, nogil=True, fastmath={"nnan", "ninf", "nsz", "contract"})
def _update_row(
    posterior: Array, messages: Array, columns: Array, shifts: Array, scratch: Array, offset: Any
) -> None:
    """One layer: Z checks at once, offset min-sum."""
    size, degree = posterior.shape[1], columns.size
    least, second = scratch[degree], scratch[degree + 1]
    sign = scratch[degree + 2].view(np.int32)
    for z in range(size):
        least[z] = np.float32(3e38)
        second[z] = np.float32(3e38)
        sign[z] = 0
    for i in range(degree):
        whole = size - shifts[i]
        source, message, incoming = posterior[columns[i]], messages[i], scratch[i]
        upper = source[shifts[i] :]
        for z in range(whole):
            incoming[z] = upper[z] - message[z]
        wrapped, wrapped_message = incoming[whole:], message[whole:]
        for z in range(shifts[i]):
            wrapped[z] = source[z] - wrapped_message[z]
        signs = incoming.view(np.int32)
        for z in range(size):
            magnitude = abs(incoming[z])
            second[z] = min(second[z], max(least[z], magnitude))
            least[z] = min(least[z], magnitude)
            sign[z] ^= signs[z]
    for z in range(size):
        # What a check says, for all bits but the least certain one, and for that one.
        least_heard = max(least[z] - offset, np.float32(0.0))
        second[z] = max(second[z] - offset, np.float32(0.0))
        scratch[degree + 3, z] = least_heard
    heard_by_most = scratch[degree + 3]
    for i in range(degree):
        whole = size - shifts[i]
        target, message, incoming = posterior[columns[i]], messages[i], scratch[i]
        signs = incoming.view(np.int32)
        for z in range(size):
            # Both are loaded in any case: a load that depends on a condition is not made wide.
            for_most, for_least = heard_by_most[z], second[z]
            # With a tie for the least, second and least are the same.
            heard = for_least if abs(incoming[z]) == least[z] else for_most
            # The product of the others' signs.
            message[z] = -heard if (sign[z] ^ signs[z]) < 0 else heard
        upper = target[shifts[i] :]
        for z in range(whole):
            upper[z] = incoming[z] + message[z]
        wrapped, wrapped_message = incoming[whole:], message[whole:]
        for z in range(shifts[i]):
            target[z] = wrapped[z] + wrapped_message[z]


@njit(cache=True, nogil=True)
def _satisfied(
    hard: Array, rows: Array, starts: Array, columns: Array, shifts: Array, total: Array
) -> bool:
    """Whether all checks of these rows hold."""
    for row in rows:
        total[:] = 0
        for edge in range(starts[row], starts[row + 1]):
            _add_shifted(total, hard[columns[edge]], shifts[edge])
        if total.max() != 0:
            return False
    return True


@njit(cache=True, nogil=True)
def decode(
    llrs: Array,
    starts: Array,
    columns: Array,
    shifts: Array,
    offset: float,
    max_iterations: int,
    systematic: int,
    bits: Array,
    iterations: Array,
) -> None:
    """Layered decoding, block by block; iterations are negative where checks are left unsatisfied.

    llrs [blocks, columns, Z], bits [blocks, systematic columns, Z], iterations [blocks]
    """
    size = llrs.shape[2]
    hard: Array = np.empty(llrs.shape[1:], np.uint8)
    total = np.empty(size, np.uint8)
    messages = np.empty((columns.size, size), np.float32)
    scratch = np.empty((32, size), np.float32)
    rows = np.empty(starts.size - 1, np.int64)
    step = np.float32(offset)  # a float64 would make all loops wide
    for block in range(llrs.shape[0]):
        posterior = llrs[block]
        # A row whose own parity column was not received at all can tell nothing.
        used = 0
        for row in range(starts.size - 1):
            heard = row < 4
            if not heard:
                for value in posterior[columns[starts[row + 1] - 1]]:
                    if value != 0:
                        heard = True
                        break
            if heard:
                rows[used] = row
                used += 1
        messages[:] = 0
        iterations[block] = -max_iterations
        for iteration in range(1, max_iterations + 1):
            for row in rows[:used]:
                first, last = starts[row], starts[row + 1]
                _update_row(
                    posterior,
                    messages[first:last],
                    columns[first:last],
                    shifts[first:last],
                    scratch,
                    step,
                )
            for column in range(hard.shape[0]):
                for z in range(size):
                    hard[column, z] = posterior[column, z] < 0
            if _satisfied(hard, rows[:used], starts, columns, shifts, total):
                iterations[block] = iteration
                break
        bits[block] = hard[:systematic]
