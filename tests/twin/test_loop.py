"""The twin's loop on a simulated garden: small numbers, all parts real."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from megdt.errors import (
    ConflictError,
    MeasurementError,
    PredictionError,
    ScenarioError,
    TwinError,
)
from megdt.models.bundle import load_bundle
from megdt.records import Side
from megdt.scenario.events import Event, as_settings, read_events
from megdt.scenario.twin import (
    BUILT_IN,
    Attack,
    TwinScenario,
    parse_twin_scenario,
    read_twin_scenario,
)
from megdt.site import SimulatedSite, open_twin
from megdt.twin.loop import Round, run_round
from megdt.twin.network import Beacon
from megdt.twin.planner import Ask
from megdt.twin.store import Store, open_store
from megdt.twin.twin import Twin, begin_s

SMALL = ["scene.length_m=8", "ues.count=3", "requests.each_round=1", "twin.refresh_bits=100000"]


def start(*settings: str, store: Store | None = None) -> tuple[TwinScenario, SimulatedSite, Twin]:
    scenario = read_twin_scenario("garden_drones", [*SMALL, *settings])
    bundle = load_bundle()
    site = SimulatedSite(scenario, bundle)
    return scenario, site, open_twin(scenario, site, store or open_store(), bundle)


@pytest.fixture(scope="module")
def played() -> Iterator[tuple[SimulatedSite, Twin, list[Round]]]:
    scenario, site, twin = start()
    rounds = [run_round(twin, site, refresh_bits=scenario.twin.refresh_bits) for _ in range(2)]
    yield site, twin, rounds
    twin.store.close()


def test_a_round_builds_the_replica_and_serves_wishes(
    played: tuple[SimulatedSite, Twin, list[Round]],
) -> None:
    site, twin, rounds = played
    assert [r.number for r in rounds] == [0, 1]
    assert rounds[0].uploads
    assert all(u.arrival is not None and u.bits == 32_768 for u in rounds[0].uploads)
    assert not any(j.evidence for r in rounds for j in r.judgements.values())
    seen = np.isfinite(twin.replica.seen_s).all(0)
    assert seen.mean() > 0.5
    shown = np.repeat(seen, 8)
    error = np.abs(twin.picture[:, shown].astype(float) - site.panorama[:, shown]).mean()
    blank = np.abs(128 - site.panorama[:, shown].astype(float)).mean()
    assert error < 0.5 * blank
    (answer,) = rounds[1].answers
    assert answer.served.outcome == "delivered"
    assert answer.served.latency_s == pytest.approx(answer.decision.latency_s, rel=0.5)


def test_what_a_round_brings_is_in_the_store(
    played: tuple[SimulatedSite, Twin, list[Round]],
) -> None:
    _, twin, rounds = played
    (answer,) = rounds[1].answers
    link = twin.store.get(f"link/{answer.wish.side.number}")
    assert link.desired["way"] == answer.decision.candidate.way.name
    assert link.reported["bits"] == answer.served.bits
    assert twin.store.get("es/1").reported["rounds"] == 2
    assert twin.store.get("es/1").reported["twin"]["verdict"] == rounds[1].validity.verdict
    assert twin.store.get("es/1", at=rounds[0].revision).reported["rounds"] == 1


def test_a_fork_goes_on_and_leaves_the_twin_alone(
    played: tuple[SimulatedSite, Twin, list[Round]],
) -> None:
    _, twin, _ = played
    revision, now_s = twin.store.revision, twin.store.now_s
    fork = twin.fork(ues=5)
    stormy = [*SMALL, "ues.count=5", "scene.sky=night", "requests.each_round=0"]
    scenario = read_twin_scenario("garden_drones", stormy)
    other = SimulatedSite(scenario, load_bundle(), start_s=now_s)
    assert np.isfinite(fork.replica.seen_s).any()
    found = run_round(fork, other, refresh_bits=40_000)
    assert found.number == 2
    assert fork.conditions["sky"] == "night"
    # Under another sky the replica begins anew: of what is known now, all was seen now.
    seen = fork.replica.seen_s
    assert (seen[np.isfinite(seen)] == found.now_s).all()
    assert twin.store.revision == revision
    assert twin.conditions["sky"] == "clear"


def test_a_twin_that_is_opened_again_goes_on(
    played: tuple[SimulatedSite, Twin, list[Round]],
) -> None:
    site, twin, _ = played
    again = Twin(site.place, 3, store=twin.store, planner=twin.planner, models=load_bundle())
    assert again.rounds == 2
    np.testing.assert_array_equal(again.replica.values, twin.replica.values)
    np.testing.assert_allclose(
        again.network.tracker.predict(twin.store.now_s).mean_m,
        twin.network.tracker.predict(twin.store.now_s).mean_m,
    )
    ours, theirs = (t.network.predict(twin.store.now_s, 1.0) for t in (twin, again))
    for a, b in zip(ours, theirs, strict=True):
        assert a.snr_db == pytest.approx(b.snr_db, abs=3)


def test_a_forger_is_found_and_kept_out() -> None:
    scenario, site, twin = start(
        "requests.each_round=0", "attack.kind=forged", "attack.ue=2", "attack.from_round=1"
    )
    first = run_round(twin, site, refresh_bits=scenario.twin.refresh_bits)
    assert not any(j.evidence for j in first.judgements.values())
    found = run_round(twin, site, refresh_bits=200_000)
    liar = Side.ue(2)
    if liar not in found.judgements:  # whether it is asked is up to what has changed
        upload = site.upload(liar)
        assert upload.arrival is not None
        judgement = twin.judge(upload.arrival)
    else:
        judgement = found.judgements[liar]
    assert judgement.evidence
    assert not twin.monitor.trusts(liar)
    assert twin.store.get("ue/2").desired["monitor"]["status"] == "quarantined"


def test_a_jammer_is_told_by_the_noise_that_its_link_has() -> None:
    _, site, twin = start(
        "requests.each_round=0", "attack.kind=jammed", "attack.ue=2", "attack.from_round=1"
    )
    kinds = []
    for _ in range(2):
        site.tick()
        for beacon in site.beacons():
            twin.listen(beacon, now_s=site.now_s)
        upload = site.upload(Side.ue(2))
        assert upload.arrival is not None
        assert upload.arrival.noise_db is not None
        kinds.append([e.test for e in twin.judge(upload.arrival, now_s=site.now_s).evidence])
    assert kinds[0] == []
    assert "noise" in kinds[1]


def test_a_station_that_is_out_of_order_is_not_sent_from() -> None:
    scenario, site, twin = start("radio.outage=1", "twin.refresh_bits=0")
    found = run_round(twin, site, refresh_bits=scenario.twin.refresh_bits)
    assert {a.prediction.station for a in found.answers} == {2}
    assert twin.store.get("cell/1").reported["up"] is False


def test_what_is_told_from_the_future_is_refused() -> None:
    _, _, twin = start()
    beacon = Beacon(time_s=9.0, position_m=np.zeros((3, 2)), snr_db=np.ones((3, 2)))
    with pytest.raises(MeasurementError, match="set their clocks"):
        twin.listen(beacon, now_s=8.0)
    assert twin.store.revision == 0


def test_words_become_settings() -> None:
    scenario = read_twin_scenario("garden_drones")
    settings = as_settings(read_events("a storm at night, a crowd of UEs"), scenario)
    assert settings == [
        "scene.weather=rainy", "scene.sky=night", "radio.extra_loss_db=9.0", "ues.count=24",
        "requests.each_round=8",
    ]  # fmt: skip
    settings = as_settings(read_events("two dozen users, three weeks later"), scenario)
    assert settings == [
        "ues.count=24", "requests.each_round=8", "radio.extra_loss_db=3.0", "scene.age_days=21.0",
    ]  # fmt: skip
    for prompt, event in (
        ("the base station fails", "outage"), ("fake pictures from one drone", "forger"),
        ("no rain for weeks", "drought"), ("fog rolls in over the garden", "mist"),
    ):  # fmt: skip
        assert read_events(prompt) == (Event(event),)
    with pytest.raises(ScenarioError, match="'not'"):
        read_events("not a storm")
    with pytest.raises(ScenarioError, match="'elephants'"):
        read_events("elephants at night")
    with pytest.raises(ScenarioError, match="say what happens"):
        read_events("in the")


def test_scenarios_that_come_with_the_package() -> None:
    assert set(BUILT_IN) == {"garden_drones", "city_vehicles", "photos"}
    for name in BUILT_IN:
        settings = ["scene.folder=here"] if name == "photos" else []
        scenario = read_twin_scenario(name, settings)
        assert parse_twin_scenario(scenario.table()) == scenario


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("ues.count=0", r"\[ues\] count is 0, it goes from 1 to 64"),
        ("scene.sky=green", "sky is 'green'"),
        ("radio.outage=3", "one has to be left"),
        ("attack.kind=forged", ""),
        ("scene.length_m=8.5", "whole metres"),
        ("requests.size_px=300", "256 and 512"),
        ("drones.count=3", "no table 'drones'"),
    ],
)
def test_a_wrong_scenario_is_told_in_a_line(setting: str, said: str) -> None:
    if not said:
        with pytest.raises(ScenarioError, match="there are 2"):
            read_twin_scenario("garden_drones", [setting, "attack.ue=3", "ues.count=2"])
        return
    with pytest.raises(ScenarioError, match=said):
        read_twin_scenario("garden_drones", [setting])
    with pytest.raises(ScenarioError, match="no scenario 'nowhere'"):
        read_twin_scenario("nowhere")


def test_who_is_kept_out_is_heard_and_let_in_again_once_it_agrees() -> None:
    scenario, site, twin = start(
        "attack.kind=spoofed", "attack.ue=2", "attack.from_round=1", "requests.each_round=0"
    )
    liar = Side.ue(2)
    for _ in range(4):
        run_round(twin, site, refresh_bits=scenario.twin.refresh_bits)
    assert not twin.monitor.trusts(liar)
    site.scenario = replace(scenario, attack=Attack())
    heard = 0
    for _ in range(8):
        found = run_round(twin, site, refresh_bits=scenario.twin.refresh_bits)
        heard += liar in found.judgements
    assert heard == 8
    assert twin.monitor.trusts(liar)
    twin.store.close()


def test_nobody_is_accused_of_the_edge_of_the_cell() -> None:
    scenario, site, twin = start("radio.extra_loss_db=12", "requests.each_round=0")
    snrs = []
    for _ in range(3):
        found = run_round(twin, site, refresh_bits=scenario.twin.refresh_bits)
        assert not any(judged.evidence for judged in found.judgements.values())
        snrs += [u.arrival.snr_db for u in found.uploads if u.arrival is not None]
    # Below what the lowest MCS needs, where most blocks fail at first.
    assert min(snrs) < -6
    assert twin.network.place.expected_bler(min(snrs)) > 0.9
    assert twin.network.place.expected_bler(10.0) == pytest.approx(0.1)
    twin.store.close()


def told(time_s: float, **wrong: tuple[float, float]) -> Beacon:
    place, heard = np.array([[1.0, 0], [2, 0.5], [3, 0]]), np.array([[10.0, 5], [8, 4], [9, 3]])
    place[0] = wrong.get("place", place[0])
    heard[0] = wrong.get("heard", heard[0])
    return Beacon(time_s=time_s, position_m=place, snr_db=heard)


def test_nothing_is_kept_of_what_is_refused_so_a_twin_can_always_be_opened_again() -> None:
    scenario, site, twin = start()
    twin.listen(told(1.0), now_s=1.0)
    revision = twin.store.revision
    for wrong in ({"heard": (90.0, 5.0)}, {"heard": (np.nan, 5.0)}, {"place": (2e5, 0.0)}):
        with pytest.raises(PredictionError):
            twin.listen(told(2.0, **wrong), now_s=2.0)
    with pytest.raises(PredictionError, match="tell each time once"):
        twin.listen(told(1.0), now_s=2.0)
    silent = np.full((3, 2), np.nan)
    with pytest.raises(TwinError, match="no UE hears any station"):
        Beacon(time_s=2.0, position_m=told(2.0).position_m, snr_db=silent)
    four = Beacon(time_s=2.0, position_m=np.zeros((4, 2)), snr_db=np.zeros((4, 2)))
    with pytest.raises(PredictionError, match="4 UEs tell of 2 stations, the twin has 3 and 2"):
        twin.listen(four, now_s=2.0)
    assert twin.store.revision == revision
    again = open_twin(scenario, site, twin.store, load_bundle())
    again.listen(told(2.0), now_s=2.0)
    twin.store.close()


def test_a_fork_of_a_fork_knows_the_network() -> None:
    _, _, twin = start()
    for time_s in (1.0, 2.0, 3.0):
        twin.listen(told(time_s), now_s=time_s)
    second = twin.fork().fork()
    assert second.predict(3.0) == twin.predict(3.0)
    assert len(second.fork(ues=1).predict(3.0)) == 1
    twin.store.close()


def test_an_arrival_from_the_future_is_refused_and_the_clock_stays() -> None:
    scenario, site, twin = start("requests.each_round=0", "twin.refresh_bits=0")
    run_round(twin, site, refresh_bits=scenario.twin.refresh_bits)
    arrival = site.upload(Side.ue(1)).arrival
    assert arrival is not None
    before = twin.store.now_s, twin.store.revision
    with pytest.raises(MeasurementError, match=r"arrived at 1e\+09 s, it is 600 s"):
        twin.judge(replace(arrival, arrived_s=1e9), now_s=site.now_s)
    assert (twin.store.now_s, twin.store.revision) == before
    twin.store.close()


def test_the_same_rounds_take_the_same(played: tuple[SimulatedSite, Twin, list[Round]]) -> None:
    scenario, site, twin = start()
    for before in played[2]:
        found = run_round(twin, site, refresh_bits=scenario.twin.refresh_bits)
        assert [a.served for a in found.answers] == [a.served for a in before.answers]
        assert [u.energy_j for u in found.uploads] == [u.energy_j for u in before.uploads]
    twin.store.close()


def test_an_attack_goes_on_when_a_twin_is_opened_again() -> None:
    settings = ("attack.kind=replayed", "attack.from_round=1", "requests.each_round=0")
    sent = []
    for parts in ((4,), (2, 2)):
        store, arrivals = open_store(), []
        for rounds in parts:
            scenario, site, _ = start(*settings, store=store)
            site.now_s = begin_s(store, scenario.twin.interval_s)
            for _ in range(rounds):
                site.tick()
                arrivals.append(site.upload(Side.ue(1)).arrival)
            store.apply([], now_s=site.now_s)
        sent.append(arrivals)
        store.close()
    for whole, parted in zip(*sent, strict=True):
        assert whole.sequence == parted.sequence
        np.testing.assert_array_equal(whole.observation.values, parted.observation.values)
    honest, first, second, third = (a.observation.values for a in sent[0])
    assert np.array_equal(first, second)
    assert np.array_equal(first, third)
    assert not np.array_equal(honest, first)


def test_a_round_that_was_cut_off_leaves_later_ones_on_their_grid() -> None:
    scenario, site, twin = start("requests.each_round=0")
    run_round(twin, site, refresh_bits=scenario.twin.refresh_bits)
    assert begin_s(twin.store, 600.0) == 600.0
    site.tick()
    twin.listen(site.beacons()[0], now_s=site.now_s)  # and then the power fails
    assert twin.store.now_s == 1198.0
    assert begin_s(twin.store, 600.0) == 1200.0
    twin.store.close()


def test_two_that_follow_one_scene_are_told_apart() -> None:
    scenario, site, twin = start("requests.each_round=0")
    run_round(twin, site, refresh_bits=scenario.twin.refresh_bits)
    other = open_twin(scenario, site, twin.store, load_bundle())
    run_round(other, site, refresh_bits=scenario.twin.refresh_bits)
    with pytest.raises(ConflictError, match="es/1"):
        run_round(twin, site, refresh_bits=scenario.twin.refresh_bits)
    twin.store.close()


def test_a_station_s_power_moves_what_is_heard_and_what_is_sent_alike() -> None:
    heard, sent = [], []
    for power_dbm in (13, 23):
        _, site, twin = start(f"radio.tx_power_dbm={power_dbm}", "radio.extra_loss_db=3")
        site.tick()
        for beacon in site.beacons():
            twin.listen(beacon, now_s=site.now_s)
        heard.append(site.beacons()[-1].snr_db.max())
        (wish,) = site.wishes()
        ask = Ask(equipment=site.equipment, snr_db=10.0)
        decision = twin.planner.plan([ask])[0]
        link = site._scenario(wish.request, decision.tables, float(heard[-1])).link
        sent.append((link.snr_db, link.tx_power_dbm))
        twin.store.close()
    assert heard[1] - heard[0] == pytest.approx(10.0)
    assert sent[1][0] - sent[0][0] == pytest.approx(10.0)
    assert [power for _, power in sent] == [13, 23]
