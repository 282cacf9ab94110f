"""Maintenance: who refreshes which part of the replica, under a budget.

What a refresh is worth is how much what is remembered there will have changed since it was seen; what
was never seen is worth most. What it costs is up to the caller: bits, channel uses, or joules, which
make a UE with a good link the cheaper one to ask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megdt.errors import TwinError
from megdt.mechanisms.panorama import EDGE_COLUMNS, Camera, Panorama
from megdt.records import Side
from megdt.twin.replica import TILE_COLUMNS, Replica

Cost = Callable[[Side, int], float]
"""Of so many columns from a UE."""
Novelty = Callable[[float], float]
"""How much what was seen so many seconds ago will have changed, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Refresh:
    """What one UE is asked to send.

    Args:
        side: The UE.
        columns: Of the panorama, that it sees for sure, rising.
    """

    side: Side
    columns: tuple[int, ...]


def plan_refreshes(
    replica: Replica,
    panorama: Panorama,
    *,
    now_s: float,
    budget: float,
    cost: Cost,
    novelty: Novelty,
) -> tuple[Refresh, ...]:
    """Ask for what has most likely changed most, for its cost.

    Tiles are asked for one by one, of the UE that gains most a unit of cost, as long as the budget
    goes; those of one UE are one refresh.

    Args:
        replica: What is known.
        panorama: Who sees what of it now.
        now_s: On the twin's clock.
        budget: For all refreshes together, in the unit of `cost`.
        cost: Of so many columns from a UE, in one packet.
        novelty: Of an age.

    Raises:
        TwinError: If the panorama is not the replica's.
    """
    _check(replica, panorama)
    worth = _column_worth(replica, now_s, novelty)
    asked: dict[Side, set[int]] = {camera.side: set() for camera in panorama.cameras}
    sees = {camera.side: _seen(panorama, camera) for camera in panorama.cameras}
    left = budget
    while True:
        best: tuple[float, Side, list[int], float] | None = None
        for side, columns in sees.items():
            before = cost(side, len(asked[side])) if asked[side] else 0.0
            for tile in {c // TILE_COLUMNS for c in columns}:
                new = [c for c in columns if c // TILE_COLUMNS == tile and worth[c] > 0]
                price = cost(side, len(asked[side]) + len(new)) - before
                if not new or price > left:
                    continue
                rate = float(worth[new].sum()) / price
                if best is None or rate > best[0]:
                    best = rate, side, new, price
        if best is None:
            break
        _, side, new, price = best
        asked[side] |= set(new)
        # Once is enough, whoever sees it.
        worth[new] = 0
        left -= price
    return tuple(
        Refresh(side=side, columns=tuple(sorted(columns)))
        for side, columns in asked.items()
        if columns
    )


def take_turns(
    panorama: Panorama, order: Sequence[Side], *, budget: float, cost: Cost
) -> tuple[tuple[Refresh, ...], int]:
    """The baseline: whole views, one UE after the other, as many as the budget goes.

    Args:
        panorama: Who sees what of it.
        order: Whose turn it is, from the first on; over again after the last.
        budget: For all refreshes together.
        cost: Of so many columns from a UE.

    Returns:
        The refreshes, and how many turns were taken.
    """
    asked: dict[Side, Refresh] = {}
    left, turns = budget, 0
    for side in order:
        columns = _seen(panorama, panorama.by_side[side])
        price = cost(side, len(columns))
        if price > left:
            break
        asked[side] = Refresh(side=side, columns=columns)
        left -= price
        turns += 1
    return tuple(asked.values()), turns


def _column_worth(replica: Replica, now_s: float, novelty: Novelty) -> NDArray[np.float64]:
    """What refreshing each column is worth: the mean over its latents. [panorama]"""
    ages = replica.ages_s(now_s)
    different, where = np.unique(ages, return_inverse=True)
    values = np.array([1.0 if not np.isfinite(age) else novelty(float(age)) for age in different])
    worth: NDArray[np.float64] = values[where].reshape(ages.shape).mean(0)
    return worth


def _seen(panorama: Panorama, camera: Camera) -> tuple[int, ...]:
    """The columns that a camera sees for sure: without the edges of its view."""
    left = camera.view.start + EDGE_COLUMNS * (camera.view.start > 0)
    right = camera.view.stop - EDGE_COLUMNS * (camera.view.stop < panorama.width)
    return tuple(range(left, right))


def _check(replica: Replica, panorama: Panorama) -> None:
    if replica.width != panorama.width:
        raise TwinError(
            f"the panorama has {panorama.width} columns, the replica {replica.width}; take the replica "
            "of this panorama"
        )
