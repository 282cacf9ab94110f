"""What overlaps, what waits for whom, and what waiting costs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from megdt.link.energy import load_profile
from megdt.mechanisms.schedule import make_ledger
from megdt.mechanisms.stages import Mechanism, Stage
from megdt.records import Computation, Crossing, Feature, Line, Side, Uses

UE1, UE2, ES = Side.ue(1), Side.ue(2), Side.ES
PHONE, EDGE = load_profile("phone"), load_profile("edge_gpu")
DEVICES = {UE1: PHONE, UE2: PHONE, ES: EDGE}


def make(*inputs: object) -> Feature:
    del inputs
    return Feature(kind="image", values=np.zeros((8, 8, 3), np.uint8))


def stage(name: str, side: Side, *inputs: str) -> Stage:
    return Stage(name=name, side=side, inputs=inputs, makes="image", run=make)


def computed(name: str, side: Side, seconds: float) -> Line:
    return Computation(
        stage=name, task="run", side=side, seconds=seconds, measured_s=seconds, energy_j=0.0
    )


def crossed(source: str, sides: tuple[Side, Side], airtime_s: float, latency_s: float) -> Crossing:
    return Crossing(
        source=source, target="", from_side=sides[0], to_side=sides[1], kind="image", codec="",
        values=0, bits=0, uses=Uses(), airtime_s=airtime_s, latency_s=latency_s, radiated_j=0.0,
        sender_j=0.0, receiver_j=0.0,
    )  # fmt: skip


def lay_out(mechanism: Mechanism, lines: dict[object, list[Line]]) -> dict[object, float]:
    """When each line ended, by stage or by source and target side."""
    ledger = make_ledger(mechanism, lines, DEVICES)
    ends: dict[object, float] = {c.stage: c.end_s for c in ledger.computations}
    return ends | {(c.source, c.to_side): c.end_s for c in ledger.crossings}


BOTH = Mechanism(
    name="both",
    stages=(stage("a", UE1), stage("b", ES), stage("join", ES, "a", "b")),
)


def test_branches_on_two_sides_overlap() -> None:
    ends = lay_out(BOTH, {
        "a": [computed("a", UE1, 3.0)],
        ("a", ES): [crossed("a", (UE1, ES), 0.5, 1.0)],
        "b": [computed("b", ES, 2.0)],
        "join": [computed("join", ES, 0.25)],
    })  # fmt: skip
    assert ends == {"a": 3.0, ("a", ES): 4.0, "b": 2.0, "join": 4.25}


def test_a_processor_does_one_thing_at_a_time() -> None:
    mechanism = Mechanism(
        name="m", stages=(stage("a", UE1), stage("b", UE1), stage("join", UE1, "a", "b"))
    )
    ends = lay_out(mechanism, {n: [computed(n, UE1, 1.0)] for n in ("a", "b", "join")})
    assert ends == {"a": 1.0, "b": 2.0, "join": 3.0}


def send_two(sides: tuple[Side, Side], to: tuple[Side, Side]) -> tuple[float, float]:
    mechanism = Mechanism(
        name="m",
        stages=(
            stage("a", sides[0]),
            stage("b", sides[1]),
            stage("c", to[0], "a"),
            stage("d", to[1], "b"),
        ),
    )
    ends = lay_out(mechanism, {
        ("a", to[0]): [crossed("a", (sides[0], to[0]), 0.1, 0.1)],
        ("b", to[1]): [crossed("b", (sides[1], to[1]), 0.1, 0.1)],
    })  # fmt: skip
    return ends["a", to[0]], ends["b", to[1]]


def test_packets_in_one_band_take_turns() -> None:
    assert send_two((UE1, UE2), (ES, ES)) == pytest.approx((0.2, 0.2))


def test_a_packet_that_comes_later_takes_its_part_at_once_and_a_short_one_is_over_sooner() -> None:
    mechanism = Mechanism(
        name="m",
        stages=(stage("a", UE1), stage("b", UE2), stage("c", ES, "a"), stage("d", ES, "b")),
    )
    ends = lay_out(mechanism, {
        ("a", ES): [crossed("a", (UE1, ES), 0.1, 0.1)],
        ("b", ES): [crossed("b", (UE2, ES), 0.02, 0.07)],
    })  # fmt: skip
    # From 0.05 on both have half of the band: 0.04 for the short one, which took 0.02 of the other.
    assert ends == {("a", ES): pytest.approx(0.12), ("b", ES): pytest.approx(0.09)}


def test_up_and_down_have_a_band_each() -> None:
    assert send_two((UE1, ES), (ES, UE2)) == pytest.approx((0.1, 0.1))
    assert send_two((UE1, ES), (UE2, UE1)) == pytest.approx((0.1, 0.1))


def test_what_waits_for_an_answer_leaves_the_band_to_others() -> None:
    """Half of the first packet's latency is waiting: the second's slots fit in."""
    mechanism = Mechanism(
        name="m",
        stages=(stage("a", UE1), stage("b", UE2), stage("c", ES, "a"), stage("d", ES, "b")),
    )
    ends = lay_out(mechanism, {
        ("a", ES): [crossed("a", (UE1, ES), 0.1, 0.2)],
        ("b", ES): [crossed("b", (UE2, ES), 0.1, 0.1)],
    })  # fmt: skip
    assert ends == {("a", ES): pytest.approx(0.2), ("b", ES): pytest.approx(0.1)}


def test_a_round_begins_when_the_last_is_coded_and_takes_the_band_once() -> None:
    mechanism = Mechanism(
        name="m",
        stages=(
            stage("a", UE1), stage("b", UE2), stage("alone", UE1),
            stage("sum", ES, "a", "b"), stage("other", ES, "alone"),
        ),
    )  # fmt: skip

    def part(source: str, side: Side, airtime_s: float) -> Crossing:
        line = crossed(source, (side, ES), airtime_s, 0.15)
        return replace(line, among=2, round_s=0.1, uses=Uses(data=1001))

    ledger = make_ledger(mechanism, {
        "b": [computed("b", UE2, 1.0)],
        # Each has something in a part of the slots; the round takes all of them.
        ("a", ES): [part("a", UE1, 0.1)],
        ("b", ES): [part("b", UE2, 0.05)],
        ("alone", ES): [crossed("alone", (UE1, ES), 1.15, 1.15)],
    }, DEVICES)  # fmt: skip
    times = {c.source: (c.start_s, c.end_s) for c in ledger.crossings}
    # On the air from 1.05 on, beside the other packet, with half of the band.
    assert times["a"] == times["b"] == (pytest.approx(1.0), pytest.approx(1.25))
    assert times["alone"][1] == pytest.approx(1.25)
    assert ledger.channel_uses == 1001
    assert ledger.airtime_s == pytest.approx(0.1 + 1.15)


def test_waiting_for_a_band_that_others_use_draws_idle_power_too() -> None:
    mechanism = Mechanism(
        name="m",
        stages=(stage("a", UE1), stage("b", UE2), stage("c", ES, "a"), stage("d", ES, "b")),
    )
    lines: dict[object, list[Line]] = {
        ("a", ES): [crossed("a", (UE1, ES), 0.1, 0.1)],
        ("b", ES): [crossed("b", (UE2, ES), 0.1, 0.1)],
    }
    ledger = make_ledger(mechanism, lines, DEVICES)
    assert ledger.duration_s == pytest.approx(0.2)
    # Each sends for half of the time, and its radio waits for the other half.
    expected = PHONE.radio_idle_j(0.1) + PHONE.compute_idle_j(0.2)
    assert ledger.waiting_j[UE1] == pytest.approx(expected)


def test_waiting_draws_idle_power_once() -> None:
    """Two packets at once are one time in which the radio does not wait."""
    lines: dict[object, list[Line]] = {
        "a": [computed("a", UE1, 1.0)],
        ("a", ES): [crossed("a", (UE1, ES), 1.0, 1.0)],
        "b": [computed("b", ES, 1.0)],
        "join": [computed("join", ES, 1.0)],
    }
    ledger = make_ledger(BOTH, lines, DEVICES)
    assert ledger.duration_s == 3
    expected = sum(
        device.compute_idle_j(3 - busy) + device.radio_idle_j(3 - on_air)
        for device, busy, on_air in ((PHONE, 1, 1), (EDGE, 2, 1), (PHONE, 0, 0))
    )
    assert ledger.idle_j == pytest.approx(expected)
    assert ledger.energy_j == pytest.approx(expected)
    assert ledger.energy_of(UE2) == pytest.approx(PHONE.compute_idle_j(3) + PHONE.radio_idle_j(3))


def test_times_are_laid_out_anew() -> None:
    """A line that was taken over from another run has that run's times, which do not count."""
    old = replace(computed("a", UE1, 1.0), start_s=99.0)  # type: ignore[type-var]
    ledger = make_ledger(BOTH, {"a": [old], "b": [computed("b", ES, 1.0)]}, DEVICES)
    assert [c.start_s for c in ledger.computations] == [0, 0]
