"""The decisions of a thumbnail, for its writer; numba compiles it, so import it where it runs.

A sender tries some seven levels before it knows the finest that fits. Decision by decision from Python
that takes longer than a server's graphics card takes to draw the picture. A receiver reads one
thumbnail, and does without: `sketch_coding._code_thumbnail` says the same in a form that also reads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdt.errors import MissingExtraError

try:
    from numba import njit
except ImportError:
    raise MissingExtraError("writing a thumbnail needs numba; pip install 'megdt[sim]'") from None

_PLACES = 20  # depth 0 to 4, colour or luma, along one direction or both
# One kind of context after the other in one table of counts.
_ANY = 0
_ZERO = _ANY + _PLACES
_SIGN = _ZERO + 12 * _PLACES
_MORE = _SIGN + 1
_DOUBLE = _MORE + 5 * _PLACES
_REST = _DOUBLE + 12
_CONTEXTS = _REST + 12 * 2048


@njit(cache=True)
def decide_thumbnail(
    numbers: NDArray[np.int32], bands: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Every decision, and the probability of a one in 4096ths that it is coded under.

    Args:
        numbers: What `simplify` has kept. [cells, cells, planes]
        bands: Depth, top, left and size, coarse to fine. [bands, 4]

    Returns:
        [decisions] each.
    """
    seen = np.empty((_CONTEXTS, 2), np.int32)  # twice the ones and all, with one of each ahead
    seen[:, 0] = 1
    seen[:, 1] = 2
    # A number takes at most 36: zero or not, its sign, 11 to go on, 12 to double, 11 of the rest.
    most = bands.shape[0] * numbers.shape[2] + 36 * numbers.size
    out = (np.empty(most, np.int32), np.empty(most, np.int32), np.zeros(1, np.int64), seen)
    deepest = bands[0, 0]
    for plane in range(numbers.shape[2]):
        for index in range(bands.shape[0]):
            depth, top, left, size = bands[index]
            place = 4 * depth + 2 * (plane > 0) + (top > 0 and left > 0)
            band = numbers[top : top + size, left : left + size, plane]
            if not _bit(out, _ANY + place, int(band.any())):
                continue
            above = np.zeros(size + 2, np.int32)
            for y in range(size):
                row = np.zeros(size + 2, np.int32)
                for x in range(size):
                    near = 2 * (row[x] + above[x + 1]) + above[x] + above[x + 2]
                    parent = depth < deepest - 1 and (
                        numbers[top // 2 + y // 2, left // 2 + x // 2, plane] != 0
                    )
                    known = _ZERO + 12 * place + 2 * min(near, 5) + parent
                    _number(out, known, place, band[y, x])
                    row[x + 1] = min(abs(band[y, x]), 2)
                above = row
    count = out[2][0]
    return out[0][:count], out[1][:count]


@njit(cache=True)
def _number(out: Any, known: int, place: int, value: int) -> None:
    if not _bit(out, known, value != 0):
        return
    _bit(out, _SIGN, value < 0)
    wanted, size = abs(value), 1
    while size < 12 and _bit(out, _MORE + 5 * place + min(size, 4), wanted > size):
        size += 1
    if size < 12:
        return
    rest, bits = wanted - size + 1, 0
    while bits < 11 and _bit(out, _DOUBLE + bits, rest >> (bits + 1) > 0):
        bits += 1
    rest -= 1 << bits
    node = 1
    for at in range(bits - 1, -1, -1):
        one = rest >> at & 1
        _bit(out, _REST + 2048 * bits + node, one)
        node = 2 * node + one


@njit(cache=True)
def _bit(out: Any, context: int, value: int) -> int:
    values, probabilities, count, seen = out
    ones, total = seen[context, 0], seen[context, 1]
    values[count[0]] = value
    probabilities[count[0]] = min(max((ones << 12) // total, 32), 4064)
    count[0] += 1
    ones += 2 * value
    total += 2
    if total > 254:  # what was seen long ago counts less
        ones, total = ones >> 1 | 1, total >> 1
    seen[context, 0], seen[context, 1] = ones, total
    return value
