from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from megdt.errors import TwinError
from megdt.link.energy import load_profile
from megdt.link.radio import RadioLink
from megdt.records import Packet
from megdt.scenario import CODECS, MECHANISMS, parse_scenario
from megdt.twin.planner import Ask, Equipment, Planner, decision_map
from megdt.twin.selection import choose, exceeds, learn_quality, price, promised
from megdt.twin.validation import Validity
from megdt.twin.ways import COSTS, WAYS, Costs, load_costs

PHONE = load_profile("phone")
ALL = Equipment(profile=PHONE, memory_mb=100)
DECODER = Equipment(profile=PHONE, memory_mb=6)
NOTHING = Equipment(profile=PHONE, memory_mb=0)
ES = load_profile("edge_gpu")


@pytest.fixture(scope="module")
def planner() -> Planner:
    return Planner(es=ES)


def test_every_way_is_a_scenario_that_parses() -> None:
    for way in WAYS.values():
        assert way.mechanism in MECHANISMS
        assert all(name in CODECS[kind] for kind, name in way.codecs.items())


def test_a_decision_is_the_tables_of_a_scenario(planner: Planner) -> None:
    for snr_db in (-8.0, 5.0, 25.0):
        for equipment in (ALL, DECODER, NOTHING):
            (decision,) = planner.plan([Ask(equipment=equipment, snr_db=snr_db, max_distance=0.1)])
            tables = {name: dict(table) for name, table in decision.tables.items()}
            tables["request"]["prompt"] = "poppies"
            scenario = parse_scenario(tables)
            assert scenario.plan.mechanism == decision.candidate.way.mechanism
            assert isinstance(scenario.link, RadioLink)
            assert scenario.link.mcs_table == decision.candidate.mcs_table
            assert scenario.link.tx_power_dbm == decision.tx_power_dbm


def test_a_ue_is_never_given_more_than_its_memory_holds(planner: Planner) -> None:
    costs = load_costs()
    for equipment in (ALL, DECODER, NOTHING):
        asks = [Ask(equipment=equipment, snr_db=float(snr)) for snr in range(-10, 31, 5)]
        for decision in planner.plan(asks):
            assert costs.memory_mb(decision.candidate.way) <= equipment.memory_mb
    (viewer,) = planner.plan([Ask(equipment=NOTHING, snr_db=20.0)])
    assert viewer.candidate.way.mechanism == "centralized"


def test_a_tighter_bound_of_quality_takes_a_plan_that_is_nearer(planner: Planner) -> None:
    loose, tight = planner.plan(
        [Ask(equipment=DECODER, snr_db=8.0, max_distance=bound) for bound in (0.5, 0.01)]
    )
    costs = load_costs()
    place = int(planner.snr_place(np.array(8.0)))
    means = [costs.distance(d.candidate.way, 256)[place].mean() for d in (loose, tight)]
    assert means[1] < means[0]
    assert loose.latency_s < tight.latency_s
    assert not loose.broken
    assert not tight.broken
    assert tight.poor <= planner.violation


def test_what_is_less_certain_is_planned_more_carefully(planner: Planner) -> None:
    ask = Ask(equipment=DECODER, snr_db=14.0, max_distance=0.1)
    sure, unsure = planner.plan([ask, replace(ask, snr_sd_db=8.0)])
    assert sure.candidate.way.name != unsure.candidate.way.name
    assert sure.latency_s < unsure.latency_s
    assert unsure.poor <= planner.violation


def test_where_nothing_holds_the_safest_plan_says_what_it_may_break(planner: Planner) -> None:
    late, poor, fine = planner.plan(
        [
            Ask(equipment=DECODER, snr_db=10.0, deadline_s=0.001),
            Ask(equipment=NOTHING, snr_db=20.0, max_distance=1e-5),
            Ask(equipment=DECODER, snr_db=10.0),
        ]
    )
    assert late.broken == ("deadline",)
    assert late.late > planner.violation
    assert poor.broken == ("quality",)
    assert fine.broken == ()


def test_the_promise_holds_when_the_snr_is_drawn_as_predicted(planner: Planner) -> None:
    ask = Ask(equipment=DECODER, snr_db=9.0, snr_sd_db=4.0, deadline_s=0.06, max_distance=0.25)
    (decision,) = planner.plan([ask])
    assert not decision.broken
    outlook = planner.outlook(DECODER, 256)
    row = outlook.candidates.index(decision.candidate)
    rng = np.random.default_rng(0)
    place = planner.snr_place(rng.normal(9.0, 4.0, 4000))
    draws = rng.integers(outlook.latency_s.shape[2], size=4000)
    late = (outlook.latency_s[row, place, draws] > ask.deadline_s).mean()
    assert late <= planner.violation + 0.02
    assert abs(late - decision.late) < 0.04


def test_least_energy_and_least_latency_are_other_plans_and_each_is_best_at_its_own() -> None:
    asks = [Ask(equipment=ALL, snr_db=float(snr)) for snr in range(-10, 31, 5)]
    quick = Planner(es=ES).plan(asks)
    frugal = Planner(es=ES, objective="energy").plan(asks)
    assert [d.candidate for d in quick] != [d.candidate for d in frugal]
    assert all(a.latency_s <= b.latency_s for a, b in zip(quick, frugal, strict=True))
    assert all(b.energy_j <= a.energy_j for a, b in zip(quick, frugal, strict=True))


def test_where_power_gains_nothing_the_least_energy_plan_sends_with_less() -> None:
    frugal = Planner(es=ES, objective="energy")
    high, low = frugal.plan(
        [Ask(equipment=DECODER, snr_db=snr, max_distance=0.3) for snr in (16.0, 4.0)]
    )
    # Symbols take as long at any power, and their noise is low enough.
    assert high.candidate.backoff_db > 0
    assert low.candidate.backoff_db == 0


def test_what_sending_is_expected_to_take_is_what_the_link_takes() -> None:
    costs = load_costs()
    sending = costs.sending(WAYS["seed int8"], 256)
    for snr_db in (0.0, 10.0):
        place = round((snr_db - costs.snr_db[0]) / 0.25)
        link = RadioLink(coding="abstract", snr_db=snr_db)
        sent = [link.send(Packet(payload=bytes(4096)), np.random.default_rng(n)) for n in range(4)]
        mean_s = np.mean([d.latency_s for d in sent])
        assert sending.mean_s[0, place] == pytest.approx(mean_s, rel=0.1)


def test_expected_latency_is_that_of_the_ledger() -> None:
    """The whole chain, with pictures that were never drawn."""
    from megdt.records import Feature, Part

    costs = load_costs()
    planner = Planner(es=ES)
    outlook = planner.outlook(DECODER, 256)
    place = int(planner.snr_place(np.array(10.0)))
    row = next(n for n, c in enumerate(outlook.candidates) if c.way.name == "seed analog")
    es_flops, _ = costs.flops(WAYS["seed analog"], 256)
    tables = {
        "request": {"prompt": "x" * (json.loads(COSTS.read_text())["prompt_bits"] // 8)},
        "codecs": {"seed": "analog"},
        "link": {"coding": "abstract", "snr_db": 10.0},
    }
    from megdt.models.bundle import Bundle

    bundle = Bundle()
    bundle.load("text_encoder", "decoder")
    latent = np.random.default_rng(0).standard_normal((4, 32, 32)).astype(np.float32)
    done = Part(features={"denoise": Feature(kind="seed", values=latent)})
    result = parse_scenario(tables).run(bundle, done=done)
    coding_s = sum(c.seconds for c in result.ledger.computations if not c.flops)
    ledger_s = result.ledger.duration_s - coding_s + ES.compute_s(es_flops[place])
    expected_s = outlook.mean_s[row, place] - sum(costs.core_s(WAYS["seed analog"], 256))
    assert expected_s == pytest.approx(ledger_s, rel=0.15)


def test_ten_thousand_plans_together_are_those_of_each_alone_and_quick(planner: Planner) -> None:
    rng = np.random.default_rng(0)
    asks = [
        Ask(
            equipment=(ALL, DECODER)[n % 2], snr_db=float(rng.uniform(-5, 28)), snr_sd_db=3.0,
            deadline_s=float(rng.uniform(0.05, 0.5)), max_distance=float(rng.uniform(0.02, 0.3)),
        )
        for n in range(10_000)
    ]  # fmt: skip
    planner.plan(asks[:4])
    started = time.process_time()
    decisions = planner.plan(asks)
    assert time.process_time() - started < 2
    assert decisions[:20] == [planner.plan([ask])[0] for ask in asks[:20]]


def test_the_map_has_a_decision_for_every_snr_device_and_size(planner: Planner) -> None:
    found = decision_map(
        planner, {"all": ALL, "viewer": NOTHING}, snr_db=[0.0, 20.0], max_distance=0.1
    )
    assert set(found) == {(n, s) for n in ("all", "viewer") for s in planner.costs.sizes_px}
    assert all(len(decisions) == 2 for decisions in found.values())
    viewer = found["viewer", 256]
    assert {d.candidate.way.mechanism for d in viewer} == {"centralized"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"snr_db": math.nan}, "snr_db is nan"),
        ({"snr_sd_db": -1.0}, "snr_sd_db is -1.0"),
        ({"deadline_s": -1.0}, "deadline_s is -1.0"),
        ({"max_distance": math.nan}, "max_distance is nan"),
    ],
)
def test_a_request_out_of_range_is_refused(change: dict[str, float], said: str) -> None:
    settings: dict[str, float] = {"snr_db": 0.0, **change}
    with pytest.raises(TwinError, match=said):
        Ask(equipment=ALL, **settings)  # type: ignore[arg-type]


def test_what_cannot_be_planned_is_refused(planner: Planner) -> None:
    with pytest.raises(TwinError, match="size_px is 300, costs were measured at 256, 512"):
        planner.plan([Ask(equipment=ALL, snr_db=0.0, size_px=300)])
    with pytest.raises(TwinError, match=r"violation is 0\.001; .* can promise"):
        Planner(es=ES, violation=0.001)
    with pytest.raises(TwinError, match="objective is 'speed'"):
        Planner(es=ES, objective="speed")  # type: ignore[arg-type]


def test_costs_that_are_missing_or_of_other_ways_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TwinError, match="no readable costs at"):
        Costs(tmp_path / "none.json")
    found = json.loads(COSTS.read_text())
    del found["ways"]["sketch"]
    (tmp_path / "other.json").write_text(json.dumps(found))
    with pytest.raises(TwinError, match="measure them anew"):
        Costs(tmp_path / "other.json")


def test_a_twin_that_is_not_fresh_is_planned_by_with_more_care_and_the_decision_says_so(
    planner: Planner,
) -> None:
    hard = tuple(planner.costs.hardness(256).max(0))
    asks = [
        Ask(equipment=DECODER, snr_db=snr, deadline_s=0.25, max_distance=0.1, hardness=hard)
        for snr in (2.0, 8.0, 14.0)
    ]
    fresh = planner.plan(asks, validity=Validity(verdict="fresh"))
    stale = planner.plan(
        asks, validity=Validity(verdict="stale", reasons=("nothing was measured for 60 s",))
    )
    wrong = planner.plan(asks, validity=Validity(verdict="wrong", reasons=("snr drifts",)))
    assert fresh == planner.plan(asks)
    assert all(d.fallback == "" for d in fresh)
    assert all(d.fallback.startswith("predictions are stale") for d in stale)
    assert all("snr drifts" in d.fallback and "\n" not in d.fallback for d in wrong)
    # The safest plan of a wrong twin fails no more often than the cheapest under the same doubt.
    doubt = [replace(a, snr_sd_db=8.0, hardness=None) for a in asks]
    for safe, cheap in zip(wrong, planner.plan(doubt), strict=True):
        assert safe.late + safe.poor <= cheap.late + cheap.poor + 1e-6


def test_an_easy_picture_gets_a_quicker_plan_than_a_hard_one(planner: Planner) -> None:
    known = planner.costs.hardness(256)
    easy, hard = (
        planner.plan([Ask(equipment=DECODER, snr_db=0.0, max_distance=0.05, hardness=tuple(h))])[0]
        for h in (known.min(0), known.max(0))
    )
    assert easy.latency_s < hard.latency_s
    with pytest.raises(TwinError, match="two finite numbers"):
        Ask(equipment=DECODER, snr_db=0.0, hardness=(0.0, math.nan))


def test_the_rule_of_choice_keeps_its_promise_on_pictures_that_it_does_not_know(
    planner: Planner,
) -> None:
    """Chosen among many plans on half of the pictures, tried on the other half."""
    outlook, hardness = planner.outlook(ALL, 256), planner.costs.hardness(256)
    halves = [np.arange(start, len(hardness), 2) for start in (0, 1)]
    values = np.log(np.maximum(outlook.distance, 1e-4))
    poor, bounds = [], (0.05, 0.1, 0.2)
    for known, tried in (halves, halves[::-1]):
        some = replace(outlook, distance=outlook.distance[..., known])
        quality = learn_quality(some, hardness[known], "latency", 0.1)
        residual = quality.spread.residual
        for picture in tried:
            logs = quality.spread.at(hardness[picture])[..., None] + residual
            for bound in bounds:
                limit = quality.limit(np.array([bound]))
                odds = promised(exceeds(logs, limit).mean(-1), len(known))
                for place in range(0, odds.shape[1], 20):
                    cost = price(
                        "latency", outlook.mean_s[:, place], odds[:, place], np.array(0.25)
                    )
                    at = int(choose(cost, 0 * cost, odds[:, place], 0.1))
                    if odds[at, place] <= 0.1:
                        poor.append(values[at, place, picture] > math.log(bound))
    assert len(poor) > 500
    assert np.mean(poor) <= 0.1


def test_a_picture_is_begun_unless_the_prompt_is_sent_and_the_plan_then_knows_it() -> None:
    planner = Planner(es=ES)
    asks = [
        Ask(equipment=DECODER, snr_db=-2.0, max_distance=0.05),
        Ask(equipment=ALL, snr_db=-8.0, max_distance=0.05),
    ]
    hard = tuple(np.quantile(planner.costs.hardness(256), 0.95, axis=0))
    looked: list[int] = []

    def look(number: int) -> tuple[float, float]:
        looked.append(number)
        return float(hard[0]), float(hard[1])

    begun, prompt = planner.plan(asks, look=look)
    assert prompt.candidate.way.name == "prompt"
    assert prompt.ahead_s == 0
    assert looked == [0]
    (knowing,) = planner.plan([replace(asks[0], hardness=look(0))])
    assert replace(begun, ahead_s=0.0) == knowing
    assert 0 < begun.ahead_s < 0.01
    # Of a twin that is stale, a picture's hardness is not asked for.
    looked.clear()
    stale = Validity(verdict="stale", reasons=("old",))
    assert planner.plan(asks, validity=stale, look=look) == planner.plan(asks, validity=stale)
    assert not looked
