"""Rounds: what came earlier stays and ages, and only what is new is sent."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from megdt.errors import MechanismError
from megdt.mechanisms.multi_user import decentralized
from megdt.mechanisms.panorama import Panorama
from megdt.mechanisms.rounds import Rounds
from megdt.mechanisms.simulate import simulate
from megdt.records import Feature, Result, Side
from tests.mechanisms.test_multi_user import (
    CLOSE,
    REQUEST,
    THREE,
    UE1,
    UE2,
    UE3,
    any_width,
    crossed,
    near,
    pictures,
    settings,
)

DAY_S = 86_400.0


class Play:
    """Rounds of the three cameras, each of which sees its own number."""

    def __init__(self) -> None:
        self.rounds = Rounds(pictures()["remember"])

    def next(
        self, renewed: Collection[Side], *, panorama: Panorama = THREE, passed_s: float = 60.0,
        **changes: Any,
    ) -> Result:  # fmt: skip
        blank = Feature(kind="observation", values=np.zeros((4, 32, 32), np.float32))
        seen = {s: panorama.doubt_edges(blank, panorama.by_side[s]) for s in renewed}
        shares, part = self.rounds.begin(
            panorama, seen, passed_s=passed_s, budget_bits=1e9, cost_bits=lambda n: 4096 * n + 32
        )
        given = pictures(panorama)
        names = {f"sense_{panorama.by_side[side].number}" for side in renewed}
        part = replace(part, features={**part.features, **{n: given[n] for n in names}})
        result = simulate(
            decentralized(panorama, shares),
            REQUEST,
            **settings(panorama, **any_width(**changes)),
            done=part,
        )
        self.rounds.end(result)
        return result


def test_only_who_has_looked_anew_sends_anything() -> None:
    play = Play()
    assert {s for s, _ in crossed(play.next((UE1, UE2, UE3)))} >= {"share_1_2", "share_2_1"}
    sent = crossed(play.next((UE1,)))
    assert sorted(sent) == [
        ("ask_1", "UE1"),
        ("observe_1", "ES"),
        ("report_1", "ES"),
        ("share_1_2", "UE2"),
        ("share_1_3", "UE3"),
    ]
    assert crossed(play.next(())) == []


def test_what_came_earlier_is_shown_and_ages() -> None:
    play = Play()
    first = play.next((UE1, UE2, UE3))
    key = ("share_3_2", UE2)
    ages = [first.arrived[key].age_s]
    for _ in range(2):
        result = play.next((UE1,), passed_s=600.0)
        ages.append(result.arrived[key].age_s)
        assert near(
            result.features["gate_2"].values,
            *(n for part in (16 * [1.0], 24 * [2.0], 16 * [3.0]) for n in part),
        )
    assert np.diff(ages) == pytest.approx(600.0)


def test_what_has_grown_old_is_asked_for_of_others() -> None:
    """Days later the memory of the ES, which grows old alike, is no help, but a fresh view is."""
    play = Play()
    play.next((UE1, UE2, UE3))
    sent = crossed(play.next((UE1, UE3), passed_s=3 * DAY_S))
    assert ("share_1_2", "UE2") in sent
    assert ("share_3_2", "UE2") in sent
    assert ("share_2_1", "UE1") not in sent


def test_a_ue_that_leaves_takes_its_shares_with_it_and_one_that_joins_looks() -> None:
    play = Play()
    play.next((UE1, UE2, UE3))
    two = replace(THREE, cameras=THREE.cameras[:2])
    result = play.next((UE1,), panorama=two, passed_s=3 * DAY_S)
    assert result.features.keys() >= {"decode_1", "decode_2"}
    assert not {n for n in result.features if "3" in n}
    with pytest.raises(MechanismError, match="UE3 has not looked anew, and nothing is left"):
        play.next((UE1,))
    result = play.next((UE3,))
    assert ("share_3_2", "UE2") in crossed(result)
    assert near(result.features["gate_2"].values[:, :, 40:], *16 * [3.5])


def test_a_ue_that_falls_silent_holds_nobody_up_and_what_it_sent_before_stays() -> None:
    play = Play()
    play.next((UE1, UE2, UE3))
    link = replace(any_width()["links"]["observation"], snr_db=-40.0)
    # Nothing of this round comes through from anybody.
    result = play.next((UE1,), links=dict.fromkeys(any_width()["codecs"], link))
    assert result.features.keys() >= {"decode_1", "decode_2", "decode_3"}
    assert near(result.features["gate_2"].values[:, :, 40:], *16 * [3.0])


def test_the_es_tells_what_it_remembers_once() -> None:
    play = Play()
    everyone = (UE1, UE2, UE3)
    told = [
        [s for s, _ in crossed(play.next(everyone, panorama=CLOSE)) if s.startswith("recall")]
        for _ in range(2)
    ]
    assert told == [["recall_1", "recall_2", "recall_3"], []]
