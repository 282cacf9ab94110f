"""Maintenance: who refreshes which parts of the replica, under a budget.

A part is a block of latents. What its refresh is worth is how much it has changed, as far as a digest
of what a UE sees tells (`codecs/digest.py`); without one, how much it will have changed since it was
seen. What it costs is up to the caller: bits, channel uses, or joules, which make a UE with a good
link the cheaper one to ask.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from megdt.codecs.observation import BLOCK, split_blocks
from megdt.errors import TwinError
from megdt.mechanisms.panorama import EDGE_COLUMNS, Camera, Panorama, cut
from megdt.records import Feature, Side
from megdt.twin.replica import Replica

Cost = Callable[[Side, float], float]
"""Of so many columns from a UE; a part of a column counts as such."""
Novelty = Callable[[float], float]
"""How much what was seen so many seconds ago will have changed, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Refresh:
    """What one UE is asked to send.

    Args:
        side: The UE.
        columns: Of the panorama, that it is asked about, rising.
        blocks: Which blocks of them it sends; None for all. [height / BLOCK, columns / BLOCK]
    """

    side: Side
    columns: tuple[int, ...]
    blocks: NDArray[np.bool_] | None = None

    def of(self, observation: Feature, view: range) -> Feature:
        """What is sent of an observation: the columns, with confidence 0 where they are not asked for.

        Args:
            observation: What the UE sees. [latent_channels, height, view]
            view: Its columns.
        """
        part = cut(observation, view, self.columns)
        if self.blocks is None:
            return part
        asked = np.repeat(np.repeat(self.blocks, BLOCK, 0), BLOCK, 1).astype(np.float32)
        seen = asked if part.confidence is None else np.minimum(asked, part.confidence)
        return replace(part, confidence=seen)


def share_out(panorama: Panorama, cost: Cost) -> dict[Side, tuple[int, ...]]:
    """Which columns each UE is asked about: what several see, the cheapest of them.

    Columns are those that it sees for sure, in whole blocks; a block that reaches into what another
    is asked about goes with both.

    Args:
        panorama: Who sees what of it.
        cost: Of so many columns from a UE.
    """
    taken: set[int] = set()
    asked: dict[Side, tuple[int, ...]] = {}
    for camera in sorted(panorama.cameras, key=lambda c: cost(c.side, c.width)):
        seen = _seen(panorama, camera)
        blocks = [seen[at : at + BLOCK] for at in range(0, len(seen) - BLOCK + 1, BLOCK)]
        columns = tuple(c for block in blocks if not taken.issuperset(block) for c in block)
        taken |= set(columns)
        if columns:
            asked[camera.side] = columns
    return asked


def plan_refreshes(
    replica: Replica,
    panorama: Panorama,
    *,
    now_s: float,
    budget: float,
    cost: Cost,
    novelty: Novelty,
    changes: Mapping[Side, NDArray[np.float64]] | None = None,
) -> tuple[Refresh, ...]:
    """Ask for what has changed most, for its cost, as far as the budget goes.

    Args:
        replica: What is known.
        panorama: Who sees what of it now.
        now_s: On the twin's clock.
        budget: For all refreshes together, in the unit of `cost`.
        cost: Of so many columns from a UE, in one packet.
        novelty: Of an age; what was never seen counts 1. Stands in where there is no digest.
        changes: By how much each block of the columns of `share_out` has changed, 0 for not at all,
            of the UEs that sent a digest. In its unit, in which a block never seen counts 1.
            [height / BLOCK, columns / BLOCK]

    Returns:
        One refresh a UE at most. No block of it is worth nothing.

    Raises:
        TwinError: If the panorama is not the replica's, or changes are of other columns.
    """
    _check(replica, panorama)
    asked = share_out(panorama, cost)
    worth = {}
    for side, columns in asked.items():
        told = (changes or {}).get(side)
        if told is None:
            worth[side] = _block_worth(replica, columns, now_s, novelty)
            continue
        unseen = _block_worth(replica, columns, now_s, lambda age: 0.0)
        if np.shape(told) != unseen.shape:
            raise TwinError(
                f"changes of {side} are {np.shape(told)}, its {len(columns)} columns have "
                f"{unseen.shape} blocks; compare its digest over the columns of share_out"
            )
        worth[side] = np.maximum(told, unseen)
    a_block = BLOCK * BLOCK / replica.height
    chosen = {side: np.zeros(w.size, bool) for side, w in worth.items()}
    orders = {side: np.argsort(-w, axis=None, kind="stable") for side, w in worth.items()}
    # Each UE's best block that is left, the best of all first; ties go by the order of UEs.
    queue: list[tuple[float, int, Side, float]] = []

    def offer(number: int, side: Side) -> None:
        count = int(chosen[side].sum())
        if count < worth[side].size:
            value = float(worth[side].flat[orders[side][count]])
            before = cost(side, count * a_block) if count else 0.0
            price = cost(side, (count + 1) * a_block) - before
            if value > 0:
                heapq.heappush(queue, (-value / price, number, side, price))

    for number, side in enumerate(asked):
        offer(number, side)
    left = budget
    while queue:
        _, number, side, price = heapq.heappop(queue)
        if price > left:
            continue
        left -= price
        chosen[side][orders[side][chosen[side].sum()]] = True
        offer(number, side)
    return tuple(
        Refresh(side=side, columns=asked[side], blocks=blocks.reshape(worth[side].shape))
        for side, blocks in chosen.items()
        if blocks.any()
    )


def plan_views(
    replica: Replica,
    panorama: Panorama,
    *,
    now_s: float,
    budget: float,
    cost: Cost,
    novelty: Novelty,
    doubted: Collection[Side] = (),
) -> tuple[Refresh, ...]:
    """Ask for whole views, as `ue_to_es` sends them: that which gains most for its cost first.

    Args:
        replica: What is known.
        panorama: Who sees what of it now.
        now_s: On the twin's clock.
        budget: For all of them together, in the unit of `cost`.
        cost: Of so many columns from a UE.
        novelty: Of an age; what was never seen counts 1.
        doubted: Sources whose looking does not count.

    Raises:
        TwinError: If the panorama is not the replica's.
    """
    _check(replica, panorama)
    worth = _worth(replica.ages_s(now_s, doubted), novelty).mean(0)
    waiting = list(panorama.cameras)
    asked, left = [], budget
    while waiting:
        rates = [
            float(worth[list(_seen(panorama, camera))].sum()) / cost(camera.side, camera.width)
            for camera in waiting
        ]
        best = int(np.argmax(rates))
        camera, rate = waiting.pop(best), rates[best]
        price = cost(camera.side, camera.width)
        if rate <= 0 or price > left:
            continue
        columns = _seen(panorama, camera)
        asked.append(Refresh(side=camera.side, columns=columns))
        worth[list(columns)] = 0  # once is enough, whoever sees it
        left -= price
    return tuple(asked)


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


def _block_worth(
    replica: Replica, columns: tuple[int, ...], now_s: float, novelty: Novelty
) -> NDArray[np.float64]:
    """What refreshing each block is worth by age: the mean over its latents. [rows, columns]"""
    values = _worth(replica.ages_s(now_s)[:, list(columns)], novelty)
    worth: NDArray[np.float64] = split_blocks(values[None]).mean(2)
    return worth


def _worth(ages_s: NDArray[np.float64], novelty: Novelty) -> NDArray[np.float64]:
    """What refreshing each latent is worth by its age. As ages_s"""
    different, where = np.unique(ages_s, return_inverse=True)
    values = np.array([novelty(float(age)) if math.isfinite(age) else 1.0 for age in different])
    worth: NDArray[np.float64] = values[where].reshape(ages_s.shape)
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
    if replica.height % BLOCK:
        raise TwinError(
            f"the replica is {replica.height} latents high, it is refreshed in blocks of {BLOCK}; take a "
            "multiple"
        )
