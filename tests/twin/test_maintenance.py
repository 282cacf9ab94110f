"""Maintenance: what has changed most is asked for, once, within the budget."""

from __future__ import annotations

import numpy as np
import pytest

from megdt.errors import TwinError
from megdt.mechanisms.panorama import Camera, Panorama
from megdt.records import Feature, Side
from megdt.twin.maintenance import Refresh, plan_refreshes, take_turns
from megdt.twin.replica import Replica
from megdt.twin.store import open_store

UE1, UE2, UE3 = (Side.ue(n) for n in (1, 2, 3))
PANORAMA = Panorama(
    width=96,
    cameras=tuple(Camera(side=Side.ue(n + 1), column=c) for n, c in enumerate((0, 16, 64))),
    margin=12,
)


def cost(side: Side, columns: int) -> float:
    return 10 + columns


def plan(replica: Replica, budget: float = 1e9, **changes: object) -> dict[Side, tuple[int, ...]]:
    settings = {"now_s": 100.0, "cost": cost, "novelty": lambda age: min(age / 100, 1.0), **changes}
    found = plan_refreshes(replica, PANORAMA, budget=budget, **settings)  # type: ignore[arg-type]
    return {refresh.side: refresh.columns for refresh in found}


def replica_seen(*parts: tuple[int, int, float]) -> Replica:
    """Columns from, to, and when they were seen."""
    replica = Replica.blank(32, 96)
    with open_store() as store:
        for start, stop, when in parts:
            values = np.ones((4, 32, stop - start), np.float32)
            replica.refresh(
                Feature(kind="observation", values=values), range(start, stop),
                source=UE1, now_s=when, store=store,
            )  # fmt: skip
    return replica


def test_everything_that_anyone_sees_is_asked_for_once() -> None:
    asked = plan(Replica.blank(32, 96))
    columns = [c for part in asked.values() for c in part]
    # Not the edges of views, but where the panorama ends too.
    assert sorted(columns) == [*range(44), *range(68, 96)]
    assert len(set(columns)) == len(columns)


def test_the_oldest_comes_first_when_there_is_little_to_spend() -> None:
    replica = replica_seen((0, 40, 90.0), (40, 96, 10.0))
    assert plan(replica, budget=18) == {UE3: tuple(range(72, 80))}
    replica = replica_seen((0, 40, 10.0), (40, 96, 90.0))
    (side,) = plan(replica, budget=18)
    assert side in (UE1, UE2)


def test_what_has_not_changed_is_not_asked_for() -> None:
    assert plan(replica_seen((0, 96, 100.0))) == {}


def test_the_cheaper_ue_is_asked_where_two_see_the_same() -> None:
    dear = {UE1: 3.0, UE2: 1.0, UE3: 1.0}
    asked = plan(Replica.blank(32, 96), cost=lambda side, n: dear[side] * (10 + n))
    assert asked[UE2] == tuple(range(20, 44))
    assert asked[UE1] == tuple(range(20))


@pytest.mark.parametrize("budget", [5.0, 20.0, 60.0, 90.0])
def test_the_budget_is_kept(budget: float) -> None:
    asked = plan(Replica.blank(32, 96), budget=budget)
    assert sum(cost(side, len(columns)) for side, columns in asked.items()) <= budget


def test_turns_go_round_as_far_as_the_budget_does() -> None:
    refreshes, turns = take_turns(PANORAMA, (UE2, UE3, UE1), budget=75, cost=cost)
    assert turns == 2
    assert refreshes == (
        Refresh(side=UE2, columns=tuple(range(20, 44))),
        Refresh(side=UE3, columns=tuple(range(68, 96))),
    )


def test_another_panorama_is_told() -> None:
    with pytest.raises(TwinError, match="the panorama has 96 columns, the replica 64"):
        plan(Replica.blank(32, 64))
