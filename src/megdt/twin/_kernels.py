"""Loops of the twin that numba compiles; imported only where a radio map is asked."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdt.errors import MissingExtraError

try:
    from numba import njit
except ImportError:
    raise MissingExtraError("a radio map needs numba; pip install 'megdt[sim]'") from None


@njit(cache=True, nogil=True)
def nearest(
    places: NDArray[Any], known: NDArray[Any], penalty: NDArray[Any], found: NDArray[Any]
) -> None:
    """Indices of the known places with the least distance plus penalty, written into `found`.

    Looks outwards along x until what is found is nearer than x alone.

    Args:
        places: [places, 2]
        known: By rising x, at least as many as are to be found. [known, 2]
        penalty: Metres that each known place counts as farther, 0 or more. [known]
        found: In no order. [places, neighbours]
    """
    count = found.shape[1]
    best = np.empty(count)
    for i in range(places.shape[0]):
        x, y = places[i]
        best[:] = np.inf
        worst = 0
        right = np.searchsorted(known[:, 0], x)
        left = right - 1
        while True:
            before = x - known[left, 0] if left >= 0 else np.inf
            after = known[right, 0] - x if right < known.shape[0] else np.inf
            across = min(before, after)
            if across >= best[worst]:
                break
            if before < after:
                j = left
                left -= 1
            else:
                j = right
                right += 1
            along = y - known[j, 1]
            distance = np.sqrt(across * across + along * along) + penalty[j]
            if distance < best[worst]:
                best[worst] = distance
                found[i, worst] = j
                for n in range(count):
                    if best[n] > best[worst]:
                        worst = n
