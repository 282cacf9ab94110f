"""KID of paired sets with its uncertainty, and means with theirs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

BLOCKS = 50
Array = NDArray[np.float64]


def kid_jackknife(features: NDArray[Any], reference: NDArray[Any]) -> Array:
    """KID, then KID without each block of pictures. [1 + blocks]

    The kernel is that of `megdt.models.quality.kid`. Row i of both sets belongs to one scene, so
    the pairs (i, i) are left out of the cross term as well: without, equal sets would read below 0.

    Args:
        features: [pictures, dimensions]
        reference: [pictures, dimensions]

    References:
        Gretton et al., A Kernel Two-Sample Test, 2012, equation (4).
    """
    x, y = features.astype(np.float64), reference.astype(np.float64)
    count, dimensions = x.shape
    cross = (x @ y.T / dimensions + 1) ** 3
    terms = (x @ x.T / dimensions + 1) ** 3 + (y @ y.T / dimensions + 1) ** 3 - cross - cross.T
    np.fill_diagonal(terms, 0)
    blocks = np.array_split(np.arange(count), min(BLOCKS, count))
    starts = [block[0] for block in blocks]
    sums = np.add.reduceat(np.add.reduceat(terms, starts, 0), starts, 1)
    total, found = sums.sum(), []
    found.append(total / (count * (count - 1)))
    for number, block in enumerate(blocks):
        left = count - len(block)
        rest = total - 2 * sums[number].sum() + sums[number, number]
        found.append(rest / (left * (left - 1)))
    return np.array(found)


def jackknife_interval(replicates: Array) -> tuple[float, float]:
    """A figure and half of its 95 % confidence interval; replicates as `kid_jackknife` gives."""
    value, rest = float(replicates[0]), replicates[1:]
    blocks = len(rest)
    error = np.sqrt((blocks - 1) / blocks * np.sum((rest - rest.mean()) ** 2))
    return value, float(stats.t.ppf(0.975, blocks - 1) * error)


def mean_interval(values: NDArray[Any]) -> tuple[float, float | None]:
    """A mean over pictures and half of its 95 % confidence interval, by Student's t."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    return mean, float(stats.t.ppf(0.975, len(values) - 1) * error)
