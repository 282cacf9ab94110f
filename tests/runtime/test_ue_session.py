"""A UE's session: how it is used, how it cannot be, and cancelling."""

from __future__ import annotations

import pytest

from megdt.errors import MessageError, SessionError
from megdt.runtime.events import Answered, Cancelled, Failed
from tests.runtime.wire import (
    LEDGER,
    SMALL,
    TABLES,
    WAITS,
    EsApp,
    begin,
    make_es,
    make_ue,
    make_wire,
    mend,
    told,
)


def test_sessions_are_used_as_they_can_be() -> None:
    session = make_ue(SMALL)
    with pytest.raises(SessionError, match="request k does not run in this session"):
        session.send_lines("k", LEDGER)
    session.ask("k", TABLES, deadline_s=5, now_s=0)
    with pytest.raises(SessionError, match="request k runs already"):
        session.ask("k", TABLES, deadline_s=5, now_s=0)
    with pytest.raises(MessageError, match="beyond 2"):
        session.ask("m", {"request": {"rng_seed": 2**60}}, deadline_s=5, now_s=0)
    with pytest.raises(MessageError, match="deadline_s"):
        session.ask("m", TABLES, deadline_s=0, now_s=0)
    with pytest.raises(SessionError, match="release each feature once"):
        session.release(1, 0)
    session.connect(0)
    with pytest.raises(SessionError, match="phase greeting; connect one that is new or cut"):
        session.connect(0)
    assert session.asked == ("k",)


def test_a_key_is_free_when_the_es_has_said_its_last() -> None:
    wire = make_wire(SMALL)
    wire.ue.session.ask("k", WAITS, deadline_s=5, now_s=0)
    wire.ue.session.cancel("k")
    wire.ue.session.ask("k", WAITS, deadline_s=5, now_s=0)  # the first was never sent
    wire.connect()
    wire.carry()
    wire.ue.session.cancel("k")
    with pytest.raises(SessionError, match="request k is being cancelled"):
        wire.ue.session.ask("k", WAITS, deadline_s=5, now_s=0)
    wire.carry()
    assert wire.ue.of(Failed) == []
    wire.ue.session.ask("k", WAITS, deadline_s=5, now_s=0)
    wire.carry()
    (failed,) = wire.ue.of(Failed)
    assert failed.error.code == "cancelled"


@pytest.mark.parametrize("after", range(0, 32, 3))
def test_cancelling_at_any_time_leaves_room_for_what_comes_next(after: int) -> None:
    wire = begin(make_wire(SMALL))
    wire.connect()
    wire.carry(after)
    wire.ue.session.cancel("k")
    mended = len(told(wire.ue))
    wire.cut()
    mend(wire)
    assert len(told(wire.ue)) == mended  # nothing more is told of it
    for key in ("m", "n"):
        begin(wire, key)
        wire.carry()
        wire.pass_time(1)
    assert [e.key for e in wire.ue.of(Answered) if e.key != "k"] == ["m", "n"]
    assert wire.app.executed["m"] == wire.app.executed["n"] == 1


def test_cancelling_amid_a_large_feature_gives_its_credit_back() -> None:
    wire = make_wire(SMALL)
    begin(wire, tables=TABLES)
    wire.connect()
    wire.carry(frames=8)
    assert 0 < wire.ue.session.held_bytes < 950  # a fragment
    wire.ue.session.cancel("k")
    begin(wire, "m", TABLES)
    wire.carry()
    wire.pass_time(1)
    assert [e.key for e in wire.ue.of(Answered)] == ["m"]


def test_the_last_to_cancel_stops_the_generation() -> None:
    app = EsApp(make_es(SMALL))
    wires = [make_wire(SMALL, app) for _ in range(2)]
    for wire in wires:
        wire.ue.session.ask("k", WAITS, deadline_s=5, now_s=0)
        wire.connect()
        wire.carry()
    for number, wire in enumerate(wires):
        wire.ue.session.cancel("k")
        wire.carry()
        assert len([e for e in app.events if isinstance(e, Cancelled)]) == number
    assert app.sessions.generations.running == ()


def test_an_es_may_finish_what_was_cancelled_meanwhile() -> None:
    wire = make_wire(SMALL)
    wire.ue.session.ask("k", WAITS, deadline_s=5, now_s=0)
    wire.connect()
    wire.carry()
    generation = wire.app.sessions.generations.get("ue-1", "k")
    assert generation is not None
    wire.ue.session.cancel("k")
    wire.carry()
    generation.finish("delivered", LEDGER)
    wire.carry()
    assert wire.ue.of(Answered) == []
    with pytest.raises(SessionError, match="request k is over; send before finish or fail"):
        generation.tell_state("fuse", b"12345678")
