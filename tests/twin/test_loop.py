"""The twin's loop on a simulated garden: small numbers, all parts real."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from megdt.errors import MeasurementError, ScenarioError
from megdt.models.bundle import load_bundle
from megdt.records import Side
from megdt.scenario.events import as_settings, read_events
from megdt.scenario.twin import BUILT_IN, TwinScenario, parse_twin_scenario, read_twin_scenario
from megdt.site import SimulatedSite, open_twin
from megdt.twin.loop import Round, run_round
from megdt.twin.network import Beacon
from megdt.twin.store import Store, open_store
from megdt.twin.twin import Twin

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
        kinds.append([e.test for e in twin.judge(upload.arrival).evidence])
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
