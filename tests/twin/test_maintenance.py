"""Maintenance: what has changed most is asked for, once, within the budget."""

from __future__ import annotations

import numpy as np
import pytest

from megdt.codecs.observation import BLOCK
from megdt.errors import TwinError
from megdt.mechanisms.panorama import Camera, Panorama
from megdt.records import Feature, Side
from megdt.twin.maintenance import (
    Refresh,
    plan_refreshes,
    plan_views,
    share_out,
    take_turns,
)
from megdt.twin.replica import Replica
from megdt.twin.store import open_store

UE1, UE2, UE3 = (Side.ue(n) for n in (1, 2, 3))
PANORAMA = Panorama(
    width=96,
    cameras=tuple(Camera(side=Side.ue(n + 1), column=c) for n, c in enumerate((0, 16, 64))),
    margin=12,
)


def cost(side: Side, columns: float) -> float:
    return 10 + columns


def plan(replica: Replica, budget: float = 1e9, **changes: object) -> dict[Side, Refresh]:
    settings = {"now_s": 100.0, "cost": cost, "novelty": lambda age: min(age / 100, 1.0), **changes}
    found = plan_refreshes(replica, PANORAMA, budget=budget, **settings)  # type: ignore[arg-type]
    return {refresh.side: refresh for refresh in found}


def asked_columns(refresh: Refresh) -> list[int]:
    """Those of which anything is asked."""
    assert refresh.blocks is not None
    return [c for k, c in enumerate(refresh.columns) if refresh.blocks[:, k // BLOCK].any()]


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
    assert all(refresh.blocks is not None and refresh.blocks.all() for refresh in asked.values())
    columns = [c for refresh in asked.values() for c in refresh.columns]
    # Not the edges of views, but where the panorama ends too.
    assert sorted(columns) == [*range(44), *range(68, 96)]
    assert len(set(columns)) == len(columns)


def test_the_oldest_comes_first_when_there_is_little_to_spend() -> None:
    asked = plan(replica_seen((0, 80, 90.0), (80, 84, 10.0), (84, 96, 90.0)), budget=14)
    assert list(asked) == [UE3]
    assert asked_columns(asked[UE3]) == [80, 81, 82, 83]
    (side,) = plan(replica_seen((0, 44, 10.0), (44, 96, 90.0)), budget=18)
    assert side in (UE1, UE2)


def test_what_has_not_changed_is_not_asked_for() -> None:
    assert plan(replica_seen((0, 96, 100.0))) == {}


def test_the_cheaper_ue_is_asked_where_two_see_the_same() -> None:
    dear = {UE1: 3.0, UE2: 1.0, UE3: 1.0}
    asked = share_out(PANORAMA, lambda side, n: dear[side] * (10 + n))
    assert asked == {UE2: tuple(range(20, 44)), UE3: tuple(range(68, 96)), UE1: tuple(range(20))}


@pytest.mark.parametrize("budget", [5.0, 20.0, 60.0, 90.0])
def test_the_budget_is_kept(budget: float) -> None:
    asked = plan(Replica.blank(32, 96), budget=budget)
    spent = 0.0
    for side, refresh in asked.items():
        assert refresh.blocks is not None
        spent += cost(side, refresh.blocks.sum() * BLOCK * BLOCK / 32)
    assert budget - 11 < spent <= budget or spent == 0


def test_what_digests_tell_stands_in_the_place_of_age() -> None:
    replica = replica_seen((0, 96, 90.0))
    changes = {
        side: np.zeros((8, len(c) // BLOCK)) for side, c in share_out(PANORAMA, cost).items()
    }
    changes[UE2][3, 1] = 0.7
    changes[UE3][6, 2] = 0.3
    asked = plan(replica, changes=changes)
    assert {side: np.argwhere(r.blocks).tolist() for side, r in asked.items()} == {
        UE2: [[3, 1]],
        UE3: [[6, 2]],
    }
    assert list(plan(replica, changes=changes, budget=10.6)) == [UE2]
    # A UE without a digest is asked by age.
    del changes[UE1]
    blocks = plan(replica, changes=changes)[UE1].blocks
    assert blocks is not None
    assert blocks.all()


def test_what_nobody_has_seen_is_asked_for_whatever_the_digest_says() -> None:
    changes = {
        side: np.zeros((8, len(c) // BLOCK)) for side, c in share_out(PANORAMA, cost).items()
    }
    asked = plan(replica_seen((0, 68, 90.0), (72, 96, 90.0)), changes=changes)
    assert list(asked) == [UE3]
    assert asked_columns(asked[UE3]) == [68, 69, 70, 71]


def test_the_parts_asked_for_are_all_that_changes_in_the_replica() -> None:
    replica = replica_seen((0, 96, 90.0))
    blocks = np.zeros((8, 6), bool)
    blocks[2, 0] = blocks[7, 5] = True
    refresh = Refresh(side=UE2, columns=tuple(range(20, 44)), blocks=blocks)
    sight = Feature(kind="observation", values=np.full((4, 32, 32), 2.0, np.float32))
    part = refresh.of(sight, PANORAMA.by_side[UE2].view)
    with open_store() as store:
        replica.refresh(part, refresh.columns, source=UE2, now_s=100, store=store)
    changed = np.zeros((32, 96), bool)
    changed[8:12, 20:24] = changed[28:32, 40:44] = True
    assert ((replica.values == 2.0) == changed).all()
    assert ((replica.seen_s == 100.0) == changed).all()


def test_changes_of_other_columns_are_told() -> None:
    with pytest.raises(
        TwinError, match=r"changes of UE1 are \(8, 3\), its 28 columns have \(8, 7\)"
    ):
        plan(Replica.blank(32, 96), changes={UE1: np.zeros((8, 3))})


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


def test_whole_views_go_to_who_gains_most_and_once() -> None:
    def views(replica: Replica, budget: float) -> list[Side]:
        found = plan_views(
            replica, PANORAMA, now_s=100.0, budget=budget, cost=cost, novelty=lambda age: age / 1000
        )
        return [refresh.side for refresh in found]

    # UE1 and UE2 see the same half; nobody has seen where UE3 looks.
    known = replica_seen((0, 48, 50.0))
    assert views(known, budget=42) == [UE3]
    assert views(known, budget=90) == [UE3, UE1]  # at an end, a view has one edge less
    assert len(views(known, budget=1e9)) == 3
    assert views(known, budget=41) == []
