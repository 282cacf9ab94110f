"""Driving: vehicles that go round and round through a city, over ground that rays reach."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megdt.errors import WorldError

_STOPS = 6
"""Places that each vehicle goes to in turn, over again after the last."""
_NEXT = tuple((r, c) for r in (-1, 0, 1) for c in (-1, 0, 1) if r or c)

Cell = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Tours:
    """The ways of some vehicles, each closed.

    Args:
        places_m: Of each vehicle, corner by corner; the first stands at the end again.
            [corners, 2] each
        speeds_m_s: Of each. [vehicles]
        starts_m: How far along each is at time 0. [vehicles]
    """

    places_m: tuple[NDArray[np.float64], ...]
    speeds_m_s: NDArray[np.float64]
    starts_m: NDArray[np.float64]

    def positions_m(self, time_s: float) -> NDArray[np.float64]:
        """Where they are. [vehicles, 2]"""
        found = []
        for places, speed, start in zip(self.places_m, self.speeds_m_s, self.starts_m, strict=True):
            along = np.concatenate(
                [[0.0], np.cumsum(np.linalg.norm(np.diff(places, axis=0), axis=1))]
            )
            at = (start + speed * time_s) % along[-1]
            found.append([np.interp(at, along, places[:, axis]) for axis in (0, 1)])
        return np.array(found)


def drive(
    rng_seed: int,
    centres_m: NDArray[np.float64],
    free: NDArray[np.bool_],
    *,
    vehicles: int,
    speed_m_s: float,
) -> Tours:
    """Send vehicles on tours by the shortest ways over free cells.

    Args:
        rng_seed: Draws where they go; the same seed gives the same tours everywhere.
        centres_m: Of the cells. [rows, columns, 2]
        free: Where one can drive: a map's cells that some ray has reached are no houses.
            [rows, columns]
        vehicles: How many.
        speed_m_s: Of each, give or take a quarter.

    Raises:
        WorldError: If there is too little free ground.
    """
    rng = np.random.default_rng((rng_seed, 24))
    ground = _largest(free)
    if len(ground) < 2 * _STOPS:
        raise WorldError(
            f"{len(ground)} cells of the map hang together; vehicles need more ground: trace more "
            "rays, or a larger square"
        )
    tours = []
    for _ in range(vehicles):
        stops = [ground[i] for i in rng.choice(len(ground), _STOPS, replace=False)]
        cells = [stops[0]]
        for start, end in zip(stops, [*stops[1:], stops[0]], strict=True):
            cells += _way(start, end, free)[1:]
        tours.append(np.array([centres_m[cell] for cell in cells]))
    return Tours(
        places_m=tuple(tours),
        speeds_m_s=speed_m_s * rng.uniform(0.75, 1.25, vehicles),
        starts_m=rng.uniform(0, 1000, vehicles),
    )


def _neighbours(cell: Cell, free: NDArray[np.bool_]) -> list[Cell]:
    """Free cells beside one; across a corner only where both cells at it are free."""
    row, column = cell
    found = []
    for r, c in _NEXT:
        to = row + r, column + c
        inside = 0 <= to[0] < free.shape[0] and 0 <= to[1] < free.shape[1]
        if inside and free[to] and free[row, to[1]] and free[to[0], column]:
            found.append(to)
    return found


def _reached(start: Cell, free: NDArray[np.bool_]) -> dict[Cell, Cell]:
    """All cells that can be reached, each with the one before it on the shortest way."""
    before = {start: start}
    waiting = deque([start])
    while waiting:
        cell = waiting.popleft()
        for to in _neighbours(cell, free):
            if to not in before:
                before[to] = cell
                waiting.append(to)
    return before


def _largest(free: NDArray[np.bool_]) -> list[Cell]:
    """The largest part of the free cells that hangs together."""
    left = {(int(r), int(c)) for r, c in np.argwhere(free)}
    best: list[Cell] = []
    while len(left) > len(best):
        part = _reached(min(left), free)
        best = max(best, sorted(part), key=len)
        left -= part.keys()
    return best


def _way(start: Cell, end: Cell, free: NDArray[np.bool_]) -> list[Cell]:
    before = _reached(start, free)
    cells = [end]
    while cells[-1] != start:
        cells.append(before[cells[-1]])
    return cells[::-1]
