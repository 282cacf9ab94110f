"""Many UEs along one panorama: what goes where, what each shows, and what it does without."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch

from megdt.codecs.observation import NeedsCodec, ObservationCodec, WideObservationCodec
from megdt.codecs.seed import QuantisedSeedCodec
from megdt.codecs.shares import SharesCodec
from megdt.codecs.superposed import LEVEL, SuperposedCodec
from megdt.errors import MechanismError
from megdt.link.energy import load_profile
from megdt.link.radio import RadioLink
from megdt.link.superposed import SuperposedLink
from megdt.mechanisms.execute import Execution, Progress, run_side
from megdt.mechanisms.multi_user import (
    Source,
    coordinated,
    decentralized,
    fuse_panorama,
    fuse_window,
    individual,
    surroundings,
)
from megdt.mechanisms.panorama import EDGE_CONFIDENCE, Camera, Panorama, aged, cut, place
from megdt.mechanisms.sharing import HALF_LIFE_S, Share, choose_shares
from megdt.mechanisms.simulate import simulate
from megdt.mechanisms.stages import Edge, Job, Mechanism
from megdt.models.gate import FeatureGate
from megdt.records import Delivery, Feature, Packet, Part, Request, Result, Side
from megdt.worlds.garden import Garden, View
from tests.plain_models import PlainModels

ES, UE1, UE2, UE3 = Side.ES, Side.ue(1), Side.ue(2), Side.ue(3)
REQUEST = Request(prompt="the garden", steps=1)
LINK = RadioLink(snr_db=20, coding="abstract", bandwidth_hz=10e6)
PHONE, EDGE = load_profile("phone"), load_profile("edge_gpu")

THREE = Panorama(
    width=80, cameras=tuple(Camera(side=Side.ue(n), column=24 * n - 24) for n in (1, 2, 3))
)
"""Each view overlaps the next one by a quarter: columns 0-31, 24-55 and 48-79."""
LEFT, MIDDLE, RIGHT = THREE.cameras
VIEW_BITS = 8 * (4 * 32 * 32 + 2)
MAPPED_BITS = VIEW_BITS + 64
"""Edges of views are not seen: a map tells it."""

CLOSE = Panorama(width=80, cameras=(LEFT, replace(MIDDLE, column=16), RIGHT))
"""The first two overlap by a half."""


def any_width(**changes: Any) -> dict[str, Any]:
    def seed(width: int) -> QuantisedSeedCodec:
        return QuantisedSeedCodec(shape=(4, 32, width), precision="float32")

    codecs = {
        "observation": WideObservationCodec(seed=seed, columns=80),
        "seed": QuantisedSeedCodec(shape=(4, 32, 80)),
        "needs": NeedsCodec(shape=(32, 32)),
        "shares": SharesCodec(),
    }
    return {"codecs": codecs, "links": dict.fromkeys(codecs, LINK), **changes}


def number_of(side: Side) -> int:
    """What a side says everywhere, the ES with UEs' last."""
    return int(side.removeprefix("UE")) if side.is_ue else 4


def pictures(panorama: Panorama = THREE, **changes: Feature) -> dict[str, Feature]:
    """Every UE sees its own number, the ES remembers another one."""
    sensed = {
        f"sense_{c.number}": Feature(
            kind="image", values=np.full((256, 256, 3), number_of(c.side), np.uint8)
        )
        for c in panorama.cameras
    }
    wide = np.full((4, 32, panorama.width), 4, np.float32)
    memory = Feature(kind="observation", values=wide, age_s=3600.0)
    return {"remember": memory, **sensed, **changes}


class Loses:
    """A link that loses what certain stages send, told by the order in which all is sent."""

    def __init__(self, mechanism: Mechanism, lost: Collection[str]) -> None:
        self.names = [e.source.name for e in mechanism.edges]
        self.lost = lost
        self.sent = 0

    def send(self, packet: Packet, rng: np.random.Generator) -> Delivery:
        self.sent += 1
        delivery = LINK.send(packet, rng)
        gone = self.names[self.sent - 1] in self.lost
        return replace(delivery, outcome="lost") if gone else delivery


def settings(panorama: Panorama = THREE, **changes: Any) -> dict[str, Any]:
    seed = QuantisedSeedCodec(shape=(4, 32, panorama.width))
    view = ObservationCodec(seed=QuantisedSeedCodec(shape=(4, 32, 32)))
    devices = {ES: EDGE, **{c.side: PHONE for c in panorama.cameras}}
    return {
        "models": PlainModels(),
        "codecs": {"observation": view, "seed": seed},
        "links": {"observation": LINK, "seed": LINK},
        "devices": devices,
        **changes,
    }


def run(
    mechanism: Mechanism,
    features: Mapping[str, Feature] | None = None,
    *,
    panorama: Panorama = THREE,
    lost: Collection[str] = (),
    **changes: Any,
) -> Result:
    if lost:
        link = Loses(mechanism, lost)
        changes["links"] = dict.fromkeys(("observation", "seed", "needs", "shares"), link)
    return simulate(
        mechanism,
        REQUEST,
        **settings(panorama, **changes),
        done=Part(features=pictures() if features is None else features),
    )


def crossed(result: Result) -> list[tuple[str, str]]:
    return [(c.source, str(c.to_side)) for c in result.ledger.crossings]


def near(values: np.ndarray, *numbers: float) -> bool:
    """One number a column, as int8 holds it."""
    return bool(np.abs(values - np.array(numbers)).max() <= 0.05)


# The panorama.


def test_cameras_stand_on_whole_columns() -> None:
    camera = Camera.at(UE2, 5.03)
    assert (camera.column, camera.position_m, camera.number) == (24, 5.0, "2")
    fine = Camera.at(UE2, 5.03, width=64)
    assert (fine.column, fine.position_m) == (48, 5.0)


def test_views_at_cameras_show_the_same_columns() -> None:
    """What a column is in one view, it is in the next."""
    garden = Garden(3, length_m=10.0)
    left, right = (
        garden.render(View(position_m=c.position_m, size_px=256)) for c in THREE.cameras[:2]
    )
    apart = np.abs(left[:, 24 * 8 :].astype(int) - right[:, : 8 * 8].astype(int))
    assert apart.mean() < 1.0  # but for antialiasing


def test_the_extended_view_stays_in_the_panorama() -> None:
    assert [THREE.window(c) for c in THREE.cameras] == [range(56), range(12, 68), range(24, 80)]
    assert [THREE.shown(c) for c in THREE.cameras] == [range(52), range(16, 64), range(28, 80)]
    assert [len(THREE.around(c)) for c in THREE.cameras] == [32, 32, 32]
    assert THREE.around(MIDDLE) == (*range(12, 28), *range(52, 68))


def test_edges_of_a_view_are_doubted_where_the_panorama_goes_on() -> None:
    plain = Feature(kind="observation", values=np.zeros((4, 32, 32), np.float32))
    clear = [THREE.doubt_edges(plain, c).confidence for c in THREE.cameras]
    ends = [
        (seen[0, 0], seen[0, 4], seen[0, 27], seen[0, 28]) for seen in clear if seen is not None
    ]
    low = np.float32(EDGE_CONFIDENCE)
    assert ends == [(1, 1, 1, low), (low, 1, 1, low), (low, 1, 1, 1)]


def test_what_is_placed_can_be_cut_out_again() -> None:
    rng = np.random.default_rng(0)
    seen = (rng.uniform(size=(32, 32)) < 0.5).astype(np.float32)
    values = rng.standard_normal((4, 32, 32)).astype(np.float32)
    shown = Feature(kind="observation", values=values, confidence=seen, age_s=60.0)
    columns = THREE.around(MIDDLE)  # with a gap
    placed = place(shown, columns, THREE.columns)
    assert placed.values.shape == (4, 32, 80)
    assert placed.age_s == 60.0
    outside = [c for c in THREE.columns if c not in columns]
    assert not placed.values[:, :, outside].any()
    assert placed.confidence is not None
    assert not placed.confidence[:, outside].any()
    again = cut(placed, THREE.columns, columns)
    assert (again.values == values).all()
    assert again.confidence is not None
    assert (again.confidence == seen).all()


def test_what_lies_outside_a_window_is_left_out() -> None:
    values = np.arange(32, dtype=np.float32) * np.ones((4, 32, 1), np.float32)
    placed = place(Feature(kind="observation", values=values), range(8, 40), range(32, 64))
    assert (placed.values[0, 0, :8] == np.arange(24, 32)).all()
    assert placed.confidence is not None
    assert (placed.confidence[0] == [1] * 8 + [0] * 24).all()
    assert place(aged(placed, 5.0), range(32, 64), range(10)).age_s == 5.0


@pytest.mark.parametrize(
    ("cameras", "changes", "message"),
    [
        ((), {}, "no camera looks at the panorama"),
        ((LEFT, replace(RIGHT, side=UE1)), {}, "UE1 has two cameras; give each a side"),
        ((replace(LEFT, column=49),), {}, "of UE1 sees columns 49 to 80, the panorama has 0 to 79"),
        ((replace(LEFT, column=-1),), {}, "of UE1 sees columns -1 to 30"),
        ((LEFT, replace(RIGHT, column=40, width=16)), {}, "UE3 sees 16 columns, that of UE1 32"),
        ((LEFT,), {"margin": 25}, "a view with a margin of 25 on each side has 82 columns"),
    ],
)
def test_cameras_that_do_not_fit_are_named(
    cameras: tuple[Camera, ...], changes: dict[str, int], message: str
) -> None:
    with pytest.raises(MechanismError, match=message):
        Panorama(width=80, cameras=cameras, **changes)


@pytest.mark.parametrize("side", [ES, Side.UE])
def test_a_camera_is_on_one_ue_of_several(side: Side) -> None:
    with pytest.raises(MechanismError, match=f"a camera is on side {side}; cameras are on UEs"):
        Camera(side=side, column=0)


# Each UE by itself.


def test_individually_each_ue_talks_with_the_es_alone() -> None:
    result = run(individual(THREE))
    assert sorted(crossed(result)) == [
        *((f"observe_{n}", "ES") for n in (1, 2, 3)),
        *((f"recall_{n}", f"UE{n}") for n in (1, 2, 3)),
    ]
    # A view up and as much down.
    bits = {c.source: c.bits for c in result.ledger.crossings}
    assert bits == {
        **{f"observe_{n}": MAPPED_BITS for n in (1, 2, 3)},
        **{f"recall_{n}": VIEW_BITS for n in (1, 2, 3)},
    }
    own, around = 2.0, 4.0
    assert near(result.features["gate_2"].values, *16 * [around], *24 * [own], *16 * [around])
    assert result.features["decode_2"].values.shape == (256, 48 * 8, 3)
    # At an end the ES tells of one side alone.
    assert near(result.features["gate_1"].values, *4 * [2.5], *24 * [1.0], *28 * [around])


def test_individually_nothing_of_another_ue_is_used() -> None:
    """Whatever the others see, a UE shows the same."""
    plain = run(individual(THREE))
    other = replace(pictures()["sense_1"], values=np.full((256, 256, 3), 3, np.uint8))
    changed = run(individual(THREE), pictures(sense_1=other))
    for n in (2, 3):
        before, after = (r.features[f"decode_{n}"].values for r in (plain, changed))
        assert (before == after).all()
    assert (plain.features["decode_1"].values != changed.features["decode_1"].values).any()


def test_the_es_refreshes_what_it_remembers_of_each_view() -> None:
    result = run(individual(THREE))
    assert near(result.features["replica_3"].values, *4 * [4.0], *28 * [(3 + 4) / 2])
    result = run(individual(THREE), lost={"observe_3"})
    assert near(result.features["replica_3"].values, *32 * [4.0])


# UEs that share.

SHARES = (
    Share(source=UE1, target=UE2, columns=tuple(range(12, 28))),
    Share(source=UE3, target=UE2, columns=tuple(range(52, 68))),
)


def test_shares_go_from_ue_to_ue() -> None:
    result = run(decentralized(THREE, SHARES), **any_width())
    assert sorted(crossed(result)) == [
        ("ask_1", "UE1"), ("ask_3", "UE3"),
        ("observe_1", "ES"), ("observe_2", "ES"), ("observe_3", "ES"),
        ("report_1", "ES"), ("report_2", "ES"), ("report_3", "ES"),
        ("share_1_2", "UE2"), ("share_3_2", "UE2"),
    ]  # fmt: skip
    bits = {c.source: c.bits for c in result.ledger.crossings}
    # Four bytes a number, four for a run of columns or three for a width, one each for age and map,
    # and eight for a map.
    assert bits["share_1_2"] == 8 * (6 + 4 * 4 * 32 * 16)
    assert bits["observe_2"] == 8 * (5 + 8 + 4 * 4 * 32 * 32)
    assert (bits["report_2"], bits["ask_1"]) == (8 * 10, 8 * 8)


def test_nothing_is_shared_before_all_have_reported_and_it_is_asked_for() -> None:
    result = run(decentralized(THREE, SHARES), **any_width())
    times = {c.source: c for c in result.ledger.crossings}
    reported = max(times[f"report_{n}"].end_s for n in (1, 2, 3))
    assert times["ask_1"].start_s >= reported
    assert times["share_1_2"].start_s >= times["ask_1"].end_s


def test_what_nobody_has_reported_is_not_asked_for() -> None:
    """The choice is made of what has come: without a UE's report it neither sends nor is sent."""
    result = run(decentralized(THREE, SHARES), lost={"report_1"}, **any_width())
    assert {s for s, _ in crossed(result) if s.startswith("share")} == {"share_3_2"}
    assert ("ask_1", "UE1") not in crossed(result)
    result = run(decentralized(THREE, SHARES), lost={"report_2"}, **any_width())
    assert not {s for s, _ in crossed(result) if s.startswith(("share", "ask"))}
    assert result.features.keys() >= {"decode_1", "decode_2", "decode_3"}


def test_where_a_share_belongs_comes_with_it() -> None:
    def choose(told: Mapping[Side, Feature]) -> tuple[Share, ...]:
        assert set(told) == {UE1, UE2, UE3}
        return (replace(SHARES[0], columns=tuple(range(20, 28))),)

    result = run(decentralized(THREE, SHARES, choose=choose), **any_width())
    came = result.arrived["share_1_2", UE2]
    assert came.columns == tuple(range(20, 28))
    # What was not asked for is not there: of UE1's columns before, and of UE3.
    values = result.features["gate_2"].values
    assert near(values, *8 * [0.0], *8 * [1.0], *24 * [2.0], *16 * [0.0])


def test_relayed_shares_come_from_the_es_and_show_the_same() -> None:
    direct, relayed = (
        run(decentralized(THREE, SHARES, relayed=relayed), **any_width())
        for relayed in (False, True)
    )
    assert not any(c.kind == "shares" for c in relayed.ledger.crossings)
    assert ("share_1_2", "UE2") in crossed(relayed)
    assert all(ES in (c.from_side, c.to_side) for c in relayed.ledger.crossings)
    here, there = (r.features["gate_2"].values for r in (direct, relayed))
    assert np.abs(here - there).max() < 0.1


def test_a_ue_shows_what_its_neighbours_see_where_it_sees_nothing() -> None:
    seen = np.ones((32, 32), np.float32)
    seen[:, :8] = 0  # columns 16 to 23, which UE1 sees
    sensed = replace(pictures()["sense_2"], confidence=seen)
    share = Share(source=UE1, target=UE2, columns=tuple(range(4, 24)))
    result = run(
        decentralized(CLOSE, (share,)), pictures(sense_2=sensed), panorama=CLOSE, **any_width()
    )
    assert near(result.features["gate_2"].values, *20 * [1.0], 0.0, *19 * [2.0], *16 * [0.0])
    # UE1 gets nothing and has nothing around its view.
    assert near(result.features["gate_1"].values, *28 * [1.0], *28 * [0.0])


def test_the_es_shares_what_it_remembers_as_well() -> None:
    shares = (*surroundings(THREE), SHARES[0])
    result = run(decentralized(THREE, shares), **any_width())
    halves = 16 * [(1 + 4) / 2], 24 * [2.0], 16 * [4.0]
    assert near(result.features["gate_2"].values, *(n for part in halves for n in part))
    assert near(result.features["gate_3"].values, *28 * [4.0], *24 * [3.0], *4 * [3.5])


def test_what_came_earlier_is_used_and_not_sent_again() -> None:
    mechanism = decentralized(THREE, SHARES)
    first = run(mechanism, **any_width())
    key = ("share_1_2", UE2)
    kept = {key: aged(first.arrived[key], 600.0)}
    ages: list[list[float]] = []

    class Notes(PlainModels):
        def fuse(self, latents: Any, confidence: Any, age_s: Any, noise_power: Any) -> Any:
            ages.append(age_s[0].tolist())
            return super().fuse(latents, confidence, age_s, noise_power)

    again = simulate(
        mechanism,
        REQUEST,
        **settings(**any_width(models=Notes())),
        done=Part(features=pictures(), arrived=kept),
    )
    assert ("share_1_2", "UE2") not in crossed(again)
    assert near(again.features["gate_2"].values, *16 * [1.0], *24 * [2.0], *16 * [3.0])
    assert [0.0, 600.0, 0.0] in ages


@pytest.mark.parametrize(
    ("share", "message"),
    [
        (replace(SHARES[0], source=Side.ue(9)), "from UE9 to UE2, and cameras are on UE1, UE2, UE"),
        (replace(SHARES[0], target=Side.ue(9)), "from UE1 to UE9, and cameras are on"),
        (replace(SHARES[0], target=ES), "from UE1 to ES, and cameras are on"),
        (replace(SHARES[0], target=UE1), "from UE1 to UE1, which has its own view already"),
        (SHARES[1], "from UE3 to UE2 for the second time"),
        (replace(SHARES[0], columns=(30, 32)), "UE1 to UE2, of columns 30, 32, and UE1 sees 0 to 3"),
        (replace(SHARES[0], columns=(9, 8)), "of columns 9, 8, and UE1 sees 0 to 31; share some of"),
        (replace(SHARES[0], columns=()), "of columns none, and UE1 sees 0 to 31"),
    ],
)  # fmt: skip
def test_shares_that_cannot_be_are_named(share: Share, message: str) -> None:
    with pytest.raises(MechanismError, match=message):
        decentralized(THREE, (SHARES[1], share))


# Who shares what.


def clear(panorama: Panorama) -> dict[Side, np.ndarray]:
    """What all see of it."""
    plain = Feature(kind="observation", values=np.zeros((4, 32, 32), np.float32))
    doubted = {c.side: panorama.doubt_edges(plain, c).confidence for c in panorama.cameras}
    return {side: seen for side, seen in doubted.items() if seen is not None}


ALL_SEEN = clear(THREE)
NOW = {ES: 0.0, UE1: 0.0, UE2: 0.0, UE3: 0.0}


def cost_bits(columns: int) -> float:
    return 1024.0 * columns + 80


def choose(budget_columns: float = 1000, **changes: Any) -> tuple[Share, ...]:
    given = {"confidences": ALL_SEEN, "ages_s": NOW, "cost_bits": cost_bits, **changes}
    return choose_shares(THREE, **given, budget_bits=1024 * budget_columns + 80 * 10)


def between(shares: tuple[Share, ...]) -> set[tuple[str, str, int]]:
    return {(str(s.source), str(s.target), len(s.columns)) for s in shares}


def test_everyone_gets_what_it_does_not_see_once() -> None:
    chosen = choose()
    # UE1 and UE3 are at an end: UE2 sees 24 of the 28 columns beside their views.
    assert between(chosen) == {
        ("UE1", "UE2", 16), ("UE3", "UE2", 16), ("UE2", "UE1", 24), ("UE2", "UE3", 24),
        ("UE3", "UE1", 4), ("UE1", "UE3", 4),
    }  # fmt: skip
    assert set(chosen) == set(choose())
    # What was chosen is a mechanism.
    assert decentralized(THREE, chosen).sides == (ES, UE1, UE2, UE3)


def test_the_choice_is_the_same_every_time() -> None:
    assert [choose(60) for _ in range(3)] == 3 * [choose(60)]


def test_shares_stay_within_the_budget() -> None:
    for budget in (0.0, 10_000.0, 40_000.0, 70_000.0):
        chosen = choose_shares(THREE, ALL_SEEN, NOW, budget_bits=budget, cost_bits=cost_bits)
        assert sum(cost_bits(len(s.columns)) for s in chosen) <= budget
        assert bool(chosen) == (budget >= cost_bits(4))  # the smallest there is


def test_need_comes_first() -> None:
    """UE3 wants its extended view much, UE1 a little, UE2 nothing."""
    wish = np.ones((32, 56), np.float32)
    chosen = choose(24, requests={UE1: 0.3 * wish, UE3: wish})
    assert between(chosen[:1]) == {("UE2", "UE3", 24)}
    assert "UE2" not in {s.target for s in choose(requests={UE1: 0.3 * wish, UE3: wish})}


def test_what_was_not_seen_is_not_sent() -> None:
    hidden = ALL_SEEN[UE1].copy()
    hidden[:, :20] = 0
    chosen = between(choose(confidences={**ALL_SEEN, UE1: hidden}))
    assert ("UE1", "UE2", 8) in chosen  # of columns 12 to 27 it sees 20 to 27


def test_who_says_nothing_is_asked_for_nothing_and_sent_nothing() -> None:
    said = {side: ALL_SEEN[side] for side in (UE1, UE2)}
    assert {(s.source, s.target) for s in choose(confidences=said)} == {(UE1, UE2), (UE2, UE1)}


def test_what_is_hidden_from_a_ue_it_needs() -> None:
    seen = clear(CLOSE)
    now = dict.fromkeys(seen, 0.0)
    plain = choose_shares(CLOSE, seen, now, budget_bits=1e6, cost_bits=cost_bits)
    assert ("UE1", "UE2", 16) in between(plain)
    seen[UE2][:, :8] = 0  # columns 16 to 23, which UE1 sees
    chosen = choose_shares(CLOSE, seen, now, budget_bits=1e6, cost_bits=cost_bits)
    assert ("UE1", "UE2", 20) in between(chosen)


def test_fresh_beats_old_and_the_es_fills_what_no_ue_sees() -> None:
    hidden = ALL_SEEN[UE1].copy()
    hidden[:, :16] = 0  # columns 0 to 15: nobody sees 12 to 15 but the ES, a day ago
    seen = {**ALL_SEEN, UE1: hidden, ES: np.ones((32, 80), np.float32)}
    chosen = choose(confidences=seen, ages_s={**NOW, ES: HALF_LIFE_S})
    to_2 = {s.source: s.columns for s in chosen if s.target == UE2}
    assert to_2 == {
        UE1: tuple(range(16, 28)), UE3: tuple(range(52, 68)), ES: tuple(range(12, 16)),
    }  # fmt: skip
    # A week old, it is not worth its bits.
    chosen = choose(confidences=seen, ages_s={**NOW, ES: 7 * HALF_LIFE_S})
    assert ES not in {s.source for s in chosen}


def test_what_a_ue_holds_from_earlier_is_not_sent_again() -> None:
    held = {c.side: np.ones((32, 56), np.float32) for c in THREE.cameras}
    assert choose(held=held) == ()
    held[UE2] = 0.5 * held[UE2]  # aged
    assert between(choose(held=held)) == {("UE1", "UE2", 16), ("UE3", "UE2", 16)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"confidences": {Side.ue(9): ALL_SEEN[UE1]}}, "a map of confidence is of UE9, and there"),
        ({"confidences": {UE1: np.ones((32, 31))}}, r"confidence of UE1 is \(32, 31\); expected"),
        ({"requests": {UE1: np.ones((32, 32))}}, r"request of UE1 is \(32, 32\); expected \[heig"),
        ({"held": {ES: np.ones((32, 56))}}, "a map of held is of ES"),
        ({"held": {UE1: np.ones((16, 56))}}, "maps are 16 to 32 latents high"),
        ({"ages_s": {UE1: 0.0}}, "the observation of UE2 has no age"),
    ],
)
def test_maps_that_do_not_fit_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MechanismError, match=message):
        choose(**changes)


# Everyone together.


def test_all_get_one_panorama() -> None:
    result = run(coordinated(THREE))
    assert sorted(crossed(result)) == [
        ("fuse", "UE1"), ("fuse", "UE2"), ("fuse", "UE3"),
        ("observe_1", "ES"), ("observe_2", "ES"), ("observe_3", "ES"),
    ]  # fmt: skip
    bits = {c.source: c.bits for c in result.ledger.crossings}
    assert (bits["observe_1"], bits["fuse"]) == (MAPPED_BITS, 8 * 4 * 32 * 80)
    came = [result.arrived["fuse", c.side].values for c in THREE.cameras]
    shown = [result.features[f"decode_{n}"].values for n in (1, 2, 3)]
    for one, other in (
        (came[0], came[1]),
        (came[0], came[2]),
        *itertools.pairwise(shown),
    ):
        assert (one == other).all()
    assert shown[0].shape == (256, 640, 3)
    # Memory and one view each: what two see here, both see at an edge or one.
    assert near(result.features["fuse"].values, *28 * [2.5], *24 * [3.0], *28 * [3.5])


def test_the_panorama_waits_for_all() -> None:
    """A round: nobody has the panorama before the last observation has come."""
    result = run(coordinated(THREE))
    up = [c.end_s for c in result.ledger.crossings if c.to_side == ES]
    down = [c.start_s for c in result.ledger.crossings if c.to_side != ES]
    assert min(down) >= max(up)


# All at once on the air.


class Quiet(PlainModels):
    """Latents of at most unit variance: UEs say 0.25, 0.5 and 0.75. Notes what the gate is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[list[float], list[float]]] = []

    def encode(self, images: np.ndarray) -> np.ndarray:
        return super().encode(images) / 4

    def fuse(self, latents: Any, confidence: Any, age_s: Any, noise_power: Any) -> np.ndarray:
        self.told.append((age_s[0].tolist(), noise_power[0].tolist()))
        return super().fuse(latents, confidence, age_s, noise_power)


def on_air(panorama: Panorama, snr_db: float = 60) -> dict[str, Any]:
    link = RadioLink(snr_db=snr_db, coding="abstract", bandwidth_hz=1e6)
    superposed = SuperposedLink(link=link, among=len(panorama.cameras))
    codecs = {
        "needs": NeedsCodec(shape=(32, 32)),
        "seed": QuantisedSeedCodec(shape=(4, 32, panorama.width)),
        "superposed": SuperposedCodec(shape=(4, 32, len(panorama.watched))),
    }
    links = {"needs": link, "seed": link, "superposed": superposed}
    return {"codecs": codecs, "links": links, "models": Quiet()}


def remembered(panorama: Panorama = CLOSE, **changes: Feature) -> dict[str, Feature]:
    """As `pictures`; the ES remembers 1."""
    wide = np.ones((4, 32, panorama.width), np.float32)
    memory = Feature(kind="observation", values=wide, age_s=3600.0)
    return pictures(panorama, remember=memory, **changes)


def test_what_adds_up_on_the_air_is_the_mean_of_those_who_see() -> None:
    result = run(coordinated(CLOSE, fusion="air"), remembered(), panorama=CLOSE, **on_air(CLOSE))
    with_memory = [(value + 1) / 2 for value in (0.25, 0.375, 0.5, 0.75)]
    expected = [
        *20 * [with_memory[0]], *8 * [with_memory[1]], *16 * [with_memory[2]],
        *8 * [1.0],  # of which the views there are in doubt
        *28 * [with_memory[3]],
    ]  # fmt: skip
    assert near(result.features["fuse"].values, *expected)
    assert sorted(crossed(result)) == [
        ("fuse", "UE1"), ("fuse", "UE2"), ("fuse", "UE3"),
        ("report_1", "ES"), ("report_2", "ES"), ("report_3", "ES"),
        ("weigh_1", "ES"), ("weigh_2", "ES"), ("weigh_3", "ES"),
    ]  # fmt: skip


def test_what_a_ue_does_not_see_it_does_not_send_and_does_not_weigh() -> None:
    seen = np.ones((32, 32), np.float32)
    seen[:, 8:12] = 0  # columns 24 to 27, which UE1 sees too
    features = remembered(sense_2=replace(pictures()["sense_2"], confidence=seen))
    result = run(coordinated(CLOSE, fusion="air"), features, panorama=CLOSE, **on_air(CLOSE))
    assert not result.features["weigh_2"].values[:, :, 24:28].any()
    # The encoder mixes what is hidden into a latent at each side, so whole cells go.
    assert near(result.features["fuse"].values[:, :, 24:28], *4 * [(0.25 + 1) / 2])


def test_the_gate_is_told_the_noise_of_one_receiver_over_the_sum_of_weights() -> None:
    three = replace(CLOSE, cameras=tuple(replace(c, column=24) for c in CLOSE.cameras))
    settings = on_air(three, snr_db=0)
    result = run(coordinated(three, fusion="air"), remembered(three), panorama=three, **settings)
    expected = 1 / LEVEL**2 / 3**2
    told = np.array([noise for _, noise in settings["models"].told if len(noise) == 2])
    # And a little for what pilots do not tell of the channel.
    assert told == pytest.approx(np.array([[0.0, expected]] * len(told)), rel=0.06)
    # And that is what is there; the memory has half a say.
    found = 2 * result.features["fuse"].values[:, :, 28:52] - 1
    assert np.mean(found) == pytest.approx(0.5, abs=0.03)
    assert np.var(found) == pytest.approx(expected, rel=0.06)


def test_a_round_is_counted_once() -> None:
    result = run(coordinated(CLOSE, fusion="air"), remembered(), panorama=CLOSE, **on_air(CLOSE))
    up = [c for c in result.ledger.crossings if c.kind == "superposed"]
    others = [c for c in result.ledger.crossings if c.kind != "superposed"]
    # Two of 4 x 32 x 80 numbers in a use, and 24 of 168 uses for pilots and control.
    assert up[0].channel_uses == pytest.approx(4 * 32 * 80 / 2 * 168 / 144, rel=0.02)
    assert len({(c.channel_uses, c.start_s, c.end_s, c.band_s) for c in up}) == 1
    once = up[0].channel_uses
    assert result.ledger.channel_uses == once + sum(c.channel_uses for c in others)
    assert result.ledger.airtime_s == pytest.approx(up[0].band_s + sum(c.airtime_s for c in others))
    # UE1 and UE3 see 28 columns of 80, UE2 24: each pays for its own, in whole resource blocks.
    assert up[1].radiated_j / up[0].radiated_j == pytest.approx(24 / 28, rel=0.1)
    assert up[0].airtime_s < up[0].band_s / 2
    receiving = EDGE.receive_j(up[0].band_s)
    assert receiving < sum(c.receiver_j for c in up) < receiving + EDGE.radio_idle_j(0.02)


def test_a_sum_is_decoded_once() -> None:
    class Counts(SuperposedCodec):
        flops = 0.0

        def decode(self, delivery: Delivery) -> Feature:
            object.__setattr__(self, "flops", self.flops + 300.0)
            return super().decode(delivery)

    settings = on_air(CLOSE)
    settings["codecs"]["superposed"] = Counts(shape=(4, 32, len(CLOSE.watched)))
    result = run(coordinated(CLOSE, fusion="air"), remembered(), panorama=CLOSE, **settings)
    decoded = [c.flops for c in result.ledger.computations if c.task == "decode superposed"]
    assert decoded == [100.0, 100.0, 100.0]


def test_where_a_report_is_lost_the_memory_alone_is_believed() -> None:
    class Lost:
        def __init__(self) -> None:
            self.sent = 0

        def send(self, packet: Packet, rng: np.random.Generator) -> Delivery:
            self.sent += 1
            return replace(
                LINK.send(packet, rng), outcome="lost" if self.sent == 2 else "delivered"
            )

    settings = on_air(CLOSE)
    settings["links"]["needs"] = Lost()
    result = run(coordinated(CLOSE, fusion="air"), remembered(), panorama=CLOSE, **settings)
    assert result.outcome == "delivered"
    ends = (0.25 + 1) / 2, (0.75 + 1) / 2
    # UE2 sends on columns 20 to 43; its camera sees 16 to 47.
    expected = [*16 * [ends[0]], *36 * [1.0], *28 * [ends[1]]]
    assert near(result.features["fuse"].values, *expected)


def test_a_late_round_leaves_the_memory() -> None:
    settings = on_air(CLOSE)
    slow = RadioLink(bandwidth_hz=1e6, deadline_s=0.01)
    settings["links"]["superposed"] = SuperposedLink(link=slow, among=3)
    result = run(coordinated(CLOSE, fusion="air"), remembered(), panorama=CLOSE, **settings)
    assert result.outcome == "delivered"
    assert near(result.features["fuse"].values, *80 * [1.0])


def test_one_ue_alone_sends_by_itself() -> None:
    one = Panorama(width=80, cameras=(MIDDLE,))
    result = run(coordinated(one, fusion="air"), remembered(one), panorama=one, **on_air(one))
    assert near(result.features["fuse"].values, *28 * [1.0], *24 * [(0.5 + 1) / 2], *28 * [1.0])
    assert not any(c.among > 1 for c in result.ledger.crossings)


def test_a_tile_comes_out_as_from_the_whole_panorama() -> None:
    """With a gate of any weights, which looks as far as it can."""
    generator = torch.Generator().manual_seed(0)
    gate = FeatureGate()
    for weights in gate.parameters():
        torch.nn.init.normal_(weights, std=0.08, generator=generator)

    class Gate(PlainModels):
        @torch.inference_mode()
        def fuse(self, *given: Any) -> np.ndarray:
            fused: np.ndarray = gate(*map(torch.tensor, given)).numpy()
            return fused

    rng = np.random.default_rng(0)
    wide = Panorama(
        width=128, cameras=tuple(Camera(side=Side.ue(n), column=24 * n - 24) for n in range(1, 6))
    )
    views = [(wide.width, 9e4), *((32, 60.0 * n) for n in range(5))]
    seen = [
        Feature(
            kind="observation",
            values=rng.standard_normal((4, 32, width)).astype(np.float32),
            age_s=age_s,
        )
        for width, age_s in views
    ]
    job = Job(request=REQUEST, models=Gate())
    sources = tuple(
        Source(stage="", side=ES, columns=c)
        for c in (wide.columns, *(c.view for c in wide.cameras))
    )
    tiled = fuse_panorama(job, *seen, sources=sources, panorama=wide)
    whole = fuse_window(job, *seen, sources=sources, window=wide.columns)
    assert np.abs(tiled.values - whole.values).max() < 0.1 < whole.values.std()


def test_sixty_four_ues_share_the_band() -> None:
    cameras = tuple(Camera(side=Side.ue(n), column=16 * n - 16) for n in range(1, 65))
    many = Panorama(width=16 * 63 + 32, cameras=cameras)
    result = run(individual(many), pictures(many), panorama=many)
    assert len(result.ledger.crossings) == 2 * 64
    assert {f"decode_{c.number}" for c in cameras} <= result.features.keys()
    up = [c for c in result.ledger.crossings if c.to_side == ES]
    assert max(c.end_s for c in up) > sum(c.airtime_s for c in up)


# Who says nothing.


@pytest.mark.parametrize("gone", [(1,), (2, 3), (1, 2, 3)])
def test_the_others_finish_without_those_who_are_lost(gone: tuple[int, ...]) -> None:
    lost = {f"{what}_{n}" for n in gone for what in ("observe", "share_1", "share_2", "share_3")}
    lost |= {f"share_{n}_{m}" for n in gone for m in (1, 2, 3)}
    for mechanism in (individual(THREE), decentralized(THREE, SHARES), coordinated(THREE)):
        result = run(
            mechanism, lost=lost, **({} if mechanism.name != "decentralized" else any_width())
        )
        assert {f"decode_{n}" for n in (1, 2, 3)} <= result.features.keys()
        assert result.outcome == "delivered"
    fused = result.features["fuse"].values  # of what is left, and what the ES remembers
    for camera in THREE.cameras:
        own = [c for c in camera.view if all(c not in o.view for o in THREE.cameras if o != camera)]
        number = number_of(camera.side)
        expected = 4.0 if number in gone else (number + 4) / 2
        assert near(fused[:, :, own], *len(own) * [expected])


@dataclass
class Post:
    """An exchange for sides in threads; of those that are silent nothing comes."""

    silent: Collection[Side]
    boxes: dict[object, queue.Queue[Delivery]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def box(self, edge: Edge) -> queue.Queue[Delivery]:
        with self.lock:
            return self.boxes.setdefault(edge.key, queue.Queue())

    def post(self, edge: Edge, delivery: Delivery) -> None:
        self.box(edge).put(delivery)

    def take(self, edge: Edge) -> Delivery | None:
        # As if the deadline had passed.
        return None if edge.source.side in self.silent else self.box(edge).get(timeout=60)


def run_sides(
    mechanism: Mechanism,
    silent: Collection[Side],
    features: Mapping[str, Feature] | None = None,
    **changes: Any,
) -> dict[Side, Progress]:
    post, made = Post(silent), {}
    given = pictures() if features is None else features
    stages = tuple(
        replace(s, run=lambda job, f=given[s.name]: f) if s.name in given else s
        for s in mechanism.stages
    )
    mechanism = Mechanism(name=mechanism.name, stages=stages)

    def live(side: Side) -> None:
        execution = Execution(mechanism=mechanism, request=REQUEST, **settings(**changes))
        made[side] = run_side(execution, side, post)

    threads = [threading.Thread(target=live, args=(s,)) for s in mechanism.sides if s not in silent]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return made


@pytest.mark.parametrize("silent", [(UE1,), (UE1, UE3), (ES,)], ids=str)
def test_silent_sides_hold_nobody_up(silent: tuple[Side, ...]) -> None:
    made = run_sides(individual(THREE), silent)
    for side in {UE1, UE2, UE3} - set(silent):
        assert f"decode_{side.removeprefix('UE')}" in made[side].features
    if ES in silent:
        # A UE then shows its own view and nothing around it.
        values = made[UE2].features["gate_2"].values
        assert near(values, *16 * [0.0], *24 * [2.0], *16 * [0.0])
        return
    made = run_sides(coordinated(THREE), silent)
    finished = {s for s in made if any(n.startswith("decode") for n in made[s].features)}
    assert finished == {UE1, UE2, UE3} - set(silent)


def test_sides_in_threads_show_the_same() -> None:
    for mechanism in (individual(THREE), coordinated(THREE)):
        plain, made = run(mechanism), run_sides(mechanism, ())
        for n, side in enumerate((UE1, UE2, UE3), 1):
            here, there = (f[f"decode_{n}"].values for f in (plain.features, made[side].features))
            assert (here == there).all()


def test_sides_in_threads_add_up_the_same() -> None:
    mechanism, given = coordinated(CLOSE, fusion="air"), remembered()
    plain = run(mechanism, given, panorama=CLOSE, **on_air(CLOSE))
    made = run_sides(mechanism, (), given, **on_air(CLOSE))
    assert (made[ES].features["fuse"].values == plain.features["fuse"].values).all()
    # Of a silent one nobody knows what it has sent.
    made = run_sides(mechanism, (UE2,), given, **on_air(CLOSE))
    expected = [*16 * [(0.25 + 1) / 2], *36 * [1.0], *28 * [(0.75 + 1) / 2]]
    assert near(made[ES].features["fuse"].values, *expected)


# What does not fit.


def test_nothing_given_is_told_by_stage_and_side() -> None:
    features = pictures()
    del features["sense_2"]
    with pytest.raises(MechanismError, match=r"stage 'sense_2' \(UE2\) was given nothing"):
        run(individual(THREE), features)
    del features["remember"]
    with pytest.raises(MechanismError, match=r"stage 'remember' \(ES\) was given nothing"):
        run(coordinated(THREE), features)


def test_an_observation_of_another_shape_is_told_by_stage_and_side() -> None:
    small = replace(pictures()["sense_2"], values=np.zeros((256, 128, 3), np.uint8))
    with pytest.raises(
        MechanismError,
        match=r"the camera of UE2 gave an observation of shape \(4, 32, 16\); expected "
        r"\[latent_channels, height, 32\]",
    ):
        run(individual(THREE), pictures(sense_2=small), **any_width())
    low = replace(pictures()["remember"], values=np.zeros((4, 16, 80), np.float32))
    with pytest.raises(
        MechanismError, match=r"the gate on ES was given \(4, 16, 4\d\), \(4, 32, 4"
    ):
        run(coordinated(THREE), pictures(remember=low))
    short = replace(pictures()["remember"], values=np.zeros((4, 32, 64), np.float32))
    with pytest.raises(
        MechanismError, match=r"stage 'remember' \(ES\) gave an observation of shap"
    ):
        run(individual(THREE), pictures(remember=short))
    seen = replace(pictures()["sense_2"], confidence=np.ones((32, 31), np.float32))
    with pytest.raises(MechanismError, match=r"the camera of UE2 gave confidence of shape"):
        run(individual(THREE), pictures(sense_2=seen), **any_width())
