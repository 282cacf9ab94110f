"""Each request is made once, however often it is asked for."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from megdt.records import Packet, Side
from megdt.runtime import messages
from megdt.runtime.events import Answered, Failed, FeatureArrived, Requested, StatesCompared
from megdt.runtime.messages import encode
from tests.runtime.wire import (
    SMALL,
    TABLES,
    UPLOAD,
    WAITS,
    EsApp,
    begin,
    make_es,
    make_wire,
    told,
    uncut,
)


@pytest.mark.parametrize("tables", [TABLES, WAITS], ids=["downlink", "uplink first"])
def test_the_same_key_50_times_at_once_is_one_execution(tables: messages.Tables) -> None:
    app = EsApp(make_es(SMALL))
    wires = [begin(make_wire(SMALL, app), tables=tables) for _ in range(50)]
    for wire in wires:
        wire.connect()
    rng = random.Random(0)
    for _ in range(2000):
        wire = rng.choice(wires)
        wire.carry(frames=2)
        if rng.random() < 0.02:
            wire.cut()
            wire.connect()
    for wire in wires:
        wire.carry()
        wire.pass_time(1)
    assert app.executed == {"k": 1}
    assert len([e for e in app.events if isinstance(e, Requested)]) == 1
    alike = [[e for e in told(w.ue) if not isinstance(e, StatesCompared)] for w in wires]
    assert all(found == alike[0] for found in alike)
    assert len(alike[0]) == 3


def test_the_same_request_sent_50_times_in_one_session_is_answered_once() -> None:
    wire = make_wire(SMALL)
    wire.connect()
    wire.carry()
    assert wire.es is not None
    wire.ue.session.ask("k", WAITS, deadline_s=9, now_s=0)
    for seq in range(1, 51):
        request = messages.Request(seq=seq, key="k", deadline_s=9, tables=WAITS)
        wire.app.take(wire.es.receive(encode(request), 0), wire.es, 0)
    assert len([e for e in wire.app.events if isinstance(e, Requested)]) == 1


def test_an_answer_can_be_asked_for_again() -> None:
    wire = begin(make_wire(SMALL), tables=TABLES)
    wire.connect()
    wire.carry()
    begin(wire, tables=TABLES)
    wire.carry()
    first, second = told(wire.ue)[:3], told(wire.ue)[3:]
    assert first == second
    assert wire.app.executed == {"k": 1}


def test_a_key_of_another_request_is_refused() -> None:
    wire = uncut()
    other = make_wire(SMALL, wire.app)
    other.ue.session.ask("k", TABLES, deadline_s=5, now_s=0)
    other.connect()
    other.carry()
    (failed,) = other.ue.of(Failed)
    assert failed.error.code == "key"
    assert "request k was asked before with other tables" in str(failed.error)
    assert wire.app.executed == {"k": 1}


def test_the_order_of_tables_does_not_matter() -> None:
    wire = begin(make_wire(SMALL), tables=TABLES)
    wire.connect()
    wire.carry()
    other = make_wire(SMALL, wire.app)
    turned: messages.Tables = {"request": dict(reversed(TABLES["request"].items()))}
    begin(other, tables=turned)
    other.connect()
    other.carry()
    assert told(other.ue) == told(wire.ue)


def test_keys_of_two_owners_are_two() -> None:
    wire = begin(make_wire(SMALL), tables=TABLES)
    other = make_wire(SMALL, wire.app, owner="ue-2")
    other.ue.session.ask("k", {"request": {"prompt": "lilies"}}, deadline_s=5, now_s=0)
    for each in (wire, other):
        each.connect()
        each.carry()
        assert each.ue.of(Answered)
    assert wire.app.executed == {"k": 2}


def test_answers_beyond_the_limit_are_forgotten_and_not_made_again() -> None:
    wire = make_wire(replace(SMALL, kept_bytes=5000, kept_keys=20))
    wire.connect()
    for number in range(30):
        begin(wire, f"k{number}", TABLES)
        wire.carry()
    generations = wire.app.sessions.generations
    for key, code in (("k29", None), ("k15", "gone")):
        begin(wire, key, TABLES)
        wire.carry()
        (last,) = (e for e in wire.ue.events[-1:] if isinstance(e, Answered | Failed))
        assert (last.error.code if isinstance(last, Failed) else None) == code
        assert wire.app.executed[key] == 1
    assert generations.get("ue-1", "k9") is None
    kept = [generations.get("ue-1", f"k{n}") for n in range(30)]
    assert sum(g.kept_bytes for g in kept if g is not None) <= 5000


def test_too_many_requests_are_told_when_to_come_again() -> None:
    for limits in (replace(SMALL, requests=2), replace(SMALL, running=2)):
        wire = make_wire(limits)
        wire.connect()
        for key in "abc":
            wire.ue.session.ask(key, WAITS, deadline_s=5, now_s=0)
        wire.carry()
        (failed,) = wire.ue.of(Failed)
        assert (failed.key, failed.error.code) == ("c", "busy")
        assert failed.error.retry_after_s is not None
        for key in "ab":
            wire.ue.session.send_feature(key, UPLOAD, source="encode", to_side=Side.ES, kind="seed")
        wire.ue.session.ask("c", WAITS, deadline_s=5, now_s=0)
        wire.carry()
        assert wire.ue.session.asked == ("c",)
        assert len(wire.ue.of(Answered)) == 2


def test_a_request_brings_a_bounded_number_of_features() -> None:
    wire = make_wire(replace(SMALL, features=3, requests=1))
    wire.ue.session.ask("k", WAITS, deadline_s=5, now_s=0)
    wire.app.take = lambda *_: None  # type: ignore[method-assign,assignment]
    for number in range(4):
        wire.ue.session.send_feature(
            "k", Packet(payload=b"1"), source=f"s{number}", to_side=Side.ES, kind="seed"
        )
    wire.connect()
    wire.carry()
    assert "request k brings more than 3 features" in str(wire.ue.session.error)


def test_a_feature_that_several_sessions_bring_is_taken_once() -> None:
    app = EsApp(make_es(SMALL))
    app.execute = lambda *_: None  # type: ignore[method-assign,assignment]
    for payload in (b"first", b"second"):
        wire = make_wire(SMALL, app)
        wire.ue.session.ask("k", WAITS, deadline_s=5, now_s=0)
        upload = Packet(payload=payload)
        wire.ue.session.send_feature("k", upload, source="encode", to_side=Side.ES, kind="seed")
        wire.connect()
        wire.carry()
        assert wire.es is not None
        assert wire.es.held_bytes == 0
    (arrived,) = (e for e in app.events if isinstance(e, FeatureArrived))
    assert arrived.content.payload == b"first"
